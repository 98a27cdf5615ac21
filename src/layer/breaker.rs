//! The circuit breaker of one tool: after some failures in a row it refuses calls
//! for a while, then lets exactly one through to see.
//!
//! What counts as a failure is `failure.rs`'s to say. The rules are in `state.rs`;
//! here they get a lock, a clock, and a permit that cannot be lost.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::whole_ms;
use crate::{
    call::{BoxFuture, Call, Outcome, Reply, ServerName},
    failure::{Class, Failure, Verdict},
    store::{Event, EventType},
};

mod state;

pub use state::Transition;
use state::{Machine, State, Ticket};

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// So many failures in a row open it.
    pub failures: u32,
    pub open_for: Duration,
    /// Each further trip stays open this much longer, up to `open_max`.
    pub backoff_factor: f64,
    pub open_max: Duration,
    /// Whether the server's own `isError: true` counts.
    pub count_tool_errors: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            failures: 5,
            open_for: Duration::from_secs(60),
            backoff_factor: 1.0,
            open_max: Duration::from_secs(600),
            count_tool_errors: false,
        }
    }
}

/// Told of every transition, while no lock is held; generations give their order.
pub type Hook = Box<dyn Fn(Transition) + Send + Sync>;

/// What all calls of one tool share.
pub struct Breaker {
    machine: Mutex<Machine>,
    count_tool_errors: bool,
    hook: Hook,
}

/// What `status` shows of a breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerStatus {
    pub state: BreakerState,
    /// When an open breaker will let a probe through.
    pub until: Option<Instant>,
    /// Failures since the last success.
    pub failures: u32,
    /// How the last of them ended; it may quote the server.
    pub last_cause: Option<String>,
    pub generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    /// The next call, or one that is under way, decides.
    HalfOpen,
}

impl BreakerState {
    pub fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }
}

impl Breaker {
    pub fn new(settings: Settings, hook: Hook) -> Self {
        Breaker {
            count_tool_errors: settings.count_tool_errors,
            machine: Mutex::new(Machine::new(settings, Instant::now(), rand::random)),
            hook,
        }
    }

    pub fn status(&self) -> BreakerStatus {
        let machine = self.machine();
        let (state, until) = match machine.state(Instant::now()) {
            State::Closed { .. } => (BreakerState::Closed, None),
            State::Open { until } => (BreakerState::Open, Some(until)),
            State::HalfOpen { .. } => (BreakerState::HalfOpen, None),
        };
        BreakerStatus {
            state,
            until,
            failures: machine.failures(),
            last_cause: machine.last_cause().map(str::to_owned),
            generation: machine.generation(),
        }
    }

    /// Closes it, whatever it was. Calls that are under way no longer count.
    pub fn reset(&self) {
        let transition = self.machine().reset(Instant::now());
        self.announce(transition);
    }

    fn admit(self: &Arc<Self>) -> Result<Permit, Failure> {
        match self.machine().admit(Instant::now()) {
            Ok(ticket) => Ok(Permit { breaker: self.clone(), ticket: Some(ticket) }),
            Err(refusal) => {
                let wait = whole_ms(refusal.retry_after);
                Err(Failure::new(Class::BreakerOpen, refusal.to_string()).retry_after(wait))
            }
        }
    }

    fn verdict(&self, outcome: &Outcome) -> Verdict {
        match outcome {
            Ok(reply) if reply.class == Class::ToolError && self.count_tool_errors => Verdict::Failure,
            Ok(reply) => reply.class.verdict(),
            Err(failure) => failure.verdict(),
        }
    }

    fn announce(&self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            (self.hook)(transition);
        }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        // A panic inside leaves at worst one call uncounted: better than a tool that
        // answers `internal` for ever.
        self.machine.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The right to one call. Dropped without an outcome (the client left, a layer
/// below panicked) it is given back: nobody else could.
struct Permit {
    breaker: Arc<Breaker>,
    ticket: Option<Ticket>,
}

impl Permit {
    fn settle(mut self, outcome: &Outcome) {
        let verdict = self.breaker.verdict(outcome);
        self.give_back(verdict, || cause(outcome));
    }

    fn give_back(&mut self, verdict: Verdict, cause: impl FnOnce() -> String) {
        if let Some(ticket) = self.ticket.take() {
            let transition = self.breaker.machine().settle(ticket, Instant::now(), verdict, cause);
            self.breaker.announce(transition);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(Verdict::Neutral, String::new);
    }
}

/// `timeout: it was silent for 50 s`
fn cause(outcome: &Outcome) -> String {
    match outcome {
        Ok(reply) => format!("{}: it answered isError", reply.class),
        Err(failure) => failure.to_string(),
    }
}

/// The event that tells of a transition.
pub fn event(server: &ServerName, tool: Option<&str>, transition: Transition) -> Event {
    let (event_type, metadata) = match transition {
        Transition::Opened { cause, failures, open_for, generation } => (
            EventType::BreakerOpened,
            json!({
                "tool": tool,
                "cause": cause,
                "failures": failures,
                "open_for_ms": u64::try_from(open_for.as_millis()).unwrap_or(u64::MAX),
                "generation": generation,
            }),
        ),
        Transition::Closed { cause, generation } => {
            (EventType::BreakerClosed, json!({ "tool": tool, "cause": cause, "generation": generation }))
        }
    };
    Event { category: "breaker", event_type, service_name: server.to_string(), metadata }
}

#[derive(Clone)]
pub struct BreakerLayer(Arc<Breaker>);

impl BreakerLayer {
    pub fn new(breaker: Arc<Breaker>) -> Self {
        BreakerLayer(breaker)
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = BreakerService<S>;

    fn layer(&self, inner: S) -> BreakerService<S> {
        BreakerService { inner, breaker: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct BreakerService<S> {
    inner: S,
    breaker: Arc<Breaker>,
}

impl<S> Service<Call> for BreakerService<S>
where
    S: Service<Call, Response = Reply, Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Failure;
    type Future = BoxFuture<'static, Outcome>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let breaker = self.breaker.clone();
        let under_way = self.inner.call(call);
        Box::pin(async move {
            let permit = breaker.admit()?;
            let outcome = under_way.await;
            permit.settle(&outcome);
            outcome
        })
    }
}
