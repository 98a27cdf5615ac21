//! The breaker as a pure state machine: no clock, no lock, no await. Time, and
//! how each call ended, are told to it.
//!
//! `Closed` lets calls pass and counts failures in a row. At the limit it trips to
//! `Open` and refuses until a moment. The first call after that moment is the probe
//! of `HalfOpen`: its success closes, its failure trips again, and when it ends
//! without a verdict the next call is the probe. Every transition begins a new
//! generation, and a call's end counts in the generation of its beginning only.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use super::Settings;
use crate::failure::Verdict;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// How long to stay away while a probe is out: it ends when its tool answers, which
/// nobody knows, and asking again costs next to nothing.
const PROBE_RETRY: Duration = Duration::from_secs(5);
/// No breaker stays open longer, whatever `open_max` says: `Instant` must not overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

pub(super) struct Machine {
    settings: Settings,
    /// In 0..1: how much of the greatest lengthening a trip gets.
    jitter: fn() -> f64,
    state: State,
    generation: u64,
    /// Failures since the last success, across trips.
    failures: u32,
    last_cause: Option<String>,
    /// Trips without a lasting recovery between them.
    trips: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Closed { since: Instant },
    Open { until: Instant },
    HalfOpen { probing: bool },
}

/// The right to one call. It is used up by [`Machine::settle`], so no call's end
/// counts twice.
#[derive(Debug)]
pub(super) struct Ticket {
    generation: u64,
}

/// Why a call may not pass, and when to come back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) retry_after: Duration,
    probing: bool,
    failures: u32,
    last_cause: String,
}

/// What is worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    Opened { cause: String, failures: u32, open_for: Duration, generation: u64 },
    Closed { cause: &'static str, generation: u64 },
}

impl Machine {
    pub(super) fn new(settings: Settings, now: Instant, jitter: fn() -> f64) -> Self {
        Machine {
            settings,
            jitter,
            state: State::Closed { since: now },
            generation: 0,
            failures: 0,
            last_cause: None,
            trips: 0,
        }
    }

    pub(super) fn admit(&mut self, now: Instant) -> Result<Ticket, Refusal> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { until } if now < until => return Err(self.refusal(until - now, false)),
            State::HalfOpen { probing: true } => return Err(self.refusal(PROBE_RETRY, true)),
            State::Open { .. } | State::HalfOpen { probing: false } => self.state = State::HalfOpen { probing: true },
        }
        Ok(Ticket { generation: self.generation })
    }

    /// A call ended as `verdict`. `cause` is asked for failures only.
    pub(super) fn settle(
        &mut self,
        ticket: Ticket,
        now: Instant,
        verdict: Verdict,
        cause: impl FnOnce() -> String,
    ) -> Option<Transition> {
        if ticket.generation != self.generation {
            return None;
        }
        match (verdict, self.state) {
            (Verdict::Neutral, State::HalfOpen { .. }) => {
                self.state = State::HalfOpen { probing: false };
                None
            }
            (Verdict::Success, State::HalfOpen { .. }) => Some(self.close(now, "the probe succeeded")),
            (Verdict::Success, State::Closed { since }) => {
                self.succeeded(now.saturating_duration_since(since));
                None
            }
            (Verdict::Failure, State::HalfOpen { .. }) => {
                self.failed(cause());
                Some(self.trip(now))
            }
            (Verdict::Failure, State::Closed { .. }) => {
                self.failed(cause());
                (self.failures >= self.settings.failures.max(1)).then(|| self.trip(now))
            }
            // Nobody is admitted in a generation that is open.
            (Verdict::Neutral, State::Closed { .. }) | (_, State::Open { .. }) => None,
        }
    }

    /// Closed as at the beginning; calls under way no longer count.
    pub(super) fn reset(&mut self, now: Instant) -> Option<Transition> {
        let was_closed = matches!(self.state, State::Closed { .. });
        self.trips = 0;
        let closed = self.close(now, "it was reset by hand");
        (!was_closed).then_some(closed)
    }

    /// An open breaker whose time is over is half open, though nobody has come yet.
    pub(super) fn state(&self, now: Instant) -> State {
        match self.state {
            State::Open { until } if now >= until => State::HalfOpen { probing: false },
            state => state,
        }
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn last_cause(&self) -> Option<&str> {
        self.last_cause.as_deref()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    fn succeeded(&mut self, closed_for: Duration) {
        if self.failures > 0 {
            self.failures = 0;
            self.last_cause = None;
        }
        // One good answer right after the probe is no recovery yet.
        if self.trips > 0 && closed_for >= self.settings.open_for {
            self.trips = 0;
        }
    }

    fn failed(&mut self, cause: String) {
        self.failures = self.failures.saturating_add(1);
        self.last_cause = Some(cause);
    }

    fn trip(&mut self, now: Instant) -> Transition {
        let open_for = self.open_for();
        self.trips = self.trips.saturating_add(1);
        self.generation += 1;
        self.state = State::Open { until: now + open_for };
        Transition::Opened {
            cause: self.last_cause.clone().unwrap_or_default(),
            failures: self.failures,
            open_for,
            generation: self.generation,
        }
    }

    fn close(&mut self, now: Instant, cause: &'static str) -> Transition {
        self.generation += 1;
        self.failures = 0;
        self.last_cause = None;
        self.state = State::Closed { since: now };
        Transition::Closed { cause, generation: self.generation }
    }

    /// `open_for`, longer by `backoff_factor` with each trip, then by up to a tenth so
    /// that many breakers do not probe at once; never past `open_max`.
    fn open_for(&self) -> Duration {
        let Settings { open_for, backoff_factor, open_max, .. } = self.settings;
        let shortest = open_for.min(LONGEST);
        let longest = open_max.min(LONGEST).max(shortest);
        let trips = i32::try_from(self.trips).unwrap_or(i32::MAX);
        let grown_s = shortest.as_secs_f64() * backoff_factor.max(1.0).powi(trips);
        let jittered_s = grown_s * (1.0 + (self.jitter)().clamp(0.0, 1.0) / 10.0);
        Duration::try_from_secs_f64(jittered_s).unwrap_or(longest).clamp(shortest, longest)
    }

    fn refusal(&self, retry_after: Duration, probing: bool) -> Refusal {
        Refusal {
            retry_after,
            probing,
            failures: self.failures,
            last_cause: self.last_cause.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let probing = if self.probing { "one call is trying it after " } else { "" };
        let Refusal { failures, last_cause, .. } = self;
        match failures {
            1 => write!(f, "{probing}a failure: {last_cause}"),
            _ => write!(f, "{probing}{failures} failures in a row, the last: {last_cause}"),
        }
    }
}
