//! The tables of watch.db, and the connection that writes them.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::store::{
    database::{Trouble, cap, make_file},
    schema::check_library,
};

/// Step n brings a file from version n to n + 1. Never change one that was released.
const STEPS: &[&str] = &["
    CREATE TABLE folders (
        path     BLOB    NOT NULL PRIMARY KEY,
        -- When it was watched for the first time; what is older was there before.
        since    INTEGER NOT NULL,
        -- 1 when all that was there before is known.
        is_known INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE files (
        path     BLOB    NOT NULL PRIMARY KEY,
        device   INTEGER NOT NULL,
        inode    INTEGER NOT NULL,
        size     INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        -- When it was last seen to be gone; a file that comes back unchanged is no news.
        gone     INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX files_inode ON files (inode);
    CREATE INDEX files_gone ON files (gone) WHERE gone IS NOT NULL;
    CREATE TABLE events (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        timestamp  INTEGER NOT NULL,
        event      TEXT    NOT NULL,
        path       TEXT    NOT NULL,
        path_bytes BLOB    NOT NULL,
        moved_from TEXT,
        size       INTEGER NOT NULL,
        mtime_ns   INTEGER NOT NULL,
        inode      INTEGER NOT NULL,
        state      TEXT    NOT NULL,
        attempts   INTEGER NOT NULL DEFAULT 0,
        due        INTEGER NOT NULL DEFAULT 0,
        ended      INTEGER,
        message    TEXT
    ) STRICT;
    CREATE INDEX events_timestamp ON events (timestamp);
    CREATE INDEX events_due ON events (due, id) WHERE state = 'pending';
    CREATE INDEX events_path ON events (path_bytes) WHERE state = 'pending';
    CREATE TABLE status (
        id        INTEGER PRIMARY KEY CHECK (id = 1),
        timestamp INTEGER NOT NULL,
        status    TEXT    NOT NULL CHECK (json_valid(status))
    ) STRICT;
"];
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// How long one statement waits for other processes.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const WAL_MAX_BYTES: i64 = 16 << 20;

pub(super) fn connect(path: &Path, max_bytes: u64) -> Result<Connection, Trouble> {
    check_library()?;
    make_file(path).map_err(|error| Trouble::Unusable(error.to_string()))?;
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(LOCK_WAIT)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        // Has an effect on an empty file only, and only before it becomes WAL.
        0 => connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?,
        found if found > VERSION => return Err(Trouble::Unusable(format!("of a newer seawall (schema {found})"))),
        _ => {}
    }
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_MAX_BYTES, |_| Ok(()))?;
    // The death of the process costs nothing; a loss of power may cost the last moments,
    // of files and events alike, and the next look at the folders finds them again.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    migrate(&mut connection)?;
    let fault: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if fault != "ok" {
        return Err(Trouble::Damaged(fault));
    }
    cap(&connection, max_bytes)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let steps = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = steps.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for sql in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        steps.execute_batch(sql)?;
    }
    steps.pragma_update(None, "user_version", VERSION)?;
    steps.commit()
}
