//! The gateway of the week: router, stacks, upstreams and store as they are, put
//! together as the gateway does it, on a tracker that must be empty in the end.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use seawall::{
    call::{ServerName, Stack, ToolName},
    downstream,
    layer::{Keeper, Policy, memory::Memory},
    route::{Instructions, OfferCache, Route, Router, Settings, Stacks},
    session::Scope,
    stack::{self, Shared, ToolState},
    store::{self, Store},
    upstream::{self, Instances, Lifecycle, Recycle, Upstream},
};
use tokio::{io::duplex, io::split, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    client::{self, Told},
    server::{LIMITS, Stage},
    world::{World, lock},
};

const HOUR_MS: i64 = 3600 * 1000;
const HOUR: Duration = Duration::from_secs(3600);
const DRAIN: Duration = Duration::from_secs(30);
/// Rows of the month before, one each hour.
const OLD_ROWS: i64 = 30 * 24;

pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) fails: bool,
    recycle: Recycle,
    idle_stop: Option<Duration>,
}

const NEVER: Recycle = Recycle { calls: None, age: None, memory_bytes: None };
pub(crate) static SERVERS: [Kind; 5] = [
    Kind { name: "plain", fails: false, recycle: NEVER, idle_stop: None },
    Kind {
        name: "renewed",
        fails: false,
        recycle: Recycle { calls: Some(40), age: Some(HOUR), memory_bytes: None },
        idle_stop: None,
    },
    Kind {
        name: "growing",
        fails: false,
        recycle: Recycle { calls: None, age: None, memory_bytes: Some(30 << 20) },
        idle_stop: None,
    },
    Kind { name: "resting", fails: false, recycle: NEVER, idle_stop: Some(Duration::from_secs(600)) },
    Kind {
        name: "failing",
        fails: true,
        recycle: Recycle { calls: Some(200), age: Some(HOUR), memory_bytes: None },
        idle_stop: None,
    },
];

impl Kind {
    fn lifecycle(&self) -> Lifecycle {
        Lifecycle { recycle: self.recycle.clone(), idle_stop: self.idle_stop, drain: DRAIN }
    }
}

pub(crate) struct House {
    pub(crate) world: Vec<World>,
    pub(crate) tasks: TaskTracker,
    pub(crate) store: Records,
    router: Router,
    upstreams: Vec<Upstream>,
    stacks: Vec<Arc<ToolStacks>>,
    shutdown: CancellationToken,
}

impl House {
    pub(crate) async fn start(chance: &mut StdRng) -> House {
        let tasks = TaskTracker::new();
        let store = Records::open();
        let router = Router::new(settings(), OfferCache::none(), &tasks);
        let (mut world, mut upstreams, mut stacks) = (Vec::new(), Vec::new(), Vec::new());
        for kind in &SERVERS {
            let its = World::new(StdRng::from_rng(&mut *chance));
            let stage = Stage { world: its.clone(), fails: kind.fails, tasks: tasks.clone() };
            let settings = upstream::Settings {
                name: kind.name.into(),
                fingerprint: String::new(),
                connector: Arc::new(stage),
                known: None,
                lifecycle: kind.lifecycle(),
                instances: Instances::Shared,
            };
            let upstream = Upstream::start(settings, Arc::new(router.clone()), store.store.clone(), &tasks);
            stacks.push(Arc::new(ToolStacks::new(kind.name, upstream.clone(), &store.store)));
            upstreams.push(upstream);
            world.push(its);
        }
        let house = House { world, tasks, store, router, upstreams, stacks, shutdown: CancellationToken::new() };
        house.apply();
        let (announce, shutdown) = (house.router.clone().announce(), house.shutdown.clone());
        house.tasks.spawn(async move {
            let _ = shutdown.run_until_cancelled(announce).await;
        });
        for upstream in &house.upstreams {
            upstream.settled().await;
        }
        house
    }

    fn apply(&self) {
        let routes = self.upstreams.iter().zip(&self.stacks).map(|(upstream, stacks)| Route {
            upstream: upstream.clone(),
            stack: stacks.build(&stacks.other),
            stacks: stacks.clone(),
        });
        self.router.set_routes(settings(), routes.collect());
    }

    /// What a reload does where only limits changed, and what people do.
    pub(crate) fn edit(&self, chance: &mut StdRng) {
        let at = chance.random_range(0..SERVERS.len());
        match chance.random_range(0..30) {
            0 => self.upstreams[at].restart(),
            1 => self.upstreams[at].set_lifecycle(SERVERS[at].lifecycle()),
            2 => self.apply(),
            _ => {}
        }
    }

    /// A client on a stream of its own, for so long.
    pub(crate) fn client(&self, number: usize, time: Duration, chance: &mut StdRng) -> JoinHandle<Told> {
        let (ours, theirs) = duplex(64 << 10);
        let gate = Arc::new(self.router.clone());
        let (farewell, tasks) = (self.shutdown.clone(), self.tasks.clone());
        self.tasks.spawn(async move {
            downstream::stdio::serve(split(ours), gate, Scope::All, LIMITS, DRAIN, farewell, &tasks).await;
        });
        tokio::spawn(client::live(theirs, number, time, StdRng::from_rng(chance)))
    }

    /// Everything ends in order, and nothing is left.
    pub(crate) async fn stop(self, days: u32) {
        assert_eq!(self.router.session_count(), 0, "sessions of clients that have left");
        for upstream in &self.upstreams {
            timeout(DRAIN, upstream.retire(DRAIN)).await.expect("without calls a server retires at once");
        }
        self.shutdown.cancel();
        self.tasks.close();
        timeout(Duration::from_secs(60), self.tasks.wait()).await.expect("every task of the tracker ends");
        assert!(self.tasks.is_empty());
        for ((kind, world), (upstream, stacks)) in
            SERVERS.iter().zip(&self.world).zip(self.upstreams.iter().zip(&self.stacks))
        {
            let status = upstream.status();
            assert_eq!((world.live(), status.instances), (0, 0), "{}: {status:?}", kind.name);
            assert_eq!(stacks.shared.tally.snapshot().in_flight, 0, "{}", kind.name);
            assert_eq!(lock(&stacks.states).len(), 2, "{}: one state for each tool", kind.name);
            let is_renewed = kind.name == "plain" || world.lives() > 3 * days as usize;
            assert!(is_renewed, "{} had only {} lives", kind.name, world.lives());
        }
        self.store.is_right(days.into());
    }
}

fn settings() -> Settings {
    Settings { name_max_chars: 50, instructions: Instructions::All }
}

/// The real store on a clock of its own, for it waits on a thread.
pub(crate) struct Records {
    store: Store,
    clock: store::Clock,
    folder: tempfile::TempDir,
}

impl Records {
    fn open() -> Records {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let settings = store::Settings::at(folder.path().join("seawall.db"));
        let clock = settings.clock.clone();
        Records { store: Store::open(settings), clock, folder }
    }

    fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("seawall.db")).expect("a database")
    }

    /// A month's: within the week a quarter of them grows too old.
    pub(crate) fn remember_old_rows(&self) {
        assert!(self.store.flush(Duration::from_secs(60)), "the database is there");
        let mut database = self.database();
        let rows = database.transaction().expect("a transaction");
        for hour in 0..OLD_ROWS {
            let sql = "INSERT INTO events (id, timestamp, category, event_type, service_name, metadata) \
                       VALUES (?1, (unixepoch() * 1000) - ?2, 'old', 'old', 'old', '{}')";
            rows.execute(sql, (format!("old-{hour}"), hour * 3600 * 1000)).expect("a row");
        }
        rows.commit().expect("rows");
    }

    pub(crate) fn passes(&self, time: Duration) {
        self.clock.advance(time);
        assert!(self.store.flush(Duration::from_secs(60)), "it writes");
    }

    fn is_right(&self, days: i64) {
        let health = self.store.health();
        assert!(health.degraded.is_none() && health.dropped.is_empty(), "{health:?}");
        assert!(self.store.close(Duration::from_secs(60)), "every row is written");
        let (count, oldest): (i64, i64) = self
            .database()
            .query_row(
                "SELECT count(*), (unixepoch() * 1000) - min(timestamp) FROM events WHERE event_type = 'old'",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .expect("rows");
        // Seven days later what was 23 days old is 30.
        let kept = (30 - days) * 24;
        assert!((kept - 2..=kept + 2).contains(&count), "{count} old rows are left");
        assert!(oldest <= (kept + 2) * HOUR_MS, "the oldest is {oldest} ms old");
    }
}

/// The stacks of one server, each tool with its own state.
pub(crate) struct ToolStacks {
    name: ServerName,
    policy: Policy,
    upstream: Upstream,
    shared: Shared,
    states: Mutex<HashMap<ToolName, ToolState>>,
    other: ToolState,
}

impl ToolStacks {
    fn new(name: &str, upstream: Upstream, store: &Store) -> ToolStacks {
        let keeper: Arc<dyn Keeper> = Arc::new(store.clone());
        let policy = Policy::default();
        let other = ToolState::new(&name.into(), None, &policy, &keeper);
        let name = name.into();
        ToolStacks {
            name,
            policy,
            upstream,
            shared: Shared::new(Memory::default(), keeper),
            states: Mutex::default(),
            other,
        }
    }

    fn build(&self, state: &ToolState) -> Stack {
        stack::build(&self.policy, state, &self.shared, self.upstream.service())
    }
}

impl Stacks for ToolStacks {
    fn stack_of(&self, tool: &ToolName) -> Option<Stack> {
        let new = || ToolState::new(&self.name, Some(tool), &self.policy, &self.shared.keeper);
        let state = lock(&self.states).entry(tool.clone()).or_insert_with(new).clone();
        Some(self.build(&state))
    }

    fn keep_only(&self, tools: &HashSet<ToolName>) {
        lock(&self.states).retain(|tool, _| tools.contains(tool));
    }
}
