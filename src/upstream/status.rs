//! What `status` shows of a server.

use std::sync::atomic::Ordering;

use serde::Serialize;
use tokio::time::Instant;

use super::{Shared, State};
use crate::sandbox::Report;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// spawning, handshaking, ready, backoff, parked, draining, down.
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: Option<String>,
    pub retry_in_ms: Option<u64>,
    pub pid: Option<u32>,
    pub instance: Option<u64>,
    pub uptime_ms: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub restarts: u64,
    pub stray_lines: u64,
    pub last_stray_line: Option<String>,
    /// The server's own name and version.
    pub server: Option<String>,
    pub protocol: Option<String>,
    pub tools: Option<usize>,
    /// What really holds for its process.
    #[serde(skip)]
    pub sandbox: Option<Report>,
}

impl Status {
    pub(super) fn of(shared: &Shared) -> Self {
        let offer = shared.offer.load_full();
        let hello = offer.as_ref().map(|offer| &offer.hello);
        let info = hello.and_then(|hello| hello.member("serverInfo"));
        let mut status = Status {
            restarts: shared.restarts.load(Ordering::Relaxed),
            server: info.map(|info| {
                let text = |key| crate::text::quote(&info.text(key).unwrap_or_default(), 60);
                format!("{} {}", text("name"), text("version"))
            }),
            protocol: hello.and_then(|hello| hello.text("protocolVersion")),
            tools: offer.as_ref().map(|offer| offer.tools.len()),
            ..Status::default()
        };
        match &*shared.state.borrow() {
            State::Spawning => status.state = "spawning",
            State::Handshaking => status.state = "handshaking",
            State::Backoff { until, reason } => {
                status.state = "backoff";
                status.reason = Some(reason.clone());
                status.retry_in_ms = Some(millis(until.saturating_duration_since(Instant::now())));
            }
            State::Parked { reason, .. } => {
                status.state = "parked";
                status.reason = Some(reason.clone());
            }
            State::Stopped => status.state = "down",
            State::Ready(instance) => {
                let vitals = instance.link.vitals();
                status.state = if shared.closed.load(Ordering::Relaxed) { "draining" } else { "ready" };
                status.instance = Some(instance.number);
                status.uptime_ms = Some(millis(instance.ready_since.elapsed()));
                status.pid = vitals.pid;
                status.memory_bytes = vitals.memory_bytes;
                status.sandbox = vitals.sandbox;
                status.stray_lines = vitals.stray_lines;
                status.last_stray_line = vitals.last_stray_line.map(|line| crate::text::quote(&line, 200));
            }
        }
        status
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
