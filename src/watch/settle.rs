//! Files that may still be written: each waits here until its size and mtime have
//! rested for as long as its folder says.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::store::watch::Stamp;

/// More than so many at once are left where they are, to be found by a later survey.
const FILES_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Settling(HashMap<PathBuf, Restless>);

#[derive(Debug)]
struct Restless {
    stamp: Stamp,
    folder: usize,
    due: Instant,
}

/// One that has waited long enough; whether it is still as it was is for others to see.
#[derive(Debug)]
pub(super) struct Rested {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
    pub(super) folder: usize,
}

impl Settling {
    /// It is like this now. Waits from now on, unless it was seen like this before.
    /// False where there is no room.
    pub(super) fn see(&mut self, path: PathBuf, stamp: Stamp, folder: usize, now: Instant, settle: Duration) -> bool {
        if let Some(known) = self.0.get_mut(&path) {
            if known.stamp != stamp {
                *known = Restless { stamp, folder, due: now + settle };
            }
            return true;
        }
        if self.0.len() >= FILES_MAX {
            return false;
        }
        self.0.insert(path, Restless { stamp, folder, due: now + settle });
        true
    }

    pub(super) fn forget(&mut self, path: &std::path::Path) {
        self.0.remove(path);
    }

    /// Takes out those that have waited long enough.
    pub(super) fn rested(&mut self, now: Instant) -> Vec<Rested> {
        let mut rested: Vec<_> = self.0.extract_if(|_, restless| restless.due <= now).collect();
        rested.sort_by_key(|(_, restless)| restless.due);
        rested.into_iter().map(|(path, Restless { stamp, folder, .. })| Rested { path, stamp, folder }).collect()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|restless| restless.due).min()
    }

    /// Whether there is room again for what was left where it was.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < FILES_MAX / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(2);

    fn stamp(size: u64) -> Stamp {
        Stamp { device: 1, inode: 1, size, mtime_ns: 0 }
    }

    #[test]
    fn a_file_that_grows_waits_and_one_that_is_only_looked_at_does_not_wait_longer() {
        let mut settling = Settling::default();
        let start = Instant::now();
        let at = |tenths: u32| start + SETTLE * tenths / 10;
        assert!(settling.see("a".into(), stamp(1), 0, at(0), SETTLE));
        settling.see("a".into(), stamp(2), 0, at(8), SETTLE);
        assert!(settling.rested(at(10)).is_empty(), "it has grown meanwhile");
        settling.see("a".into(), stamp(2), 0, at(15), SETTLE);
        assert_eq!(settling.next(), Some(at(18)));
        let rested = settling.rested(at(18));
        assert_eq!((rested.len(), rested[0].stamp, settling.next()), (1, stamp(2), None));
    }

    #[test]
    fn there_is_a_bound() {
        let mut settling = Settling::default();
        let now = Instant::now();
        for n in 0..FILES_MAX {
            assert!(settling.see(n.to_string().into(), stamp(1), 0, now, SETTLE));
        }
        assert!(!settling.see("one more".into(), stamp(1), 0, now, SETTLE));
        assert!(settling.see("5".into(), stamp(2), 0, now, SETTLE), "a known one needs no room");
        assert!(!settling.has_room());
        settling.rested(now + SETTLE);
        assert!(settling.has_room());
    }
}
