//! Replacing a healthy instance: the new one is up and listed while the old one
//! serves; then calls go to the new one, and the old one ends when its calls have.

use std::{
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    instance::Instance,
    ladder::Ladder,
    lane::{Lane, STOP_GRACE},
    launch::{self, Fresh, Launch},
};
use crate::{link::StartError, store::EventType};

/// How often the memory of a server is looked at, where it has a limit.
pub(super) const MEMORY_INTERVAL: Duration = Duration::from_secs(5);
/// One that replaced a server that was too large gets so long: a limit below what it
/// needs from the start must not make it be replaced all the time.
pub(super) const MEMORY_RESPITE: Duration = Duration::from_secs(60);

/// Why an instance is replaced although it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Calls,
    Age,
    Memory,
    /// Somebody wants it.
    Asked,
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Cause::Calls => "calls",
            Cause::Age => "age",
            Cause::Memory => "memory",
            Cause::Asked => "asked",
        }
    }
}

#[derive(Default)]
pub(super) struct Renewal {
    cause: Option<Cause>,
    launch: Option<Launch>,
    /// Replacements that could not be started, in a row.
    ladder: Ladder,
    not_before: Option<Instant>,
    draining: Option<(u64, JoinHandle<()>)>,
}

impl Renewal {
    pub(super) fn is_wanted(&self) -> bool {
        self.cause.is_some()
    }

    pub(super) fn is_asked_for(&self) -> bool {
        self.cause == Some(Cause::Asked)
    }

    pub(super) fn is_launching(&self) -> bool {
        self.launch.is_some()
    }

    /// The first cause stays, but for that of somebody who waits for it.
    pub(super) fn want(&mut self, cause: Cause) {
        if self.cause.is_none() || cause == Cause::Asked {
            self.cause = Some(cause);
            self.not_before = self.not_before.filter(|_| cause != Cause::Asked);
        }
    }

    /// The instance that is ending at its own pace.
    pub(super) fn draining(&self) -> Option<u64> {
        self.draining.as_ref().filter(|(_, drain)| !drain.is_finished()).map(|(number, _)| *number)
    }

    /// The start that is under way, if one is; nothing is wanted any more.
    pub(super) fn take_launch(&mut self) -> Option<Launch> {
        self.cause = None;
        self.not_before = None;
        self.launch.take()
    }

    /// Starts what is wanted when the time has come. Cancel-safe.
    pub(super) async fn fresh(&mut self, lane: &Arc<Lane>) -> Result<Fresh, StartError> {
        if self.cause.is_none() {
            return pending().await;
        }
        if self.launch.is_none() {
            // One server is one process, or two for a moment: never three.
            if let Some((_, drain)) = &mut self.draining {
                let _ = drain.await;
                self.draining = None;
            }
            if let Some(time) = self.not_before {
                sleep_until(time).await;
            }
        }
        let launch = self.launch.get_or_insert_with(|| launch::replacement(lane.clone()));
        let fresh = launch.await;
        self.launch = None;
        fresh
    }

    /// The old one stays; when the next try is.
    pub(super) fn failed(&mut self) -> Duration {
        let delay = self.ladder.climb();
        self.not_before = Some(Instant::now() + delay);
        delay
    }

    /// Calls go to `fresh` already: the old one ends when its calls have ended.
    pub(super) fn succeeded(&mut self, lane: &Arc<Lane>, old: Arc<Instance>, fresh: &Instance) -> Cause {
        let cause = self.cause.take().unwrap_or(Cause::Asked);
        self.ladder.reset();
        self.not_before = None;
        old.inflight.seal();
        lane.common.recycled.fetch_add(1, Ordering::Relaxed);
        tell(lane, &old, fresh, cause);
        let number = old.number;
        self.draining = Some((number, lane.common.tasks.spawn(drain(lane.clone(), old))));
        cause
    }
}

async fn drain(lane: Arc<Lane>, old: Arc<Instance>) {
    let bound = lane.common.lifecycle.borrow().drain;
    tokio::select! {
        () = lane.stop.cancelled() => {}
        _ = timeout(bound, old.inflight.idle()) => {}
    }
    old.condemn("it was replaced by a fresh instance and did not end in time", true);
    lane.links.close(old.number, STOP_GRACE).await;
}

fn tell(lane: &Lane, old: &Instance, fresh: &Instance, cause: Cause) {
    let calls = old.inflight.admitted();
    let cause = cause.name();
    tracing::info!(server = %lane.common.name, cause, calls, "recycled: instance {} replaces {}", fresh.number, old.number);
    lane.common.event(
        EventType::ServerRecycled,
        serde_json::json!({
            "cause": cause,
            "old_instance": old.number,
            "instance": fresh.number,
            "calls": calls,
            "age_ms": u64::try_from(old.ready_since.elapsed().as_millis()).unwrap_or(u64::MAX),
        }),
    );
}

/// How many calls an instance may take: what is configured, give or take a tenth.
pub(super) fn calls_limit(calls: Option<u32>) -> u64 {
    calls.map_or(u64::MAX, |calls| {
        let calls = u64::from(calls);
        let spread = calls / 10;
        rand::random_range(calls - spread..=calls + spread).max(1)
    })
}

/// Resolves when the instance is as old as it may get.
pub(super) async fn too_old(instance: &Instance, age: Option<Duration>) {
    match age.and_then(|age| instance.ready_since.checked_add(age)) {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Resolves when the instance has taken more memory than it may.
pub(super) async fn too_large(instance: Arc<Instance>, limit_bytes: u64, first_look: Duration) {
    let mut pause = first_look;
    loop {
        sleep(std::mem::replace(&mut pause, MEMORY_INTERVAL)).await;
        let link = instance.link.clone();
        // It reads files of the system, or runs `ps`.
        let vitals = tokio::task::spawn_blocking(move || link.vitals()).await;
        if vitals.is_ok_and(|vitals| vitals.memory_bytes.is_some_and(|bytes| bytes > limit_bytes)) {
            return;
        }
    }
}
