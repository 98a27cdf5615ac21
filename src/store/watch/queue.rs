//! What is still to be handled, and how handling it went.

use rusqlite::{TransactionBehavior, params};

use super::{Result, Stamp, WatchDb, now_ms};

/// One event whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub id: i64,
    pub path: Vec<u8>,
    /// Device is not kept with an event, and is zero.
    pub stamp: Stamp,
    /// So often it was tried already.
    pub attempts: u32,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    TryAgainAt { due_ms: i64 },
    GiveUp,
}

/// Longer words of a handler are cut.
const MESSAGE_MAX_CHARS: usize = 1000;

impl WatchDb {
    /// Those whose turn it is by now, the longest waiting first.
    pub fn due(&mut self, limit: u32) -> Result<Vec<Due>> {
        let by_ms = now_ms();
        self.ask(|connection| {
            connection
                .prepare_cached(
                    "SELECT id, path_bytes, inode, size, mtime_ns, attempts FROM events
                     WHERE state = 'pending' AND due <= ?1 ORDER BY due, id LIMIT ?2",
                )?
                .query_map(params![by_ms, limit], |row| {
                    let number = |at: usize| row.get(at).map(i64::cast_unsigned);
                    let stamp = Stamp { device: 0, inode: number(2)?, size: number(3)?, mtime_ns: row.get(4)? };
                    Ok(Due { id: row.get(0)?, path: row.get(1)?, stamp, attempts: row.get(5)? })
                })?
                .collect()
        })
    }

    /// They end as `state`: `done`, `noted`, `gone`, `given_up`.
    pub fn ended(&mut self, ids: &[i64], state: &str, message: Option<&str>) -> Result<()> {
        let at_ms = now_ms();
        self.ask(|connection| {
            let batch = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for id in ids {
                batch
                    .prepare_cached(
                        "UPDATE events SET state = ?2, ended = ?3, message = ?4,
                             attempts = attempts + (?2 = 'done') WHERE id = ?1",
                    )?
                    .execute(params![id, state, at_ms, message])?;
            }
            batch.commit()
        })
    }

    /// It waits on, for no fault of its own.
    pub fn postpone(&mut self, id: i64, due_ms: i64) -> Result<()> {
        self.ask(|connection| {
            connection
                .prepare_cached("UPDATE events SET due = ?2 WHERE id = ?1 AND state = 'pending'")?
                .execute(params![id, due_ms])
                .map(drop)
        })
    }

    /// An attempt failed. One that was superseded meanwhile is let be.
    pub fn failed(&mut self, id: i64, failed: Failed, message: &str) -> Result<()> {
        let at_ms = now_ms();
        let message: String = message.chars().take(MESSAGE_MAX_CHARS).collect();
        let (state, due_ms, ended_ms) = match failed {
            Failed::TryAgainAt { due_ms } => ("pending", due_ms, None),
            Failed::GiveUp => ("given_up", 0, Some(at_ms)),
        };
        self.ask(|connection| {
            connection
                .prepare_cached(
                    "UPDATE events SET state = ?2, due = ?3, ended = ?4, message = ?5, attempts = attempts + 1
                     WHERE id = ?1 AND state = 'pending'",
                )?
                .execute(params![id, state, due_ms, ended_ms, message])
                .map(drop)
        })
    }
}
