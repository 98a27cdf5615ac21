//! Reading, whether or not a gateway writes at the same time.
//!
//! A reader never creates, migrates or changes anything. Each question is one short
//! statement on a connection that is opened for it, so that a reader holds no journal
//! back and notices when the file was replaced.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, config::DbConfig, params};

use super::{
    database::Trouble,
    row::{EventRecord, FailureRecord},
    schema,
};

pub(super) mod statement;

use statement::{Query, read_event, read_failure};

const LOCK_WAIT: Duration = Duration::from_secs(5);
const CANDIDATES_MAX: u32 = 10;

/// Opens the database anew for each question.
#[derive(Clone, Debug)]
pub struct Reader {
    path: PathBuf,
    lock_wait: Duration,
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no database at {} yet: seawall creates it when it first runs", .0.display())]
    NoDatabase(PathBuf),
    #[error(
        "the database at {} has no tables: it is being made just now, or its journal (beside it, -wal) was deleted; a \
         gateway that is running has what was in it, and brings it back with its next row, or in ten minutes",
        .0.display()
    )]
    NoTables(PathBuf),
    #[error("the database at {} was made by a newer seawall (its schema is {found})", path.display())]
    Newer { path: PathBuf, found: i64 },
    #[error("the database at {} cannot be read: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
}

/// Which failures. Times are Unix milliseconds, `since` inclusive, `until` exclusive.
#[derive(Clone, Debug, Default)]
pub struct FailureFilter {
    pub server: Option<String>,
    pub tool: Option<String>,
    pub class: Option<String>,
    pub since_ms: Option<i64>,
    pub until_ms: Option<i64>,
    /// Only rows stored after the one with this `seq`, the first of them first. Without
    /// it the newest rows are found. Ids would not do: rows of several threads and
    /// processes are not stored in the order in which their ids were made.
    pub after_seq: Option<i64>,
    /// At most so many; `None` is a hundred thousand.
    pub limit: Option<u32>,
}

/// Which events.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub service: Option<String>,
    pub event_type: Option<String>,
    pub category: Option<String>,
    pub since_ms: Option<i64>,
    pub until_ms: Option<i64>,
    pub after_seq: Option<i64>,
    pub limit: Option<u32>,
}

/// What an id, or the beginning of one, belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Failure(Box<FailureRecord>),
    Event(Box<EventRecord>),
    None,
    /// More than one: their ids, at most ten.
    Ambiguous(Vec<String>),
}

/// How many failures of one class a server had.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    pub server: String,
    pub class: String,
    pub rows: u32,
    #[serde(rename = "last")]
    pub last_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Failures,
    Events,
}

impl Reader {
    /// Makes sure that there is a database to read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ReadError> {
        Self::patient(path, LOCK_WAIT)
    }

    /// The same for one who cannot wait as long for other processes.
    pub fn patient(path: impl Into<PathBuf>, lock_wait: Duration) -> Result<Self, ReadError> {
        let reader = Reader { path: path.into(), lock_wait };
        reader.connect()?;
        Ok(reader)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The failures that `filter` describes, the newest last.
    pub fn failures(&self, filter: &FailureFilter) -> Result<Vec<FailureRecord>, ReadError> {
        let query = Query::new("SELECT rowid, * FROM failures")
            .that("server =", filter.server.as_ref())
            .that("tool =", filter.tool.as_ref())
            .that("class =", filter.class.as_ref())
            .that("timestamp >=", filter.since_ms.as_ref())
            .that("timestamp <", filter.until_ms.as_ref())
            .page(filter.after_seq.as_ref(), filter.limit);
        self.rows(&query, filter.after_seq, read_failure)
    }

    /// The events that `filter` describes, the newest last.
    pub fn events(&self, filter: &EventFilter) -> Result<Vec<EventRecord>, ReadError> {
        let query = Query::new("SELECT rowid, * FROM events")
            .that("service_name =", filter.service.as_ref())
            .that("event_type =", filter.event_type.as_ref())
            .that("category =", filter.category.as_ref())
            .that("timestamp >=", filter.since_ms.as_ref())
            .that("timestamp <", filter.until_ms.as_ref())
            .page(filter.after_seq.as_ref(), filter.limit);
        self.rows(&query, filter.after_seq, read_event)
    }

    /// The one failure or event whose id begins with `prefix`.
    pub fn find(&self, prefix: &str) -> Result<Found, ReadError> {
        let prefix = as_written(prefix);
        // Every character of an id sorts before this one.
        let beyond = format!("{prefix}~");
        self.ask(|connection| {
            let ids: Vec<String> = connection
                .prepare(
                    "SELECT id FROM failures WHERE id >= ?1 AND id < ?2
                     UNION SELECT id FROM events WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3",
                )?
                .query_map(params![prefix, beyond, CANDIDATES_MAX], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let [id] = ids.as_slice() else {
                return Ok(if ids.is_empty() { Found::None } else { Found::Ambiguous(ids) });
            };
            let failure =
                connection.query_row("SELECT rowid, * FROM failures WHERE id = ?1", [id], read_failure).optional()?;
            if let Some(failure) = failure {
                return Ok(Found::Failure(Box::new(failure)));
            }
            let event =
                connection.query_row("SELECT rowid, * FROM events WHERE id = ?1", [id], read_event).optional()?;
            Ok(event.map_or(Found::None, |event| Found::Event(Box::new(event))))
        })
    }

    /// How many failures each server had of each class since a time. A row that tells
    /// of many refused calls counts as one.
    pub fn counts(&self, since_ms: i64) -> Result<Vec<Count>, ReadError> {
        self.ask(|connection| {
            connection
                .prepare(
                    "SELECT server, class, count(*), max(timestamp) FROM failures WHERE timestamp >= ?1
                     GROUP BY server, class ORDER BY server, count(*) DESC, class",
                )?
                .query_map([since_ms], |row| {
                    Ok(Count { server: row.get(0)?, class: row.get(1)?, rows: row.get(2)?, last_ms: row.get(3)? })
                })?
                .collect()
        })
    }

    /// The `seq` of the row stored last, 0 if there is none. It is lower than one seen
    /// before when the database was made anew.
    pub fn last_seq(&self, table: Table) -> Result<i64, ReadError> {
        let sql = match table {
            Table::Failures => "SELECT coalesce(max(rowid), 0) FROM failures",
            Table::Events => "SELECT coalesce(max(rowid), 0) FROM events",
        };
        self.ask(|connection| connection.query_row(sql, [], |row| row.get(0)))
    }

    fn rows<T>(
        &self,
        query: &Query<'_>,
        after_seq: Option<i64>,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ReadError> {
        self.ask(|connection| {
            let mut statement = connection.prepare(&query.sql)?;
            let rows = statement.query_map(query.values.as_slice(), read)?;
            let mut rows = rows.collect::<Result<Vec<T>, _>>()?;
            if after_seq.is_none() {
                rows.reverse();
            }
            Ok(rows)
        })
    }

    fn ask<T>(&self, question: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, ReadError> {
        question(&self.connect()?).map_err(|error| self.unreadable(&error))
    }

    fn connect(&self) -> Result<Connection, ReadError> {
        match self.path.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(ReadError::NoDatabase(self.path.clone())),
            // Behind a folder that may not be looked into, there may well be one.
            Err(error) => return Err(self.unreadable(&error)),
        }
        let usual = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .and_then(|connection| connection.busy_timeout(self.lock_wait).map(|()| connection))
            .map_err(|error| self.unreadable(&error))
            .and_then(|connection| self.checked(connection));
        match usual {
            // Reading a journal needs a file beside it, or nobody else. On a disk that cannot
            // be written, the database is as still as a stone and can be read as one.
            Err(ReadError::Unreadable { .. }) => match self.alone().and_then(|connection| self.checked(connection)) {
                Err(ReadError::Unreadable { .. }) => self.checked(self.as_a_stone()?),
                known => known,
            },
            known => known,
        }
    }

    /// With what SQLite would keep in the file beside it in memory: on a full disk. The journal
    /// stays as it is.
    fn alone(&self) -> Result<Connection, ReadError> {
        let open = || {
            let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.busy_timeout(self.lock_wait)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
            connection.pragma_update(None, "query_only", true)?;
            Ok(connection)
        };
        open().map_err(|error: rusqlite::Error| self.unreadable(&error))
    }

    fn as_a_stone(&self) -> Result<Connection, ReadError> {
        let name: String = self.path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(format!("file:{name}?immutable=1"), flags).map_err(|error| self.unreadable(&error))
    }

    fn checked(&self, connection: Connection) -> Result<Connection, ReadError> {
        match schema::version(&connection) {
            // The gateway made the file a moment ago and is not done with it.
            Ok(0) if std::fs::metadata(&self.path).is_ok_and(|file| file.len() > 0) => {
                Err(ReadError::NoTables(self.path.clone()))
            }
            Ok(0) => Err(ReadError::NoDatabase(self.path.clone())),
            Ok(_) => Ok(connection),
            Err(Trouble::Newer { found }) => Err(ReadError::Newer { path: self.path.clone(), found }),
            Err(trouble) => Err(self.unreadable(&trouble)),
        }
    }

    fn unreadable(&self, reason: &dyn std::fmt::Display) -> ReadError {
        ReadError::Unreadable { path: self.path.clone(), reason: reason.to_string() }
    }
}

/// Ids are copied from screens: they are in lower case and have no o, i or l.
fn as_written(prefix: &str) -> String {
    prefix.trim().to_lowercase().replace('o', "0").replace(['i', 'l'], "1")
}
