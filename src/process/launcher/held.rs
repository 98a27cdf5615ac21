//! What a tree of processes holds, and makes the kernel hold: more than is resident.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::process::Pid;

use super::tree;

/// Of stat(2), whatever the file system's own are.
const BLOCK_BYTES: u64 = 512;
/// What a socket or a pipe may hold, with the limits that most systems have.
const BUFFER_MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Held {
    /// Resident memory, page tables, and files in memory that have no name.
    pub(super) bytes: u64,
    /// What sockets and pipes may hold beside that. How much they do, nobody tells.
    pub(super) buffers_max_bytes: u64,
}

/// By the tree below and including `root`; `None` if that is gone.
pub(super) fn by_tree(root: Pid) -> Option<Held> {
    status(root)?;
    let (mut own_kib, mut shared_kib) = (0, 0);
    let mut open = Open::default();
    for pid in std::iter::once(root).chain(tree::descendants(root)) {
        let Some(status) = status(pid) else { continue };
        let kib = |name| field_kib(&status, name).unwrap_or(0);
        own_kib += kib("RssAnon:") + kib("RssFile:") + kib("VmPTE:");
        shared_kib += kib("RssShmem:");
        open.note(pid);
    }
    // What is mapped, too, is in both.
    let shared = open.nameless.into_values().sum::<u64>().max(shared_kib * 1024);
    let buffers_max_bytes = open.buffers.len() as u64 * BUFFER_MAX_BYTES;
    Some(Held { bytes: own_kib * 1024 + shared, buffers_max_bytes })
}

/// The bytes of files on `devices` that have no name any more and that the tree has open.
pub(super) fn removed_bytes(root: Pid, devices: &[u64]) -> u64 {
    let mut known = HashMap::new();
    for pid in std::iter::once(root).chain(tree::descendants(root)) {
        for descriptor in descriptors(pid) {
            if let Ok(file) = fs::metadata(&descriptor)
                && file.is_file()
                && file.nlink() == 0
                && devices.contains(&file.dev())
            {
                known.insert((file.dev(), file.ino()), file.blocks() * BLOCK_BYTES);
            }
        }
    }
    known.into_values().sum()
}

fn descriptors(pid: Pid) -> impl Iterator<Item = PathBuf> {
    let all = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).into_iter().flatten();
    all.flatten().map(|descriptor| descriptor.path())
}

/// Whether less than a tenth of the machine's memory can be had.
pub(super) fn is_machine_short() -> bool {
    let Ok(known) = fs::read_to_string("/proc/meminfo") else { return false };
    let kib = |name| field_kib(&known, name);
    kib("MemAvailable:").zip(kib("MemTotal:")).is_some_and(|(available, total)| available < total / 10)
}

/// What processes have open, each thing once, whoever else has it.
#[derive(Default)]
struct Open {
    /// What memfd_create(2) made: its bytes by inode.
    nameless: HashMap<u64, u64>,
    /// `socket:[INODE]`, `pipe:[INODE]`.
    buffers: HashSet<Vec<u8>>,
}

impl Open {
    fn note(&mut self, pid: Pid) {
        for descriptor in descriptors(pid) {
            let Ok(target) = fs::read_link(&descriptor) else { continue };
            let target = target.as_os_str().as_bytes();
            if target.starts_with(b"/memfd:") {
                self.note_nameless(&descriptor);
            } else if target.starts_with(b"socket:") || target.starts_with(b"pipe:") {
                self.buffers.insert(target.to_vec());
            }
        }
    }

    fn note_nameless(&mut self, descriptor: &Path) {
        if let Ok(file) = fs::metadata(descriptor) {
            self.nameless.insert(file.ino(), file.blocks() * BLOCK_BYTES);
        }
    }
}

fn status(pid: Pid) -> Option<String> {
    fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()
}

fn field_kib(known: &str, name: &str) -> Option<u64> {
    let line = known.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Held {
        by_tree(rustix::process::getpid()).expect("this process")
    }

    #[test]
    fn a_file_in_memory_that_has_no_name_counts_once() {
        const BYTES: u64 = 4 << 20;
        let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::empty()).expect("a file");
        let file = fs::File::from(file);
        let again = file.try_clone().expect("a descriptor");
        std::io::Write::write_all(&mut &file, &vec![1; 4 << 20]).expect("written");
        let mut open = Open::default();
        open.note(rustix::process::getpid());
        let inode = file.metadata().expect("it is open").ino();
        assert_eq!(open.nameless.get(&inode), Some(&BYTES));
        assert!(held().bytes >= BYTES);
        drop((file, again));
    }

    #[test]
    fn sockets_and_pipes_are_counted_once() {
        let before = held().buffers_max_bytes;
        let pairs: Vec<_> = (0..500).map(|_| std::os::unix::net::UnixStream::pair().expect("a pair")).collect();
        let again: Vec<_> = pairs.iter().map(|(one, _)| one.try_clone().expect("a descriptor")).collect();
        let counted = held().buffers_max_bytes - before;
        // Tests beside this one come and go.
        assert!((900 * BUFFER_MAX_BYTES..1400 * BUFFER_MAX_BYTES).contains(&counted), "{counted}");
        drop((pairs, again));
        assert!(by_tree(Pid::from_raw(i32::MAX - 1).expect("a number")).is_none());
    }
}
