//! What an earlier life of a service left running, where its `seawall run` was killed
//! itself: found by the mark that all of that life carries, and ended before the next one
//! begins. Another service carries another mark.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    child, errand,
    marker::{Life, Marker},
    moment,
};
use crate::{
    process::{mark, veil::Veil},
    store::redact,
    text,
};

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// More are counted, and not named.
const NAMED_MAX: usize = 10;
const COMMAND_MAX_CHARS: usize = 100;

/// What was found, and is ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leftovers {
    count: usize,
    /// Pid and command line.
    named: Vec<(u32, String)>,
}

/// Finds and ends what the life in `marker` left. `boot` is the present one.
pub(super) fn end(marker: &Marker, boot: Option<&str>, veil: &Veil) -> Leftovers {
    let life = marker.life.as_ref();
    // Ended properly, it has waited for its errands, and ended what they left.
    let was_cut_short = life.is_some_and(|life| life.end.is_none());
    let find = || {
        let mut pids = marker.mark.as_deref().map(child::marked).unwrap_or_default();
        if was_cut_short {
            pids.extend(marker.mark.as_deref().map(errand::left_by).unwrap_or_default());
        }
        pids.extend(life.and_then(|life| main_process(life, boot)).filter(|pid| !pids.contains(pid)));
        pids
    };
    let pids = find();
    if pids.is_empty() {
        return Leftovers::default();
    }
    let name = |pid: &u32| (*pid, command_of(*pid, veil));
    let found = Leftovers { count: pids.len(), named: pids.iter().take(NAMED_MAX).map(name).collect() };
    pids.into_iter().for_each(|pid| mark::signal(pid, Signal::TERM));
    let until = Instant::now() + GRACE;
    while !find().is_empty() && Instant::now() < until {
        thread::sleep(LOOK_EVERY);
    }
    mark::end_all(find);
    found
}

/// What it is, for people: half a secret would not be recognised as one.
fn command_of(pid: u32, veil: &Veil) -> String {
    redact::text(&text::quote(&veil.hide(&mark::command_line(pid)), COMMAND_MAX_CHARS))
}

/// The process that was the service, if it is there: a pid alone is used again, by another
/// process or after another boot.
fn main_process(life: &Life, boot: Option<&str>) -> Option<u32> {
    let is_there = life.pid != 0
        && life.boot_id.as_deref() == boot
        && life.began.is_some()
        && moment::began(life.pid) == life.began;
    is_there.then_some(life.pid)
}

impl Leftovers {
    pub(super) fn is_none(&self) -> bool {
        self.count == 0
    }

    /// For people.
    pub(super) fn sentence(&self, service: &str) -> String {
        let named: Vec<String> = self.named.iter().map(|(pid, command)| format!("{pid} ({command})")).collect();
        let more = match self.count - self.named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("ended what an earlier run of {service} had left running: {}{more}", named.join(", "))
    }

    /// For the record.
    pub(super) fn as_json(&self) -> Value {
        let named = self.named.iter().map(|(pid, command)| json!({ "pid": pid, "command": command }));
        json!({ "count": self.count, "processes": named.collect::<Vec<_>>() })
    }
}
