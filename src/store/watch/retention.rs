//! How long rows of watch.db stay. What waits to be handled stays, and so does what is
//! known of a file that is there: without it, it would be new once more.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};

use super::{Result, WatchDb, now_ms};

const CHUNK_ROWS: i64 = 1000;
const FREED_PAGES: i64 = 1024;

impl WatchDb {
    /// One short piece of work; true where another would find something to do. Where
    /// more than `keep_files` are known, those that are gone are forgotten earlier.
    pub fn retain(&mut self, keep_for: Duration, keep_bytes: u64, keep_files: u64) -> Result<bool> {
        let keep_ms = i64::try_from(keep_for.as_millis()).unwrap_or(i64::MAX);
        let before_ms = now_ms().saturating_sub(keep_ms);
        let gone_before_ms = if self.files > keep_files { i64::MAX } else { before_ms };
        let (events, files) = self.ask(|connection| {
            let before_ms = if is_too_big(connection, keep_bytes)? { i64::MAX } else { before_ms };
            let chunk = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let events = chunk
                .prepare_cached(
                    "DELETE FROM events WHERE id IN (SELECT id FROM events
                         WHERE timestamp < ?1 AND state <> 'pending' ORDER BY timestamp LIMIT ?2)",
                )?
                .execute(params![before_ms, CHUNK_ROWS])?;
            let files = chunk
                .prepare_cached(
                    "DELETE FROM files WHERE path IN (SELECT path FROM files
                         WHERE gone IS NOT NULL AND gone < ?1 ORDER BY gone LIMIT ?2)",
                )?
                .execute(params![gone_before_ms.max(before_ms), CHUNK_ROWS])?;
            chunk.commit()?;
            Ok((events, files))
        })?;
        self.files = self.files.saturating_sub(files as u64);
        if events + files > 0 {
            return Ok(true);
        }
        self.ask(|connection| {
            let mut pages = connection.prepare(&format!("PRAGMA incremental_vacuum({FREED_PAGES})"))?;
            let mut pages = pages.query([])?;
            while pages.next()?.is_some() {}
            Ok(false)
        })
    }
}

fn is_too_big(connection: &Connection, keep_bytes: u64) -> rusqlite::Result<bool> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let bytes = (pragma("page_count")? - pragma("freelist_count")?).saturating_mul(pragma("page_size")?);
    Ok(u64::try_from(bytes).unwrap_or(0) > keep_bytes)
}
