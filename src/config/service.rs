//! `[services.NAME]`: a long-running or scheduled process that seawall describes to
//! the machine's own supervisor, and watches.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    NAME_RULE, builtin, embedding, emit, is_name,
    reader::{Entry, Problems, Table},
    schedule,
    secret::Secret,
    server::{env, options},
    tasks,
};
use crate::service::{
    health::{Health, Probe},
    memory::MemoryWatch,
    schedule::{Missed, Schedule},
};
use crate::watch;

#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: String,
    pub kind: ServiceKind,
    pub env: BTreeMap<String, Secret>,
    pub cwd: PathBuf,
    /// `None` runs for good.
    pub schedule: Option<Schedule>,
    /// What becomes of a run that was missed; means nothing without a schedule.
    pub missed: Missed,
    pub health: Option<Health>,
    /// `None` where it is written `"off"`.
    pub memory: Option<MemoryWatch>,
    /// Started when the user logs in, besides its schedule.
    pub run_at_load: bool,
    /// Why it cannot run: a variable that cannot be had.
    pub problem: Option<String>,
    /// What is understood and not wise.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ServiceKind {
    /// Program and arguments, at least the program.
    Command {
        argv: Vec<String>,
    },
    Builtin {
        name: String,
        options: Options,
    },
}

/// The options of a builtin: its own settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Options {
    Watch(Box<watch::Settings>),
    Emit(crate::emit::Settings),
    Embedding(Box<crate::embedding::Settings>),
    Tasks(crate::tasks::Settings),
    /// Those of one that is not there yet.
    Unread(serde_json::Map<String, serde_json::Value>),
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
        if matches!(&kind, Some(ServiceKind::Builtin { name, .. }) if name == "tasks") && !table.has("schedule") {
            table.refuse_at::<()>("builtin", "tasks need a time; write schedule = \"daily 03:30\" below it");
        }
        Some(Service {
            name: name.to_owned(),
            env: table.take("env", env).unwrap_or_default(),
            cwd: table.take("cwd", Entry::path).unwrap_or_else(|| table.folder().to_owned()),
            missed: missed(table, schedule.is_some()),
            health: table.take("health", health),
            memory: table.take("memory", |entry| entry.or_off(memory)).unwrap_or(Some(MemoryWatch::default())),
            // What has a time of its own waits for it.
            run_at_load: table.take("run_at_load", Entry::boolean).unwrap_or(schedule.is_none()),
            schedule,
            problem: None,
            warnings: Vec::new(),
            kind: kind?,
        })
    })??;
    let (problem, warnings) = problems.into_words();
    Some(Service { problem, warnings, ..service })
}

fn kind(table: &mut Table<'_>) -> Option<ServiceKind> {
    let command = table.take("command", Entry::command);
    let builtin = table.take("builtin", |entry| builtin(entry, entry.around().builtins.services));
    let options = match builtin.as_deref() {
        Some("watch") => super::watch::read(table).map(|settings| Options::Watch(Box::new(settings))),
        Some("emit") => table.section("options", emit::read).map(Options::Emit),
        Some("embedding") => {
            table.section("options", embedding::read).map(|settings| Options::Embedding(Box::new(settings)))
        }
        Some("tasks") => table.section("options", tasks::read).flatten().map(Options::Tasks),
        _ => Some(Options::Unread(table.take("options", options).unwrap_or_default())),
    };
    if table.exactly_one(&["command", "builtin"])? == "command" {
        table.forbid(&["options"], "only a builtin service has options; take it out");
        Some(ServiceKind::Command { argv: command? })
    } else {
        Some(ServiceKind::Builtin { name: builtin?, options: options? })
    }
}

fn missed(table: &mut Table<'_>, is_scheduled: bool) -> Missed {
    let missed = table.take("missed", |entry| entry.choice(&[("run", Missed::Run), ("skip", Missed::Skip)]));
    if !is_scheduled {
        table.forbid(&["missed"], "only a service with a schedule can miss a run; take it out");
    }
    missed.unwrap_or_default()
}

fn health(entry: &Entry<'_>) -> Option<Health> {
    if entry.value().and_then(toml_edit::Value::as_str).is_some() {
        return Some(Health::of(Probe::Url(probe_url(entry)?)));
    }
    let wanted = "write a URL, or a table such as { command = [\"./probe\"], every = \"10s\", misses = 3 }";
    entry.table(wanted, |table| {
        let url = table.take("url", probe_url);
        let mcp = table.take("mcp", probe_url);
        let command = table.take("command", Entry::command);
        let tool = table.take("tool", Entry::nonempty);
        let mut duration = |key| {
            let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
            table.take(key, |entry| entry.duration(allowed))
        };
        let (every, timeout, starts_within) = (duration("every"), duration("timeout"), duration("starts_within"));
        let misses = table.take("misses", |entry| entry.integer(1..=1000));
        let probe = match table.exactly_one(&["url", "mcp", "command"])? {
            "url" => Probe::Url(url?),
            "mcp" => Probe::Mcp { url: mcp?, tool },
            _ => Probe::Command(command?),
        };
        if !matches!(probe, Probe::Mcp { .. }) {
            table.forbid(&["tool"], "only an MCP server has tools; write it beside mcp = \"http://…\"");
        }
        let usual = Health::of(probe);
        Some(Health {
            every: every.unwrap_or(usual.every),
            misses: misses.unwrap_or(usual.misses),
            timeout: timeout.unwrap_or(usual.timeout),
            starts_within: starts_within.unwrap_or(usual.starts_within),
            ..usual
        })
    })?
}

/// A service is asked on its own machine, where TLS protects nothing.
fn probe_url(entry: &Entry<'_>) -> Option<String> {
    match entry.url()? {
        url if url.starts_with("https:") => entry
            .refuse("a health check is plain http; for https write { command = [\"curl\", \"-fsS\", \"https://…\"] }"),
        url => Some(url),
    }
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
