//! An MCP server at the other end of an in-memory stream: it works, or it fails in one
//! of the ways that servers have. What carries it is the real peer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::Rng as _;
use seawall::{
    call::{Answer, BoxFuture, Message, Method, Payload, Trail},
    link::{Answerer, Connector, Gone, Inbox, Link, LinkError, StartError, Vitals},
    wire::peer::{Guilty, Limits, Listener, Peer},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, WriteHalf, duplex, split},
    sync::{Mutex, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::task::TaskTracker;

use crate::world::{Life, World};

pub(crate) const LIMITS: Limits = Limits { max_line_bytes: 1 << 20, write_timeout: Duration::from_secs(10) };
const PIPE_BYTES: usize = 64 << 10;
const MEMORY_AT_FIRST: u64 = 10 << 20;
const MEMORY_A_CALL: u64 = 1 << 20;

/// A server that can be started again and again.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) fails: bool,
    pub(crate) tasks: TaskTracker,
}

impl Connector for Stage {
    fn connect(&self, number: u64, inbox: Arc<dyn Inbox>) -> BoxFuture<'_, Result<Arc<dyn Link>, StartError>> {
        Box::pin(async move {
            let luck = if self.fails { self.world.chance().random_range(0..100) } else { 100 };
            match luck {
                0..6 => return Err(StartError::Transient("it cannot start".to_owned())),
                6..9 => sleep(Duration::from_secs(luck * 4)).await,
                _ => {}
            }
            let (ours, theirs) = duplex(PIPE_BYTES);
            let peer = Peer::start(number, split(ours), Arc::new(Upwards(inbox)), LIMITS, &self.tasks);
            let memory = Arc::new(AtomicU64::new(MEMORY_AT_FIRST));
            let (stop, told) = watch::channel(false);
            let life = Server {
                world: self.world.clone(),
                fails: self.fails,
                is_mute: luck == 9,
                memory: memory.clone(),
                out: Mutex::default(),
            };
            let begun = self.world.begin();
            let over = Arc::new(watch::Sender::new(false));
            self.tasks.spawn(live(Arc::new(life), theirs, told, begun, over.clone()));
            let link = StreamLink { peer, memory, stop, over };
            let watched = link.peer.clone();
            self.tasks.spawn(async move {
                let end = watched.ended().await;
                watched.fail(&Gone::because(end.reason), end.guilty);
            });
            Ok(Arc::new(link) as Arc<dyn Link>)
        })
    }
}

struct StreamLink {
    peer: Peer,
    memory: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    over: Arc<watch::Sender<bool>>,
}

impl Link for StreamLink {
    fn ask(
        &self,
        method: Method,
        params: Option<Payload>,
        trail: Arc<Trail>,
    ) -> BoxFuture<'_, Result<Answer, LinkError>> {
        Box::pin(self.peer.ask(method, params, trail))
    }

    fn tell(&self, method: Method, params: Option<Payload>) -> Result<(), LinkError> {
        self.peer.tell(&method, params)
    }

    fn gone(&self) -> BoxFuture<'_, Gone> {
        Box::pin(self.peer.gone())
    }

    fn close(&self, _: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.peer.fail(&Gone::because("it was stopped"), Guilty::None);
            self.stop.send_replace(true);
            let _ = self.over.subscribe().wait_for(|over| *over).await;
        })
    }

    fn vitals(&self) -> Vitals {
        Vitals { memory_bytes: Some(self.memory.load(Ordering::Relaxed)), ..Vitals::default() }
    }
}

struct Upwards(Arc<dyn Inbox>);

impl Listener for Upwards {
    fn on(&self, peer: &Peer, message: Message) {
        let answerer = match &message {
            Message::Notification { .. } => None,
            Message::Request { id, .. } => {
                let (peer, id) = (peer.clone(), id.clone());
                Some(Answerer::new(move |answer| drop(peer.try_respond(&id, answer))))
            }
        };
        self.0.on(message, answerer);
    }
}

/// One life.
struct Server {
    world: World,
    fails: bool,
    /// It never answers `initialize`.
    is_mute: bool,
    memory: Arc<AtomicU64>,
    /// `None` once it is dead.
    out: Mutex<Option<WriteHalf<DuplexStream>>>,
}

async fn live(
    server: Arc<Server>,
    stream: DuplexStream,
    mut told: watch::Receiver<bool>,
    _begun: Life,
    over: Arc<watch::Sender<bool>>,
) {
    let (read, write) = split(stream);
    *server.out.lock().await = Some(write);
    let mut lines = BufReader::new(read).lines();
    // They end with it.
    let mut calls = JoinSet::new();
    let (died, mut is_dead) = watch::channel(false);
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line,
            _ = told.changed() => break,
            _ = is_dead.changed() => break,
            // Those that have ended.
            Some(ended) = calls.join_next(), if !calls.is_empty() => {
                ended.expect("the server itself has no bug");
                continue;
            }
        };
        let Ok(Some(line)) = line else { break };
        let message: Value = serde_json::from_str(&line).expect("the peer writes JSON");
        // What has none is an answer to a question of its own.
        if message.get("id").is_some() && message.get("method").is_some() {
            let (server, died) = (server.clone(), died.clone());
            calls.spawn(async move {
                if server.answer(message).await {
                    died.send_replace(true);
                }
            });
        }
    }
    calls.shutdown().await;
    drop(lines);
    server.out.lock().await.take();
    over.send_replace(true);
}

const TOOLS: &str = r#"[{"name":"echo","inputSchema":{"type":"object"}},
    {"name":"read","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}]"#;

impl Server {
    /// True if it dies of it.
    async fn answer(&self, message: Value) -> bool {
        let id = &message["id"];
        let result = match message["method"].as_str().expect("a request has a method") {
            "initialize" if self.is_mute => return false,
            "initialize" => json!({
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": true}},
                "serverInfo": {"name": "week", "version": "1"},
            }),
            "tools/list" => json!({ "tools": serde_json::from_str::<Value>(TOOLS).expect("JSON") }),
            "tools/call" => return self.call(id, &message["params"]["arguments"]).await,
            _ => json!({}),
        };
        self.reply(id, result).await;
        false
    }

    async fn call(&self, id: &Value, arguments: &Value) -> bool {
        self.world.receive(arguments["n"].as_u64().expect("each call has its number"));
        self.memory.fetch_add(MEMORY_A_CALL, Ordering::Relaxed);
        let (luck, wait_ms) = {
            let mut chance = self.world.chance();
            (if self.fails { chance.random_range(0..100) } else { 100 }, chance.random_range(0..3000))
        };
        sleep(Duration::from_millis(wait_ms)).await;
        let own = json!({ "content": [], "structuredContent": arguments });
        match luck {
            // Never, which is what a deadline is for.
            0..3 => return false,
            3..8 => return true,
            8 => {
                self.write(r#"{"jsonrpc":"2.0","id":"#).await;
                return true;
            }
            9..12 => self.write("a line of a log\n\u{0}{]\n").await,
            12 => self.reply(&json!(987_654_321), json!({ "content": [], "structuredContent": {"n": 0} })).await,
            13..16 => self.reply(id, own.clone()).await,
            16..22 => return self.refuse(id, json!({ "code": -32050, "message": "not today" })).await,
            22..26 => {
                self.reply(id, json!({ "content": [], "isError": true })).await;
                return false;
            }
            // Longer than the default timeout.
            26..28 => sleep(Duration::from_secs(70)).await,
            28..32 => self.write("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n").await,
            32 => {
                self.write("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\"}\n").await;
            }
            _ => {}
        }
        self.reply(id, own).await;
        false
    }

    async fn refuse(&self, id: &Value, error: Value) -> bool {
        self.write(&format!("{}\n", json!({ "jsonrpc": "2.0", "id": id, "error": error }))).await;
        false
    }

    async fn reply(&self, id: &Value, result: Value) {
        self.write(&format!("{}\n", json!({ "jsonrpc": "2.0", "id": id, "result": result }))).await;
    }

    async fn write(&self, text: &str) {
        if let Some(out) = self.out.lock().await.as_mut() {
            // Nobody may be there any more to read it.
            let _ = out.write_all(text.as_bytes()).await;
        }
    }
}
