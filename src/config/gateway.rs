//! `[gateway]`: where seawall listens, whom it lets in, where it keeps its things.

use crate::route::Instructions;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    reader::{Entry, Table},
    secret::Secret,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    pub listen: SocketAddr,
    /// What a client shows as `Authorization: Bearer`; required beyond loopback.
    pub token: Option<Secret>,
    /// Host headers that are let in besides loopback, lower case, with or without a port.
    pub allowed_hosts: Vec<String>,
    /// Origins that are let in besides our own, lower case.
    pub allowed_origins: Vec<String>,
    pub database: PathBuf,
    /// The folder of the lock, the control socket, the cached catalogs.
    pub state: PathBuf,
    /// How long calls may take to end once seawall shall stop.
    pub drain: Duration,
    /// Of one line or one body, either way.
    pub max_message_bytes: usize,
    pub tool_name_max_chars: usize,
    pub instructions: Instructions,
}

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8420);
const DATABASE: &str = "seawall.db";
const STATE: &str = ".seawall";
const DRAIN: Duration = Duration::from_secs(30);
const DRAIN_MAX: Duration = Duration::from_secs(3600);
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Clients put a prefix before a name and cut at 64.
const TOOL_NAME_MAX_CHARS: usize = 50;

impl Default for Gateway {
    /// That of an empty servers.toml in the working directory.
    fn default() -> Self {
        Gateway {
            listen: LISTEN,
            token: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            database: DATABASE.into(),
            state: STATE.into(),
            drain: DRAIN,
            max_message_bytes: MAX_MESSAGE_BYTES,
            tool_name_max_chars: TOOL_NAME_MAX_CHARS,
            instructions: Instructions::All,
        }
    }
}

pub(super) fn read(table: &mut Table<'_>) -> Gateway {
    let listen = table.take("listen", listen).unwrap_or(LISTEN);
    let has_token = table.has("token");
    if !listen.ip().is_loopback() && !has_token {
        table.refuse_at::<()>(
            "listen",
            "reachable from other machines, so a token is needed: write token = \"${SEAWALL_TOKEN}\" below it, \
             or listen on 127.0.0.1",
        );
    }
    Gateway {
        listen,
        token: table.take("token", token),
        allowed_hosts: table.take("allowed_hosts", |e| e.list(NOT_HOSTS, host)).unwrap_or_default(),
        allowed_origins: table.take("allowed_origins", |e| e.list(NOT_ORIGINS, origin)).unwrap_or_default(),
        database: path_or(table, "database", DATABASE),
        state: path_or(table, "state", STATE),
        drain: table.take("drain", |e| e.duration(Duration::ZERO..=DRAIN_MAX)).unwrap_or(DRAIN),
        max_message_bytes: table
            .take("max_message", |e| e.size(1 << 10..=1 << 30))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(MAX_MESSAGE_BYTES),
        // Below 40 a server's longest name (30), `__` and a hash would not fit.
        tool_name_max_chars: table
            .take("tool_name_max", |e| e.integer(40..=128))
            .map_or(TOOL_NAME_MAX_CHARS, |chars| chars as usize),
        instructions: table
            .take("instructions", |e| e.choice(&[("all", Instructions::All), ("own", Instructions::Own)]))
            .unwrap_or(Instructions::All),
    }
}

fn path_or(table: &mut Table<'_>, key: &'static str, default: &str) -> PathBuf {
    table.take(key, Entry::path).unwrap_or_else(|| table.folder().join(default))
}

pub(super) fn listen(entry: &Entry<'_>) -> Option<SocketAddr> {
    const WANTED: &str = "not an address with a port; write something like \"127.0.0.1:8420\"";
    let written = entry.word(WANTED)?;
    let address = match written.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => written,
    };
    address.parse().ok().or_else(|| entry.refuse(WANTED))
}

pub(super) fn token(entry: &Entry<'_>) -> Option<Secret> {
    let entry = entry.secret();
    let token = entry.word("not a string; write something like \"${SEAWALL_TOKEN}\"")?;
    if token.is_empty() {
        return entry.refuse("empty: it would let everyone in");
    }
    // It travels in a header, where nothing else survives.
    if !token.chars().all(|c| c.is_ascii_graphic()) {
        return entry.refuse("use letters, digits and signs of ASCII only, without spaces");
    }
    Some(token.into())
}

pub(super) const NOT_HOSTS: &str = "not a list; write [\"gateway.example.com\"]";
pub(super) const NOT_ORIGINS: &str = "not a list; write [\"https://app.example.com\"]";

/// `example.com` or `example.com:8420`.
pub(super) fn host(entry: &Entry<'_>) -> Option<String> {
    const WANTED: &str = "not a host; write something like \"gateway.example.com\" or \"gateway.example.com:8420\"";
    let host = entry.word(WANTED)?;
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if host.is_empty() || !host.chars().all(is_host) {
        return entry.refuse(WANTED);
    }
    Some(host.to_ascii_lowercase())
}

/// `https://example.com` or `https://example.com:8443`: a scheme and a host, no path.
pub(super) fn origin(entry: &Entry<'_>) -> Option<String> {
    const WANTED: &str = "not an origin; write scheme and host, as in \"https://app.example.com\"";
    let origin = entry.word(WANTED)?;
    let is_plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !"/?#@*".contains(c));
    match origin.split_once("://") {
        Some((scheme, host)) if is_plain(scheme) && is_plain(host) => Some(origin.to_ascii_lowercase()),
        _ => entry.refuse(WANTED),
    }
}
