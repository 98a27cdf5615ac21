//! Deadlines: silence for `timeout`, and never longer than `max_duration`.
//!
//! Silence counts from the moment the bytes were handed over, and any sign of life
//! of the server restarts it; the cap counts from when the call came here. A late
//! call's future is dropped, which tells the server `cancelled`.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{self, Instant};
use tower::{Layer, Service};

use crate::{
    call::{BoxFuture, Call, Outcome, Reply, Trail},
    failure::{Class, Failure},
    text,
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The longest silence; progress restarts it.
    pub timeout: Option<Duration>,
    /// The hard cap, progress or not.
    pub max_duration: Option<Duration>,
}

#[derive(Clone)]
pub struct DeadlineLayer(Settings);

impl DeadlineLayer {
    pub fn new(settings: Settings) -> Self {
        DeadlineLayer(settings)
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, settings: self.0 }
    }
}

#[derive(Clone)]
pub struct Deadline<S> {
    inner: S,
    settings: Settings,
}

impl<S> Service<Call> for Deadline<S>
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

    fn call(&mut self, mut call: Call) -> Self::Future {
        let Settings { timeout, max_duration } = self.settings;
        for limit in [timeout, max_duration].into_iter().flatten() {
            call.patience = call.patience.min(limit);
        }
        let patience = call.patience;
        let trail = call.trail.clone();
        let under_way = self.inner.call(call);
        Box::pin(async move {
            let watch = Watch { entered: Instant::now(), patience, timeout, max_duration, trail };
            watch.over(under_way).await
        })
    }
}

/// One call's clocks.
struct Watch {
    entered: Instant,
    patience: Duration,
    timeout: Option<Duration>,
    max_duration: Option<Duration>,
    trail: Arc<Trail>,
}

impl Watch {
    async fn over(&self, under_way: impl Future<Output = Outcome>) -> Outcome {
        let Some(first_look) = self.checked(self.entered)? else {
            return under_way.await;
        };
        let mut under_way = pin!(under_way);
        // One timer for both clocks. Life moves the deadline without touching it: it
        // fires where the deadline was, looks, and is set anew.
        let mut alarm = pin!(time::sleep_until(first_look));
        loop {
            tokio::select! {
                biased;
                outcome = &mut under_way => return outcome,
                () = &mut alarm => {}
            }
            match self.checked(Instant::now())? {
                Some(next_look) => alarm.as_mut().reset(next_look),
                None => return under_way.await,
            }
        }
    }

    /// The upstream learns why the call's future is dropped after a failure.
    fn checked(&self, now: Instant) -> Result<Option<Instant>, Failure> {
        self.look(now).inspect_err(|_| self.trail.time_out())
    }

    /// Fails if the call is late; else the earliest moment at which it could be, and
    /// `None` if that is never.
    fn look(&self, now: Instant) -> Result<Option<Instant>, Failure> {
        let life = self.trail.last_life();
        let capped_at = self.max_duration.and_then(|cap| self.entered.checked_add(cap));
        let silent_at = self.timeout.and_then(|timeout| match life {
            Some(life) => life.checked_add(timeout),
            // Waiting for an instance is the upstream's business, but not for ever.
            None => self.entered.checked_add(self.patience)?.checked_add(timeout),
        });
        let reached = |limit: Option<Instant>| limit.is_some_and(|at| at <= now);
        match (self.timeout, self.max_duration) {
            (Some(timeout), _) if reached(silent_at) => Err(match life {
                Some(_) => late("was silent for", timeout).outcome_unknown(),
                None => late("could not be sent within", now - self.entered),
            }),
            (_, Some(cap)) if reached(capped_at) => Err(match life {
                Some(_) => late("was not done within", cap).outcome_unknown(),
                None => late("could not be sent within", cap),
            }),
            (timeout, _) => {
                // If its bytes leave right now, this is when its silence is over.
                let if_sent_now = timeout.filter(|_| life.is_none()).and_then(|timeout| now.checked_add(timeout));
                Ok([silent_at, capped_at, if_sent_now].into_iter().flatten().min())
            }
        }
    }
}

fn late(what: &str, limit: Duration) -> Failure {
    Failure::new(Class::Timeout, format!("it {what} {}", text::duration(limit)))
}
