//! The options of `builtin = "emit"`: where events are taken in, from whom, and how long
//! they stay.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{
    gateway::{NOT_HOSTS, NOT_ORIGINS, host, listen, origin, token},
    reader::{Entry, Table},
};
use crate::emit::{PORT, Settings};

const DATABASE: &str = "emit.db";
const MAX_BODY_BYTES: usize = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 3600);
const KEEP_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
const KEEP_BYTES: u64 = 512 << 20;

pub(super) fn read(table: &mut Table<'_>) -> Settings {
    let listen = table.take("listen", listen).unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    if !listen.ip().is_loopback() && !table.has("token") {
        table.refuse_at::<()>(
            "listen",
            "reachable from other machines, so a token is needed: write token = \"${EMIT_TOKEN}\" beside it, \
             or listen on 127.0.0.1",
        );
    }
    Settings {
        listen,
        database: table.take("database", Entry::path).unwrap_or_else(|| table.folder().join(DATABASE)),
        token: table.take("token", token).map(|token| token.expose().to_owned()),
        allowed_hosts: table.take("allowed_hosts", |e| e.list(NOT_HOSTS, host)).unwrap_or_default(),
        allowed_origins: table.take("allowed_origins", |e| e.list(NOT_ORIGINS, origin)).unwrap_or_default(),
        max_body_bytes: table
            .take("max_body", |e| e.size(1 << 10..=64 << 20))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(MAX_BODY_BYTES),
        keep_for: table.take("keep", |e| e.duration(Duration::from_secs(60)..=3650 * DAY)).unwrap_or(KEEP_FOR),
        keep_bytes: table.take("keep_size", |e| e.size(1 << 20..=1 << 40)).unwrap_or(KEEP_BYTES),
    }
}
