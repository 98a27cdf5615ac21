//! What was seen becomes a row, in one transaction with what is known from then on.

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::{Result, Stamp, WatchDb, known, now_ms, read::shown};

/// What was seen of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It rests, and is as the stamp says.
    Seen {
        path: Vec<u8>,
        stamp: Stamp,
        is_to_be_handled: bool,
    },
    /// It was there before its folder was watched.
    WasThere {
        path: Vec<u8>,
        stamp: Stamp,
    },
    Gone {
        path: Vec<u8>,
    },
}

impl WatchDb {
    /// Records all of it or nothing; what is known already is recorded once. Says how
    /// many events that came to.
    pub fn record(&mut self, changes: &[Change]) -> Result<usize> {
        let at_ms = now_ms();
        let before = self.files;
        let mut added = 0_u64;
        let recorded = self.ask(|connection| {
            let batch = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut events = 0;
            for change in changes {
                let (is_event, is_new) = record_one(&batch, change, at_ms)?;
                events += usize::from(is_event);
                added += u64::from(is_new);
            }
            batch.commit()?;
            Ok(events)
        })?;
        self.files = before + added;
        Ok(recorded)
    }
}

/// Whether it became an event, and whether its path is new.
fn record_one(batch: &Connection, change: &Change, at_ms: i64) -> rusqlite::Result<(bool, bool)> {
    match change {
        Change::Gone { path } => Ok((gone(batch, path, at_ms)?, false)),
        Change::WasThere { path, stamp } => match known(batch, path)? {
            Some(_) => Ok((false, false)),
            None => keep(batch, path, stamp).map(|()| (false, true)),
        },
        Change::Seen { path, stamp, is_to_be_handled } => seen(batch, path, stamp, *is_to_be_handled, at_ms),
    }
}

fn seen(
    batch: &Connection,
    path: &[u8],
    stamp: &Stamp,
    is_to_be_handled: bool,
    at_ms: i64,
) -> rusqlite::Result<(bool, bool)> {
    let before = known(batch, path)?;
    let state = if is_to_be_handled { "pending" } else { "noted" };
    let (event, state, moved_from) = match before {
        Some(before) if before.stamp.is_same(stamp) && !before.is_gone => return Ok((false, false)),
        // It was handled, or waits for it: it is the same file at the same place.
        Some(before) if before.stamp.is_same(stamp) => ("returned", "noted", None),
        Some(before) if !before.is_gone => ("changed", state, None),
        Some(_) | None => match moved_from(batch, path, stamp)? {
            Some(from) => ("moved", state, Some(from)),
            None => ("created", state, None),
        },
    };
    keep(batch, path, stamp)?;
    if state == "pending" {
        // A newer state of it is handled; who handles the older one now finishes.
        batch
            .prepare_cached(
                "UPDATE events SET state = 'superseded', ended = ?2 WHERE path_bytes = ?1 AND state = 'pending'",
            )?
            .execute(params![path, at_ms])?;
    }
    insert(batch, event, path, moved_from, stamp, state, at_ms)?;
    Ok((true, before.is_none()))
}

fn insert(
    batch: &Connection,
    event: &str,
    path: &[u8],
    moved_from: Option<String>,
    stamp: &Stamp,
    state: &str,
    at_ms: i64,
) -> rusqlite::Result<()> {
    batch
        .prepare_cached(
            "INSERT INTO events (timestamp, event, path, path_bytes, moved_from, size, mtime_ns, inode, state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            at_ms,
            event,
            shown(path),
            path,
            moved_from,
            stamp.size.cast_signed(),
            stamp.mtime_ns,
            stamp.inode.cast_signed(),
            state,
        ])
        .map(drop)
}

/// The name that the same file had until a moment ago.
fn moved_from(batch: &Connection, path: &[u8], stamp: &Stamp) -> rusqlite::Result<Option<String>> {
    let from: Option<Vec<u8>> = batch
        .prepare_cached(
            "SELECT path FROM files WHERE inode = ?1 AND device = ?2 AND size = ?3 AND mtime_ns = ?4
                 AND gone IS NOT NULL AND path <> ?5 ORDER BY gone DESC LIMIT 1",
        )?
        .query_row(
            params![
                stamp.inode.cast_signed(),
                stamp.device.cast_signed(),
                stamp.size.cast_signed(),
                stamp.mtime_ns,
                path
            ],
            |row| row.get(0),
        )
        .optional()?;
    Ok(from.map(|from| shown(&from)))
}

fn keep(batch: &Connection, path: &[u8], stamp: &Stamp) -> rusqlite::Result<()> {
    batch
        .prepare_cached(
            "INSERT INTO files (path, device, inode, size, mtime_ns, gone) VALUES (?1, ?2, ?3, ?4, ?5, NULL)
             ON CONFLICT (path) DO UPDATE SET device = excluded.device, inode = excluded.inode,
                 size = excluded.size, mtime_ns = excluded.mtime_ns, gone = NULL",
        )?
        .execute(params![
            path,
            stamp.device.cast_signed(),
            stamp.inode.cast_signed(),
            stamp.size.cast_signed(),
            stamp.mtime_ns
        ])
        .map(drop)
}

fn gone(batch: &Connection, path: &[u8], at_ms: i64) -> rusqlite::Result<bool> {
    let Some(before) = known(batch, path)?.filter(|known| !known.is_gone) else { return Ok(false) };
    batch.prepare_cached("UPDATE files SET gone = ?2 WHERE path = ?1")?.execute(params![path, at_ms])?;
    insert(batch, "removed", path, None, &before.stamp, "noted", at_ms)?;
    Ok(true)
}
