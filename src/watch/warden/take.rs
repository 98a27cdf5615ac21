//! Taking: what a file that is there means, and when it has come to rest.

use std::{
    fs::Metadata,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{BATCH_CHANGES, Warden, look::now_ms};
use crate::{
    store::watch::{Baseline, Change, Stamp, WatchDbError},
    watch::folder::{Folder, arrived_ms, bytes, stamp, touched_ms},
};

impl Warden {
    /// A file that is there and is meant.
    pub(super) fn consider(&mut self, index: usize, path: PathBuf, found: &Metadata) -> Result<(), WatchDbError> {
        let stamp = stamp(found);
        let known = self.db.known(bytes(&path))?;
        if known.is_some_and(|known| !known.is_gone && known.stamp.is_same(&stamp)) {
            self.settling.forget(&path);
            return Ok(());
        }
        if known.is_none() && self.db.files() >= self.settings.max_files {
            if !self.is_full {
                tracing::warn!("more than {} files are known: others are left out", self.settings.max_files);
            }
            self.is_full = true;
            return Ok(());
        }
        let folder = &self.folders[index];
        if known.is_none() && was_there_before(folder, found) {
            return self.change(Change::WasThere { path: bytes(&path).to_vec(), stamp });
        }
        let settle = folder.settings.settle;
        if rests_since(found).is_some_and(|rest| rest >= settle) {
            self.settling.forget(&path);
            return self.seen(index, &path, stamp);
        }
        if !self.settling.see(path, stamp, index, Instant::now(), settle) {
            self.left_out = true;
        }
        Ok(())
    }

    /// Those that had the time to come to rest: they did, or they wait on.
    pub(super) fn take_rested(&mut self) -> Result<(), WatchDbError> {
        for rested in self.settling.rested(Instant::now()) {
            let folder = &self.folders[rested.folder];
            match folder.file(&rested.path) {
                Ok(found) if found.is_file() && stamp(&found) == rested.stamp => {
                    self.seen(rested.folder, &rested.path, rested.stamp)?;
                }
                Ok(found) if found.is_file() => {
                    let settle = folder.settings.settle;
                    self.settling.see(rested.path, stamp(&found), rested.folder, Instant::now(), settle);
                }
                // Gone before anybody knew of it.
                _ => {}
            }
        }
        Ok(())
    }

    fn seen(&mut self, index: usize, path: &Path, stamp: Stamp) -> Result<(), WatchDbError> {
        let is_to_be_handled = self.folders[index].settings.handling.is_some();
        self.change(Change::Seen { path: bytes(path).to_vec(), stamp, is_to_be_handled })
    }

    pub(super) fn change(&mut self, change: Change) -> Result<(), WatchDbError> {
        self.changes.push(change);
        if self.changes.len() >= BATCH_CHANGES { self.flush() } else { Ok(()) }
    }
}

/// Only while its folder is not known yet: later, whatever is not known is new.
fn was_there_before(folder: &Folder, found: &Metadata) -> bool {
    let is_older = |Baseline { since_ms, is_known }| !is_known && arrived_ms(found) < since_ms;
    !folder.settings.existing && folder.baseline.is_some_and(is_older)
}

/// `None` where its time is yet to come: a clock is wrong, and proves nothing.
fn rests_since(found: &Metadata) -> Option<Duration> {
    let rest_ms = now_ms().checked_sub(touched_ms(found))?;
    u64::try_from(rest_ms).ok().map(Duration::from_millis)
}
