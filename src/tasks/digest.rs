//! What failed lately, as a page to read: how often, of whom, and what was said.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use serde_json::Value;

use super::Now;
use crate::{
    store::{Count, EventFilter, EventRecord, FailureFilter, FailureRecord, ReadError, Reader},
    text,
};

const MESSAGES_MAX: usize = 20;
const MESSAGE_CHARS_MAX: usize = 120;
const EVENTS_MAX: usize = 50;
/// What is said of services, and not of every start.
const WORTH_A_LINE: [&str; 12] = [
    "service_crash",
    "crash_inferred",
    "service_hang",
    "alert",
    "restart_storm",
    "periodic_restart",
    "memory_growth",
    "task_failed",
    "task_missed",
    "server_parked",
    "config_rejected",
    "events_dropped",
];

/// A page in Markdown. No database yet is a page that says so.
pub(super) fn write(store: &Path, since: Duration, now: &Now) -> Result<String, ReadError> {
    let since_ms = now.timestamp.as_millisecond().saturating_sub(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let reader = match Reader::open(store) {
        Ok(reader) => reader,
        Err(ReadError::NoDatabase(path)) => {
            return Ok(format!("# What failed\n\nNothing is on record: there is no {} yet.\n", path.display()));
        }
        Err(error) => return Err(error),
    };
    let failures = reader.failures(&FailureFilter { since_ms: Some(since_ms), ..FailureFilter::default() })?;
    let events = reader.events(&EventFilter { since_ms: Some(since_ms), ..EventFilter::default() })?;
    Ok(page(&reader.counts(since_ms)?, &failures, &events, since_ms, now))
}

fn page(counts: &[Count], failures: &[FailureRecord], events: &[EventRecord], since_ms: i64, now: &Now) -> String {
    let mut out = String::new();
    let day = |ms: i64| now.shown(ms);
    let _ = writeln!(out, "# What failed from {} to {}\n", day(since_ms), day(now.timestamp.as_millisecond()));

    let _ = writeln!(out, "## Calls\n");
    if counts.is_empty() {
        let _ = writeln!(out, "No call failed.");
    } else {
        let _ = writeln!(out, "| server | class | failures | last |\n|---|---|---:|---|");
    }
    for count in counts {
        let _ =
            writeln!(out, "| {} | {} | {} | {} |", cell(&count.server), count.class, count.rows, day(count.last_ms));
    }

    let messages = messages(failures);
    if !messages.is_empty() {
        let _ =
            writeln!(out, "\n## What was said most\n\n| times | tool | message | the last one |\n|---:|---|---|---|");
    }
    for (tool, message, times, id) in messages {
        let _ = writeln!(out, "| {times} | {} | {} | `seawall why {}` |", cell(tool), cell(message), cell(id));
    }

    let worth: Vec<&EventRecord> =
        events.iter().filter(|event| WORTH_A_LINE.contains(&event.event_type.as_str())).collect();
    let _ = writeln!(out, "\n## Services and servers\n");
    if worth.is_empty() {
        let _ = writeln!(out, "Nothing out of the ordinary happened.");
    } else {
        let _ = writeln!(out, "| what | of | times |\n|---|---|---:|");
    }
    let mut by_kind: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for event in &worth {
        *by_kind.entry((&event.service_name, &event.event_type)).or_default() += 1;
    }
    for ((service, event_type), times) in by_kind {
        let _ = writeln!(out, "| {event_type} | {} | {times} |", cell(service));
    }
    if !worth.is_empty() {
        let _ = writeln!(out, "\n## The last of them\n\n| when | what | of | why | more |\n|---|---|---|---|---|");
    }
    for event in worth.iter().rev().take(EVENTS_MAX) {
        let (when, id) = (day(event.timestamp_ms), cell(&event.id));
        let why = cell(&why(event));
        let _ = writeln!(
            out,
            "| {when} | {} | {} | {why} | `seawall why {id}` |",
            event.event_type,
            cell(&event.service_name)
        );
    }
    out
}

/// The most frequent first, with the id of the newest.
fn messages(failures: &[FailureRecord]) -> Vec<(&str, &str, usize, &str)> {
    let mut known: BTreeMap<(&str, &str), (usize, &str)> = BTreeMap::new();
    for failure in failures {
        let entry = known.entry((&failure.tool, &failure.message)).or_default();
        *entry = (entry.0 + 1, &failure.id);
    }
    let mut messages: Vec<_> = known.into_iter().map(|((tool, said), (times, id))| (tool, said, times, id)).collect();
    messages.sort_by_key(|(_, _, times, _)| std::cmp::Reverse(*times));
    messages.truncate(MESSAGES_MAX);
    messages
}

fn why(event: &EventRecord) -> String {
    let metadata: Value = serde_json::from_str(&event.metadata).unwrap_or_default();
    let words = |key: &str| metadata[key].as_str().and_then(|text| text.trim().lines().last()).map(str::to_owned);
    let number = |key: &str, name: &str| metadata[key].as_i64().map(|number| format!("{name} {number}"));
    words("stderr_tail")
        .or_else(|| number("exit_code", "exit code"))
        .or_else(|| number("signal", "signal"))
        .or_else(|| number("missed", "runs missed:"))
        .or_else(|| words("reason"))
        .unwrap_or_default()
}

/// Text of servers, such that it makes neither a column nor markup of its own.
fn cell(said: &str) -> String {
    let plain = text::quote(said, MESSAGE_CHARS_MAX);
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars() {
        if matches!(c, '|' | '<' | '>' | '`' | '*' | '_' | '[' | ']' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Now {
        Now { timestamp: "2026-11-24T12:00:00Z".parse().expect("a time"), zone: jiff::tz::TimeZone::UTC }
    }

    #[test]
    fn a_page_tells_how_often_of_whom_and_what_was_said() {
        let ms = now().timestamp.as_millisecond();
        let failure = |id: &str, message: &str| -> FailureRecord {
            serde_json::from_value(serde_json::json!({
                "id": id, "timestamp": ms - 1000, "server": "files", "tool": "read", "class": "timeout",
                "message": message, "duration_ms": 5, "client": "c", "protocol": "p", "request_id": "1",
                "instance": 1, "arguments": null, "exit_status": null, "stderr_tail": null,
            }))
            .expect("a record")
        };
        let event = |event_type: &str| EventRecord {
            id: "e1".to_owned(),
            timestamp_ms: ms - 2000,
            category: "service".to_owned(),
            event_type: event_type.to_owned(),
            service_name: "gateway".to_owned(),
            metadata: r#"{"exit_code":3,"stderr_tail":"first\nboom | x"}"#.to_owned(),
            seq: 1,
        };
        let count = Count { server: "files".to_owned(), class: "timeout".to_owned(), rows: 3, last_ms: ms };
        let failures = [failure("a", "slow"), failure("b", "<b>\u{1b}[2J"), failure("c", "slow")];
        let events = [event("service_start"), event("service_crash")];
        let page = page(&[count], &failures, &events, ms - 86_400_000, &now());
        for line in [
            "# What failed from 2026-11-23 12:00 to 2026-11-24 12:00",
            "| files | timeout | 3 | 2026-11-24 12:00 |",
            "| 2 | read | slow | `seawall why c` |",
            "| 1 | read | \\<b\\>\\\\u{1b}\\[2J | `seawall why b` |",
            "| service_crash | gateway | 1 |",
            "| 2026-11-24 11:59 | service_crash | gateway | boom \\| x | `seawall why e1` |",
        ] {
            assert!(page.lines().any(|known| known == line), "{line} is missing in\n{page}");
        }
        assert!(!page.contains("service_start"));
        let quiet = self::page(&[], &[], &[], ms, &now());
        assert!(quiet.contains("No call failed.") && quiet.contains("Nothing out of the ordinary happened."));
    }
}
