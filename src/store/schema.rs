//! The tables, and the way from every older version of them to this one.
//!
//! `user_version` says which version a file has. Steps only go forward; a file of a
//! newer seawall is left alone.

use rusqlite::{Connection, TransactionBehavior};

use super::database::Trouble;

/// The version that a file has after all steps.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// Before 3.51.3, two processes that write and checkpoint at the same moment can
/// lose committed rows, and seawall is several processes with one database.
const SQLITE_MIN: i32 = 3_051_003;

/// Step n brings a file from version n to n + 1. Never change one that was released.
const STEPS: &[&str] = &["
    CREATE TABLE events (
        id           TEXT    NOT NULL PRIMARY KEY,
        timestamp    INTEGER NOT NULL,
        category     TEXT    NOT NULL,
        event_type   TEXT    NOT NULL,
        service_name TEXT    NOT NULL,
        metadata     TEXT    NOT NULL CHECK (json_valid(metadata))
    ) STRICT;
    CREATE INDEX events_timestamp ON events (timestamp);
    CREATE INDEX events_service ON events (service_name, event_type, timestamp);

    CREATE TABLE failures (
        id          TEXT    NOT NULL PRIMARY KEY,
        timestamp   INTEGER NOT NULL,
        server      TEXT    NOT NULL,
        tool        TEXT    NOT NULL,
        class       TEXT    NOT NULL,
        message     TEXT    NOT NULL,
        duration_ms INTEGER NOT NULL,
        client      TEXT    NOT NULL,
        protocol    TEXT    NOT NULL,
        request_id  TEXT    NOT NULL,
        instance    INTEGER,
        arguments   TEXT,
        exit_status TEXT,
        stderr_tail TEXT
    ) STRICT;
    CREATE INDEX failures_timestamp ON failures (timestamp);
    CREATE INDEX failures_server ON failures (server, class, timestamp);
"];

/// Refuses to work with an SQLite that loses rows.
pub(super) fn check_library() -> Result<(), Trouble> {
    if rusqlite::version_number() >= SQLITE_MIN {
        return Ok(());
    }
    Err(Trouble::Unusable(format!("SQLite {} can lose rows, 3.51.3 or later is needed", rusqlite::version())))
}

/// Brings the file to [`VERSION`].
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Trouble> {
    if version(connection)? == VERSION {
        return Ok(());
    }
    let steps = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Asked again inside: another process may have been faster.
    let found = usize::try_from(version(&steps)?).unwrap_or(0);
    for sql in STEPS.iter().skip(found) {
        steps.execute_batch(sql)?;
    }
    steps.pragma_update(None, "user_version", VERSION)?;
    Ok(steps.commit()?)
}

/// The version that the file has, 0 for an empty one; an error if it is newer than
/// this program knows.
pub(super) fn version(connection: &Connection) -> Result<i64, Trouble> {
    match connection.pragma_query_value(None, "user_version", |row| row.get(0))? {
        found if found > VERSION => Err(Trouble::Newer { found }),
        known => Ok(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_one_that_loses_nothing() {
        check_library().expect("bundled SQLite");
    }

    #[test]
    fn an_empty_file_gets_the_tables_and_a_newer_one_is_left_alone() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate(&mut connection).expect("first time");
        migrate(&mut connection).expect("nothing left to do");
        connection.execute_batch("PRAGMA user_version = 99; DROP TABLE events").expect("a newer one");
        assert!(matches!(migrate(&mut connection), Err(Trouble::Newer { found: 99 })));
    }

    #[test]
    fn metadata_that_is_no_json_stays_outside() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate(&mut connection).expect("tables");
        let insert = "INSERT INTO events VALUES ('a', 1, 'c', 't', 's', ?1)";
        connection.execute(insert, ["{\"a\":1e400}"]).expect("JSON");
        connection.execute(insert, ["{"]).expect_err("no JSON");
    }
}
