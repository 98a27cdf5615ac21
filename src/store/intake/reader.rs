//! Reading what was taken in, while it is being written or not.

use std::{path::PathBuf, time::Duration};

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use crate::store::{
    ReadError,
    query::statement::{Query, read_event},
    row::EventRecord,
};

const LOCK_WAIT: Duration = Duration::from_secs(2);
/// A page of large events ends before it has as many as were asked for.
const PAGE_MAX_BYTES: usize = 1024 * 1024;
/// What an event takes beside its own text, written down as JSON.
const EVENT_BYTES: usize = 256;

/// Opens the file anew for each question, so that it notices when the file was replaced.
#[derive(Clone, Debug)]
pub struct IntakeReader {
    path: PathBuf,
    page_max_bytes: usize,
}

/// Which events. Times are Unix milliseconds, `since` inclusive, `until` exclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntakeFilter {
    pub event_type: Option<String>,
    pub category: Option<String>,
    pub service_name: Option<String>,
    pub since_ms: Option<i64>,
    pub until_ms: Option<i64>,
}

/// Why events after a place that somebody has seen cannot be told any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lost {
    /// They were older than is kept, or too many.
    Deleted,
    /// The place is one of another file, which is not there any more; or of this one, as it was
    /// before an older copy of it was put back.
    OtherFile,
}

/// Events in the order in which they were taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Names the file: a place is one of a file.
    pub epoch: String,
    pub events: Vec<EventRecord>,
    /// All that was asked for is found up to here.
    pub seq: i64,
    /// There are more after that.
    pub has_more: bool,
    /// Between the place and the first of these there were others.
    pub lost: Option<Lost>,
}

impl IntakeReader {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        IntakeReader { path: path.into(), page_max_bytes: PAGE_MAX_BYTES }
    }

    /// The same file, in pages of this size; an event that is larger is one of its own.
    pub fn with_pages_of(&self, max_bytes: usize) -> Self {
        IntakeReader { page_max_bytes: max_bytes, ..self.clone() }
    }

    /// The newest events, as many as a page holds.
    pub fn newest(&self, filter: &IntakeFilter, limit: u32) -> Result<Page, ReadError> {
        self.ask(|connection| {
            let (epoch, seq) = place(connection)?;
            let query = select(filter);
            let query = query.that("seq <=", Some(&seq)).ending(&format!("ORDER BY seq DESC LIMIT {limit}"));
            let (mut events, _) = rows(connection, &query, self.page_max_bytes)?;
            events.reverse();
            Ok(Page { epoch, events, seq, has_more: false, lost: None })
        })
    }

    /// The events after a place, `from` being the epoch and seq of it, or an empty epoch for the
    /// beginning. In a file that is another one, all of them.
    pub fn after(&self, filter: &IntakeFilter, from: (&str, i64), limit: u32) -> Result<Page, ReadError> {
        self.ask(|connection| {
            let (epoch, last) = place(connection)?;
            let first = first(connection)?;
            let (from, lost) = match from {
                ("", _) => (0, None),
                // Beyond the end is where an older copy of the file was put back: what has come
                // since may have places that were seen before, with something else.
                (known, seq) if known == epoch && seq <= last => {
                    (seq, (first > seq.saturating_add(1)).then_some(Lost::Deleted))
                }
                _ => (0, Some(Lost::OtherFile)),
            };
            let query = select(filter);
            let query = query.that("seq >", Some(&from)).that("seq <=", Some(&last));
            let query = query.ending(&format!("ORDER BY seq LIMIT {limit}"));
            let (events, is_cut) = rows(connection, &query, self.page_max_bytes)?;
            let is_full = is_cut || u32::try_from(events.len()).is_ok_and(|found| found >= limit);
            // What the filter leaves out need not be looked at again.
            let seq = match events.last() {
                Some(event) if is_full => event.seq,
                // Nor what is gone be told of again.
                _ => last.max(from).max(first - 1),
            };
            Ok(Page { epoch, has_more: is_full && seq < last, events, seq, lost })
        })
    }

    /// Where the next event will come after.
    pub fn end(&self) -> Result<(String, i64), ReadError> {
        self.ask(place)
    }

    fn ask<T>(&self, question: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, ReadError> {
        if !self.path.exists() {
            return Err(ReadError::NoDatabase(self.path.clone()));
        }
        let answer = || {
            let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            connection.busy_timeout(LOCK_WAIT)?;
            // All that one question reads is of one moment.
            connection.execute_batch("BEGIN")?;
            question(&connection)
        };
        answer().map_err(|error| ReadError::Unreadable { path: self.path.clone(), reason: error.to_string() })
    }
}

/// Of which file, and the last place that was given away: the event there may be gone already.
fn place(connection: &Connection) -> rusqlite::Result<(String, i64)> {
    let sql = "SELECT epoch, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0) FROM origin";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The oldest that is kept, or the next to come: all before it are gone, as the oldest go first.
fn first(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce((SELECT min(seq) FROM events),
                   (SELECT seq + 1 FROM sqlite_sequence WHERE name = 'events'), 1)";
    connection.query_row(sql, [], |row| row.get(0))
}

fn select(filter: &IntakeFilter) -> Query<'_> {
    Query::new("SELECT seq AS rowid, id, timestamp, category, event_type, service_name, metadata FROM events")
        .that("event_type =", filter.event_type.as_ref())
        .that("category =", filter.category.as_ref())
        .that("service_name =", filter.service_name.as_ref())
        .that("timestamp >=", filter.since_ms.as_ref())
        .that("timestamp <", filter.until_ms.as_ref())
}

/// As many as there is room for, one at least, and whether there were more.
fn rows(connection: &Connection, query: &Query<'_>, max_bytes: usize) -> rusqlite::Result<(Vec<EventRecord>, bool)> {
    let mut statement = connection.prepare(&query.sql)?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    for event in statement.query_map(query.values.as_slice(), read_event)? {
        let event = event?;
        bytes += size(&event);
        if bytes > max_bytes && !events.is_empty() {
            return Ok((events, true));
        }
        events.push(event);
    }
    Ok((events, false))
}

/// What it comes to as JSON, at most: signs of a name may need another before them.
fn size(event: &EventRecord) -> usize {
    let names = [&event.id, &event.category, &event.event_type, &event.service_name];
    EVENT_BYTES + event.metadata.len() + names.map(|name| 2 * name.len()).iter().sum::<usize>()
}
