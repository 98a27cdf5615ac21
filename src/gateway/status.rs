//! What `status` says, as data: the JSON of `status --json` and of the builtin server.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::served::Served;
use crate::{config::Kind, store, upstream};

#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub gateway: GatewayStatus,
    pub servers: BTreeMap<String, ServerStatus>,
    /// Those that are not closed.
    pub breakers: Vec<BreakerLine>,
}

#[derive(Clone, Debug, Serialize)]
pub struct GatewayStatus {
    pub pid: u32,
    pub version: &'static str,
    pub uptime_ms: u64,
    pub listen: Option<String>,
    pub config: String,
    /// Why the last edit of servers.toml was not taken; `None` if it was.
    pub config_problem: Option<String>,
    pub sessions: usize,
    pub draining: bool,
    pub memory_bytes: Option<u64>,
    pub database: store::Health,
}

#[derive(Clone, Debug, Serialize)]
pub struct ServerStatus {
    pub kind: &'static str,
    #[serde(flatten)]
    pub upstream: upstream::Status,
    pub calls: u64,
    pub in_flight: u64,
    pub failures: u64,
    pub sandbox: SandboxStatus,
}

/// What is really enforced.
#[derive(Clone, Debug, Serialize)]
pub struct SandboxStatus {
    pub profile: &'static str,
    pub tier: &'static str,
    pub network: &'static str,
    pub not_enforced: Vec<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
pub struct BreakerLine {
    pub server: String,
    /// `None` for requests that name no tool.
    pub tool: Option<String>,
    pub state: &'static str,
    pub failures: u32,
    pub retry_in_ms: Option<u64>,
    pub last_cause: Option<String>,
}

pub(super) fn servers(served: &[Served]) -> BTreeMap<String, ServerStatus> {
    let line = |one: &Served| {
        let tally = one.tools.tally.snapshot();
        let status = ServerStatus {
            kind: one.entry.kind.key(),
            upstream: one.upstream.status(),
            calls: tally.calls,
            in_flight: tally.in_flight,
            failures: tally.failures(),
            sandbox: sandbox(&one.entry.kind),
        };
        (one.name().to_string(), status)
    };
    served.iter().map(line).collect()
}

pub(super) fn breakers(served: &[Served]) -> Vec<BreakerLine> {
    let lines = served.iter().flat_map(|one| {
        one.open_breakers().into_iter().map(move |(tool, status)| BreakerLine {
            server: one.name().to_string(),
            tool: tool.map(|tool| tool.to_string()),
            state: status.state.name(),
            failures: status.failures,
            retry_in_ms: status.until.map(|until| millis(until.saturating_duration_since(tokio::time::Instant::now()))),
            last_cause: status.last_cause,
        })
    });
    lines.collect()
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Until servers are confined, a child has all rights of the user that runs seawall;
/// the other kinds have no process of their own.
fn sandbox(kind: &Kind) -> SandboxStatus {
    match kind {
        Kind::Command { .. } => SandboxStatus {
            profile: "off",
            tier: "none",
            network: "open",
            not_enforced: vec!["files", "network", "processes"],
        },
        Kind::Builtin { .. } | Kind::Url { .. } => {
            SandboxStatus { profile: "off", tier: "none", network: "open", not_enforced: Vec::new() }
        }
    }
}
