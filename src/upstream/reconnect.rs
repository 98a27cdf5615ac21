//! The task that owns one lane: starts an instance, notices its end, starts the next.
//!
//! Single flight: nobody else ever starts anything. A ready instance that had proven
//! itself is replaced at once; each start that fails, and each instance that dies
//! unproven, climbs one rung of the ladder. It never gives up; what will not heal by
//! itself is parked and tried again on use.

use std::{
    future::pending,
    ops::ControlFlow,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    attend::Care,
    instance::Instance,
    ladder::Ladder,
    lane::{Lane, Role, STOP_GRACE, State},
    launch::{self, Fresh, Until},
    orders::Order,
    renewal::Renewal,
};
use crate::{
    link::{Gone, StartError},
    store::{EventType, redact},
};

/// A process that answers nothing any more is not asked politely for long.
const HUNG_GRACE: Duration = Duration::from_secs(2);
/// The lists of a server without a lasting instance are read at most so often.
const LISTING_INTERVAL: Duration = Duration::from_secs(5);
/// After a bug of ours in this task.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// Runs until the lane is stopped, or has no more use.
pub(super) async fn run(lane: Arc<Lane>) {
    loop {
        let mut task = Reconnect::of(&lane);
        let lived = tokio::select! {
            biased;
            () = lane.stop.cancelled() => Ok(()),
            lived = AssertUnwindSafe(task.live()).catch_unwind() => lived,
        };
        drop(task);
        lane.current.store(None);
        if lived.is_ok() {
            break;
        }
        // Nobody else would start this server ever again.
        tracing::error!(server = %lane.common.name, "its task panicked and is started anew");
        lane.links.close_all_but(None, STOP_GRACE).await;
        let _ = lane.stop.run_until_cancelled(sleep(PANIC_PAUSE)).await;
    }
    lane.links.close_all_but(None, STOP_GRACE).await;
    lane.set(State::Stopped);
}

pub(super) struct Reconnect {
    pub(super) lane: Arc<Lane>,
    pub(super) ladder: Ladder,
    pub(super) renewal: Renewal,
    /// Why it was parked last, until it is ready again: said once.
    parked: Option<String>,
}

/// Why an instance serves no more.
pub(super) enum End {
    Died(Gone),
    Hung,
    Parked(String),
    /// Nobody needs it.
    Idle,
    /// Somebody wants it replaced, and it must end before another can start.
    Restart,
}

/// Whether the lane goes on.
type Flow = ControlFlow<()>;

impl Reconnect {
    fn of(lane: &Arc<Lane>) -> Self {
        Reconnect { lane: lane.clone(), ladder: Ladder::default(), renewal: Renewal::default(), parked: None }
    }

    async fn live(&mut self) {
        loop {
            let flow = match self.begin().await {
                Ok(care) => {
                    let (end, instance) = self.attend(care).await;
                    self.lane.current.store(None);
                    // Whoever still holds it looks for another one.
                    instance.inflight.seal();
                    self.bury(end, &instance).await
                }
                Err(StartError::Permanent(reason)) => self.park(reason).await,
                Err(StartError::Refused(reason)) => {
                    let metadata = serde_json::json!({ "reason": reason });
                    self.lane.common.event(EventType::SandboxRefused, metadata);
                    self.park(reason).await
                }
                Err(StartError::Transient(reason)) => self.mourn(Gone::because(reason), None, STOP_GRACE).await,
            };
            if flow.is_break() {
                return;
            }
        }
    }

    /// Starts an instance and makes it the current one.
    async fn begin(&mut self) -> Result<Care, StartError> {
        let lane = self.lane.clone();
        lane.orders.start_begins();
        lane.set(State::Spawning);
        let fresh = match self.renewal.take_launch() {
            // It was to replace the one that has ended meanwhile.
            Some(launch) => launch.await?,
            None => {
                if let Some(preparation) = lane.common.connector.preparation() {
                    lane.set(State::Installing);
                    preparation.await?;
                    lane.set(State::Spawning);
                }
                let connected = launch::connect(&lane).await?;
                lane.set(State::Handshaking);
                launch::greet(&lane, connected, Until::Known).await?
            }
        };
        self.parked = None;
        Ok(self.serve_with(fresh))
    }

    /// Puts an instance in service.
    pub(super) fn serve_with(&mut self, fresh: Fresh) -> Care {
        let Fresh { instance, offer, took } = fresh;
        let is_listed = offer.is_some();
        if let Some(offer) = offer {
            self.lane.common.learn(offer);
        }
        self.lane.install(&instance);
        self.tell_ready(&instance, took);
        Care::of(&self.lane, instance, is_listed)
    }

    async fn bury(&mut self, end: End, instance: &Arc<Instance>) -> Flow {
        match end {
            End::Died(gone) => self.mourn(gone, Some(instance), STOP_GRACE).await,
            End::Hung => {
                instance.condemn("it hung: calls timed out, and a ping got no answer", false);
                self.mourn(Gone::because("hung"), Some(instance), HUNG_GRACE).await
            }
            End::Parked(reason) => self.park(reason).await,
            End::Idle => self.rest(instance).await,
            End::Restart => {
                instance.condemn("it was restarted", true);
                self.ladder.reset();
                self.lane.set(State::Spawning);
                self.lane.links.close_all_but(self.renewal.draining(), STOP_GRACE).await;
                Flow::Continue(())
            }
        }
    }

    /// An instance has died, or could not be started: wait as the ladder says.
    async fn mourn(&mut self, gone: Gone, instance: Option<&Arc<Instance>>, grace: Duration) -> Flow {
        let lane = self.lane.clone();
        if let Some(instance) = instance {
            lane.common.deaths().note(instance.number);
        }
        let is_proven = instance.is_some_and(|instance| instance.is_proven());
        let delay = if is_proven {
            self.ladder.reset();
            Duration::ZERO
        } else {
            let delay = self.ladder.climb();
            // Its replacement is under way: nothing is gained by waiting.
            if self.renewal.is_launching() { Duration::ZERO } else { delay }
        };
        lane.common.restarts.fetch_add(1, Ordering::Relaxed);
        self.tell_down(&gone, instance.map(|instance| &**instance), delay);
        let until = Instant::now() + delay;
        let is_pause = !delay.is_zero();
        lane.set(if is_pause { State::Backoff { until, reason: gone.reason } } else { State::Spawning });
        match instance {
            Some(instance) => lane.links.close(instance.number, grace).await,
            None => lane.links.close_all_but(self.renewal.draining(), grace).await,
        }
        if is_pause { self.wait(Some(until)).await } else { Flow::Continue(()) }
    }

    /// The cause will not heal by itself: wait until somebody asks.
    async fn park(&mut self, reason: String) -> Flow {
        let lane = self.lane.clone();
        if self.parked.as_ref() != Some(&reason) {
            tracing::warn!(server = %lane.common.name, "parked: {reason}");
            lane.common.event(EventType::ServerParked, serde_json::json!({ "reason": reason }));
            self.parked = Some(reason.clone());
        }
        lane.common.restarts.fetch_add(1, Ordering::Relaxed);
        lane.set(State::Parked { since: Instant::now(), reason });
        drop(self.renewal.take_launch());
        lane.links.close_all_but(self.renewal.draining(), STOP_GRACE).await;
        self.wait(None).await
    }

    /// Nobody needs it: wait until somebody does.
    async fn rest(&mut self, instance: &Arc<Instance>) -> Flow {
        let lane = self.lane.clone();
        // Its session has it to itself: the next call makes a lane of its own.
        if matches!(lane.role, Role::Session { .. }) {
            return Flow::Break(());
        }
        tracing::debug!(server = %lane.common.name, instance = instance.number, "idle, and stopped until it is wanted");
        instance.condemn("it was stopped because nobody used it", true);
        lane.set(State::Idle);
        // Whatever it was to be replaced for, there is nothing to replace.
        drop(self.renewal.take_launch());
        lane.links.close_all_but(self.renewal.draining(), STOP_GRACE).await;
        let flow = self.wait(None).await;
        if matches!(lane.role, Role::Listing) {
            sleep_until(instance.ready_since + LISTING_INTERVAL).await;
        }
        flow
    }

    /// Waits for the time, or for an order that makes waiting pointless.
    async fn wait(&mut self, until: Option<Instant>) -> Flow {
        loop {
            let time = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = time => return Flow::Continue(()),
                () = self.lane.abandoned() => return Flow::Break(()),
                order = self.lane.orders.next() => match order {
                    Order::Restart => {
                        self.ladder.reset();
                        return Flow::Continue(());
                    }
                    Order::Wake if until.is_none() => return Flow::Continue(()),
                    _ => {}
                },
            }
        }
    }

    fn tell_ready(&self, instance: &Instance, took: Duration) {
        let common = &self.lane.common;
        let pid = instance.link.vitals().pid;
        tracing::info!(server = %common.name, instance = instance.number, pid, "ready after {}", crate::text::duration(took));
        common.event(
            EventType::ServerReady,
            serde_json::json!({
                "instance": instance.number,
                "pid": pid,
                "protocol": instance.hello.text("protocolVersion"),
                "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            }),
        );
    }

    fn tell_down(&self, gone: &Gone, instance: Option<&Instance>, delay: Duration) {
        let common = &self.lane.common;
        let reason = crate::text::quote(&gone.reason, 300);
        let attempt = self.ladder.rung();
        tracing::warn!(server = %common.name, attempt, "down: {reason}; next start in {}", crate::text::duration(delay));
        common.event(
            EventType::ServerDown,
            serde_json::json!({
                "instance": instance.map(|instance| instance.number),
                "reason": reason,
                "exit_status": gone.exit_status,
                "stderr_tail": gone.stderr_tail.as_deref().map(redact::tail),
                "restart_attempt": attempt,
                "retry_in_ms": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            }),
        );
    }
}

impl Lane {
    /// Resolves when a lane of one session has not been used for long.
    async fn abandoned(&self) {
        let Some(idle) = self.idle_stop().filter(|_| matches!(self.role, Role::Session { .. })) else {
            return pending().await;
        };
        loop {
            let due = self.last_use() + idle;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}
