//! What `status` says, as data: the JSON of `status --json` and of the builtin server.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use serde::Serialize;

use super::{Inner, served::Served};
use crate::{call::Payload, config::Kind, process, sandbox::Report, store, upstream};

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
    /// What is really enforced.
    pub sandbox: Report,
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

impl Inner {
    pub(super) fn status(&self) -> Status {
        let current = self.current();
        Status {
            gateway: GatewayStatus {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION"),
                uptime_ms: millis(self.began.elapsed()),
                listen: current.fronts.first().map(|(address, _)| address.clone()),
                config: current.config.path.display().to_string(),
                config_problem: current.config_problem.clone(),
                sessions: self.router.session_count(),
                draining: self.draining.load(Ordering::Relaxed),
                memory_bytes: process::memory::of_process(std::process::id()),
                database: self.store.health(),
            },
            servers: servers(&current.served),
            breakers: breakers(&current.served),
        }
    }

    /// Ready from the start: a slow or broken server must not keep traffic from the others.
    pub(super) fn readiness(&self) -> (bool, Payload) {
        let is_ready = !self.draining.load(Ordering::Relaxed);
        let served = self.current().served.clone();
        let states: BTreeMap<String, &'static str> =
            served.iter().map(|one| (one.name().to_string(), one.upstream.status().state)).collect();
        (is_ready, Payload::of(&serde_json::json!({ "ready": is_ready, "servers": states })))
    }
}

fn servers(served: &[Served]) -> BTreeMap<String, ServerStatus> {
    let line = |one: &Served| {
        let tally = one.tools.shared.tally.snapshot();
        let mut upstream = one.upstream.status();
        let report = upstream.sandbox.take();
        let status = ServerStatus {
            kind: one.entry.kind.key(),
            upstream,
            calls: tally.calls,
            in_flight: tally.in_flight,
            failures: tally.failures(),
            sandbox: sandbox(&one.entry.kind, report),
        };
        (one.name().to_string(), status)
    };
    served.iter().map(line).collect()
}

fn breakers(served: &[Served]) -> Vec<BreakerLine> {
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the launcher of a running server has said. Where none runs nothing is enforced,
/// and the profile is the one that is asked for; other kinds have no process of their own.
fn sandbox(kind: &Kind, report: Option<Report>) -> Report {
    let (profile, network) = match kind {
        Kind::Command { sandbox, .. } => (sandbox.profile.name(), sandbox.network.name()),
        Kind::Builtin { .. } | Kind::Embed(_) | Kind::Url { .. } => ("off", "open"),
    };
    report.unwrap_or_else(|| Report {
        profile: profile.to_owned(),
        tier: "none".to_owned(),
        network: network.to_owned(),
        tree_kill: "none".to_owned(),
        ..Report::default()
    })
}
