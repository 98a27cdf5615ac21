//! How much a tree of processes has put on the disk: what lies below the folders that it
//! may write, counted again and again, against what lay there when it began.
//!
//! There is no limit of the kernel's for that which needs no privilege. So it is watched:
//! a little at a time, as the watcher has other things to do, and only when the file
//! system says that it has become fuller.

use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
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
/// The clock of a file system is so far behind.
const CLOCK_TICK: Duration = Duration::from_millis(20);
/// Folders that are still to be counted.
const PENDING_MAX: usize = 1 << 20;
/// Files of several names that are remembered, so that each counts once.
const LINKED_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct DiskWatch {
    folders: Vec<PathBuf>,
    max: u64,
    /// What lay there when it began; `None` before the first count is through.
    before: Option<u64>,
    count: Option<Count>,
    next: Instant,
    room: u64,
    /// What was free when it began.
    room_before: u64,
    began: SystemTime,
    latest: Instant,
}

#[derive(Debug, Default)]
struct Count {
    pending: Vec<PathBuf>,
    total: u64,
    /// Of that, what was there when the tree began: this count may have begun later.
    old: u64,
    linked: HashSet<(u64, u64)>,
    /// It may have what cannot be looked into.
    is_partly_hidden: bool,
    took: Duration,
}

impl DiskWatch {
    /// `None` where there is nothing to watch.
    pub(super) fn new(folders: Vec<PathBuf>, max: Option<u64>) -> Option<Self> {
        let (max, now) = (max?, Instant::now());
        let began = SystemTime::now() - CLOCK_TICK;
        let mut watch = DiskWatch {
            folders,
            max,
            before: None,
            count: None,
            next: now,
            room: 0,
            room_before: 0,
            began,
            latest: now,
        };
        watch.room_before = watch.room_now();
        (!watch.folders.is_empty()).then_some(watch)
    }

    /// Goes on counting; how much was added where that is more than may be. `nameless` are the
    /// bytes of files that have been removed and are open still.
    pub(super) fn look(&mut self, nameless: impl FnOnce(&[u64]) -> u64) -> Option<u64> {
        let now = Instant::now();
        if self.count.is_none() {
            if now < self.next || !self.is_worth_counting(now) {
                return None;
            }
            self.count = Some(Count { pending: self.folders.clone(), ..Count::default() });
        }
        let count = self.count.as_mut()?;
        let is_through = count.go_on(now + STEP, self.began);
        count.took += now.elapsed();
        if !is_through {
            return None;
        }
        let Count { total, old, is_partly_hidden, took, .. } = self.count.take()?;
        self.latest = Instant::now();
        self.room = self.room_now();
        self.next = self.latest + PAUSE_MIN.max(took * PAUSE_PER_COUNT);
        let before = *self.before.get_or_insert(old);
        let devices: Vec<u64> =
            self.folders.iter().filter_map(|folder| fs::metadata(folder).ok()).map(|folder| folder.dev()).collect();
        let added = total.saturating_sub(before).saturating_add(nameless(&devices));
        // What is hidden is taken to be what the disk has less.
        let hidden = self.room_before.saturating_sub(self.room);
        Some(if is_partly_hidden { added.max(hidden) } else { added }).filter(|added| *added > self.max)
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
    fn go_on(&mut self, until: Instant, began: SystemTime) -> bool {
        while let Some(folder) = self.pending.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    self.is_partly_hidden |= is_hidden(&folder, &error);
                    continue;
                }
            };
            for entry in entries.flatten() {
                let Ok(data) = entry.metadata() else { continue };
                self.add(&data, began);
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

    fn add(&mut self, data: &Metadata, began: SystemTime) {
        let is_known = !data.is_dir()
            && data.nlink() > 1
            && self.linked.len() < LINKED_MAX
            && !self.linked.insert((data.dev(), data.ino()));
        let bytes = ENTRY_BYTES + if is_known { 0 } else { data.blocks() * 512 };
        self.total = self.total.saturating_add(bytes);
        // A file system that does not know when is believed.
        if data.created().is_ok_and(|made| made >= began) {
            return;
        }
        self.old = self.old.saturating_add(bytes);
    }
}

/// Closed to the watcher by whoever owns it, or too deep. One that is gone hides nothing, and
/// one of somebody else's was there before.
fn is_hidden(folder: &Path, error: &io::Error) -> bool {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NAMETOOLONG) => true,
        Some(rustix::io::Errno::ACCESS) => {
            let own = rustix::process::geteuid().as_raw();
            fs::symlink_metadata(folder).map_or(true, |folder| folder.uid() == own)
        }
        _ => false,
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
            let over = watch.look(|_| 0);
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
        // Longer ago than a moment.
        watch.began = SystemTime::now() + CLOCK_TICK;
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
    fn a_file_counts_once_whatever_names_it_has_and_one_without_a_name_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        let mut watch = DiskWatch::new(vec![folder.path().to_owned()], Some(256 << 10)).expect("a watch");
        // Made before it is counted for the first time, and after the tree began.
        std::fs::write(&file, vec![1; 128 << 10]).expect("written");
        (0..50).for_each(|at| std::fs::hard_link(&file, folder.path().join(at.to_string())).expect("linked"));
        assert_eq!(counted(&mut watch), None, "128 KiB");
        (0..50).for_each(|at| std::fs::remove_file(folder.path().join(at.to_string())).expect("removed"));
        std::fs::write(folder.path().join("other"), vec![1; 192 << 10]).expect("written");
        let added = counted(&mut watch).expect("it is over");
        assert!((320 << 10..400 << 10).contains(&added), "{added}");
        std::fs::remove_file(folder.path().join("other")).expect("removed");
        watch.next = Instant::now();
        watch.room = u64::MAX;
        let device = std::fs::metadata(folder.path()).expect("there").dev();
        let nameless = |devices: &[u64]| if devices == [device] { 192 << 10 } else { 0 };
        assert!(watch.look(nameless).is_some(), "removed, and open still");
    }

    #[test]
    fn what_cannot_be_looked_into_is_what_the_disk_has_less() {
        let error = |errno: rustix::io::Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        let folder = tempfile::tempdir().expect("a folder");
        for (errno, hidden) in [
            (rustix::io::Errno::NAMETOOLONG, true),
            (rustix::io::Errno::ACCESS, true),
            (rustix::io::Errno::NOENT, false),
        ] {
            assert_eq!(is_hidden(folder.path(), &error(errno)), hidden, "{errno}");
        }
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
