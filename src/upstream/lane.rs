//! A lane is a row of instances of which one serves at a time: one process that is
//! kept alive. One task (`reconnect.rs`) owns it; callers only look.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    common::Common,
    instance::Instance,
    links::Links,
    orders::{Order, Orders},
    reconnect,
    replay::{self, Subscriptions},
};
use crate::{
    call::{Method, Payload},
    session::Session,
};

/// So many calls may wait for one lane to become ready; the others are refused.
pub(super) const WAITING_MAX_CALLS: usize = 32;
/// How long a process has to end once its input was closed and it was asked to.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(6);
/// Why there is no instance before the first one.
pub(super) const INSTALLING: &str = "its package is being installed, which is done once";
/// An instance of one session's own is stopped after so long without a call.
const SESSION_IDLE: Duration = Duration::from_secs(600);

pub(super) struct Lane {
    pub(super) common: Arc<Common>,
    pub(super) role: Role,
    /// The ready instance, for the fast way; `state` says why there is none.
    pub(super) current: ArcSwapOption<Instance>,
    pub(super) state: watch::Sender<State>,
    pub(super) waiting: Semaphore,
    pub(super) orders: Orders,
    /// Whose turn it is to start an instance.
    pub(super) starting: Arc<Semaphore>,
    pub(super) links: Links,
    pub(super) subscriptions: Subscriptions,
    pub(super) stop: CancellationToken,
    /// Microseconds after the server began.
    last_use_us: AtomicU64,
    /// The current instance is replaced after so many calls; `u64::MAX` is never.
    calls_limit: AtomicU64,
}

/// Whom a lane is for.
#[derive(Clone)]
pub(super) enum Role {
    Everybody,
    /// Nobody: it is started to be listed, and stopped.
    Listing,
    /// One session; what it says about its lists makes `listing` look again.
    Session {
        /// `None` for all requests that have no session.
        session: Option<Arc<Session>>,
        listing: Arc<Lane>,
    },
}

/// Where a lane is in its life.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Something must be fetched before it can be started.
    Installing,
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
    /// Nobody needed it; the next call starts it.
    Idle,
    Stopped,
}

impl Lane {
    pub(super) fn start(common: &Arc<Common>, role: Role) -> Arc<Self> {
        let lane = Arc::new(Lane {
            common: common.clone(),
            role,
            current: ArcSwapOption::empty(),
            state: watch::Sender::new(State::Spawning),
            waiting: Semaphore::new(WAITING_MAX_CALLS),
            orders: Orders::default(),
            starting: Arc::new(Semaphore::new(1)),
            links: Links::default(),
            subscriptions: Subscriptions::default(),
            stop: CancellationToken::new(),
            last_use_us: AtomicU64::new(0),
            calls_limit: AtomicU64::new(u64::MAX),
        });
        lane.used();
        common.tasks.spawn(reconnect::run(lane.clone()));
        lane
    }

    pub(super) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    pub(super) fn order(&self, order: Order) {
        self.orders.put(order);
    }

    /// This instance serves from now on.
    pub(super) fn install(&self, instance: &Arc<Instance>) {
        self.current.store(Some(instance.clone()));
        self.set(State::Ready(instance.clone()));
    }

    /// An instance that takes no calls any more is not offered to the next one.
    pub(super) fn forget(&self, instance: &Arc<Instance>) {
        let current = self.current.load();
        if current.as_ref().is_some_and(|current| current.number == instance.number) {
            self.current.compare_and_swap(&*current, None);
        }
    }

    pub(super) fn used(&self) {
        let since_began_us = u64::try_from(self.common.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_use_us.store(since_began_us, Ordering::Relaxed);
    }

    pub(super) fn last_use(&self) -> Instant {
        self.common.began + Duration::from_micros(self.last_use_us.load(Ordering::Relaxed))
    }

    pub(super) fn limit_calls(&self, calls: u64) {
        self.calls_limit.store(calls, Ordering::Relaxed);
    }

    pub(super) fn is_beyond_limit(&self, calls: u64) -> bool {
        calls >= self.calls_limit.load(Ordering::Relaxed)
    }

    /// Whether the `nth` call of an instance is the one after which it is replaced.
    pub(super) fn is_limit(&self, nth: u64) -> bool {
        nth == self.calls_limit.load(Ordering::Relaxed)
    }

    /// Without a call for so long it is stopped.
    pub(super) fn idle_stop(&self) -> Option<Duration> {
        let configured = self.common.lifecycle.borrow().idle_stop;
        match self.role {
            Role::Everybody => configured,
            Role::Listing => Some(Duration::ZERO),
            Role::Session { .. } => Some(configured.unwrap_or(SESSION_IDLE).min(SESSION_IDLE)),
        }
    }

    /// Waits until nothing of it is left.
    pub(super) async fn stopped(&self) {
        let _ = self.state.subscribe().wait_for(|state| matches!(state, State::Stopped)).await;
    }

    /// The same, and no start that was given up on is on its way any more: that is
    /// known only later, and the end of the gateway does not wait for it.
    pub(super) async fn vanished(&self) {
        self.stopped().await;
        let _turn = self.starting.acquire().await;
    }

    /// Ends it, with all calls that are under way.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.stopped().await;
    }

    /// A notification for the server; lost if it is away.
    pub(super) fn tell(&self, method: Method, params: Option<Payload>) {
        if let Some(instance) = self.current.load_full() {
            let _ = instance.link.tell(method, params);
        }
    }

    /// The log level that clients want has changed. A new instance asks for it itself.
    pub(super) fn spread_log_level(&self) {
        if let Some(instance) = self.current.load_full() {
            self.common.tasks.spawn(replay::log_level(self.common.clone(), instance));
        }
    }
}
