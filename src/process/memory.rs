//! Resident memory of a process and all that it started.

/// More processes than this are not a server's tree but a bomb.
#[cfg(target_os = "linux")]
const TREE_MAX_PROCESSES: usize = 4096;

/// The tree below and including `pid`; `None` if it is gone or cannot be read.
#[cfg(target_os = "linux")]
pub fn of_tree(pid: u32) -> Option<u64> {
    let mut total = of_process(pid)?;
    let mut seen = 1;
    let mut next = children(pid);
    while let Some(child) = next.pop() {
        seen += 1;
        if seen > TREE_MAX_PROCESSES {
            break;
        }
        total += of_process(child).unwrap_or(0);
        next.extend(children(child));
    }
    Some(total)
}

/// One process alone.
#[cfg(target_os = "linux")]
pub fn of_process(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let resident_pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(resident_pages * rustix::param::page_size() as u64)
}

#[cfg(target_os = "linux")]
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|line| line.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
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
