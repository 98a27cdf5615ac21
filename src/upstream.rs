//! The servers behind seawall. An [`Upstream`] is the handle of one `[servers.NAME]`:
//! a service that carries calls to whatever instance is ready.
//!
//! One task per server (`reconnect.rs`) owns connection and state. Callers never
//! start anything: they take the ready instance, or wait for it for a bounded time.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    call::{Method, Payload, ServerName},
    era::Era,
    link::Connector,
    store::Store,
};

mod carry;
pub mod handshake;
mod inflight;
mod instance;
mod intake;
mod ladder;
pub mod local;
pub mod offer;
mod poison;
mod reconnect;
mod rounds;
mod status;
pub mod stdio;
mod subscriptions;
pub mod url;

use instance::Instance;
pub use offer::Offer;
use poison::Deaths;
pub use status::Status;

/// So many calls may wait for one server to become ready; the others are refused.
const WAITING_MAX_CALLS: usize = 32;
/// How long a process has to end once its input was closed and it was asked to.
const STOP_GRACE: Duration = Duration::from_secs(6);

/// What a server says that is about no call: the router listens.
pub trait Audience: Send + Sync + 'static {
    /// The server's lists are known now, or have changed.
    fn offer_changed(&self, server: &ServerName);
    /// A notification that no call explains.
    fn said(&self, server: &ServerName, method: Method, params: Option<Payload>);
}

/// The handle of one server. Clones are the same server.
#[derive(Clone)]
pub struct Upstream(Arc<Shared>);

struct Shared {
    name: ServerName,
    fingerprint: String,
    connector: Arc<dyn Connector>,
    audience: Arc<dyn Audience>,
    store: Store,
    tasks: TaskTracker,
    began: Instant,
    /// The ready instance, for the fast way; `state` says why there is none.
    current: ArcSwapOption<Instance>,
    state: watch::Sender<State>,
    offer: ArcSwapOption<Offer>,
    waiting: Semaphore,
    orders: mpsc::Sender<Order>,
    deaths: Mutex<Deaths>,
    restarts: AtomicU64,
    /// No new calls.
    closed: AtomicBool,
    /// Calls that are still under way are failed as draining.
    aborted: AtomicBool,
    stop: CancellationToken,
    /// The era that the server was last found to be of.
    era: Mutex<Option<Era>>,
    /// The most verbose log level that any client asked for.
    log_level: Mutex<Option<String>>,
}

/// Where a server is in its life.
#[derive(Clone, Debug)]
enum State {
    Spawning,
    Handshaking,
    Ready(Arc<Instance>),
    Backoff {
        until: Instant,
        reason: String,
    },
    /// Its cause will not heal by itself: tried again on use, at most every few seconds.
    Parked {
        since: Instant,
        reason: String,
    },
    Stopped,
}

/// What the server's task is asked to do.
#[derive(Debug)]
enum Order {
    /// A parked server is wanted.
    Wake,
    /// Its credentials were refused.
    Park(String),
    Relist,
    Restart,
}

impl Upstream {
    /// Starts the server's task. `known` is what it offered in an earlier run;
    /// `fingerprint` is of its entry in servers.toml.
    pub fn start(
        name: ServerName,
        fingerprint: String,
        connector: Arc<dyn Connector>,
        audience: Arc<dyn Audience>,
        known: Option<Offer>,
        store: Store,
        tasks: &TaskTracker,
    ) -> Self {
        let (orders, inbox) = mpsc::channel(16);
        let shared = Arc::new(Shared {
            name,
            fingerprint,
            connector,
            audience,
            store,
            tasks: tasks.clone(),
            began: Instant::now(),
            current: ArcSwapOption::empty(),
            state: watch::Sender::new(State::Spawning),
            offer: ArcSwapOption::from_pointee(known),
            waiting: Semaphore::new(WAITING_MAX_CALLS),
            orders,
            deaths: Mutex::default(),
            restarts: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            stop: CancellationToken::new(),
            era: Mutex::default(),
            log_level: Mutex::default(),
        });
        tasks.spawn(reconnect::run(shared.clone(), inbox));
        Upstream(shared)
    }

    pub fn name(&self) -> &ServerName {
        &self.0.name
    }

    pub fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    /// What the server offers, as last heard; `None` until its first start succeeded.
    pub fn offer(&self) -> Option<Arc<Offer>> {
        self.0.offer.load_full()
    }

    /// When the server's task began its first start.
    pub fn began(&self) -> Instant {
        self.0.began
    }

    /// Waits until the server's start has ended one way or the other.
    pub async fn settled(&self) {
        let mut state = self.0.state.subscribe();
        let _ = state.wait_for(|state| !matches!(state, State::Spawning | State::Handshaking)).await;
    }

    /// Waits until it is known what the server offers; why not, if it is parked or stopped.
    pub async fn known(&self) -> Result<Arc<Offer>, String> {
        let mut state = self.0.state.subscribe();
        loop {
            if let Some(offer) = self.offer() {
                return Ok(offer);
            }
            match &*state.borrow_and_update() {
                State::Parked { reason, .. } => return Err(reason.clone()),
                State::Stopped => return Err("it is being stopped".to_owned()),
                _ => {}
            }
            if state.changed().await.is_err() {
                return Err("it is being stopped".to_owned());
            }
        }
    }

    /// A notification of the client's for the server; lost if it is away.
    pub fn tell(&self, method: Method, params: Option<Payload>) {
        if let Some(instance) = self.0.current.load_full() {
            let _ = instance.link.tell(method, params);
        }
    }

    /// The most verbose log level that clients want; told to each new instance too.
    pub fn set_log_level(&self, level: &str) {
        *self.0.log_level.lock().unwrap_or_else(PoisonError::into_inner) = Some(level.to_owned());
        if let Some(instance) = self.0.current.load_full() {
            self.0.tasks.spawn(reconnect::replay_log_level(self.0.clone(), instance));
        }
    }

    /// Replaces the running instance; starts a parked or waiting server now.
    pub fn restart(&self) {
        let _ = self.0.orders.try_send(Order::Restart);
    }

    /// Refuses new calls from now on.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
    }

    /// Waits until no call is under way.
    pub async fn idle(&self) {
        if let Some(instance) = self.0.current.load_full() {
            instance.inflight.idle().await;
        }
    }

    /// Ends the server. Calls still under way are failed as draining.
    pub async fn stop(&self) {
        self.close();
        self.0.aborted.store(true, Ordering::Relaxed);
        self.0.stop.cancel();
        let mut state = self.0.state.subscribe();
        let _ = state.wait_for(|state| matches!(state, State::Stopped)).await;
    }

    /// No new calls, those under way for at most `drain`, then the end.
    pub async fn retire(&self, drain: Duration) {
        self.close();
        let _ = tokio::time::timeout(drain, self.idle()).await;
        self.stop().await;
    }

    pub fn status(&self) -> Status {
        Status::of(&self.0)
    }
}

impl Shared {
    fn order(&self, order: Order) {
        // A full queue holds orders enough.
        let _ = self.orders.try_send(order);
    }
}

/// The numbers of instances, unique within this process.
fn next_instance_number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}
