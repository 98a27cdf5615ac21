//! When a scheduled service runs, and whether a run is due: pure functions of a
//! schedule, a zone, the time, and the stamp of the last success.
//!
//! The supervisor only wakes the service. launchd makes up for a run that fell into
//! sleep, not for one while the machine was off, and says neither to the process; so
//! whoever is started asks here. A slot is a date and a time on the wall, and is run
//! once, however often the clock passes it.

use std::time::Duration;

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, DateTime, Time, Weekday},
    tz::{AmbiguousOffset, TimeZone},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    Every(Duration),
    /// At a time of the machine's own clock.
    Daily(Time),
    Weekly(Weekday, Time),
}

/// What becomes of a run that was missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// It is made up for, once, at the next start.
    #[default]
    Run,
    /// It is left out: the next one is the next slot.
    Skip,
}

/// What a start finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Its time has come; `missed` slots before this one were not run.
    Now { slot: Option<Timestamp>, missed: u32 },
    /// It missed its time, and now is as good as then.
    Late { slot: Timestamp, missed: u32 },
    /// It missed its time, and is not to be made up for.
    Skipped { slot: Timestamp, missed: u32 },
    /// It has run for its slot already.
    NotBefore(Timestamp),
}

/// A start within this of its slot is on time: supervisors spread starts, and a
/// machine that wakes up is busy.
const ON_TIME: Duration = Duration::from_secs(15 * 60);
/// A supervisor counts a pause from start to start: when the run before was slow to come up, or
/// woke the machine, the next start is early by as much. The shortest pause is a minute.
const EARLY: Duration = Duration::from_secs(30);
/// More missed runs than this are not counted one by one.
const MISSED_MAX: u32 = 400;

/// What is to be done by a process that is started `now`, when the last run that
/// succeeded began at `last_success`. One that never did has nothing to make up for from
/// before it was first `known`.
pub fn due(
    schedule: Schedule,
    zone: &TimeZone,
    now: Timestamp,
    last_success: Option<Timestamp>,
    known: Option<Timestamp>,
    missed: Missed,
) -> Due {
    let Schedule::Every(pause) = schedule else {
        return due_at_slot(schedule, zone, now, last_success, known, missed);
    };
    match counted(pause, now, last_success) {
        Some(next) if now.checked_add(EARLY).is_ok_and(|latest| latest < next) => Due::NotBefore(next),
        _ => Due::Now { slot: None, missed: 0 },
    }
}

/// When the pause after a run is over. A clock that was set back must not make it longer by as
/// much as it was set back.
fn counted(pause: Duration, now: Timestamp, last_start: Option<Timestamp>) -> Option<Timestamp> {
    last_start.filter(|last| *last <= now)?.checked_add(pause).ok()
}

fn due_at_slot(
    schedule: Schedule,
    zone: &TimeZone,
    now: Timestamp,
    last_success: Option<Timestamp>,
    known: Option<Timestamp>,
    policy: Missed,
) -> Due {
    let Some(slot) = slot_before(schedule, zone, now) else { return Due::Now { slot: None, missed: 0 } };
    let is_late = slot.checked_add(ON_TIME).is_ok_and(|end| end < now);
    let next = || Due::NotBefore(slot_after(schedule, zone, now).unwrap_or(slot));
    // A stamp from the future is of a clock that was wrong.
    let not_after_now = |time: &Timestamp| *time <= now;
    let since = match (last_success.filter(not_after_now), known.filter(not_after_now)) {
        (Some(last), _) if last >= slot => return next(),
        (Some(last), _) => last,
        (None, Some(known)) if known < slot => known,
        // Known since this very start, perhaps: its first slot has come, or has not yet.
        (None, _) if is_late => return next(),
        (None, _) => return Due::Now { slot: Some(slot), missed: 0 },
    };
    let missed = missed_slots(schedule, zone, slot, since);
    match (is_late, policy) {
        (false, _) => Due::Now { slot: Some(slot), missed },
        (true, Missed::Run) => Due::Late { slot, missed: missed + 1 },
        (true, Missed::Skip) => Due::Skipped { slot, missed: missed + 1 },
    }
}

/// Whether a whole period, from one slot to the next, has gone by since `last_success`,
/// so that somebody ought to hear of it.
pub fn is_overdue(schedule: Schedule, zone: &TimeZone, now: Timestamp, last_success: Timestamp) -> bool {
    match schedule {
        // The time of one run, and that much for its own length and for being late.
        Schedule::Every(pause) => now.checked_sub(pause * 2).is_ok_and(|latest| last_success < latest),
        _ => {
            let last = slot_before(schedule, zone, now);
            let before = last.and_then(|last| slot_before(schedule, zone, last.checked_sub(1.second()).ok()?));
            before.is_some_and(|before| last_success < before)
        }
    }
}

/// The slots after `since` and before `slot`.
fn missed_slots(schedule: Schedule, zone: &TimeZone, slot: Timestamp, since: Timestamp) -> u32 {
    let mut missed = 0;
    let mut at = slot;
    while missed < MISSED_MAX {
        let Some(before) = at.checked_sub(1.second()).ok().and_then(|t| slot_before(schedule, zone, t)) else { break };
        if before <= since {
            break;
        }
        missed += 1;
        at = before;
    }
    missed
}

/// The last slot at or before `now`.
pub fn slot_before(schedule: Schedule, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let today = zone.to_datetime(now).date();
    // Tomorrow too: where a day is skipped altogether, its slot lies on the next one.
    (-1..9).find_map(|days| slot_on(schedule, zone, today.checked_sub(days.days()).ok()?).filter(|slot| *slot <= now))
}

/// The first slot after `now`.
pub fn slot_after(schedule: Schedule, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let today = zone.to_datetime(now).date();
    (-1..9).find_map(|days| slot_on(schedule, zone, today.checked_add(days.days()).ok()?).filter(|slot| *slot > now))
}

/// When it runs next, of one whose last run began at `last_start`. A supervisor counts a
/// pause from a start that it may know better: then, at the latest.
pub fn next_run(
    schedule: Schedule,
    zone: &TimeZone,
    now: Timestamp,
    last_start: Option<Timestamp>,
) -> Option<Timestamp> {
    let Schedule::Every(pause) = schedule else { return slot_after(schedule, zone, now) };
    counted(pause, now, last_start).filter(|next| *next > now).or_else(|| now.checked_add(pause).ok())
}

fn slot_on(schedule: Schedule, zone: &TimeZone, date: Date) -> Option<Timestamp> {
    match schedule {
        Schedule::Daily(time) => instant(zone, date.to_datetime(time)),
        Schedule::Weekly(day, time) => (date.weekday() == day).then(|| instant(zone, date.to_datetime(time))).flatten(),
        Schedule::Every(_) => None,
    }
}

/// A time that comes twice counts when it first comes; one that does not come at all
/// is the moment at which the clock leaps over it.
fn instant(zone: &TimeZone, at: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(at);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => {
            let before = ambiguous.earlier().ok()?.checked_sub(1.day().days(0).hours(24)).ok()?;
            let late = ambiguous.later().ok()?;
            zone.following(before).map(|leap| leap.timestamp()).find(|leap| *leap <= late).or(Some(late))
        }
        _ => ambiguous.earlier().ok(),
    }
}

#[cfg(test)]
mod tests;
