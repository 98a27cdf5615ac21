//! Resident memory of a process and all that it started.

#[cfg(target_os = "linux")]
use rustix::process::Pid;

#[cfg(target_os = "linux")]
use super::launcher::tree;

/// The tree below and including `pid`; `None` if it is gone or cannot be read.
#[cfg(target_os = "linux")]
pub fn of_tree(pid: u32) -> Option<u64> {
    let own = of_process(pid)?;
    let below = tree::descendants(pid_of(pid)?);
    Some(own + below.iter().filter_map(|pid| of_process(pid.as_raw_nonzero().get().unsigned_abs())).sum::<u64>())
}

/// One process alone.
#[cfg(target_os = "linux")]
pub fn of_process(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let resident_pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(resident_pages * rustix::param::page_size() as u64)
}

/// Everything below the launcher `pid`, without the process that it may have put
/// between itself and the program.
#[cfg(target_os = "linux")]
pub(super) fn of_children(launcher: u32, program: u32) -> Option<u64> {
    let root = pid_of(launcher)?;
    let program = pid_of(program)?;
    let direct = tree::children(root);
    let between = |pid: &Pid| direct.contains(pid) && *pid != program && direct.len() == 1;
    let all = tree::descendants(root);
    let mut all = all.into_iter().filter(|pid| !between(pid)).peekable();
    all.peek()?;
    Some(all.filter_map(|pid| of_process(pid.as_raw_nonzero().get().unsigned_abs())).sum())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn of_children(_launcher: u32, program: u32) -> Option<u64> {
    of_tree(program)
}

#[cfg(target_os = "linux")]
fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// One process alone.
#[cfg(not(target_os = "linux"))]
pub fn of_process(pid: u32) -> Option<u64> {
    let output = std::process::Command::new("ps").args(["-o", "rss=", "-p", &pid.to_string()]).output().ok()?;
    let kib: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().ok()?;
    Some(kib * 1024)
}

/// Elsewhere `ps` knows the members of the group that `pid` leads.
#[cfg(not(target_os = "linux"))]
pub fn of_tree(pid: u32) -> Option<u64> {
    let output = std::process::Command::new("ps").args(["-A", "-o", "pgid=,rss="]).output().ok()?;
    let listing = String::from_utf8_lossy(&output.stdout);
    let kib = listing
        .lines()
        .filter_map(|line| line.trim().split_once(char::is_whitespace))
        .filter(|(group, _)| group.parse() == Ok(pid))
        .filter_map(|(_, kib)| kib.trim().parse::<u64>().ok())
        .sum::<u64>();
    (kib > 0).then_some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_dead_one_has_none() {
        assert!(of_tree(std::process::id()).expect("this process") > 100_000);
        assert_eq!(of_tree(u32::MAX - 1), None);
    }
}
