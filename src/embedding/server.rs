//! Listens, and ends in the order that loses nothing: first the requests, then the model.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Settings, front, keeper::Keeper, worker::report_time};
use crate::{
    id,
    listener::{Reception, guard::Guard},
};

const CONNECTIONS_MAX: usize = 1024;
/// All large bodies together, while they are read and until they are answered.
const BODY_ROOM_KIB: usize = 64 * 1024;
/// What was accepted has so long to be answered when the server stops.
const DRAIN: Duration = Duration::from_secs(25);
/// The model is released by then.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(12);

/// Where in servers.toml that is, for messages.
const TABLE: &str = "the options of the embedding server";

/// What all requests share.
pub(super) struct Server {
    pub(super) guard: Arc<Guard>,
    pub(super) body_room: Arc<Semaphore>,
    pub(super) keeper: Keeper,
    pub(super) settings: Settings,
    /// Unix seconds.
    pub(super) since_s: u64,
}

/// Serves until `shutdown`, then answers what it has taken and lets the model go; false if
/// that could not be done in time.
pub async fn serve(settings: Settings, listener: TcpListener, shutdown: CancellationToken) -> bool {
    let keeper = Keeper::new(settings.model.clone());
    let release = CancellationToken::new();
    let tending = {
        let (keeper, release) = (keeper.clone(), release.clone());
        tokio::spawn(async move { keeper.tend(release).await })
    };
    let server = Arc::new(Server {
        guard: Arc::new(Guard {
            allowed_hosts: settings.allowed_hosts.clone(),
            allowed_origins: settings.allowed_origins.clone(),
            token: settings.token.clone(),
            table: TABLE,
        }),
        body_room: Arc::new(Semaphore::new(BODY_ROOM_KIB.max(settings.max_body_bytes / 1024 + 1))),
        keeper,
        settings,
        since_s: id::unix_ms() / 1000,
    });
    let reception = Reception {
        guard: server.guard.clone(),
        connections_max: CONNECTIONS_MAX,
        keep_alive: server.settings.keep_alive,
        drain: DRAIN,
    };
    let answer = move |request, peer, is_stranger| {
        let server = server.clone();
        async move { front::respond(&server, request, peer, is_stranger).await }
    };
    let all_answered = reception.serve(listener, &shutdown, answer).await;
    release.cancel();
    timeout(RELEASE_TIMEOUT + report_time(), tending).await.is_ok() && all_answered
}
