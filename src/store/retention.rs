//! How long rows stay: by age, and by the size of the file.
//!
//! Rows go a thousand at a time, between batches, so that neither writers nor
//! readers of the file ever wait long.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};

use super::Settings;

pub(super) const CHUNK_ROWS: i64 = 1000;
/// Free pages are given back to the file system beyond this many, so many at a time.
const FREE_PAGES: i64 = 1024;

/// Whether another step would find something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    Done,
}

/// One short piece of work.
pub(super) fn step(connection: &mut Connection, settings: &Settings, now_ms: u64) -> rusqlite::Result<Step> {
    let deleted = delete_old(connection, settings.keep_for, now_ms)?;
    if deleted > 0 || too_big(connection, settings.keep_bytes)? && delete_oldest(connection)? > 0 {
        return Ok(Step::More);
    }
    give_back(connection)
}

fn delete_old(connection: &mut Connection, keep_for: Duration, now_ms: u64) -> rusqlite::Result<usize> {
    let keep_ms = u64::try_from(keep_for.as_millis()).unwrap_or(u64::MAX);
    let before_ms = i64::try_from(now_ms.saturating_sub(keep_ms)).unwrap_or(i64::MAX);
    let chunk = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut deleted = 0;
    for table in ["failures", "events"] {
        let sql = format!(
            "DELETE FROM {table} WHERE rowid IN
                 (SELECT rowid FROM {table} WHERE timestamp < ?1 ORDER BY timestamp LIMIT ?2)"
        );
        deleted += chunk.prepare_cached(&sql)?.execute(params![before_ms, CHUNK_ROWS])?;
    }
    chunk.commit()?;
    Ok(deleted)
}

pub(super) fn too_big(connection: &Connection, keep_bytes: u64) -> rusqlite::Result<bool> {
    let used = pragma(connection, "page_count")? - pragma(connection, "freelist_count")?;
    let bytes = used.saturating_mul(pragma(connection, "page_size")?);
    Ok(u64::try_from(bytes).unwrap_or(0) > keep_bytes)
}

/// The oldest rows of whichever table holds the oldest one.
fn delete_oldest(connection: &mut Connection) -> rusqlite::Result<usize> {
    let chunk = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let oldest = |table: &str| -> rusqlite::Result<i64> {
        chunk.query_row(&format!("SELECT coalesce(min(timestamp), {}) FROM {table}", i64::MAX), [], |row| row.get(0))
    };
    let table = if oldest("failures")? <= oldest("events")? { "failures" } else { "events" };
    let sql =
        format!("DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} ORDER BY timestamp LIMIT {CHUNK_ROWS})");
    let deleted = chunk.execute(&sql, [])?;
    chunk.commit()?;
    Ok(deleted)
}

pub(super) fn give_back(connection: &Connection) -> rusqlite::Result<Step> {
    if pragma(connection, "freelist_count")? <= FREE_PAGES {
        return Ok(Step::Done);
    }
    // Each step frees one page: `execute` would stop after the first.
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({FREE_PAGES})"))?;
    let mut pages = statement.query([])?;
    let mut freed = 0;
    while pages.next()?.is_some() {
        freed += 1;
    }
    // A file made by someone else may lack auto_vacuum: then nothing is ever freed.
    Ok(if freed > 0 { Step::More } else { Step::Done })
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        failure::Class,
        store::{
            database::{Database, Durability},
            row::Record,
            testing::failure,
        },
    };

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn filled(settings: &Settings, rows: u64) -> Database {
        let mut database = Database::open(settings, Duration::ZERO, Durability::Process).expect("opens");
        let rows: Vec<Record> = (0..rows)
            .map(|i| {
                let mut row = failure(Class::Lost, "read");
                row.timestamp_ms = 100 * DAY_MS + i;
                row.message = "x".repeat(2000);
                Record::Failure(row.into_record())
            })
            .collect();
        database.commit(&rows).expect("commits");
        database
    }

    fn all_steps(database: &mut Database, settings: &Settings, now_ms: u64) -> usize {
        let mut steps = 0;
        while step(database.connection(), settings, now_ms).expect("step") == Step::More {
            steps += 1;
            assert!(steps < 100, "retention must come to an end");
        }
        steps
    }

    fn count(database: &mut Database) -> i64 {
        database.connection().query_row("SELECT count(*) FROM failures", [], |row| row.get(0)).expect("count")
    }

    #[test]
    fn old_rows_go_in_chunks_and_the_file_shrinks() {
        let folder = tempfile::tempdir().expect("folder");
        let settings = Settings::at(folder.path().join("a.db"));
        let mut database = filled(&settings, 5000);
        assert_eq!(all_steps(&mut database, &settings, 130 * DAY_MS), 0, "none is too old yet");
        let before = pragma(database.connection(), "page_count").expect("pages");
        // The newest of the 5000 is as old as may be, so it stays.
        let steps = all_steps(&mut database, &settings, 130 * DAY_MS + 4999);
        assert!(steps >= 5, "{steps} steps");
        assert_eq!(count(&mut database), 1);
        let after = pragma(database.connection(), "page_count").expect("pages");
        assert!(after < before / 2, "{before} pages became {after}");
    }

    #[test]
    fn the_oldest_rows_go_when_the_file_is_too_big() {
        let folder = tempfile::tempdir().expect("folder");
        let settings = Settings { keep_bytes: 12 << 20, ..Settings::at(folder.path().join("a.db")) };
        let mut database = filled(&settings, 5000);
        assert!(too_big(database.connection(), settings.keep_bytes).expect("size"));
        all_steps(&mut database, &settings, 100 * DAY_MS);
        assert!(!too_big(database.connection(), settings.keep_bytes).expect("size"));
        let left = count(&mut database);
        assert!((1..5000).contains(&left) && left % 1000 == 0, "{left} rows left");
        let oldest: i64 = database
            .connection()
            .query_row("SELECT min(timestamp) FROM failures", [], |row| row.get(0))
            .expect("oldest");
        assert_eq!(oldest, 100 * DAY_MS.cast_signed() + 5000 - left);
    }
}
