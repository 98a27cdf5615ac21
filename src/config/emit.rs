//! The options of `builtin = "emit"`: where events are taken in, from whom, and how long
//! they stay.

use std::time::Duration;

use super::{
    doors::{self, Doors},
    reader::{Entry, Table},
};
use crate::emit::{PORT, Settings};

const DATABASE: &str = "emit.db";
const MAX_BODY_BYTES: usize = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 3600);
const KEEP_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
const KEEP_BYTES: u64 = 512 << 20;

pub(super) fn read(table: &mut Table<'_>) -> Settings {
    let listen = doors::address(table, PORT, "EMIT_TOKEN");
    let database = table.take("database", Entry::path).unwrap_or_else(|| table.folder().join(DATABASE));
    let Doors { token, allowed_hosts, allowed_origins } = doors::read(table);
    Settings {
        listen,
        database,
        token,
        allowed_hosts,
        allowed_origins,
        max_body_bytes: table
            .take("max_body", |e| e.size(1 << 10..=64 << 20))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(MAX_BODY_BYTES),
        keep_for: table.take("keep", |e| e.duration(Duration::from_secs(60)..=3650 * DAY)).unwrap_or(KEEP_FOR),
        keep_bytes: table.take("keep_size", |e| e.size(1 << 20..=1 << 40)).unwrap_or(KEEP_BYTES),
    }
}
