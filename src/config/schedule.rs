//! When a scheduled service runs: `every 15m`, `daily 03:30`, `weekly sun 04:00`.

use std::time::Duration;

use jiff::civil::{Time, Weekday};

use super::reader::Entry;
use crate::service::schedule::Schedule;

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn read(entry: &Entry<'_>) -> Option<Schedule> {
    const WANTED: &str = "not a schedule; write \"every 15m\", \"daily 03:30\" or \"weekly sun 04:00\"";
    let written = entry.word(WANTED)?;
    match parse(&written) {
        // launchd and systemd count in seconds, and a task needs time to run.
        Some(Schedule::Every(pause)) if !(Duration::from_secs(60)..=365 * DAY).contains(&pause) => {
            entry.refuse("out of range; write a pause from \"every 1m\" to \"every 365d\"")
        }
        Some(schedule) => Some(schedule),
        None => entry.refuse(WANTED),
    }
}

fn parse(text: &str) -> Option<Schedule> {
    let (first, rest) = text.trim().split_once(' ')?;
    match first {
        "every" => humantime::parse_duration(rest).ok().map(Schedule::Every),
        "daily" => time(rest).map(Schedule::Daily),
        "weekly" => {
            let (day, rest) = rest.trim().split_once(' ')?;
            Some(Schedule::Weekly(weekday(day)?, time(rest)?))
        }
        _ => None,
    }
}

/// `03:30`, from 00:00 to 23:59.
fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.trim().split_once(':')?;
    let two_digits = |digits: &str| digits.len() <= 2 && digits.chars().all(|c| c.is_ascii_digit());
    if !two_digits(hour) || minute.len() != 2 || !two_digits(minute) {
        return None;
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

fn weekday(text: &str) -> Option<Weekday> {
    Some(match text.to_ascii_lowercase().as_str() {
        "mon" | "monday" => Weekday::Monday,
        "tue" | "tuesday" => Weekday::Tuesday,
        "wed" | "wednesday" => Weekday::Wednesday,
        "thu" | "thursday" => Weekday::Thursday,
        "fri" | "friday" => Weekday::Friday,
        "sat" | "saturday" => Weekday::Saturday,
        "sun" | "sunday" => Weekday::Sunday,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_a_pause_or_a_time_of_day() {
        assert_eq!(parse("every 1h 30m"), Some(Schedule::Every(Duration::from_secs(5400))));
        assert_eq!(parse("daily 03:30"), Some(Schedule::Daily(Time::constant(3, 30, 0, 0))));
        assert_eq!(parse("daily 3:30"), parse("daily  03:30 "));
        assert_eq!(parse("weekly Sun 23:59"), Some(Schedule::Weekly(Weekday::Sunday, Time::constant(23, 59, 0, 0))));
        for wrong in ["", "daily", "daily 24:00", "daily 3:60", "daily 3:5", "daily 03:30:00", "daily +3:30"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for wrong in ["weekly 04:00", "weekly someday 04:00", "every", "every day", "monthly 1 04:00"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
