//! Processes found by a variable in their environment: whatever became of their parents,
//! groups and sessions, what was started with it has it, and so has all that they start.
//!
//! Only those that may be looked at, and none that has emptied its environment.

use std::time::Duration;

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process, test_kill_process},
};

/// So often is looked again: what was killed may just have forked.
const SWEEPS_MAX: usize = 20;
const SWEEP_PAUSE: Duration = Duration::from_millis(10);

/// A value that nobody else has.
pub fn unique() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The processes of which a variable, `NAME=value`, is wanted; without this one and those
/// that it descends from.
pub fn carriers(is_wanted: impl Fn(&[u8]) -> bool) -> Vec<u32> {
    let mut found = system::carriers(&is_wanted);
    if !found.is_empty() {
        let own = own_line();
        found.retain(|pid| !own.contains(pid));
    }
    found
}

/// Whether one process carries it.
pub fn carries(pid: u32, is_wanted: impl Fn(&[u8]) -> bool) -> bool {
    system::carries(pid, &is_wanted)
}

/// Ends what `left` finds, at once, until it finds nothing any more; how many there were.
pub fn end_all(left: impl Fn() -> Vec<u32>) -> usize {
    let mut ended = 0;
    for _ in 0..SWEEPS_MAX {
        let pids = left();
        if pids.is_empty() {
            break;
        }
        ended = ended.max(pids.len());
        pids.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        std::thread::sleep(SWEEP_PAUSE);
    }
    ended
}

/// An error means that it is gone, or somebody else's.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether it may be signalled: what is somebody else's by now, through a program that changes
/// who it is, cannot be ended.
pub fn may_signal(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::PERM))
}

/// This process and its ancestors: one that was started by what is to be ended must not
/// end itself.
fn own_line() -> Vec<u32> {
    let mut line = vec![std::process::id()];
    while let Some(parent) = line.last().and_then(|pid| system::parent(*pid)).filter(|pid| !line.contains(pid)) {
        line.push(parent);
    }
    line
}

/// What a process is, for people.
pub fn command_line(pid: u32) -> String {
    system::command_line(pid)
}

#[cfg(target_os = "linux")]
mod system {
    pub(super) fn carriers(is_wanted: &dyn Fn(&[u8]) -> bool) -> Vec<u32> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| carries(*pid, is_wanted)).collect()
    }

    pub(super) fn carries(pid: u32, is_wanted: &dyn Fn(&[u8]) -> bool) -> bool {
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(is_wanted))
    }

    pub(super) fn parent(pid: u32) -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything.
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok().filter(|parent| *parent > 0)
    }

    pub(super) fn command_line(pid: u32) -> String {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ")
    }
}

/// `ps` shows the environment behind the command, of one's own processes.
#[cfg(not(target_os = "linux"))]
mod system {
    fn ps(words: &[&str]) -> String {
        let output = std::process::Command::new("ps").args(words).output();
        output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(super) fn carriers(is_wanted: &dyn Fn(&[u8]) -> bool) -> Vec<u32> {
        let carries = |line: &str| {
            let (pid, rest) = line.trim().split_once(char::is_whitespace)?;
            rest.split_ascii_whitespace().any(|word| is_wanted(word.as_bytes())).then(|| pid.parse().ok())?
        };
        ps(&["-axEww", "-o", "pid=,command="]).lines().filter_map(carries).collect()
    }

    pub(super) fn carries(pid: u32, is_wanted: &dyn Fn(&[u8]) -> bool) -> bool {
        let line = ps(&["-Eww", "-o", "command=", "-p", &pid.to_string()]);
        line.split_ascii_whitespace().any(|word| is_wanted(word.as_bytes()))
    }

    pub(super) fn parent(pid: u32) -> Option<u32> {
        ps(&["-o", "ppid=", "-p", &pid.to_string()]).trim().parse().ok().filter(|parent| *parent > 0)
    }

    pub(super) fn command_line(pid: u32) -> String {
        ps(&["-ww", "-o", "command=", "-p", &pid.to_string()]).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_those_above_it_are_never_found() {
        // Whatever they carry.
        let found = carriers(|_| true);
        assert!(!own_line().iter().any(|pid| found.contains(pid)));
        assert!(own_line().len() > 1, "it has a parent");
    }
}
