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

/// What was found, and is ended, unless it cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leftovers(Vec<Found>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    pid: u32,
    /// As `moment::began` says it.
    began: Option<String>,
    /// For people.
    command: String,
    is_left: bool,
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
    let mut found = Leftovers::default();
    found.add(&find(), veil);
    if found.is_none() {
        return found;
    }
    // What cannot be signalled is not waited for.
    let within_reach = || find().into_iter().filter(|pid| mark::may_signal(*pid)).collect::<Vec<_>>();
    within_reach().into_iter().for_each(|pid| mark::signal(pid, Signal::TERM));
    let until = Instant::now() + GRACE;
    while !within_reach().is_empty() && Instant::now() < until {
        thread::sleep(LOOK_EVERY);
    }
    mark::end_all(within_reach);
    found.settle();
    found
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
        self.0.is_empty()
    }

    /// Notes down those that are not known yet, as long as they are there to be looked at.
    pub(super) fn add(&mut self, pids: &[u32], veil: &Veil) {
        for pid in pids {
            let began = moment::began(*pid);
            if began.is_none() || self.0.iter().any(|known| known.pid == *pid && known.began == began) {
                continue;
            }
            // Half a secret would not be recognised as one. More than are named are counted.
            let command = match self.0.len() < NAMED_MAX {
                true => redact::text(&text::quote(&veil.hide(&mark::command_line(*pid)), COMMAND_MAX_CHARS)),
                false => String::new(),
            };
            self.0.push(Found { pid: *pid, began, command, is_left: false });
        }
    }

    /// Finds out which of them could not be ended.
    pub(super) fn settle(&mut self) {
        for found in &mut self.0 {
            found.is_left = moment::began(found.pid) == found.began;
        }
    }

    /// For people; `whose` is what has left them running.
    pub(super) fn sentence(&self, whose: &str) -> String {
        let (left, ended): (Vec<&Found>, Vec<&Found>) = self.0.iter().partition(|found| found.is_left);
        let cannot = || format!("{}, which cannot be ended from here: it may be another user's", list(&left));
        match (&ended[..], &left[..]) {
            ([], _) => format!("{whose} has left running {}", cannot()),
            (_, []) => format!("ended what {whose} had left running: {}", list(&ended)),
            _ => format!("ended what {whose} had left running: {}; still there is {}", list(&ended), cannot()),
        }
    }

    /// For the record.
    pub(super) fn as_json(&self) -> Value {
        let named = self.0.iter().take(NAMED_MAX).map(|found| match found.is_left {
            true => json!({ "pid": found.pid, "command": found.command, "not_ended": true }),
            false => json!({ "pid": found.pid, "command": found.command }),
        });
        let mut json = json!({ "count": self.0.len(), "processes": named.collect::<Vec<_>>() });
        let left = self.0.iter().filter(|found| found.is_left).count();
        if left > 0 {
            json["not_ended"] = left.into();
        }
        json
    }
}

fn list(found: &[&Found]) -> String {
    let named = found.iter().filter(|found| !found.command.is_empty());
    let named: Vec<String> = named.map(|Found { pid, command, .. }| format!("{pid} ({command})")).collect();
    match found.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
