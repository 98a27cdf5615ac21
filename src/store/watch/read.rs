//! Reading watch.db, whether or not a watcher writes it at the same time.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use serde::Serialize;
use serde_json::Value;

use super::{Result, WatchDbError, at, schema::VERSION};
use crate::store::database::Trouble;

const LOCK_WAIT: Duration = Duration::from_secs(5);

/// One row of `events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatchEvent {
    pub id: i64,
    #[serde(rename = "timestamp")]
    pub timestamp_ms: i64,
    pub event: String,
    pub path: String,
    /// The bytes of a name that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
    pub size: i64,
    pub mtime_ns: i64,
    pub state: String,
    pub attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Debug)]
pub struct WatchReader {
    connection: Connection,
    path: PathBuf,
}

impl WatchReader {
    pub fn open(path: &Path) -> Result<Self> {
        let connect = || -> std::result::Result<Connection, Trouble> {
            if !path.exists() {
                return Err(Trouble::Unusable("there is none yet: `seawall file-watcher` makes it".to_owned()));
            }
            let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            connection.busy_timeout(LOCK_WAIT)?;
            match connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? {
                VERSION => Ok(connection),
                found => Err(Trouble::Unusable(format!("its schema is {found}, this seawall knows {VERSION}"))),
            }
        };
        let connection = connect().map_err(|trouble| at(path, trouble))?;
        Ok(WatchReader { connection, path: path.to_owned() })
    }

    /// The newest events, the newest last.
    pub fn events(&self, state: Option<&str>, limit: u32) -> Result<Vec<WatchEvent>> {
        let query = || -> rusqlite::Result<Vec<WatchEvent>> {
            self.connection
                .prepare(
                    "SELECT id, timestamp, event, path, path_bytes, moved_from, size, mtime_ns, state, attempts, message
                     FROM events WHERE ?1 IS NULL OR state = ?1 ORDER BY id DESC LIMIT ?2",
                )?
                .query_map(params![state, limit], |row| {
                    let bytes: Vec<u8> = row.get(4)?;
                    Ok(WatchEvent {
                        id: row.get(0)?,
                        timestamp_ms: row.get(1)?,
                        event: row.get(2)?,
                        path: row.get(3)?,
                        path_base64: std::str::from_utf8(&bytes).is_err().then(|| STANDARD.encode(&bytes)),
                        moved_from: row.get(5)?,
                        size: row.get(6)?,
                        mtime_ns: row.get(7)?,
                        state: row.get(8)?,
                        attempts: row.get(9)?,
                        message: row.get(10)?,
                    })
                })?
                .collect()
        };
        let mut events = query().map_err(|error| self.error(error))?;
        events.reverse();
        Ok(events)
    }

    /// When the watcher last said how it is, as Unix milliseconds, and what it said.
    pub fn status(&self) -> Result<Option<(i64, Value)>> {
        let row = self
            .connection
            .query_row("SELECT timestamp, status FROM status", [], |row| {
                Ok((row.get(0)?, serde_json::from_str(&row.get::<_, String>(1)?).unwrap_or_default()))
            })
            .optional();
        row.map_err(|error| self.error(error))
    }

    /// How many files are known to be there, and how many events wait to be handled.
    pub fn counts(&self) -> Result<(u64, u64)> {
        let count = |sql| self.connection.query_row(sql, [], |row| row.get(0).map(i64::cast_unsigned));
        let files = count("SELECT count(*) FROM files WHERE gone IS NULL");
        let pending = count("SELECT count(*) FROM events WHERE state = 'pending'");
        files.and_then(|files| Ok((files, pending?))).map_err(|error| self.error(error))
    }

    fn error(&self, error: rusqlite::Error) -> WatchDbError {
        at(&self.path, error.into())
    }
}

/// A path as text: as it is where it is UTF-8, else with `\xNN` for what is not.
pub fn shown(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
