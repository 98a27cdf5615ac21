//! What this process started, at whatever remove: on Linux it can take in those whose own
//! parents are gone, bury them, and end all that is below it. Elsewhere that is nobody's
//! power, and nothing is found.

/// From now on what is orphaned below this process becomes its child.
pub fn adopt() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

#[cfg(target_os = "linux")]
pub use linux::{below, bury, end_below};
#[cfg(not(target_os = "linux"))]
pub use nowhere::{below, bury, end_below};

#[cfg(target_os = "linux")]
mod linux {
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, WaitOptions, getpid, waitpid};

    use super::super::launcher::tree;

    /// A process that cannot be killed waits for a device, or is somebody else's; so long
    /// it is waited for.
    const DEATH_WAIT: Duration = Duration::from_secs(2);
    const LOOK_EVERY: Duration = Duration::from_millis(2);

    /// All descendants of a process, without those that are dead.
    pub fn below(pid: u32) -> Vec<u32> {
        let Some(root) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Vec::new() };
        tree::descendants(root).into_iter().map(number).filter(|pid| !is_dead(*pid)).collect()
    }

    /// Takes away the dead among this process's children, but for those that somebody
    /// waits for.
    pub fn bury(is_awaited: impl Fn(u32) -> bool) {
        for child in tree::children(getpid()) {
            if !is_awaited(number(child)) && is_dead(number(child)) {
                let _ = waitpid(Some(child), WaitOptions::NOHANG);
            }
        }
    }

    /// Ends all that is below this process but for what is to be spared, and gives it
    /// `patience` to end by itself; how many were ended. `before` sees those that are about to be,
    /// again and again as long as there are any. Nobody may start a process meanwhile.
    pub fn end_below(patience: Duration, is_spared: impl Fn(u32) -> bool, mut before: impl FnMut(&[u32])) -> usize {
        let (began, mut ended) = (Instant::now(), 0);
        let left = || {
            bury(&is_spared);
            below(std::process::id()).into_iter().filter(|pid| !is_spared(*pid)).collect::<Vec<_>>()
        };
        loop {
            let mut pids = left();
            if pids.is_empty() || began.elapsed() >= patience + DEATH_WAIT {
                return ended;
            }
            if began.elapsed() >= patience {
                ended = ended.max(pids.len());
                before(&pids);
                // Stopped first: one that forks as fast as it is killed cannot get away.
                pids.iter().for_each(|pid| super::super::mark::signal(*pid, Signal::STOP));
                pids.extend(left());
                pids.iter().for_each(|pid| super::super::mark::signal(*pid, Signal::KILL));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn number(pid: Pid) -> u32 {
        pid.as_raw_nonzero().get().unsigned_abs()
    }

    fn is_dead(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| {
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'))
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod nowhere {
    use std::time::Duration;

    pub fn below(_pid: u32) -> Vec<u32> {
        Vec::new()
    }

    pub fn bury(_is_awaited: impl Fn(u32) -> bool) {}

    pub fn end_below(_patience: Duration, _is_spared: impl Fn(u32) -> bool, _before: impl FnMut(&[u32])) -> usize {
        0
    }
}
