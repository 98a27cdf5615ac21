//! watch.db: what the file watcher knows of its folders, and what became of each file.
//!
//! `files` is what is known to be there, one row a path; `events` is the log of what was
//! seen, and the queue of what is still to be handled. Both change in one transaction,
//! which is why a file is recorded once however often it is seen, and whenever the
//! watcher is killed.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::database::{FileId, Trouble, beside, keep_journal, set_aside};
use crate::id::unix_ms;

mod queue;
mod read;
mod record;
mod retention;
mod schema;

pub use queue::{Due, Failed};
pub use read::{WatchEvent, WatchReader, shown};
pub use record::Change;

use schema::connect;

/// Which file it is, and which content it has: what is the same here is the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub mtime_ns: i64,
}

impl Stamp {
    /// A disk that is plugged in again may have another number.
    pub fn is_same(&self, other: &Stamp) -> bool {
        (self.inode, self.size, self.mtime_ns) == (other.inode, other.size, other.mtime_ns)
    }
}

/// A file that is, or was, there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub stamp: Stamp,
    pub is_gone: bool,
}

/// What is known of a folder from earlier lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baseline {
    pub since_ms: i64,
    pub is_known: bool,
}

/// Why watch.db does not take or give rows.
#[derive(Debug, thiserror::Error)]
#[error("{}: {trouble}", path.display())]
pub struct WatchDbError {
    path: PathBuf,
    trouble: Trouble,
}

impl WatchDbError {
    /// Whether a later attempt may do: it is locked, or the disk is full.
    pub fn is_passing(&self) -> bool {
        matches!(self.trouble, Trouble::Busy | Trouble::Full)
    }
}

type Result<T> = std::result::Result<T, WatchDbError>;

/// The one connection that writes.
#[derive(Debug)]
pub struct WatchDb {
    connection: Connection,
    path: PathBuf,
    file: FileId,
    journal: Option<FileId>,
    files: u64,
}

impl WatchDb {
    /// Opens watch.db, or makes it. A damaged one is set aside, and a new one begun:
    /// then what is in the folders counts as known. Says the new name of the damaged one.
    pub fn open(path: &Path, max_bytes: u64) -> Result<(Self, Option<PathBuf>)> {
        let damaged = FileId::of(path);
        match connect(path, max_bytes) {
            Ok(connection) => Ok((Self::with(connection, path)?, None)),
            Err(Trouble::Damaged(why)) => {
                let aside = set_aside(path, damaged).map_err(|error| WatchDbError {
                    path: path.to_owned(),
                    trouble: Trouble::Damaged(format!("{why}, and cannot be set aside: {error}")),
                })?;
                let connection = connect(path, max_bytes).map_err(|trouble| at(path, trouble))?;
                Ok((Self::with(connection, path)?, aside))
            }
            Err(trouble) => Err(at(path, trouble)),
        }
    }

    fn with(connection: Connection, path: &Path) -> Result<Self> {
        let files = connection.query_row("SELECT count(*) FROM files", [], |row| row.get(0));
        let files: i64 = files.map_err(|error| at(path, error.into()))?;
        let file = FileId::of(path).ok_or_else(|| at(path, Trouble::Gone))?;
        let journal = FileId::of(&beside(path, "-wal"));
        Ok(WatchDb { connection, path: path.to_owned(), file, journal, files: files.unsigned_abs() })
    }

    /// Of how many files something is known.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// What is known of a folder. One that is new counts as known where nothing is there.
    pub fn folder(&mut self, path: &[u8], since_ms: i64, is_there: bool) -> Result<Baseline> {
        self.ask(|connection| {
            connection.execute(
                "INSERT OR IGNORE INTO folders (path, since, is_known) VALUES (?1, ?2, ?3)",
                params![path, since_ms, !is_there],
            )?;
            connection.query_row("SELECT since, is_known FROM folders WHERE path = ?1", [path], |row| {
                Ok(Baseline { since_ms: row.get(0)?, is_known: row.get(1)? })
            })
        })
    }

    /// All that was in the folder before it was watched is known.
    pub fn folder_is_known(&mut self, path: &[u8]) -> Result<()> {
        self.ask(|connection| connection.execute("UPDATE folders SET is_known = 1 WHERE path = ?1", [path]).map(drop))
    }

    pub fn known(&self, path: &[u8]) -> Result<Option<Known>> {
        known(&self.connection, path).map_err(|error| at(&self.path, error.into()))
    }

    /// Paths below a folder that are not known to be gone, those after `after`, in order.
    pub fn below(&self, folder: &[u8], after: &[u8], limit: u32) -> Result<Vec<Vec<u8>>> {
        // All of them begin with the folder and a slash; a zero is what comes after it.
        let (mut from, mut to) = (folder.to_vec(), folder.to_vec());
        from.push(b'/');
        to.push(b'/' + 1);
        let from = if after > &from[..] { after } else { &from[..] };
        let query = || -> rusqlite::Result<Vec<Vec<u8>>> {
            self.connection
                .prepare_cached(
                    "SELECT path FROM files WHERE path > ?1 AND path < ?2 AND gone IS NULL ORDER BY path LIMIT ?3",
                )?
                .query_map(params![from, to, limit], |row| row.get(0))?
                .collect()
        };
        query().map_err(|error| at(&self.path, error.into()))
    }

    /// How the watcher is, for whoever asks.
    pub fn beat(&mut self, status: &serde_json::Value) -> Result<()> {
        self.ask(|connection| {
            connection
                .prepare_cached(
                    "INSERT INTO status (id, timestamp, status) VALUES (1, ?1, ?2)
                     ON CONFLICT (id) DO UPDATE SET timestamp = excluded.timestamp, status = excluded.status",
                )?
                .execute(params![now_ms(), status.to_string()])
                .map(drop)
        })
    }

    fn ask<T>(&mut self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T> {
        let done = work(&mut self.connection).map_err(|error| at(&self.path, error.into()))?;
        // Asked after the fact: what went into a file that nobody finds any more is not known
        // to the next life. A watcher that is told so ends, and the next one begins anew.
        let is_there = self.file.is_still_at(&self.path);
        let is_kept = is_there.and_then(|()| keep_journal(&self.connection, &self.path, self.journal));
        is_kept.map(|()| done).map_err(|trouble| at(&self.path, trouble))
    }
}

fn at(path: &Path, trouble: Trouble) -> WatchDbError {
    WatchDbError { path: path.to_owned(), trouble }
}

fn now_ms() -> i64 {
    i64::try_from(unix_ms()).unwrap_or(i64::MAX)
}

fn known(connection: &Connection, path: &[u8]) -> rusqlite::Result<Option<Known>> {
    connection
        .prepare_cached("SELECT device, inode, size, mtime_ns, gone IS NOT NULL FROM files WHERE path = ?1")?
        .query_row([path], |row| {
            let number = |at: usize| row.get(at).map(i64::cast_unsigned);
            let stamp = Stamp { device: number(0)?, inode: number(1)?, size: number(2)?, mtime_ns: row.get(3)? };
            Ok(Known { stamp, is_gone: row.get(4)? })
        })
        .optional()
}

#[cfg(test)]
mod tests;
