//! The policies of a tool's stack, as `[defaults]`, a server and a tool write them:
//! each level writes what differs, and what it does not write is of the level above.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    reader::{Entry, Table},
    value::show_duration,
};
use crate::{
    call::Replay,
    layer::{Policy, breaker, concurrency, deadline, rate_limit, record},
};

/// From the shortest time that makes sense to a week: longer is a slip of the pen.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(7 * 24 * 3600);

pub(super) fn read(table: &mut Table<'_>, above: &Policy) -> Policy {
    Policy {
        deadline: deadline(table, &above.deadline),
        breaker: table
            .take("breaker", |entry| entry.or_off(|entry| breaker(entry, above.breaker.as_ref())))
            .unwrap_or_else(|| above.breaker.clone()),
        rate_limit: table
            .take("rate_limit", |entry| entry.or_off(|entry| rate_limit(entry, above.rate_limit.as_ref())))
            .unwrap_or(above.rate_limit),
        concurrency: table.take("concurrency", concurrency).unwrap_or(above.concurrency),
        replay: table.take("replay", replay).unwrap_or(above.replay),
        record: table.take("record", |entry| record(entry, &above.record)).unwrap_or(above.record),
    }
}

fn deadline(table: &mut Table<'_>, above: &deadline::Settings) -> deadline::Settings {
    let timeout = table.take("timeout", |entry| entry.or_off(|entry| entry.duration(TIMES)));
    let max_duration = table.take("max_duration", |entry| entry.or_off(|entry| entry.duration(TIMES)));
    let timeout_is_ours = timeout.is_some();
    let mut settings = deadline::Settings {
        timeout: timeout.unwrap_or(above.timeout),
        max_duration: max_duration.unwrap_or(above.max_duration),
    };
    match (settings.timeout, settings.max_duration) {
        (Some(timeout), Some(cap)) if timeout > cap && timeout_is_ours => {
            let cap = show_duration(cap);
            let right = format!("longer than max_duration (\"{cap}\"); lower the one or raise the other");
            table.refuse_at::<()>("timeout", right);
        }
        // A cap written here also bounds the silence that was written further up.
        (Some(timeout), Some(cap)) if timeout > cap => settings.timeout = Some(cap),
        _ => {}
    }
    settings
}

fn breaker(entry: &Entry<'_>, above: Option<&breaker::Settings>) -> Option<breaker::Settings> {
    let above = above.cloned().unwrap_or_default();
    entry.table("write something like { failures = 5, open_for = \"60s\" }, or \"off\"", |table| {
        let open_max = table.take("open_max", |entry| entry.duration(TIMES));
        let settings = breaker::Settings {
            failures: table.take("failures", |entry| entry.integer(1..=1000)).unwrap_or(above.failures),
            open_for: table.take("open_for", |entry| entry.duration(TIMES)).unwrap_or(above.open_for),
            backoff_factor: table
                .take("backoff_factor", |entry| entry.number(1.0..=10.0))
                .unwrap_or(above.backoff_factor),
            open_max: open_max.unwrap_or(above.open_max),
            count_tool_errors: table.take("count_tool_errors", Entry::boolean).unwrap_or(above.count_tool_errors),
        };
        if open_max.is_some_and(|open_max| open_max < settings.open_for) {
            let open_for = show_duration(settings.open_for);
            table.refuse_at::<()>("open_max", format!("shorter than open_for (\"{open_for}\"); raise it"));
        }
        breaker::Settings { open_max: settings.open_max.max(settings.open_for), ..settings }
    })
}

fn rate_limit(entry: &Entry<'_>, above: Option<&rate_limit::Settings>) -> Option<rate_limit::Settings> {
    const MOST: u32 = 1_000_000_000;
    let built_in = Policy::default().rate_limit;
    let above = above.or(built_in.as_ref())?;
    entry.table("write something like { per_minute = 6000, burst = 1000 }, or \"off\"", |table| rate_limit::Settings {
        per_minute: table.take("per_minute", |entry| entry.integer(1..=MOST)).unwrap_or(above.per_minute),
        burst: table.take("burst", |entry| entry.integer(1..=MOST)).unwrap_or(above.burst),
    })
}

fn concurrency(entry: &Entry<'_>) -> Option<Option<concurrency::Settings>> {
    const WANTED: &str = "write a whole number from 1 to 10000, or \"off\"";
    match entry.value() {
        Some(toml_edit::Value::Integer(calls)) => match u32::try_from(*calls.value()) {
            Ok(calls @ 1..=10_000) => Some(Some(concurrency::Settings { calls })),
            _ => entry.refuse(WANTED),
        },
        _ => entry.or_off(|entry| entry.refuse(WANTED)),
    }
}

fn replay(entry: &Entry<'_>) -> Option<Replay> {
    entry.choice(&[
        ("never", Replay::Never),
        ("unsent", Replay::Unsent),
        ("annotated", Replay::Annotated),
        ("off", Replay::Never),
    ])
}

/// Failures are always recorded; `"off"` keeps nothing of the arguments.
fn record(entry: &Entry<'_>, above: &record::Settings) -> Option<record::Settings> {
    use record::Arguments::{None as Nothing, Redacted, Shape};
    let read = |entry: &Entry<'_>| {
        entry.table("write something like { arguments = \"shape\" }, or \"off\"", |table| {
            let choices = [("shape", Shape), ("redacted", Redacted), ("none", Nothing)];
            table.take("arguments", |entry| entry.choice(&choices)).unwrap_or(above.arguments)
        })
    };
    let arguments = entry.or_off(read)?.unwrap_or(Nothing);
    Some(record::Settings { arguments })
}
