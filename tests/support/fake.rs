//! Servers that are nothing but a script, for tests with a paused clock: a connector
//! whose starts, answers and deaths are decided by the test, and which keeps count.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use seawall::{
    call::{Answer, BoxFuture, Message, Method, Payload, Trail},
    link::{Answerer, Connector, Gone, Inbox, Link, LinkError, StartError, Vitals},
    upstream::Offer,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

#[path = "rig.rs"]
mod rig;

#[allow(unused_imports, reason = "each test file uses its own part of this")]
pub(crate) use rig::{Rig, call_of, class_of, instance_of, pass, session, settled, slow};

/// How one start goes.
#[derive(Clone, Debug)]
pub(crate) enum Start {
    Well,
    /// The connection takes so long, and then it is there.
    After(Duration),
    /// `initialize` is never answered.
    Mute,
    /// It dies so long after its handshake.
    Dies(Duration),
    Fails,
    Never,
}

/// One server's world. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<World>);

#[derive(Default)]
pub(crate) struct World {
    /// What starts do from now on, one after the other; well, when there are no more.
    pub(crate) starts: Mutex<VecDeque<Start>>,
    pub(crate) always: Mutex<Option<Start>>,
    pub(crate) began: Mutex<Vec<Instant>>,
    /// `(instance, method or tool)` of all that was received.
    pub(crate) received: Mutex<Vec<(u64, String)>>,
    pub(crate) links: Mutex<Vec<Arc<FakeLink>>>,
    pub(crate) tools: Mutex<Option<String>>,
    /// What it offered in an earlier run.
    pub(crate) known: Mutex<Option<Offer>>,
    pub(crate) memory_bytes: AtomicUsize,
    pub(crate) is_silent_to_ping: AtomicBool,
    /// Requests are refused although the connection lives.
    pub(crate) is_full: AtomicBool,
    /// How long a link takes to end.
    pub(crate) closing_takes: Mutex<Duration>,
    starting: AtomicUsize,
    pub(crate) starting_max: AtomicUsize,
    pub(crate) live_max: AtomicUsize,
}

pub(crate) struct FakeLink {
    pub(crate) number: u64,
    start: Start,
    world: Arc<World>,
    gone: watch::Sender<Option<Gone>>,
    left: AtomicBool,
    pub(crate) inbox: Arc<dyn Inbox>,
}

const TOOLS: &str = r#"[{"name":"echo"},{"name":"read","annotations":{"readOnlyHint":true}},{"name":"die"}]"#;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics here")
}

impl Connector for Fake {
    fn connect(&self, number: u64, inbox: Arc<dyn Inbox>) -> BoxFuture<'_, Result<Arc<dyn Link>, StartError>> {
        let world = self.0.clone();
        Box::pin(async move {
            let next = lock(&world.starts).pop_front();
            let start = next.or_else(|| lock(&world.always).clone()).unwrap_or(Start::Well);
            lock(&world.began).push(Instant::now());
            let starting = world.starting.fetch_add(1, Ordering::Relaxed) + 1;
            world.starting_max.fetch_max(starting, Ordering::Relaxed);
            let _over = Leave(&world.starting);
            match start {
                Start::After(time) => sleep(time).await,
                Start::Fails => return Err(StartError::Transient("it cannot start".to_owned())),
                Start::Never => return Err(StartError::Permanent("no such command".to_owned())),
                Start::Well | Start::Mute | Start::Dies(_) => {}
            }
            let gone = watch::Sender::new(None);
            let link =
                Arc::new(FakeLink { number, start, world: world.clone(), gone, left: AtomicBool::new(false), inbox });
            lock(&world.links).push(link.clone());
            world.live_max.fetch_max(self.live(), Ordering::Relaxed);
            Ok(link as Arc<dyn Link>)
        })
    }
}

struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FakeLink {
    /// The process dies.
    pub(crate) fn die(&self) {
        self.end("its process ended with signal 9 (SIGKILL)");
        self.left.store(true, Ordering::Relaxed);
    }

    fn end(&self, reason: &str) {
        self.gone.send_if_modified(|gone| gone.is_none() && gone.replace(Gone::because(reason)).is_none());
    }

    pub(crate) fn is_live(&self) -> bool {
        !self.left.load(Ordering::Relaxed)
    }

    pub(crate) fn says(&self, method: &str, params: &str) {
        let params = Some(Payload::from_json(params.to_owned()).expect("JSON"));
        self.inbox.on(Message::Notification { method: method.into(), params }, None::<Answerer>);
    }

    async fn lost(&self) -> LinkError {
        LinkError::Lost(self.gone().await)
    }

    async fn answer(&self, method: &Method, params: Option<Payload>, trail: &Trail) -> Result<Answer, LinkError> {
        let ok = |json: &str| Ok(Answer::Result(Payload::from_json(json.to_owned()).expect("JSON")));
        match method.as_str() {
            "initialize" if matches!(self.start, Start::Mute) => std::future::pending().await,
            "initialize" => ok(
                r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"logging":{},"resources":{"subscribe":true}},"serverInfo":{"name":"fake","version":"1"}}"#,
            ),
            "tools/list" => {
                let tools = lock(&self.world.tools).clone();
                ok(&format!(r#"{{"tools":{}}}"#, tools.as_deref().unwrap_or(TOOLS)))
            }
            "resources/list" => ok(r#"{"resources":[]}"#),
            "resources/templates/list" => ok(r#"{"resourceTemplates":[]}"#),
            "ping" if self.world.is_silent_to_ping.load(Ordering::Relaxed) => std::future::pending().await,
            "tools/call" => {
                trail.sent_to(self.number);
                let params = params.expect("params");
                self.tool(&params.text("name").expect("a name"), &params).await
            }
            _ => {
                trail.sent_to(self.number);
                ok("{}")
            }
        }
    }

    async fn tool(&self, name: &str, params: &Payload) -> Result<Answer, LinkError> {
        // `echo-7` is one of many calls of `echo`, told apart.
        match name.split('-').next().unwrap_or_default() {
            "hang" => std::future::pending().await,
            "die" => {
                self.die();
                std::future::pending().await
            }
            "slow" => {
                let ms = params.member("ms").and_then(|ms| ms.read().ok()).unwrap_or(1000);
                sleep(Duration::from_millis(ms)).await;
            }
            _ => {}
        }
        let result = format!(r#"{{"content":[],"instance":{}}}"#, self.number);
        Ok(Answer::Result(Payload::from_json(result).expect("JSON")))
    }
}

impl Link for FakeLink {
    fn ask(
        &self,
        method: Method,
        params: Option<Payload>,
        trail: Arc<Trail>,
    ) -> BoxFuture<'_, Result<Answer, LinkError>> {
        Box::pin(async move {
            if let Some(gone) = self.gone.borrow().clone() {
                return Err(LinkError::NotSent(gone.reason));
            }
            if self.world.is_full.load(Ordering::Relaxed) {
                return Err(LinkError::NotSent("its queue is full".to_owned()));
            }
            let name = params.as_ref().and_then(|params| params.text("name").or(params.text("uri")));
            let what = name.map_or_else(|| method.to_string(), |name| format!("{method} {name}"));
            lock(&self.world.received).push((self.number, what));
            tokio::select! {
                biased;
                answer = self.answer(&method, params, &trail) => answer,
                error = self.lost() => Err(error),
            }
        })
    }

    fn tell(&self, method: Method, _: Option<Payload>) -> Result<(), LinkError> {
        if method.as_str() == "notifications/initialized"
            && let Start::Dies(after) = self.start
        {
            let world = self.world.clone();
            let number = self.number;
            tokio::spawn(async move {
                sleep(after).await;
                let link = lock(&world.links).iter().find(|link| link.number == number).cloned();
                link.expect("every link is kept").die();
            });
        }
        Ok(())
    }

    fn gone(&self) -> BoxFuture<'_, Gone> {
        Box::pin(async {
            let mut gone = self.gone.subscribe();
            let gone = gone.wait_for(Option::is_some).await.expect("the sender is in self");
            gone.clone().expect("waited for")
        })
    }

    fn close(&self, _: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.end("it was stopped");
            let takes = *lock(&self.world.closing_takes);
            if self.is_live() && !takes.is_zero() {
                sleep(takes).await;
            }
            self.left.store(true, Ordering::Relaxed);
        })
    }

    fn vitals(&self) -> Vitals {
        let memory_bytes = Some(self.world.memory_bytes.load(Ordering::Relaxed) as u64);
        let pid = u32::try_from(self.number).ok();
        Vitals { pid, memory_bytes, ..Vitals::default() }
    }
}

impl Fake {
    pub(crate) fn world(&self) -> &World {
        &self.0
    }

    /// The next starts go like this.
    pub(crate) fn starts(&self, starts: impl IntoIterator<Item = Start>) {
        lock(&self.0.starts).extend(starts);
    }

    /// All starts go like this that are not said otherwise.
    pub(crate) fn always(&self, start: Start) {
        *lock(&self.0.always) = Some(start);
    }

    /// How many starts there were.
    pub(crate) fn started(&self) -> usize {
        lock(&self.0.began).len()
    }

    pub(crate) fn live(&self) -> usize {
        lock(&self.0.links).iter().filter(|link| link.is_live()).count()
    }

    /// The link that was made last.
    pub(crate) fn link(&self) -> Arc<FakeLink> {
        lock(&self.0.links).last().cloned().expect("it was started")
    }

    /// What was received under this name, and by which instance.
    pub(crate) fn received(&self, what: &str) -> Vec<u64> {
        lock(&self.0.received).iter().filter(|(_, name)| name == what).map(|(number, _)| *number).collect()
    }
}
