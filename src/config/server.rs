//! `[servers.NAME]`: one MCP server, and the policies of its tools.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    NAME_RULE, builtin, embedding, is_name, policy,
    reader::{Entry, Problems, Table},
    sandbox::{self, Sandbox},
    secret::Secret,
};
use crate::{
    call::{ServerName, ToolName},
    embedding::ModelSettings,
    layer::Policy,
};

#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub name: ServerName,
    pub kind: Kind,
    pub enabled: bool,
    /// Of a `command` server's process, besides what seawall gives every one.
    pub env: BTreeMap<String, Secret>,
    pub cwd: PathBuf,
    /// Of every tool without one of its own, and of what is no tool.
    pub policy: Policy,
    /// The tools that have a table of their own.
    pub tools: BTreeMap<ToolName, ToolPolicy>,
    pub instances: Instances,
    pub recycle: Recycle,
    /// Stopped after so long without a call; the next call starts it.
    pub idle_stop: Option<Duration>,
    /// Why it is parked: a variable that cannot be had, a sandbox that cannot be had.
    pub problem: Option<String>,
    /// What is understood and not wise.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A child process that speaks over stdio.
    Command {
        /// Program and arguments, at least the program. A program without a slash is
        /// still to be looked up on the PATH.
        argv: Vec<String>,
        sandbox: Sandbox,
    },
    /// A server inside seawall; its options are understood by itself.
    Builtin { name: String, options: serde_json::Map<String, serde_json::Value> },
    /// The same for the one with a model of its own.
    Embed(ModelSettings),
    /// A server that listens elsewhere, over Streamable HTTP.
    Url { url: String, headers: Vec<(String, Secret)> },
}

impl Kind {
    /// As the key in servers.toml is called.
    pub fn key(&self) -> &'static str {
        match self {
            Kind::Command { .. } => "command",
            Kind::Builtin { .. } | Kind::Embed(_) => "builtin",
            Kind::Url { .. } => "url",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ToolPolicy {
    pub policy: Policy,
    /// A tool that is not enabled is neither listed nor called.
    pub enabled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instances {
    /// All sessions share one.
    Shared,
    /// Each session has its own, so many at most.
    PerSession(u32),
}

/// When a healthy instance is replaced by a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recycle {
    pub calls: Option<u32>,
    pub age: Option<Duration>,
    /// Resident, of the whole process tree.
    pub memory_bytes: Option<u64>,
}

impl Server {
    /// A server that an embedder adds to the process: with all defaults.
    pub fn in_process(name: &str, folder: &Path) -> Self {
        Server {
            name: name.into(),
            kind: Kind::Builtin { name: name.to_owned(), options: serde_json::Map::new() },
            enabled: true,
            env: BTreeMap::new(),
            cwd: folder.to_owned(),
            policy: Policy::default(),
            tools: BTreeMap::new(),
            instances: Instances::Shared,
            recycle: Recycle::default(),
            idle_stop: None,
            problem: None,
            warnings: Vec::new(),
        }
    }

    /// The policy of one of its tools, whether it has a table or not.
    pub fn policy_of(&self, tool: &str) -> &Policy {
        self.tools.get(tool).map_or(&self.policy, |tool| &tool.policy)
    }

    pub fn is_tool_enabled(&self, tool: &str) -> bool {
        self.tools.get(tool).is_none_or(|tool| tool.enabled)
    }
}

/// From the shortest time that makes sense to a year.
const TIMES: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 3600);

pub(super) fn read(name: &str, entry: &Entry<'_>, defaults: &Policy) -> Option<Server> {
    if !is_name(name) {
        entry.refuse::<()>(NAME_RULE);
    }
    let problems = Problems::default();
    let entry = entry.parking(&problems);
    let server = entry.table("not a table; write [servers.NAME] above its keys", |table| {
        let kind = kind(table);
        let policy = policy::read(table, defaults);
        Some(Server {
            name: name.into(),
            enabled: table.take("enabled", Entry::boolean).unwrap_or(true),
            env: table.take("env", env).unwrap_or_default(),
            cwd: table.take("cwd", Entry::path).unwrap_or_else(|| table.folder().to_owned()),
            tools: table.take("tools", |entry| tools(entry, &policy)).unwrap_or_default(),
            policy,
            instances: table.take("instances", instances).unwrap_or(Instances::Shared),
            recycle: table.take("recycle", recycle).unwrap_or_default(),
            idle_stop: table.take("idle_stop", |entry| entry.or_off(|entry| entry.duration(TIMES))).flatten(),
            problem: None,
            warnings: Vec::new(),
            kind: kind?,
        })
    })??;
    let (problem, warnings) = problems.into_words();
    Some(Server { problem, warnings, ..server })
}

fn kind(table: &mut Table<'_>) -> Option<Kind> {
    let command = table.take("command", Entry::command);
    let builtin = table.take("builtin", |entry| builtin(entry, entry.around().builtins.servers));
    let url = table.take("url", Entry::url);
    let sandbox = table.take("sandbox", sandbox::read);
    let is_embed = builtin.as_deref() == Some("embed");
    let model = is_embed.then(|| table.section("options", embedding::read_server)).flatten();
    let options = if is_embed { None } else { table.take("options", options) };
    let headers = table.take("headers", headers);

    let key = table.exactly_one(&["command", "builtin", "url"])?;
    if key != "command" {
        table.forbid(&["sandbox", "env", "cwd"], "only a command server runs as a process of its own; take it out");
    }
    if key != "builtin" {
        table.forbid(&["options"], "only a builtin server has options; take it out");
    }
    if key != "url" {
        table.forbid(&["headers"], "only a url server is sent headers; take it out");
    }
    Some(match key {
        "command" => Kind::Command { argv: command?, sandbox: sandbox.unwrap_or_default() },
        "builtin" if is_embed => Kind::Embed(model?),
        "builtin" => Kind::Builtin { name: builtin?, options: options.unwrap_or_default() },
        _ => Kind::Url { url: url?, headers: headers.unwrap_or_default() },
    })
}

pub(super) fn env(entry: &Entry<'_>) -> Option<BTreeMap<String, Secret>> {
    entry.table("not a table; write { NAME = \"value\" }", |table| {
        let variable = |(name, entry): (&str, Entry<'_>)| {
            if !sandbox::is_variable_name(name) {
                return entry.secret().refuse("not the name of a variable; take out \"=\", \"$\" and spaces");
            }
            Some((name.to_owned(), entry.hidden()?))
        };
        table.all().into_iter().filter_map(variable).collect()
    })
}

pub(super) fn options(entry: &Entry<'_>) -> Option<serde_json::Map<String, serde_json::Value>> {
    entry.table("not a table; write { key = \"value\" }", |table| {
        let option = |(name, entry): (&str, Entry<'_>)| Some((name.to_owned(), entry.json()?));
        table.all().into_iter().filter_map(option).collect()
    })
}

fn headers(entry: &Entry<'_>) -> Option<Vec<(String, Secret)>> {
    entry.table("not a table; write { Authorization = \"Bearer ${TOKEN}\" }", |table| {
        table.all().into_iter().filter_map(|(name, entry)| header(name, &entry.secret())).collect()
    })
}

fn header(name: &str, entry: &Entry<'_>) -> Option<(String, Secret)> {
    /// Which the transport writes itself.
    const OURS: [&str; 8] = [
        "accept",
        "connection",
        "content-length",
        "content-type",
        "host",
        "mcp-protocol-version",
        "mcp-session-id",
        "transfer-encoding",
    ];
    if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return entry.refuse("not the name of a header; use letters, digits and \"-\"");
    }
    if OURS.contains(&name.to_ascii_lowercase().as_str()) {
        return entry.refuse("seawall writes this header itself; take it out");
    }
    let value = entry.text()?;
    if reqwest::header::HeaderValue::from_str(&value).is_err() {
        return entry.refuse("a header holds one line of text without control characters");
    }
    Some((name.to_owned(), value.into()))
}

fn tools(entry: &Entry<'_>, server: &Policy) -> Option<BTreeMap<ToolName, ToolPolicy>> {
    entry.table("not a table; write [servers.NAME.tools.TOOL] above its keys", |table| {
        let tool = |(name, entry): (&str, Entry<'_>)| {
            let policy = entry.table("not a table; write { timeout = \"10s\" }", |table| ToolPolicy {
                policy: policy::read(table, server),
                enabled: table.take("enabled", Entry::boolean).unwrap_or(true),
            });
            Some((name.into(), policy?))
        };
        table.all().into_iter().filter_map(tool).collect()
    })
}

fn instances(entry: &Entry<'_>) -> Option<Instances> {
    const WANTED: &str = "write \"shared\" or { per_session = 8 }";
    if entry.is_word("shared") {
        return Some(Instances::Shared);
    }
    entry.table(WANTED, |table| match table.has("per_session") {
        true => table.take("per_session", |entry| entry.integer(1..=1000)).map(Instances::PerSession),
        false => table.refuse(WANTED),
    })?
}

fn recycle(entry: &Entry<'_>) -> Option<Recycle> {
    entry.table("write something like { calls = 1000, age = \"1d\", memory = \"1GiB\" }", |table| Recycle {
        calls: table.take("calls", |entry| entry.integer(1..=1_000_000_000)),
        age: table.take("age", |entry| entry.duration(TIMES)),
        memory_bytes: table.take("memory", |entry| entry.size(1 << 20..=1 << 44)),
    })
}
