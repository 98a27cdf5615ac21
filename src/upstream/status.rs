//! What `status` shows of a server.

use std::sync::{Arc, atomic::Ordering};

use serde::Serialize;
use tokio::time::Instant;

use super::{
    common::Common,
    lane::{INSTALLING, Lane, State},
    pool::Pool,
};
use crate::{link::Vitals, sandbox::Report};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// installing, spawning, handshaking, ready, idle, backoff, parked, draining, down.
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: Option<String>,
    pub retry_in_ms: Option<u64>,
    pub pid: Option<u32>,
    /// Of all processes of it: two while one replaces the other, one for each session
    /// where each has its own.
    pub pids: Vec<u32>,
    /// How many connections to it there are.
    pub instances: usize,
    pub instance: Option<u64>,
    pub uptime_ms: Option<u64>,
    /// Of all its processes together.
    pub memory_bytes: Option<u64>,
    /// Starts after something went wrong.
    pub restarts: u64,
    /// Healthy instances that were replaced.
    pub recycled: u64,
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
    pub(super) fn of_lane(lane: &Arc<Lane>) -> Self {
        let mut status = Status::of_common(&lane.common);
        status.count_links(std::slice::from_ref(lane));
        status.describe(lane);
        status
    }

    /// Ready if one of the sessions' own instances is; else as the catalog's is.
    pub(super) fn of_pool(pool: &Pool) -> Self {
        let lanes = pool.lanes();
        let mut status = Status::of_common(&pool.common);
        let is_ready = |lane: &&Arc<Lane>| matches!(&*lane.state.borrow(), State::Ready(_));
        status.describe(lanes.iter().find(is_ready).unwrap_or(&pool.listing));
        status.count_links(&[lanes.as_slice(), std::slice::from_ref(&pool.listing)].concat());
        status
    }

    fn of_common(common: &Common) -> Self {
        let offer = common.offer.load_full();
        let hello = offer.as_ref().map(|offer| &offer.hello);
        let info = hello.and_then(|hello| hello.member("serverInfo"));
        Status {
            restarts: common.restarts.load(Ordering::Relaxed),
            recycled: common.recycled.load(Ordering::Relaxed),
            server: info.map(|info| {
                let text = |key| crate::text::quote(&info.text(key).unwrap_or_default(), 60);
                format!("{} {}", text("name"), text("version"))
            }),
            protocol: hello.and_then(|hello| hello.text("protocolVersion")),
            tools: offer.as_ref().map(|offer| offer.tools.len()),
            ..Status::default()
        }
    }

    fn count_links(&mut self, lanes: &[Arc<Lane>]) {
        let vitals: Vec<Vitals> =
            lanes.iter().flat_map(|lane| lane.links.open()).map(|(_, link)| link.vitals()).collect();
        self.instances = vitals.len();
        self.pids = vitals.iter().filter_map(|vitals| vitals.pid).collect();
        let memory_bytes: Vec<u64> = vitals.iter().filter_map(|vitals| vitals.memory_bytes).collect();
        self.memory_bytes = (!memory_bytes.is_empty()).then(|| memory_bytes.iter().sum());
        self.stray_lines = vitals.iter().map(|vitals| vitals.stray_lines).sum();
        let last_stray_line = vitals.into_iter().find_map(|vitals| vitals.last_stray_line);
        self.last_stray_line = last_stray_line.map(|line| crate::text::quote(&line, 200));
    }

    fn describe(&mut self, lane: &Lane) {
        match &*lane.state.borrow() {
            State::Installing => {
                self.state = "installing";
                self.reason = Some(INSTALLING.to_owned());
            }
            State::Spawning => self.state = "spawning",
            State::Handshaking => self.state = "handshaking",
            State::Idle => self.state = "idle",
            State::Backoff { until, reason } => {
                self.state = "backoff";
                self.reason = Some(reason.clone());
                self.retry_in_ms = Some(millis(until.saturating_duration_since(Instant::now())));
            }
            State::Parked { reason, .. } => {
                self.state = "parked";
                self.reason = Some(reason.clone());
            }
            State::Stopped => self.state = "down",
            State::Ready(instance) => {
                self.state = if lane.common.is_closed() { "draining" } else { "ready" };
                self.instance = Some(instance.number);
                self.uptime_ms = Some(millis(instance.ready_since.elapsed()));
                let vitals = instance.link.vitals();
                self.pid = vitals.pid;
                self.sandbox = vitals.sandbox;
            }
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
