//! Tables: slots around daylight saving, and what a start finds.

use super::*;

fn berlin() -> TimeZone {
    // The rule itself: no test depends on the machine's zone files.
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn daily(hour: i8, minute: i8) -> Schedule {
    Schedule::Daily(Time::constant(hour, minute, 0, 0))
}

fn weekly(hour: i8) -> Schedule {
    Schedule::Weekly(Weekday::Sunday, Time::constant(hour, 0, 0, 0))
}

#[test]
fn slots_are_times_on_the_wall() {
    // 2026-03-29 02:00 CET leaps to 03:00 CEST; 2026-10-25 03:00 CEST falls to 02:00 CET.
    for (schedule, now, before, after) in [
        (daily(3, 30), "2026-01-10T12:00:00Z", "2026-01-10T02:30:00Z", "2026-01-11T02:30:00Z"),
        (daily(3, 30), "2026-01-10T02:30:00Z", "2026-01-10T02:30:00Z", "2026-01-11T02:30:00Z"),
        (daily(3, 30), "2026-07-10T01:29:59Z", "2026-07-09T01:30:00Z", "2026-07-10T01:30:00Z"),
        // A day of 23 hours, and one of 25.
        (daily(3, 30), "2026-03-29T12:00:00Z", "2026-03-29T01:30:00Z", "2026-03-30T01:30:00Z"),
        (daily(3, 30), "2026-10-25T12:00:00Z", "2026-10-25T02:30:00Z", "2026-10-26T02:30:00Z"),
        // 02:30 does not come: the leap itself at 01:00Z stands for it.
        (daily(2, 30), "2026-03-29T12:00:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"),
        (daily(2, 30), "2026-03-29T00:59:59Z", "2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z"),
        // 02:30 comes twice: the first time counts.
        (daily(2, 30), "2026-10-25T00:45:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        (daily(2, 30), "2026-10-25T01:45:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        (weekly(4), "2026-11-24T12:00:00Z", "2026-11-22T03:00:00Z", "2026-11-29T03:00:00Z"),
        (weekly(4), "2026-11-22T03:00:00Z", "2026-11-22T03:00:00Z", "2026-11-29T03:00:00Z"),
        (weekly(4), "2026-11-22T02:59:00Z", "2026-11-15T03:00:00Z", "2026-11-22T03:00:00Z"),
    ] {
        assert_eq!(slot_before(schedule, &berlin(), at(now)), Some(at(before)), "before {now}");
        assert_eq!(slot_after(schedule, &berlin(), at(now)), Some(at(after)), "after {now}");
    }
}

#[test]
fn a_start_finds_out_whether_it_is_due() {
    let slot = at("2026-11-24T02:30:00Z");
    let next = at("2026-11-25T02:30:00Z");
    for (now, last_success, expected) in [
        // On time, and nothing missed.
        ("2026-11-24T02:30:01Z", Some("2026-11-23T02:30:02Z"), Due::Now { slot: Some(slot), missed: 0 }),
        // A second start for the same slot: a login, a clock that was set back over it.
        ("2026-11-24T02:31:00Z", Some("2026-11-24T02:30:02Z"), Due::NotBefore(next)),
        ("2026-11-24T18:00:00Z", Some("2026-11-24T02:30:02Z"), Due::NotBefore(next)),
        // Asleep over the slot, woken in the morning.
        ("2026-11-24T08:00:00Z", Some("2026-11-23T02:30:02Z"), Due::Late { slot, missed: 1 }),
        // Three days off: one run, and three are said to be missed.
        ("2026-11-24T08:00:00Z", Some("2026-11-21T02:30:02Z"), Due::Late { slot, missed: 3 }),
        // Three days off, switched on just in time for the fourth.
        ("2026-11-24T02:35:00Z", Some("2026-11-20T02:30:02Z"), Due::Now { slot: Some(slot), missed: 3 }),
        // A stamp from the future is no reason to wait for it.
        ("2026-11-24T02:31:00Z", Some("2027-11-24T02:30:00Z"), Due::Now { slot: Some(slot), missed: 0 }),
    ] {
        let found = due(daily(3, 30), &berlin(), at(now), last_success.map(at), None, Missed::Run);
        assert_eq!(found, expected, "at {now} after {last_success:?}");
    }
    let last = Some(at("2026-11-23T02:30:02Z"));
    let skipped = due(daily(3, 30), &berlin(), at("2026-11-24T08:00:00Z"), last, None, Missed::Skip);
    assert_eq!(skipped, Due::Skipped { slot, missed: 1 });
}

#[test]
fn one_that_has_never_run_makes_up_for_nothing_from_before_it_was_known() {
    let (slot, next) = (at("2026-11-22T03:00:00Z"), at("2026-11-29T03:00:00Z"));
    for (now, known, expected) in [
        // Installed in the middle of the week, and started at once.
        ("2026-11-24T08:00:00Z", Some("2026-11-24T08:00:00Z"), Due::NotBefore(next)),
        ("2026-11-24T08:00:00Z", None, Due::NotBefore(next)),
        ("2026-11-28T08:00:00Z", Some("2026-11-24T08:00:00Z"), Due::NotBefore(next)),
        // Its supervisor starts it for the first time, when its time has come.
        ("2026-11-22T03:00:05Z", Some("2026-11-22T03:00:05Z"), Due::Now { slot: Some(slot), missed: 0 }),
        ("2026-11-22T03:00:05Z", Some("2026-11-20T08:00:00Z"), Due::Now { slot: Some(slot), missed: 0 }),
        // Known before its first time, which it slept through; and two of them.
        ("2026-11-24T08:00:00Z", Some("2026-11-20T08:00:00Z"), Due::Late { slot, missed: 1 }),
        ("2026-11-24T08:00:00Z", Some("2026-11-14T08:00:00Z"), Due::Late { slot, missed: 2 }),
        // Known since a moment that is still to come, by a clock that was wrong.
        ("2026-11-24T08:00:00Z", Some("2027-11-24T08:00:00Z"), Due::NotBefore(next)),
    ] {
        let found = due(weekly(4), &berlin(), at(now), None, known.map(at), Missed::Run);
        assert_eq!(found, expected, "at {now}, known since {known:?}");
    }
}

#[test]
fn the_next_run_is_a_time_for_every_schedule() {
    let now = at("2026-11-24T08:00:00Z");
    assert_eq!(next_run(daily(3, 30), &berlin(), now, None), Some(at("2026-11-25T02:30:00Z")));
    let every = Schedule::Every(Duration::from_secs(900));
    for (last_start, expected) in [
        (Some("2026-11-24T07:50:00Z"), "2026-11-24T08:05:00Z"),
        // Never, long ago, by a clock that was wrong: the supervisor knows better.
        (None, "2026-11-24T08:15:00Z"),
        (Some("2026-11-20T08:00:00Z"), "2026-11-24T08:15:00Z"),
        (Some("2027-11-20T08:00:00Z"), "2026-11-24T08:15:00Z"),
    ] {
        assert_eq!(next_run(every, &berlin(), now, last_start.map(at)), Some(at(expected)), "{last_start:?}");
    }
}

#[test]
fn on_the_days_of_daylight_saving_it_runs_exactly_once() {
    for (schedule, start, days) in [
        (daily(2, 30), "2026-03-27T00:00:00Z", 5),
        (daily(2, 30), "2026-10-23T00:00:00Z", 5),
        (daily(0, 0), "2026-10-23T00:00:00Z", 5),
    ] {
        let mut last = Some(at(start));
        let mut runs = 0;
        // Started every ten minutes, as no supervisor would: only the due ones count.
        for minutes in (0..days * 24 * 60).step_by(10) {
            let now = at(start).checked_add(i64::from(minutes).minutes()).expect("in range");
            if matches!(due(schedule, &berlin(), now, last, None, Missed::Run), Due::Now { .. } | Due::Late { .. }) {
                runs += 1;
                last = Some(now);
            }
        }
        assert_eq!(runs, days, "{schedule:?} from {start}");
    }
}

#[test]
fn a_pause_is_counted_from_start_to_start() {
    let every = Schedule::Every(Duration::from_secs(900));
    let due_at = |now: &str, last: Option<&str>| due(every, &berlin(), at(now), last.map(at), None, Missed::Run);
    let now = Due::Now { slot: None, missed: 0 };
    assert_eq!(due_at("2026-11-24T08:00:00Z", None), now);
    assert_eq!(due_at("2026-11-24T08:15:00Z", Some("2026-11-24T08:00:05Z")), now);
    let early = due_at("2026-11-24T08:01:00Z", Some("2026-11-24T08:00:00Z"));
    assert_eq!(early, Due::NotBefore(at("2026-11-24T08:15:00Z")));
    let (last, late) = ("2026-11-24T08:00:00Z", "2026-11-24T08:14:29Z");
    assert_eq!(due_at("2026-11-24T08:14:30Z", Some(last)), now, "a supervisor is early");
    assert_eq!(due_at(late, Some(last)), Due::NotBefore(at("2026-11-24T08:15:00Z")));
    let shown = next_run(every, &berlin(), at(late), Some(at(last)));
    assert_eq!(due_at(late, Some(last)), Due::NotBefore(shown.expect("a time")), "and is shown so");
    assert_eq!(due_at("2026-11-24T07:00:00Z", Some("2026-11-24T08:00:00Z")), now, "the clock was set back");
}

#[test]
fn a_period_without_a_success_is_overdue_and_a_long_day_is_no_period() {
    let now = at("2026-11-24T12:00:00Z");
    for (last, overdue) in [
        // Today's slot was at 02:30Z, and yesterday's a day before.
        ("2026-11-24T02:30:10Z", false),
        ("2026-11-23T02:30:00Z", false),
        ("2026-11-23T02:29:59Z", true),
    ] {
        assert_eq!(is_overdue(daily(3, 30), &berlin(), now, at(last)), overdue, "{last}");
    }
    // The night in which clocks are set back has an hour more: 25 h from slot to slot.
    let (run, after) = (at("2026-10-24T01:30:05Z"), at("2026-10-25T02:29:59Z"));
    assert!(!is_overdue(daily(3, 30), &berlin(), after, run));
    assert!(!is_overdue(daily(3, 30), &berlin(), at("2026-10-26T02:29:59Z"), run));
    assert!(is_overdue(daily(3, 30), &berlin(), at("2026-10-26T02:30:00Z"), run));
    assert!(!is_overdue(weekly(4), &berlin(), now, at("2026-11-15T03:00:00Z")));
    assert!(is_overdue(weekly(4), &berlin(), now, at("2026-11-15T02:59:00Z")));
    let every = Schedule::Every(Duration::from_secs(900));
    assert!(!is_overdue(every, &berlin(), now, at("2026-11-24T11:30:00Z")));
    assert!(is_overdue(every, &berlin(), now, at("2026-11-24T11:29:59Z")));
}
