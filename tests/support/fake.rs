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
    call::{Answer, BoxFuture, Call, Caller, Message, Method, Outcome, Payload, ServerName, Trail},
    link::{Answerer, Connector, Gone, Inbox, Link, LinkError, StartError, Vitals},
    session::Session,
    store::{self, Store},
    testing,
    upstream::{Audience, Instances, Lifecycle, Offer, Settings, Upstream},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;
use tower::Service;

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

/// What the router would have heard.
#[derive(Default)]
pub(crate) struct Ears(pub(crate) Mutex<Vec<String>>);

impl Audience for Ears {
    fn offer_changed(&self, _: &ServerName) {
        lock(&self.0).push("offer_changed".to_owned());
    }

    fn said(&self, _: &ServerName, method: Method, _: Option<Payload>) {
        lock(&self.0).push(method.to_string());
    }
}

/// A server of a scripted world, with a database to look into afterwards.
pub(crate) struct Rig {
    pub(crate) fake: Fake,
    pub(crate) upstream: Upstream,
    pub(crate) ears: Arc<Ears>,
    pub(crate) tasks: TaskTracker,
    store: Store,
    folder: tempfile::TempDir,
}

impl Rig {
    pub(crate) async fn new(lifecycle: Lifecycle) -> Rig {
        Rig::of(Fake::default(), lifecycle, Instances::Shared).await
    }

    /// Started, and as far as it comes without time passing.
    pub(crate) async fn of(fake: Fake, lifecycle: Lifecycle, instances: Instances) -> Rig {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let store = Store::open(store::Settings::at(folder.path().join("seawall.db")));
        Rig::kept_by(store, folder, fake, lifecycle, instances).await
    }

    /// The same without a database, for tests of thousands.
    pub(crate) async fn light(fake: Fake, lifecycle: Lifecycle, instances: Instances) -> Rig {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Rig::kept_by(Store::discarding(), folder, fake, lifecycle, instances).await
    }

    async fn kept_by(
        store: Store,
        folder: tempfile::TempDir,
        fake: Fake,
        lifecycle: Lifecycle,
        instances: Instances,
    ) -> Rig {
        let ears = Arc::new(Ears::default());
        let tasks = TaskTracker::new();
        let settings = Settings {
            name: "files".into(),
            fingerprint: String::new(),
            connector: Arc::new(fake.clone()),
            known: lock(&fake.world().known).clone(),
            lifecycle,
            instances,
        };
        let upstream = Upstream::start(settings, ears.clone(), store.clone(), &tasks);
        settled().await;
        Rig { fake, upstream, ears, tasks, store, folder }
    }

    pub(crate) async fn call(&self, tool: &str) -> Outcome {
        self.send(testing::call("files", tool)).await
    }

    pub(crate) async fn send(&self, call: Call) -> Outcome {
        self.upstream.clone().call(call).await
    }

    /// A call that begins when it is first looked at.
    pub(crate) fn send_later(&self, call: Call) -> BoxFuture<'static, Outcome> {
        self.upstream.clone().call(call)
    }

    /// A call on its way, as far as it comes without time passing.
    pub(crate) async fn start(&self, call: Call) -> JoinHandle<Outcome> {
        let under_way = tokio::spawn(self.upstream.clone().call(call));
        settled().await;
        under_way
    }

    pub(crate) fn state(&self) -> &'static str {
        self.upstream.status().state
    }

    /// The metadata of all events of this type so far, oldest first.
    pub(crate) fn events(&self, event_type: &str) -> Vec<serde_json::Value> {
        assert!(self.store.flush(Duration::from_secs(10)), "the events are written");
        let database = rusqlite::Connection::open(self.folder.path().join("seawall.db")).expect("a database");
        let sql = "SELECT metadata FROM events WHERE event_type = ?1 ORDER BY rowid";
        let mut statement = database.prepare(sql).expect("the columns are there");
        let rows = statement.query_map([event_type], |row| row.get::<_, String>(0)).expect("rows");
        rows.map(|row| serde_json::from_str(&row.expect("a row")).expect("JSON")).collect()
    }

    /// Everything ends, and nothing is left.
    pub(crate) async fn stop(self) {
        self.upstream.stop().await;
        assert_eq!(self.fake.live(), 0, "a process was left behind");
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close(Duration::from_secs(10));
    }
}

/// The number of the instance that answered.
pub(crate) fn instance_of(outcome: &Outcome) -> u64 {
    match outcome {
        Ok(reply) => match &reply.answer {
            Answer::Result(result) => result.member("instance").expect("it says so").read().expect("a number"),
            Answer::Error(_) => panic!("an error"),
        },
        Err(failure) => panic!("{failure}"),
    }
}

pub(crate) fn class_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Ok(reply) => reply.class.name(),
        Err(failure) => failure.class.name(),
    }
}

/// A call of this session.
pub(crate) fn call_of(session: &Arc<Session>, tool: &str) -> Call {
    let mut call = testing::call("files", tool);
    let back = session.back.clone();
    call.caller = Arc::new(Caller { session: session.clone(), request_id: Payload::literal("1"), back });
    call
}

pub(crate) fn session(number: u64) -> Arc<Session> {
    Arc::new(Session { number, ..testing::session() })
}

/// A call that takes so long.
pub(crate) fn slow(time: Duration) -> Call {
    let mut call = testing::call("files", "slow");
    call.params = Payload::of(&serde_json::json!({ "name": "slow", "ms": u64::try_from(time.as_millis()).unwrap() }));
    call
}

/// Until every task has come as far as it can without time passing.
pub(crate) async fn settled() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Time passes, and everything that is due happens on the way.
pub(crate) async fn pass(time: Duration) {
    sleep(time).await;
    settled().await;
}
