//! A scheduled task that did not succeed in its period: told once, and once that it is
//! well again.
//!
//! Whoever fails says so in its own `seawall run`; one that is never started at all is
//! missed by the `seawall run` of the gateway, which is always there.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::{
    marker,
    record::Recorder,
    schedule::{self, Schedule},
};
use crate::{
    store::{EventRecord, EventType},
    text,
};

/// What an alert of this kind has in its metadata.
pub(super) const REASON: &str = "overdue";

/// A task that is looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overseen {
    pub name: String,
    pub schedule: Schedule,
}

/// Since when each task was seen to be overdue, by a clock that stands still in sleep: a
/// machine that wakes up, or has just started, makes up for its tasks first.
#[derive(Debug)]
pub(super) struct Grace {
    time: Duration,
    seen: BTreeMap<String, Instant>,
}

impl Grace {
    pub(super) fn of(time: Duration) -> Self {
        Grace { time, seen: BTreeMap::new() }
    }

    fn is_over(&mut self, name: &str, is_overdue: bool) -> bool {
        if !is_overdue {
            self.seen.remove(name);
            return true;
        }
        self.seen.entry(name.to_owned()).or_insert_with(Instant::now).elapsed() >= self.time
    }
}

/// Tells whether it is overdue, if that is news. One that has never succeeded is measured
/// from when it was first known, which is `known_since_ms` where it does not know itself.
pub(super) fn look(
    recorder: &Recorder<'_>,
    state: &Path,
    task: &Overseen,
    known_since_ms: Option<i64>,
    grace: &mut Grace,
) {
    // Two that look at the same moment must not both be the first.
    let Ok(_turn) = marker::turn_to_tell(state, &task.name) else { return };
    let marker = marker::read(state, &task.name);
    let since = marker.settled_ms.or(marker.known_since_ms).or(known_since_ms);
    let Some(since) = since.and_then(|ms| Timestamp::from_millisecond(ms).ok()) else { return };
    let now = Timestamp::now();
    let is_overdue = schedule::is_overdue(task.schedule, &TimeZone::system(), now, since);
    if !grace.is_over(&task.name, is_overdue) {
        return;
    }
    // Nobody knows whether it was told: rather not at all than every time.
    let Ok(events) = recorder.history_of(&task.name) else { return };
    let name = &task.name;
    match (is_overdue, was_told(&events)) {
        (true, false) => {
            let ago = now.duration_since(since).unsigned_abs();
            let (said, never) = match marker.settled_ms {
                Some(_) => (format!("{name} has not succeeded for {}", text::duration(ago)), false),
                None => (format!("{name} has never succeeded, and is known for {}", text::duration(ago)), true),
            };
            let metadata = json!({ "reason": REASON, "since": since.as_millisecond(), "never": never });
            recorder.tell_of(name, EventType::Alert, metadata, format!("{name} is overdue"), said);
        }
        (false, true) => {
            let title = format!("{name} is well again");
            let metadata = json!({ "of": REASON });
            recorder.tell_of(name, EventType::AlertOver, metadata, title, format!("{name} has succeeded again"));
        }
        _ => {}
    }
}

fn was_told(events: &[EventRecord]) -> bool {
    let word = |event: &EventRecord| -> Option<bool> {
        let metadata: Value = serde_json::from_str(&event.metadata).unwrap_or_default();
        match event.event_type.as_str() {
            "alert" if metadata["reason"] == REASON => Some(true),
            "alert_over" if metadata["of"] == REASON => Some(false),
            _ => None,
        }
    };
    events.iter().rev().find_map(word).unwrap_or(false)
}
