//! Which processes there are: so that a test can say that none was left behind.

use std::collections::BTreeSet;
#[cfg(not(target_os = "linux"))]
use std::process::Command;

struct Process {
    pid: u32,
    parent: u32,
    is_dead: bool,
}

/// Everything that descends from `ancestor` and lives.
pub fn descendants(ancestor: u32) -> BTreeSet<u32> {
    let all = processes();
    let mut found = BTreeSet::from([ancestor]);
    loop {
        let more: Vec<u32> = all
            .iter()
            .filter(|process| !process.is_dead && found.contains(&process.parent) && !found.contains(&process.pid))
            .map(|process| process.pid)
            .collect();
        if more.is_empty() {
            found.remove(&ancestor);
            return found;
        }
        found.extend(more);
    }
}

/// Whether a process lives; one that waits to be buried does not.
pub fn is_alive(pid: u32) -> bool {
    processes().iter().any(|process| process.pid == pid && !process.is_dead)
}

#[cfg(target_os = "linux")]
fn processes() -> Vec<Process> {
    let folder = std::fs::read_dir("/proc").expect("/proc can be read");
    let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let read = |pid: u32| {
        // It may have ended since the folder was read.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        Some(Process { pid, parent: fields.next()?.parse().ok()?, is_dead: matches!(state, "Z" | "X") })
    };
    pids.filter_map(read).collect()
}

#[cfg(not(target_os = "linux"))]
fn processes() -> Vec<Process> {
    let output = Command::new("ps").args(["-axo", "pid=,ppid=,stat="]).output().expect("ps can be run");
    let read = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (pid, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Process { pid, parent, is_dead: fields.next()?.starts_with('Z') })
    };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(read).collect()
}
