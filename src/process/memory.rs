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

/// The tree below and including `pid`, with what the kernel holds for it and that is in no
/// process's resident memory: page tables, and files in memory that have no name.
#[cfg(target_os = "linux")]
pub(super) fn held_by_tree(pid: u32) -> Option<u64> {
    let root = pid_of(pid)?;
    status(root)?;
    let (mut own_kib, mut shared_kib, mut nameless) = (0, 0, std::collections::HashMap::new());
    for pid in std::iter::once(root).chain(tree::descendants(root)) {
        let Some(status) = status(pid) else { continue };
        let kib = |name| field_kib(&status, name).unwrap_or(0);
        own_kib += kib("RssAnon:") + kib("RssFile:") + kib("VmPTE:");
        shared_kib += kib("RssShmem:");
        note_nameless_files(pid, &mut nameless);
    }
    // What is mapped, too, is in both.
    let shared = nameless.into_values().sum::<u64>().max(shared_kib * 1024);
    Some(own_kib * 1024 + shared)
}

#[cfg(target_os = "linux")]
fn status(pid: Pid) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()
}

#[cfg(target_os = "linux")]
fn field_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// The bytes of what memfd_create(2) made, by inode: several may hold the same.
#[cfg(target_os = "linux")]
fn note_nameless_files(pid: Pid, known: &mut std::collections::HashMap<u64, u64>) {
    use std::os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _};
    const BLOCK_BYTES: u64 = 512;
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())) else { return };
    for descriptor in descriptors.flatten() {
        let is_one = std::fs::read_link(descriptor.path())
            .is_ok_and(|target| target.as_os_str().as_bytes().starts_with(b"/memfd:"));
        if is_one && let Ok(file) = std::fs::metadata(descriptor.path()) {
            known.insert(file.ino(), file.blocks() * BLOCK_BYTES);
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn held_by_tree(pid: u32) -> Option<u64> {
    of_tree(pid)
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
        assert_eq!(held_by_tree(u32::MAX - 1), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_in_memory_that_has_no_name_counts_once() {
        const BYTES: u64 = 64 << 20;
        let before = held_by_tree(std::process::id()).expect("this process");
        let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::empty()).expect("a file");
        let file = std::fs::File::from(file);
        let again = file.try_clone().expect("a descriptor");
        std::io::Write::write_all(&mut &file, &vec![1; 64 << 20]).expect("written");
        let after = held_by_tree(std::process::id()).expect("this process");
        assert!((before + BYTES / 2..before + BYTES * 3 / 2).contains(&after), "{before} then {after}");
        drop((file, again));
    }
}
