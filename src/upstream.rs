//! The servers behind seawall. An [`Upstream`] is the handle of one `[servers.NAME]`:
//! a service that carries calls to whatever instance is ready.
//!
//! A lane (`lane.rs`) is one process that is kept alive: one task owns connection and
//! state, and callers never start anything: they take the ready instance, or wait for
//! it for a bounded time. A server has one lane, or one for each session.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    call::{BoxFuture, Call, CallService, Method, Outcome, Payload, Reply, ServerName},
    failure::Failure,
    link::Connector,
    session::Session,
    store::Store,
};

mod attend;
mod carry;
mod common;
mod denials;
mod drift;
pub mod handshake;
mod inflight;
mod instance;
mod intake;
mod ladder;
mod lane;
mod launch;
mod lifecycle;
mod links;
pub mod local;
pub mod offer;
mod orders;
mod poison;
mod pool;
mod pulse;
mod reconnect;
mod renewal;
mod replay;
mod rounds;
mod status;
pub mod stdio;
mod subscriptions;
pub mod url;

use common::Common;
use lane::{Lane, Role, State};
pub use lifecycle::{Instances, Lifecycle, Recycle};
pub use offer::Offer;
use orders::Order;
use pool::Pool;
pub use status::Status;

/// What a server says that is about no call: the router listens.
pub trait Audience: Send + Sync + 'static {
    /// The server's lists are known now, or have changed.
    fn offer_changed(&self, server: &ServerName);
    /// A notification that no call explains.
    fn said(&self, server: &ServerName, method: Method, params: Option<Payload>);
}

/// One server, as it is to be kept.
pub struct Settings {
    pub name: ServerName,
    /// Of its entry in servers.toml.
    pub fingerprint: String,
    pub connector: Arc<dyn Connector>,
    /// What it offered in an earlier run.
    pub known: Option<Offer>,
    pub lifecycle: Lifecycle,
    pub instances: Instances,
}

/// The handle of one server. Clones are the same server.
#[derive(Clone)]
pub struct Upstream {
    common: Arc<Common>,
    lanes: Lanes,
}

#[derive(Clone)]
enum Lanes {
    One(Arc<Lane>),
    PerSession(Arc<Pool>),
}

impl Upstream {
    /// Starts the server, and waits for nothing.
    pub fn start(settings: Settings, audience: Arc<dyn Audience>, store: Store, tasks: &TaskTracker) -> Self {
        let instances = settings.instances;
        let common = Arc::new(Common::new(settings, audience, store, tasks));
        let lanes = match instances {
            Instances::Shared => Lanes::One(Lane::start(&common, Role::Everybody)),
            Instances::PerSession(max) => Lanes::PerSession(Pool::start(&common, max)),
        };
        Upstream { common, lanes }
    }

    pub fn name(&self) -> &ServerName {
        &self.common.name
    }

    pub fn fingerprint(&self) -> &str {
        &self.common.fingerprint
    }

    /// What the server offers, as last heard; `None` until its first start succeeded.
    pub fn offer(&self) -> Option<Arc<Offer>> {
        self.common.offer.load_full()
    }

    /// When the server's task began its first start.
    pub fn began(&self) -> Instant {
        self.common.began
    }

    /// Whether each session has an instance of its own.
    pub fn is_per_session(&self) -> bool {
        matches!(self.lanes, Lanes::PerSession(_))
    }

    /// Other rules hold from now on, for the running instances too.
    pub fn set_lifecycle(&self, lifecycle: Lifecycle) {
        self.common.lifecycle.send_if_modified(|current| {
            let is_new = *current != lifecycle;
            *current = lifecycle;
            is_new
        });
    }

    /// The lane that knows what the server offers.
    fn catalog_lane(&self) -> &Arc<Lane> {
        match &self.lanes {
            Lanes::One(lane) => lane,
            Lanes::PerSession(pool) => &pool.listing,
        }
    }

    /// The lane that has this session's calls, if there is one.
    fn lane_of(&self, session: &Session) -> Option<Arc<Lane>> {
        match &self.lanes {
            Lanes::One(lane) => Some(lane.clone()),
            Lanes::PerSession(pool) => pool.lane_of(session.number),
        }
    }

    /// Waits until the server's start has ended one way or the other.
    pub async fn settled(&self) {
        let mut state = self.catalog_lane().state.subscribe();
        let _ =
            state.wait_for(|state| !matches!(state, State::Installing | State::Spawning | State::Handshaking)).await;
    }

    /// Waits until it is known what the server offers; why not, if it is parked or stopped.
    pub async fn known(&self) -> Result<Arc<Offer>, String> {
        let mut state = self.catalog_lane().state.subscribe();
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
    pub fn tell(&self, session: &Session, method: Method, params: Option<Payload>) {
        if let Some(lane) = self.lane_of(session) {
            lane.tell(method, params);
        }
    }

    /// The session is over.
    pub fn leave(&self, session: &Session) {
        if let Lanes::PerSession(pool) = &self.lanes {
            pool.leave(session.number);
        }
    }

    /// Nobody listens to this resource any more.
    pub fn unsubscribe(&self, uri: &str) {
        if let Lanes::One(lane) = &self.lanes {
            lane.unsubscribe(uri);
        }
    }

    /// The most verbose log level that clients want; told to each new instance too.
    pub fn set_log_level(&self, level: &str) {
        self.common.set_log_level(level);
        match &self.lanes {
            Lanes::One(lane) => lane.spread_log_level(),
            Lanes::PerSession(pool) => pool.lanes().iter().for_each(|lane| lane.spread_log_level()),
        }
    }

    /// Replaces the running instance; starts a parked or waiting server now.
    pub fn restart(&self) {
        match &self.lanes {
            Lanes::One(lane) => lane.order(Order::Restart),
            Lanes::PerSession(pool) => pool.restart(),
        }
    }

    /// Refuses new calls from now on.
    pub fn close(&self) {
        self.common.close();
    }

    /// Waits until no call is under way.
    pub async fn idle(&self) {
        self.common.calls.close();
        self.common.calls.wait().await;
    }

    /// Ends the server. Calls still under way are failed as draining.
    pub async fn stop(&self) {
        self.close();
        self.common.abort();
        match &self.lanes {
            Lanes::One(lane) => lane.end().await,
            Lanes::PerSession(pool) => pool.end().await,
        }
    }

    /// No new calls, those under way for at most `drain`, then the end.
    pub async fn retire(&self, drain: Duration) {
        self.close();
        let _ = tokio::time::timeout(drain, self.idle()).await;
        self.stop().await;
    }

    pub fn status(&self) -> Status {
        match &self.lanes {
            Lanes::One(lane) => Status::of_lane(lane),
            Lanes::PerSession(pool) => Status::of_pool(pool),
        }
    }

    /// What the innermost of a tool's layers calls.
    pub fn service(&self) -> CallService<Failure> {
        CallService::new(self.clone())
    }

    async fn carry(self, call: Call) -> Outcome {
        // Counted before the look: whoever closes and then waits misses no call.
        let _under_way = self.common.calls.token();
        if self.common.is_closed() {
            return Err(carry::draining());
        }
        match &self.lanes {
            Lanes::One(lane) => carry::carry(lane, &call).await,
            Lanes::PerSession(pool) => pool.carry(&call).await,
        }
    }
}

impl tower::Service<Call> for Upstream {
    type Response = Reply;
    type Error = Failure;
    type Future = BoxFuture<'static, Outcome>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        Box::pin(self.clone().carry(call))
    }
}

/// The numbers of instances, unique within this process.
fn next_instance_number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}
