//! Everything below a process: found, signalled, ended.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process};

/// More processes than this are not a server's tree but a bomb.
const TREE_MAX_PROCESSES: usize = 65_536;
/// A process that cannot be killed waits for a device; so long the launcher waits for it.
const DEATH_WAIT: Duration = Duration::from_secs(2);

/// All descendants of `root`, parents before their children, without itself.
pub(in crate::process) fn descendants(root: Pid) -> Vec<Pid> {
    let mut found = children(root);
    let mut at = 0;
    while at < found.len() && found.len() < TREE_MAX_PROCESSES {
        found.extend(children(found[at]));
        at += 1;
    }
    found
}

pub(in crate::process) fn children(pid: Pid) -> Vec<Pid> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|line| line.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .filter_map(Pid::from_raw)
        .collect()
}

pub(in crate::process) fn signal_all(pids: &[Pid], signal: Signal) {
    for pid in pids {
        // An error means that it is gone.
        let _ = kill_process(*pid, signal);
    }
}

/// Ends all descendants of this process, which is the reaper of all of them.
pub(in crate::process) fn end_all() {
    let until = Instant::now() + DEATH_WAIT;
    loop {
        while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        let left = descendants(rustix::process::getpid());
        if left.is_empty() || Instant::now() >= until {
            return;
        }
        // Stopped first: one that forks as fast as it is killed cannot get away.
        signal_all(&left, Signal::STOP);
        signal_all(&descendants(rustix::process::getpid()), Signal::KILL);
        std::thread::sleep(Duration::from_millis(1));
    }
}
