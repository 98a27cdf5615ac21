//! `[services.NAME]`: a long-running or scheduled process that seawall describes to
//! the machine's own supervisor, and watches.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    NAME_RULE, builtin, is_name,
    reader::{Entry, Problems, Table},
    schedule::{self, Schedule},
    secret::Secret,
    server::{env, options},
};

#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: String,
    pub kind: ServiceKind,
    pub env: BTreeMap<String, Secret>,
    pub cwd: PathBuf,
    /// `None` runs for good.
    pub schedule: Option<Schedule>,
    pub health: Option<Health>,
    /// `None` where it is written `"off"`.
    pub memory: Option<MemoryWatch>,
    /// Started when the user logs in, besides its schedule.
    pub run_at_load: bool,
    /// Why it cannot run: a variable that cannot be had.
    pub problem: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ServiceKind {
    /// Program and arguments, at least the program.
    Command {
        argv: Vec<String>,
    },
    Builtin {
        name: String,
        options: serde_json::Map<String, serde_json::Value>,
    },
}

/// How to see that it still works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub probe: Probe,
    pub every: Duration,
    /// So many probes in a row must fail.
    pub misses: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Healthy where it answers 2xx.
    Url(String),
    /// Healthy where it exits with 0.
    Command(Vec<String>),
}

/// When its memory is worth an alert; `None` is what fits the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryWatch {
    pub growth_per_hour_bytes: Option<u64>,
    pub max_bytes: Option<u64>,
}

pub(super) fn read(name: &str, entry: &Entry<'_>) -> Option<Service> {
    if !is_name(name) {
        entry.refuse::<()>(NAME_RULE);
    }
    let problems = Problems::default();
    let entry = entry.parking(&problems);
    let service = entry.table("not a table; write [services.NAME] above its keys", |table| {
        let kind = kind(table);
        let schedule = table.take("schedule", schedule::read);
        Some(Service {
            name: name.to_owned(),
            env: table.take("env", env).unwrap_or_default(),
            cwd: table.take("cwd", Entry::path).unwrap_or_else(|| table.folder().to_owned()),
            health: table.take("health", health),
            memory: table.take("memory", |entry| entry.or_off(memory)).unwrap_or(Some(MemoryWatch::default())),
            // What has a time of its own waits for it.
            run_at_load: table.take("run_at_load", Entry::boolean).unwrap_or(schedule.is_none()),
            schedule,
            problem: None,
            kind: kind?,
        })
    })??;
    Some(Service { problem: problems.into_sentence(), ..service })
}

fn kind(table: &mut Table<'_>) -> Option<ServiceKind> {
    let command = table.take("command", Entry::command);
    let builtin = table.take("builtin", |entry| builtin(entry, entry.around().builtins.services));
    let options = table.take("options", options);
    if table.exactly_one(&["command", "builtin"])? == "command" {
        table.forbid(&["options"], "only a builtin service has options; take it out");
        Some(ServiceKind::Command { argv: command? })
    } else {
        Some(ServiceKind::Builtin { name: builtin?, options: options.unwrap_or_default() })
    }
}

fn health(entry: &Entry<'_>) -> Option<Health> {
    const EVERY: Duration = Duration::from_secs(10);
    const MISSES: u32 = 3;
    if entry.value().and_then(toml_edit::Value::as_str).is_some() {
        return Some(Health { probe: Probe::Url(entry.url()?), every: EVERY, misses: MISSES });
    }
    let wanted = "write a URL, or a table such as { command = [\"./probe\"], every = \"10s\", misses = 3 }";
    entry.table(wanted, |table| {
        let url = table.take("url", Entry::url);
        let command = table.take("command", Entry::command);
        let hour = Duration::from_secs(3600);
        let every = table.take("every", |entry| entry.duration(Duration::from_millis(100)..=hour)).unwrap_or(EVERY);
        let misses = table.take("misses", |entry| entry.integer(1..=1000)).unwrap_or(MISSES);
        let probe = match table.exactly_one(&["url", "command"])? {
            "url" => Probe::Url(url?),
            _ => Probe::Command(command?),
        };
        Some(Health { probe, every, misses })
    })?
}

/// A size is the most that it may use.
fn memory(entry: &Entry<'_>) -> Option<MemoryWatch> {
    const SIZES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 44;
    if !entry.is_table() {
        return Some(MemoryWatch { max_bytes: Some(entry.size(SIZES)?), growth_per_hour_bytes: None });
    }
    entry.table("", |table| MemoryWatch {
        growth_per_hour_bytes: table.take("growth_per_hour", |entry| entry.size(SIZES)),
        max_bytes: table.take("max", |entry| entry.size(SIZES)),
    })
}
