//! Carries one call to the ready instance, and says in typed words how that went.
//!
//! A call is sent at most once, unless its bytes never left, or the config allows
//! repeating and the tool says that a repetition does no harm.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::{Order, Shared, State, Upstream, instance::Instance, rounds, subscriptions};
use crate::{
    call::{Answer, BoxFuture, Call, CallService, Outcome, Replay, Reply},
    failure::{Class, Failure},
    link::LinkError,
};

/// A call meets at most so many instances.
const ATTEMPTS_MAX: u32 = 2;
/// A parked server is tried again on use, but not more often than this.
const WAKE_INTERVAL: Duration = Duration::from_secs(5);

impl tower::Service<Call> for Upstream {
    type Response = Reply;
    type Error = Failure;
    type Future = BoxFuture<'static, Outcome>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        Box::pin(carry(self.0.clone(), call))
    }
}

async fn carry(shared: Arc<Shared>, call: Call) -> Outcome {
    let deadline = Instant::now() + call.patience;
    let mut attempt = 1;
    loop {
        if shared.closed.load(Ordering::Relaxed) {
            return Err(draining());
        }
        let instance = shared.ready_instance(deadline).await?;
        let error = match shared.put_to(&instance, &call).await {
            Ok(answer) => return judged(answer),
            Err(error) => error,
        };
        if attempt == ATTEMPTS_MAX || !shared.may_repeat(&call, &error) {
            return Err(shared.failure_of(error, &instance, &call));
        }
        attempt += 1;
        shared.forget(&instance);
    }
}

/// An answer of the server leaves as it is, but for errors that say that it is broken.
fn judged(answer: Answer) -> Outcome {
    match (Class::of_answer(&answer), answer) {
        (Class::ServerError, Answer::Error(error)) => {
            let code = error.error_code().map_or_else(|| "without a code".to_owned(), |code| code.to_string());
            Err(Failure::new(Class::ServerError, format!("it answered with JSON-RPC error {code}")).error(error))
        }
        (class, answer) => Ok(Reply { answer, class }),
    }
}

fn draining() -> Failure {
    Failure::new(Class::Draining, "seawall or this server is being stopped")
}

impl Shared {
    async fn put_to(&self, instance: &Arc<Instance>, call: &Call) -> Result<Answer, LinkError> {
        if let Some(answer) = subscriptions::instead_of(&self.tasks, instance, call) {
            return Ok(answer);
        }
        let (admission, params) = instance.inflight.admit(call);
        let answer = rounds::ask(instance, call, params).await.map(|answer| match admission.lacking() {
            Some(missing) => rounds::for_want_of(missing, call, answer),
            None => answer,
        });
        drop(admission);
        if answer.is_ok() {
            instance.answers.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    fn may_repeat(&self, call: &Call, error: &LinkError) -> bool {
        match (error, call.replay) {
            (_, Replay::Never) => false,
            (LinkError::NotSent(_) | LinkError::Http { sent: false, .. }, _) => true,
            (LinkError::Lost(_), Replay::Annotated) => {
                let offer = self.offer.load();
                let tool = call.tool.as_deref();
                offer.as_ref().zip(tool).is_some_and(|(offer, tool)| offer.is_repeatable(tool))
            }
            _ => false,
        }
    }

    /// A connection that failed is not offered to the next call.
    fn forget(&self, instance: &Arc<Instance>) {
        let current = self.current.load();
        if current.as_ref().is_some_and(|current| current.number == instance.number) {
            self.current.compare_and_swap(&*current, None);
        }
    }

    fn failure_of(&self, error: LinkError, instance: &Instance, call: &Call) -> Failure {
        if self.aborted.load(Ordering::Relaxed) {
            let failure = draining();
            return if call.trail.instance().is_some() { failure.outcome_unknown() } else { failure };
        }
        match error {
            LinkError::NotSent(reason) => Failure::new(Class::Unavailable, reason),
            LinkError::Lost(gone) => {
                let poison = call.tool.as_ref().is_some_and(|tool| {
                    self.deaths.lock().unwrap_or_else(PoisonError::into_inner).blame(instance.number, tool)
                });
                Failure::new(Class::Lost, gone.reason)
                    .outcome_unknown()
                    .poison(poison)
                    .last_words(gone.exit_status, gone.stderr_tail)
            }
            LinkError::Protocol(reason) => Failure::new(Class::Protocol, reason)
                .outcome_unknown()
                .last_words(None, instance.link.vitals().stderr_tail),
            LinkError::Panicked(message) => Failure::new(Class::Panic, format!("its handler panicked: {message}")),
            LinkError::Http { reason, sent } => {
                let failure = Failure::new(Class::Http, reason);
                if sent { failure.outcome_unknown() } else { failure }
            }
            LinkError::Busy { retry_after } => {
                let wait = retry_after.unwrap_or(Duration::from_secs(1));
                Failure::new(Class::HttpBusy, "it answered 429 Too Many Requests").retry_after(wait)
            }
            LinkError::Auth(reason) => {
                self.order(Order::Park(reason.clone()));
                Failure::new(Class::Auth, reason)
            }
        }
    }

    /// The instance that is ready, waited for until `deadline` where there is none.
    async fn ready_instance(&self, deadline: Instant) -> Result<Arc<Instance>, Failure> {
        if let Some(instance) = self.current.load_full() {
            return Ok(instance);
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            let message = format!("it is not ready and {} calls wait for it already", super::WAITING_MAX_CALLS);
            return Err(Failure::new(Class::Unavailable, message).retry_after(Duration::from_secs(1)));
        };
        match timeout_at(deadline, self.becomes_ready(deadline)).await {
            Ok(ready) => ready,
            Err(_) => Err(self.why_not()),
        }
    }

    async fn becomes_ready(&self, deadline: Instant) -> Result<Arc<Instance>, Failure> {
        let mut state = self.state.subscribe();
        let mut woken = false;
        loop {
            let current = state.borrow_and_update().clone();
            match current {
                // Ready, but a caller has found its connection broken: the task will, too.
                State::Ready(instance) => {
                    if let Some(instance) = self.current.load_full().filter(|now| now.number == instance.number) {
                        return Ok(instance);
                    }
                }
                State::Backoff { until, .. } if until >= deadline => return Err(self.why_not()),
                State::Parked { since, .. } => {
                    if woken || since.elapsed() < WAKE_INTERVAL {
                        return Err(self.why_not());
                    }
                    woken = true;
                    self.order(Order::Wake);
                }
                State::Stopped => return Err(draining()),
                State::Backoff { .. } | State::Spawning | State::Handshaking => {}
            }
            if state.changed().await.is_err() {
                return Err(draining());
            }
        }
    }

    /// Why there is no instance, and when to come back.
    fn why_not(&self) -> Failure {
        let soon = Duration::from_secs(2);
        match &*self.state.borrow() {
            State::Spawning | State::Handshaking => {
                Failure::new(Class::Unavailable, "it is still starting").retry_after(soon)
            }
            State::Ready(_) => Failure::new(Class::Unavailable, "its connection is being replaced").retry_after(soon),
            State::Backoff { until, reason } => {
                let wait = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
                Failure::new(Class::Unavailable, reason.clone()).retry_after(wait)
            }
            State::Parked { reason, .. } => Failure::new(Class::Unavailable, reason.clone()),
            State::Stopped => draining(),
        }
    }
}

impl Upstream {
    /// What the innermost of a tool's layers calls.
    pub fn service(&self) -> CallService<Failure> {
        CallService::new(self.clone())
    }
}
