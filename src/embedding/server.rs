//! Listens, and ends in the order that loses nothing: first the requests, then the model.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::service::service_fn;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Settings, front, keeper::Keeper};
use crate::{
    id,
    listener::{
        self, Arrival,
        guard::{Guard, Strangers},
    },
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
    pub(super) guard: Guard,
    strangers: Strangers,
    pub(super) body_room: Arc<Semaphore>,
    pub(super) keeper: Keeper,
    pub(super) settings: Settings,
    /// Unix seconds.
    pub(super) since_s: u64,
    shutdown: CancellationToken,
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
        guard: Guard {
            allowed_hosts: settings.allowed_hosts.clone(),
            allowed_origins: settings.allowed_origins.clone(),
            token: settings.token.clone(),
            table: TABLE,
        },
        strangers: Strangers::default(),
        body_room: Arc::new(Semaphore::new(BODY_ROOM_KIB.max(settings.max_body_bytes / 1024 + 1))),
        keeper,
        settings,
        since_s: id::unix_ms() / 1000,
        shutdown: shutdown.clone(),
    });
    let connections = TaskTracker::new();
    accept(&server, &listener, &connections, &shutdown).await;
    drop(listener);
    connections.close();
    let all_answered = timeout(DRAIN, connections.wait()).await.is_ok();
    release.cancel();
    timeout(RELEASE_TIMEOUT, tending).await.is_ok() && all_answered
}

async fn accept(server: &Arc<Server>, listener: &TcpListener, connections: &TaskTracker, shutdown: &CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let arrival = tokio::select! {
            () = shutdown.cancelled() => return,
            arrival = listener::next(listener, &places) => arrival,
        };
        let server = server.clone();
        connections.spawn(async move {
            let Arrival { stream, peer, place } = arrival;
            let is_stranger = server.strangers.is_one(&server.guard, &stream, peer).await;
            let service = service_fn(|request| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(front::respond(&server, request, peer, is_stranger).await) }
            });
            let keep_alive = server.settings.keep_alive;
            listener::converse_for(keep_alive, stream, peer, service, server.shutdown.clone()).await;
            drop(place);
        });
    }
}
