//! The file of the intake: its tables, and a group of submissions in one transaction.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Savepoint, Transaction, TransactionBehavior, params};

use super::{Accepted, IntakeSettings, Key, NewEvent, Receipt, Refused, Submission};
use crate::{
    id::Id,
    store::{
        database::{self, Durability, FileId, Trouble},
        retention::{self, Step},
    },
};

/// "emit", so that no other database is taken for one of these.
const APPLICATION_ID: i64 = 0x656d_6974;
const VERSION: i64 = 1;
/// `seq` is never used again, so that whoever has seen one can go on from there. `epoch`
/// names this file: a place in another one means nothing here. `timestamp` is when it
/// happened and `received` when it came, which is what it ages by.
const TABLES: &str = "
    CREATE TABLE events (
        seq          INTEGER PRIMARY KEY AUTOINCREMENT,
        id           TEXT    NOT NULL UNIQUE,
        timestamp    INTEGER NOT NULL,
        category     TEXT    NOT NULL,
        event_type   TEXT    NOT NULL,
        service_name TEXT    NOT NULL,
        metadata     TEXT    NOT NULL CHECK (json_valid(metadata)),
        received     INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX events_timestamp ON events (timestamp);
    CREATE INDEX events_type ON events (event_type);
    CREATE INDEX events_service ON events (service_name);
    CREATE TABLE receipts (
        key       TEXT    NOT NULL PRIMARY KEY,
        timestamp INTEGER NOT NULL,
        digest    TEXT    NOT NULL,
        events    TEXT    NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX receipts_timestamp ON receipts (timestamp);
    CREATE TABLE origin (epoch TEXT NOT NULL) STRICT;
";
/// Never more than this for each byte that is kept, whatever cannot be deleted.
const MAX_TIMES_KEPT: u64 = 2;
const LOCK_WAIT: Duration = Duration::from_secs(2);

pub(super) struct File {
    connection: Connection,
    settings: IntakeSettings,
    id: FileId,
    /// `None` where the file system cannot do WAL.
    journal: Option<FileId>,
    /// All is in the file, and nothing more may come over this connection.
    is_spent: bool,
}

impl File {
    pub(super) fn open(settings: &IntakeSettings) -> Result<Self, Trouble> {
        let mut connection = database::connect(&settings.path, LOCK_WAIT)?;
        let is_new = check(&connection)?;
        database::prepare(&connection, is_new, Durability::Power)?;
        if is_new {
            make_tables(&mut connection)?;
        }
        database::cap(&connection, settings.keep_bytes.saturating_mul(MAX_TIMES_KEPT))?;
        let id = FileId::of(&settings.path).ok_or(Trouble::Gone)?;
        let journal = FileId::of(&database::beside(&settings.path, "-wal"));
        Ok(File { connection, settings: settings.clone(), id, journal, is_spent: false })
    }

    /// Writes what can be taken of a group, all with one flush. An error is of all of
    /// them: then nothing was written.
    pub(super) fn commit<'a>(
        &mut self,
        group: impl IntoIterator<Item = &'a Submission>,
        now_ms: i64,
    ) -> Result<Vec<Result<Receipt, Refused>>, Trouble> {
        let outcomes = self.take_all(group, now_ms).map_err(database::or_damaged)?;
        // Asked after the fact: what went into a file that nobody can find any more is lost.
        self.id.is_still_at(&self.settings.path)?;
        self.keep_journal()?;
        Ok(outcomes)
    }

    /// What went into a journal that somebody has deleted is brought into the file. What is
    /// acknowledged is in either, and can be found.
    fn keep_journal(&mut self) -> Result<(), Trouble> {
        match database::keep_journal(&self.connection, &self.settings.path, self.journal) {
            Err(trouble @ Trouble::JournalGone) => {
                tracing::warn!(path = %self.settings.path.display(), "{trouble}; nothing was lost");
                self.is_spent = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Whether the next to write must open it anew.
    pub(super) fn is_spent(&self) -> bool {
        self.is_spent
    }

    fn take_all<'a>(
        &mut self,
        group: impl IntoIterator<Item = &'a Submission>,
        now_ms: i64,
    ) -> Result<Vec<Result<Receipt, Refused>>, Trouble> {
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::new();
        for submission in group {
            outcomes.push(take(&mut transaction, submission, now_ms)?);
        }
        transaction.commit()?;
        Ok(outcomes)
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// One short step of what age and size ask for.
    pub(super) fn tidy(&mut self, now_ms: i64) -> Result<Step, Trouble> {
        // Of a server to whom nobody hands anything for hours, too.
        self.keep_journal()?;
        if self.is_spent {
            return Ok(Step::Done);
        }
        let keep_ms = i64::try_from(self.settings.keep_for.as_millis()).unwrap_or(i64::MAX);
        let before_ms = now_ms.saturating_sub(keep_ms);
        let chunk = retention::CHUNK_ROWS;
        let deletion = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut deleted = deletion.execute(
            "DELETE FROM events WHERE seq IN
                 (SELECT seq FROM events ORDER BY seq LIMIT ?2) AND received < ?1",
            params![before_ms, chunk],
        )?;
        deleted += forget(&deletion, before_ms, chunk)?;
        if deleted == 0 && retention::too_big(&deletion, self.settings.keep_bytes)? {
            let oldest = "DELETE FROM events WHERE seq IN (SELECT seq FROM events ORDER BY seq LIMIT ?1)";
            deleted += deletion.execute(oldest, [chunk])?;
            deleted += forget(&deletion, i64::MAX, chunk)?;
        }
        deletion.commit()?;
        if deleted > 0 {
            return Ok(Step::More);
        }
        Ok(retention::give_back(&self.connection)?)
    }
}

/// Deletes the oldest receipts, up to the first of which an event is still there: a key that
/// went before its events would let them in a second time.
fn forget(deletion: &Transaction<'_>, before_ms: i64, chunk: i64) -> rusqlite::Result<usize> {
    let spent = {
        // An event is looked for by its id, the first of a receipt before its last.
        let mut oldest = deletion.prepare_cached(
            "SELECT key, EXISTS (
                 SELECT 1 FROM json_each(CASE WHEN json_valid(receipts.events) THEN receipts.events ELSE '[]' END) AS one
                 CROSS JOIN events ON events.id = json_extract(one.value, '$.id'))
             FROM receipts WHERE timestamp < ?1 ORDER BY timestamp LIMIT ?2",
        )?;
        let mut oldest = oldest.query(params![before_ms, chunk])?;
        let mut spent: Vec<String> = Vec::new();
        while let Some(receipt) = oldest.next()? {
            if receipt.get(1)? {
                break;
            }
            spent.push(receipt.get(0)?);
        }
        spent
    };
    for key in &spent {
        deletion.prepare_cached("DELETE FROM receipts WHERE key = ?1")?.execute([key])?;
    }
    Ok(spent.len())
}

/// Whether the file is an empty one; an error if it is of somebody else.
fn check(connection: &Connection) -> Result<bool, Trouble> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    match (pragma("application_id")?, pragma("user_version")?) {
        (0, 0) if pragma("schema_version")? == 0 => Ok(true),
        (APPLICATION_ID, VERSION) => Ok(false),
        (APPLICATION_ID, found) => Err(Trouble::Newer { found }),
        _ => Err(Trouble::Unusable("it holds something else than events of an emit server".to_owned())),
    }
}

fn make_tables(connection: &mut Connection) -> Result<(), Trouble> {
    let steps = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Asked again inside: another process may have been faster.
    if check(&steps)? {
        steps.execute_batch(TABLES)?;
        steps.execute("INSERT INTO origin VALUES (?1)", [Id::now().as_str()])?;
        steps.pragma_update(None, "application_id", APPLICATION_ID)?;
        steps.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(steps.commit()?)
}

/// One submission, wholly or not at all, whatever becomes of the others.
fn take(
    transaction: &mut Transaction<'_>,
    submission: &Submission,
    now_ms: i64,
) -> rusqlite::Result<Result<Receipt, Refused>> {
    let savepoint = transaction.savepoint()?;
    match insert(&savepoint, submission, now_ms) {
        Ok(Ok(receipt)) => savepoint.commit().map(|()| Ok(receipt)),
        // Dropped, the savepoint takes back what was inserted before.
        Ok(Err(refused)) => Ok(Err(refused)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Ok(Err(Refused::Unfit(error.to_string())))
        }
        Err(error) => Err(error),
    }
}

fn insert(
    savepoint: &Savepoint<'_>,
    submission: &Submission,
    now_ms: i64,
) -> rusqlite::Result<Result<Receipt, Refused>> {
    if let Some(key) = &submission.key
        && let Some(earlier) = earlier(savepoint, key)?
    {
        return Ok(earlier);
    }
    let mut events = Vec::with_capacity(submission.events.len());
    let mut is_repeat = true;
    for (index, event) in submission.events.iter().enumerate() {
        match one(savepoint, event, now_ms)? {
            One::New(accepted) => {
                is_repeat = false;
                events.push(accepted);
            }
            One::Known(accepted) => events.push(accepted),
            One::Other(id) => return Ok(Err(Refused::OtherEvent { index, id })),
        }
    }
    if let Some(key) = &submission.key {
        let text = serde_json::to_string(&events).unwrap_or_default();
        savepoint
            .prepare_cached("INSERT INTO receipts (key, timestamp, digest, events) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![key.text, now_ms, key.digest, text])?;
    }
    Ok(Ok(Receipt { events, is_repeat }))
}

/// What was answered to the same key before.
fn earlier(savepoint: &Savepoint<'_>, key: &Key) -> rusqlite::Result<Option<Result<Receipt, Refused>>> {
    let found: Option<(String, String)> = savepoint
        .prepare_cached("SELECT digest, events FROM receipts WHERE key = ?1")?
        .query_row([&key.text], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(found.map(|(digest, events)| {
        if digest != key.digest {
            return Err(Refused::OtherSubmission);
        }
        match serde_json::from_str(&events) {
            Ok(events) => Ok(Receipt { events, is_repeat: true }),
            Err(error) => Err(Refused::Unfit(format!("its receipt cannot be read: {error}"))),
        }
    }))
}

enum One {
    New(Accepted),
    /// The same is there already.
    Known(Accepted),
    /// Another one is there under the same id.
    Other(String),
}

fn one(savepoint: &Savepoint<'_>, event: &NewEvent, now_ms: i64) -> rusqlite::Result<One> {
    // Asked before: an insert that comes to nothing uses up a place all the same, and from a
    // place that is not there readers know that events are gone.
    if let Some(id) = &event.id
        && let Some(known) = known(savepoint, id, event)?
    {
        return Ok(known);
    }
    let id = event.id.clone().unwrap_or_else(|| Id::now().to_string());
    let timestamp_ms = event.timestamp_ms.unwrap_or(now_ms);
    savepoint
        .prepare_cached(
            "INSERT INTO events (id, timestamp, category, event_type, service_name, metadata, received)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            id,
            timestamp_ms,
            event.category,
            event.event_type,
            event.service_name,
            event.metadata,
            now_ms
        ])?;
    Ok(One::New(Accepted { id, timestamp_ms }))
}

/// What is there under the same id.
fn known(savepoint: &Savepoint<'_>, id: &str, event: &NewEvent) -> rusqlite::Result<Option<One>> {
    let known: Option<(i64, bool)> = savepoint
        .prepare_cached(
            "SELECT timestamp, category = ?2 AND event_type = ?3 AND service_name = ?4 AND metadata = ?5
             FROM events WHERE id = ?1",
        )?
        .query_row(params![id, event.category, event.event_type, event.service_name, event.metadata], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    Ok(known.map(|known| match known {
        // A time that its writer left out is the one that it got first.
        (timestamp_ms, true) if event.timestamp_ms.is_none_or(|wanted| wanted == timestamp_ms) => {
            One::Known(Accepted { id: id.to_owned(), timestamp_ms })
        }
        _ => One::Other(id.to_owned()),
    }))
}
