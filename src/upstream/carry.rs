//! Carries one call to the ready instance of a lane, and says in typed words how
//! that went.
//!
//! A call is sent at most once, unless its bytes never left, or the config allows
//! repeating and the tool says that a repetition does no harm.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    instance::Instance,
    lane::{INSTALLING, Lane, State, WAITING_MAX_CALLS},
    orders::Order,
    rounds, subscriptions,
};
use crate::{
    call::{Answer, Call, Outcome, Replay, Reply},
    failure::{Class, Failure},
    link::{Gone, LinkError},
};

/// A parked server is tried again on use, but not more often than this.
const WAKE_INTERVAL: Duration = Duration::from_secs(5);
/// An error and the end of its connection are noticed so close to each other.
const END_NOTICE: Duration = Duration::from_millis(100);
/// When to come back, where nobody knows.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The same while a package is being installed.
const INSTALLING_RETRY_AFTER: Duration = Duration::from_secs(5);

pub(super) async fn carry(lane: &Arc<Lane>, call: &Call) -> Outcome {
    lane.used();
    let outcome = lane.carry(call).await;
    lane.used();
    outcome
}

pub(super) fn draining() -> Failure {
    Failure::new(Class::Draining, "seawall or this server is being stopped").retry_after(RETRY_AFTER)
}

/// An answer of the server leaves as it is, but for errors that say that it is broken.
fn judged(answer: Answer, call: &Call) -> Outcome {
    match (Class::of_answer(&answer), answer) {
        (Class::ServerError, Answer::Error(error)) => {
            let code = error.error_code().map_or_else(|| "without a code".to_owned(), |code| code.to_string());
            let remark = call.trail.remarked().map(|remark| format!(", {remark}")).unwrap_or_default();
            let message = format!("it answered with JSON-RPC error {code}{remark}");
            Err(Failure::new(Class::ServerError, message).error(error))
        }
        (class, answer) => Ok(Reply { answer, class }),
    }
}

/// A call that this instance does not answer.
enum Missed {
    /// It takes no calls any more; nothing was tried.
    Sealed,
    By(LinkError),
}

impl Lane {
    async fn carry(self: &Arc<Self>, call: &Call) -> Outcome {
        let mut deadline = Instant::now() + call.patience;
        let mut first: Option<Failure> = None;
        loop {
            let instance = match self.ready_instance(deadline).await {
                Ok(instance) => instance,
                Err(failure) => return Err(the_graver(first, failure)),
            };
            let error = match self.put_to(&instance, call).await {
                Ok(answer) => return judged(answer, call),
                Err(Missed::Sealed) => {
                    self.forget(&instance);
                    continue;
                }
                Err(Missed::By(error)) => error,
            };
            let may_repeat = first.is_none() && self.may_repeat(call, &error);
            let failure = self.failure_of(error, &instance, call);
            if !self.is_over(&instance, may_repeat).await || !may_repeat {
                return Err(the_graver(first, failure));
            }
            first = Some(failure);
            deadline = Instant::now() + call.patience;
        }
    }

    /// Whether the instance is no more, in which case nobody is sent to it again. A
    /// connection that is merely full, or refuses, stays.
    async fn is_over(&self, instance: &Arc<Instance>, may_wait: bool) -> bool {
        let gone = instance.link.gone();
        let is_gone = if may_wait { timeout(END_NOTICE, gone).await.is_ok() } else { gone.now_or_never().is_some() };
        if is_gone {
            self.forget(instance);
        }
        is_gone
    }

    async fn put_to(self: &Arc<Self>, instance: &Arc<Instance>, call: &Call) -> Result<Answer, Missed> {
        let Some((admission, params)) = instance.inflight.admit(call) else { return Err(Missed::Sealed) };
        if self.is_limit(admission.nth) {
            self.order(Order::Renew(instance.number));
        }
        let mut out = Out { lane: self, instance, call, is_over: false };
        let answer = match subscriptions::instead_of(&self.common.tasks, instance, call).await {
            Some(answer) => Ok(answer),
            None => rounds::ask(instance, call, params).await,
        };
        let answer = answer.map(|answer| match admission.lacking() {
            Some(missing) => rounds::for_want_of(missing, call, answer),
            None => answer,
        });
        out.is_over = true;
        if let Ok(answer) = &answer {
            instance.inflight.pulse.answered();
            self.note_subscription(call, answer, instance);
        }
        answer.map_err(Missed::By)
    }

    fn may_repeat(&self, call: &Call, error: &LinkError) -> bool {
        match (error, call.replay) {
            (_, Replay::Never) => false,
            (LinkError::NotSent(_) | LinkError::Http { sent: false, .. }, _) => true,
            (LinkError::Lost(_), Replay::Annotated) => {
                let offer = self.common.offer.load();
                let tool = call.tool.as_deref().filter(|_| call.is_tool_call());
                offer.as_ref().zip(tool).is_some_and(|(offer, tool)| offer.is_repeatable(tool))
            }
            _ => false,
        }
    }

    fn failure_of(&self, error: LinkError, instance: &Instance, call: &Call) -> Failure {
        if self.common.is_aborted() {
            let failure = draining();
            return if call.trail.instance().is_some() { failure.outcome_unknown() } else { failure };
        }
        match error {
            LinkError::NotSent(reason) => Failure::new(Class::Unavailable, reason).retry_after(RETRY_AFTER),
            LinkError::Lost(gone) => self.lost(gone, instance, call),
            LinkError::Protocol(reason) => Failure::new(Class::Protocol, reason)
                .outcome_unknown()
                .last_words(None, instance.link.vitals().stderr_tail),
            LinkError::Panicked(message) => Failure::new(Class::Panic, format!("its handler panicked: {message}")),
            LinkError::Http { reason, sent } => {
                let failure = Failure::new(Class::Http, reason);
                if sent { failure.outcome_unknown() } else { failure }
            }
            LinkError::Busy { retry_after } => {
                let wait = retry_after.unwrap_or(RETRY_AFTER);
                Failure::new(Class::HttpBusy, "it answered 429 Too Many Requests").retry_after(wait)
            }
            LinkError::Auth(reason) => {
                self.order(Order::Park(instance.number, reason.clone()));
                Failure::new(Class::Auth, reason)
            }
        }
    }

    fn lost(&self, gone: Gone, instance: &Instance, call: &Call) -> Failure {
        let sentence = instance.sentence.get();
        let is_planned = sentence.is_some_and(|sentence| sentence.is_planned);
        let reason = sentence.map_or(gone.reason, |sentence| sentence.reason.clone());
        let is_poison =
            !is_planned && call.tool.as_ref().is_some_and(|tool| self.common.deaths().blame(instance.number, tool));
        Failure::new(Class::Lost, reason)
            .outcome_unknown()
            .poison(is_poison)
            .last_words(gone.exit_status, gone.stderr_tail)
    }

    /// The instance that is ready, waited for until `deadline` where there is none.
    async fn ready_instance(&self, deadline: Instant) -> Result<Arc<Instance>, Failure> {
        if let Some(instance) = self.current.load_full() {
            return Ok(instance);
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            let message = format!("it is not ready and {WAITING_MAX_CALLS} calls wait for it already");
            return Err(Failure::new(Class::Unavailable, message).retry_after(RETRY_AFTER));
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(draining()),
            ready = timeout_at(deadline, self.becomes_ready(deadline)) => ready.unwrap_or_else(|_| Err(self.why_not())),
        }
    }

    async fn becomes_ready(&self, deadline: Instant) -> Result<Arc<Instance>, Failure> {
        let mut state = self.state.subscribe();
        let mut woken = false;
        loop {
            let now = state.borrow_and_update().clone();
            match now {
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
                State::Idle => self.order(Order::Wake),
                State::Stopped => return Err(draining()),
                State::Backoff { .. } | State::Installing | State::Spawning | State::Handshaking => {}
            }
            if state.changed().await.is_err() {
                return Err(draining());
            }
        }
    }

    /// Why there is no instance, and when to come back.
    fn why_not(&self) -> Failure {
        let unavailable = |reason: &str| Failure::new(Class::Unavailable, reason);
        let soon = Duration::from_secs(2);
        match &*self.state.borrow() {
            State::Installing => unavailable(INSTALLING).retry_after(INSTALLING_RETRY_AFTER),
            State::Spawning | State::Handshaking | State::Idle => unavailable("it is still starting").retry_after(soon),
            State::Ready(_) => unavailable("its connection is being replaced").retry_after(soon),
            State::Backoff { until, reason } => {
                let wait = until.saturating_duration_since(Instant::now());
                unavailable(reason).retry_after(wait.max(Duration::from_millis(100)))
            }
            State::Parked { since, reason } => {
                let wait = WAKE_INTERVAL.saturating_sub(since.elapsed());
                unavailable(reason).retry_after(wait.max(RETRY_AFTER))
            }
            State::Stopped => draining(),
        }
    }
}

/// Of two attempts at one call, the one to tell: what may have had an effect.
fn the_graver(first: Option<Failure>, second: Failure) -> Failure {
    match first {
        Some(first) if first.outcome_unknown && !second.outcome_unknown => first,
        _ => second,
    }
}

/// A request that is out. Dropped before its end because the call was late, it makes
/// the instance suspect; because its client gave up, it says nothing.
struct Out<'a> {
    lane: &'a Lane,
    instance: &'a Instance,
    call: &'a Call,
    is_over: bool,
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        let trail = &self.call.trail;
        let is_late = !self.is_over && trail.timed_out() && trail.instance() == Some(self.instance.number);
        if is_late && self.instance.inflight.pulse.timed_out() {
            self.lane.order(Order::Suspect(self.instance.number));
        }
    }
}
