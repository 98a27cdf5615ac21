//! Who is there: all processes that carry a mark in their environment, as everything
//! does that a marked server has started.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::wait::wait_until;

pub struct Census {
    mark: String,
}

impl Census {
    pub fn new() -> Census {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Census { mark: format!("census-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed)) }
    }

    pub fn mark(&self) -> &str {
        &self.mark
    }

    pub fn pids(&self) -> Vec<u64> {
        let wanted = format!("CENSUS={}", self.mark);
        let is_marked = |pid: &u64| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()))
        };
        let processes = fs::read_dir("/proc").expect("/proc can be read").flatten();
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_marked).collect()
    }

    pub fn count(&self) -> usize {
        self.pids().len()
    }

    /// The command lines of those that are there.
    pub fn left(&self) -> Vec<String> {
        let line = |pid: u64| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        self.pids().into_iter().map(line).collect()
    }

    pub async fn is_over(&self, within: Duration) {
        wait_until(within, "every process to be gone", async || (self.count() == 0).then_some(())).await;
    }
}

fn field(pid: u64, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))?;
    Some(line.trim().to_owned())
}

pub fn parent(pid: u64) -> u64 {
    field(pid, "PPid").and_then(|pid| pid.parse().ok()).expect("the process is there")
}

pub fn is_zombie(pid: u64) -> bool {
    field(pid, "State").is_some_and(|state| state.starts_with('Z'))
}

pub fn children(pid: u64) -> Vec<u64> {
    let line = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
