//! Handing out: which files go to a command now, and what is made of how it ended.

use std::{collections::BTreeMap, ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path, time::Duration};

use super::Warden;
use crate::{
    id::unix_ms,
    store::watch::{Due, Failed, WatchDbError, shown},
    watch::{
        folder::stamp,
        handler::{Done, How},
        survey::is_gone,
    },
};

/// Before the first further attempt; then twice as long each time.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// A file whose folder is away is looked for again after so long.
const AWAY_LOOK_EVERY: Duration = Duration::from_secs(5);
/// No more events than this are asked for at once.
const ASKED_MAX_ROWS: usize = 10_000;

impl Warden {
    /// What became of the commands that have ended since.
    pub(super) fn hear_of_commands(&mut self) -> Result<(), WatchDbError> {
        for Done { events, retries, how } in self.handlers.ended() {
            let ids: Vec<i64> = events.iter().map(|due| due.id).collect();
            match how {
                How::Handled => self.db.ended(&ids, "done", None)?,
                How::BrokenOff => {}
                How::Failed(why) => {
                    for due in &events {
                        self.failed(due, retries, &why)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, due: &Due, retries: u32, why: &str) -> Result<(), WatchDbError> {
        let file = crate::text::quote(&shown(&due.path), 300);
        let next = if due.attempts < retries {
            let delay = RETRY_FIRST.saturating_mul(1 << due.attempts.min(16)).min(RETRY_MAX);
            tracing::warn!("{file} is tried again in {delay:?}: {}", crate::text::quote(why, 300));
            Failed::TryAgainAt { due_ms: in_ms(delay) }
        } else {
            tracing::error!("{file} is given up after {} attempts: {}", due.attempts + 1, crate::text::quote(why, 300));
            Failed::GiveUp
        };
        self.db.failed(due.id, next, why)
    }

    /// Starts as many commands as may run.
    pub(super) fn hand_out(&mut self) -> Result<(), WatchDbError> {
        if self.handlers.free() == 0 || self.is_stopping() {
            return Ok(());
        }
        let largest = self.folders.iter().filter_map(|folder| Some(folder.settings.handling.as_ref()?.batch)).max();
        let wanted = self.handlers.free() * largest.unwrap_or(1) + self.handlers.events();
        let due = self.db.due(u32::try_from(wanted.min(ASKED_MAX_ROWS)).unwrap_or(u32::MAX))?;
        // By folder, and those that failed before on their own: one bad file must not
        // take others along twice.
        let mut batches: BTreeMap<usize, Vec<Due>> = BTreeMap::new();
        for due in due {
            if self.handlers.free() == 0 {
                return Ok(());
            }
            if self.handlers.is_busy_with(&due) {
                continue;
            }
            let Some(index) = self.settled_otherwise(&due)? else { continue };
            if due.attempts > 0 {
                self.start(index, vec![due]);
                continue;
            }
            let batch = batches.entry(index).or_default();
            batch.push(due);
            if self.folders[index].settings.handling.as_ref().is_some_and(|handling| batch.len() >= handling.batch) {
                let batch = std::mem::take(batch);
                self.start(index, batch);
            }
        }
        for (index, batch) in batches {
            if self.handlers.free() > 0 && !batch.is_empty() {
                self.start(index, batch);
            }
        }
        Ok(())
    }

    fn start(&mut self, index: usize, events: Vec<Due>) {
        if let Some(handling) = &self.folders[index].settings.handling {
            self.handlers.start(handling, events);
        }
    }

    /// The folder whose command is to handle it; `None` where nothing is to be handled
    /// any more, which is then on record.
    fn settled_otherwise(&mut self, due: &Due) -> Result<Option<usize>, WatchDbError> {
        let path = Path::new(OsStr::from_bytes(&due.path));
        let Some((index, _)) = self.folder_of(path) else {
            self.db.ended(&[due.id], "given_up", Some("its folder is not watched any more"))?;
            return Ok(None);
        };
        let folder = &self.folders[index];
        if folder.settings.handling.is_none() {
            self.db.ended(&[due.id], "noted", None)?;
            return Ok(None);
        }
        match folder.file(path) {
            Ok(found) if stamp(&found).is_same(&due.stamp) => Ok(Some(index)),
            // Its newer state is an event of its own as soon as it rests.
            Ok(_) => self.db.ended(&[due.id], "superseded", None).map(|()| None),
            // With its folder; it may come back.
            Err(_) if !folder.is_there() => self.db.postpone(due.id, in_ms(AWAY_LOOK_EVERY)).map(|()| None),
            Err(error) if is_gone(&error) => {
                self.db.ended(&[due.id], "gone", Some("it was gone before it could be handled"))?;
                Ok(None)
            }
            // Whether it can be read is for its command to find out.
            Err(_) => Ok(Some(index)),
        }
    }
}

/// So much from now on, as Unix milliseconds.
fn in_ms(delay: Duration) -> i64 {
    let due_ms = unix_ms().saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    i64::try_from(due_ms).unwrap_or(i64::MAX)
}
