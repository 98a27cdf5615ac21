//! Where a service of seawall's own listens, and who may come in: the same keys for each.

use std::net::{Ipv4Addr, SocketAddr};

use super::{
    gateway::{NOT_HOSTS, NOT_ORIGINS, host, listen, origin, token},
    reader::Table,
};

/// Who is let in, beside those that the guard always lets in.
pub(super) struct Doors {
    pub(super) token: Option<String>,
    pub(super) allowed_hosts: Vec<String>,
    pub(super) allowed_origins: Vec<String>,
}

/// `variable` is what the advice calls the token.
pub(super) fn address(table: &mut Table<'_>, port: u16, variable: &str) -> SocketAddr {
    let listen = table.take("listen", listen).unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    if !listen.ip().is_loopback() && !table.has("token") {
        let why = format!(
            "reachable from other machines, so a token is needed: write token = \"${{{variable}}}\" beside it, \
             or listen on 127.0.0.1"
        );
        table.refuse_at::<()>("listen", why);
    }
    listen
}

pub(super) fn read(table: &mut Table<'_>) -> Doors {
    Doors {
        token: table.take("token", token).map(|token| token.expose().to_owned()),
        allowed_hosts: table.take("allowed_hosts", |e| e.list(NOT_HOSTS, host)).unwrap_or_default(),
        allowed_origins: table.take("allowed_origins", |e| e.list(NOT_ORIGINS, origin)).unwrap_or_default(),
    }
}
