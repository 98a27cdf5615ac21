//! Looking: at one path, at a subfolder, at a whole folder; and what is made of it.

use std::{
    collections::HashSet,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::Warden;
use crate::{
    id::unix_ms,
    store::watch::{Change, WatchDbError},
    watch::{
        folder::{Presence, bytes},
        survey::{Walk, is_gone},
    },
};

/// Rows of one question to watch.db.
const PAGE_ROWS: u32 = 1000;
/// The kernel's clock for files is behind the one on the wall by a tick.
const CLOCK_TICK_MS: i64 = 20;
/// More unreadable subfolders than this are not remembered one by one.
const UNREADABLE_MAX: usize = 1000;

impl Warden {
    /// Which folders came, and which went.
    pub(super) fn look_at_presence(&mut self) -> Result<(), WatchDbError> {
        for index in 0..self.folders.len() {
            if self.folders[index].baseline.is_some() {
                self.presence(index);
            } else {
                self.folders[index].look();
                self.begin(index)?;
            }
        }
        Ok(())
    }

    /// Whether a folder is there, and the same as before; else that is seen to.
    fn presence(&mut self, index: usize) -> bool {
        let presence = self.folders[index].look();
        let path = self.folders[index].path().to_owned();
        match presence {
            Presence::Same | Presence::Absent => {}
            Presence::Left => {
                tracing::warn!("{} is gone; waiting until it is back", path.display());
                self.eyes.forget(&path);
                self.folders[index].unreadable.clear();
            }
            Presence::Arrived => self.want_survey(&format!("{} is there again", path.display())),
        }
        presence == Presence::Same
    }

    fn begin(&mut self, index: usize) -> Result<(), WatchDbError> {
        let folder = &self.folders[index];
        let since_ms = now_ms() - CLOCK_TICK_MS;
        let baseline = self.db.folder(bytes(folder.path()), since_ms, folder.is_there())?;
        match folder.is_there() {
            true => tracing::info!("watching {}", folder.path().display()),
            false => tracing::warn!("{} does not exist; waiting until it does", folder.path().display()),
        }
        self.folders[index].baseline = Some(baseline);
        Ok(())
    }

    /// What is gone first: a folder that was renamed is forgotten under its old name
    /// before it is watched under the new one.
    pub(super) fn look_at_hints(&mut self, told: HashSet<PathBuf>) -> Result<(), WatchDbError> {
        let paths: Vec<(usize, PathBuf)> = told.iter().filter_map(|path| self.folder_of(path)).collect();
        let mut there = Vec::new();
        for (index, path) in paths {
            match self.folders[index].file(&path) {
                Ok(found) => there.push((index, path, found)),
                Err(error) if is_gone(&error) => self.look_at_gone(index, &path)?,
                // What is above it cannot be read, which a survey tells.
                Err(_) => {}
            }
        }
        // A folder before what is below it, which needs no second look.
        there.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
        let mut surveyed: Option<PathBuf> = None;
        for (index, path, found) in there {
            if surveyed.as_ref().is_some_and(|above| path.starts_with(above)) {
                continue;
            }
            if found.is_dir() {
                let folder = &self.folders[index];
                if folder.enters(&path) && (!path.is_symlink() || path == folder.path() || folder.leads_away(&path)) {
                    self.survey(index, &path)?;
                    surveyed = Some(path);
                }
            } else if found.is_file() && self.folders[index].takes(&path) {
                self.consider(index, path, &found)?;
            }
        }
        Ok(())
    }

    fn look_at_gone(&mut self, index: usize, path: &Path) -> Result<(), WatchDbError> {
        self.settling.forget(path);
        if self.eyes.forget(path) {
            // It may be there under another name, and is then to be watched anew.
            self.want_survey(&format!("{} is gone", path.display()));
        }
        // A disk that was plugged out takes nothing along that is not known.
        if !self.presence(index) {
            return Ok(());
        }
        if self.db.known(bytes(path))?.is_some_and(|known| !known.is_gone) {
            self.change(Change::Gone { path: bytes(path).to_vec() })?;
        }
        self.look_for_gone(index, path)
    }

    /// Those that are known below a path and are not there any more.
    fn look_for_gone(&mut self, index: usize, below: &Path) -> Result<(), WatchDbError> {
        let mut after = Vec::new();
        loop {
            let page = self.db.below(bytes(below), &after, PAGE_ROWS)?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(last);
            let is_missing = |path: &Vec<u8>| {
                let path = Path::new(std::ffi::OsStr::from_bytes(path));
                self.folders[index].file(path).is_err_and(|error| is_gone(&error))
            };
            let gone: Vec<Vec<u8>> = page.into_iter().filter(is_missing).collect();
            if !gone.is_empty() && !self.presence(index) {
                // The folder itself has gone meanwhile.
                return Ok(());
            }
            for path in gone {
                self.change(Change::Gone { path })?;
            }
        }
    }

    /// Compares a folder, or what is below `from` in it, with what is known.
    pub(super) fn survey(&mut self, index: usize, from: &Path) -> Result<(), WatchDbError> {
        if !self.folders[index].is_there() {
            return Ok(());
        }
        self.look_for_gone(index, from)?;
        let mut walk = Walk::new(from);
        while let Some((path, found)) = walk.next(&self.folders[index], &mut self.eyes) {
            if self.is_stopping() {
                return Ok(());
            }
            self.consider(index, path, &found)?;
        }
        self.tell_of(index, &walk);
        let folder = &self.folders[index];
        if from == folder.path() && folder.baseline.is_some_and(|baseline| !baseline.is_known) {
            self.flush()?;
            self.db.folder_is_known(bytes(from))?;
            self.folders[index].baseline.iter_mut().for_each(|baseline| baseline.is_known = true);
        }
        Ok(())
    }

    fn tell_of(&mut self, index: usize, walk: &Walk) {
        let from = walk.from();
        if walk.left_out > 0 && !self.is_too_deep {
            tracing::warn!("{}: {} subfolders are too many or too deep", from.display(), walk.left_out);
            self.is_too_deep = true;
        }
        let unreadable = &mut self.folders[index].unreadable;
        unreadable.retain(|path| {
            let is_still = !path.starts_with(from) || walk.unreadable.contains(path);
            if !is_still {
                tracing::info!("{} can be read again", path.display());
            }
            is_still
        });
        for path in &walk.unreadable {
            if unreadable.len() < UNREADABLE_MAX && unreadable.insert(path.clone()) {
                tracing::warn!("{} cannot be read; trying again until it can", path.display());
            }
        }
    }

    pub(super) fn look_at_unreadable(&mut self) -> Result<(), WatchDbError> {
        for index in 0..self.folders.len() {
            let readable = |path: &&PathBuf| match std::fs::read_dir(path) {
                Ok(_) => true,
                Err(error) => is_gone(&error),
            };
            let again: Vec<PathBuf> = self.folders[index].unreadable.iter().filter(readable).cloned().collect();
            for path in again {
                self.survey(index, &path)?;
            }
        }
        Ok(())
    }
}

pub(super) fn now_ms() -> i64 {
    i64::try_from(unix_ms()).unwrap_or(i64::MAX)
}
