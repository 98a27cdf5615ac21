//! A server of a scripted world behind the real upstream, and calls to it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use seawall::{
    call::{Answer, BoxFuture, Call, Caller, Method, Outcome, Payload, ServerName},
    session::Session,
    store::{self, Store},
    testing,
    upstream::{Audience, Instances, Lifecycle, Settings, Upstream},
};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::task::TaskTracker;
use tower::Service;

use super::{Fake, lock};

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
