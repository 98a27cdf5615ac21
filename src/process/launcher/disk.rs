//! How much a tree of processes has put on the disk: what lies below the folders that it
//! may write, counted again and again, against what lay there when it began.
//!
//! There is no limit of the kernel's for that which needs no privilege. So it is watched:
//! a little at a time, as the watcher has other things to do, and only when the file
//! system says that it has become fuller.

use std::{
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

/// So long it counts at a time.
const STEP: Duration = Duration::from_millis(20);
/// Between two counts.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Counting takes at most so small a part of the time.
const PAUSE_PER_COUNT: u32 = 20;
/// Counted again after so long where the file system has no room to tell of.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// An entry takes room even if it is empty.
const ENTRY_BYTES: u64 = 512;
/// Folders that are still to be counted.
const PENDING_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct DiskWatch {
    folders: Vec<PathBuf>,
    max: u64,
    /// What lay there when it began; `None` before the first count is through.
    before: Option<u64>,
    count: Option<Count>,
    next: Instant,
    room: u64,
    latest: Instant,
}

#[derive(Debug)]
struct Count {
    pending: Vec<PathBuf>,
    total: u64,
    took: Duration,
}

impl DiskWatch {
    /// `None` where there is nothing to watch.
    pub(super) fn new(folders: Vec<PathBuf>, max: Option<u64>) -> Option<Self> {
        let (max, now) = (max?, Instant::now());
        let watch = DiskWatch { folders, max, before: None, count: None, next: now, room: 0, latest: now };
        (!watch.folders.is_empty()).then_some(watch)
    }

    /// Goes on counting; how much was added where that is more than may be.
    pub(super) fn look(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.count.is_none() {
            if now < self.next || !self.is_worth_counting(now) {
                return None;
            }
            self.count = Some(Count { pending: self.folders.clone(), total: 0, took: Duration::ZERO });
        }
        let count = self.count.as_mut()?;
        let is_through = count.go_on(now + STEP);
        count.took += now.elapsed();
        if !is_through {
            return None;
        }
        let (total, took) = (count.total, count.took);
        self.count = None;
        self.latest = Instant::now();
        self.room = self.room_now();
        self.next = self.latest + PAUSE_MIN.max(took * PAUSE_PER_COUNT);
        let before = *self.before.get_or_insert(total);
        Some(total.saturating_sub(before)).filter(|added| *added > self.max)
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }

    fn is_worth_counting(&self, now: Instant) -> bool {
        self.before.is_none()
            || self.room.saturating_sub(self.room_now()) > self.max / 16
            || now.duration_since(self.latest) > PAUSE_MAX
    }

    /// What is free where it writes.
    fn room_now(&self) -> u64 {
        let free = |folder: &PathBuf| {
            let system = rustix::fs::statvfs(folder).ok()?;
            Some(system.f_bavail.saturating_mul(system.f_frsize))
        };
        self.folders.iter().filter_map(free).fold(0, u64::saturating_add)
    }
}

impl Count {
    /// Whether it is through.
    fn go_on(&mut self, until: Instant) -> bool {
        while let Some(folder) = self.pending.pop() {
            // One that is gone, or closed to the watcher, holds nothing that counts.
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let Ok(data) = entry.metadata() else { continue };
                self.total = self.total.saturating_add(data.blocks() * 512 + ENTRY_BYTES);
                if data.is_dir() && self.pending.len() < PENDING_MAX {
                    self.pending.push(entry.path());
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
        self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(watch: &mut DiskWatch) -> Option<u64> {
        watch.next = Instant::now();
        // As if the file system had become fuller by all that it has.
        watch.room = u64::MAX;
        loop {
            let over = watch.look();
            if over.is_some() || watch.count.is_none() {
                return over;
            }
        }
    }

    #[test]
    fn what_was_there_before_does_not_count_and_what_is_added_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, kib: usize| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, vec![1; kib << 10]).expect("written");
        };
        write("before", 512);
        let mut watch = DiskWatch::new(vec![folder.path().to_owned()], Some(256 << 10)).expect("a watch");
        assert_eq!(counted(&mut watch), None);
        write("deep/er/some", 128);
        assert_eq!(counted(&mut watch), None);
        for at in 0..4 {
            write(&format!("deep/{at}"), 64);
        }
        let added = counted(&mut watch).expect("it is over");
        assert!((384 << 10..1 << 20).contains(&added), "{added}");
        assert!(DiskWatch::new(Vec::new(), Some(1)).is_none() && DiskWatch::new(vec!["/".into()], None).is_none());
    }

    #[test]
    fn files_without_anything_in_them_count_as_well() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut watch = DiskWatch::new(vec![folder.path().to_owned()], Some(100 << 10)).expect("a watch");
        assert_eq!(counted(&mut watch), None);
        for at in 0..400 {
            std::fs::write(folder.path().join(at.to_string()), "").expect("written");
        }
        assert!(counted(&mut watch).is_some());
    }
}
