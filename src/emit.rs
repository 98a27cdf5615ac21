//! The emit server: programs of the user's hand in events over HTTP, and get an
//! acknowledgement once they are durable.
//!
//! ```text
//! POST /events ─ guard ─ body ─ read.rs: what is wrong, by field and line ─ store::intake
//!                                                  acknowledgement ─ commit of all that wait
//! GET /events  ─ guard ─ query.rs ─ a page, or tail.rs: server-sent events as they come
//! ```
//!
//! An acknowledgement is never given early, and nothing is kept that could not be: who is
//! told 503 still has the event, and comes back.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    listener::{KEEP_ALIVE, Reception, guard::Guard},
    store::intake::{Intake, IntakeReader, IntakeSettings},
};

mod front;
mod query;
mod read;
mod reply;
mod tail;

pub const PORT: u16 = 8421;
/// Events are small; this many connections are a runaway loop.
const CONNECTIONS_MAX: usize = 1024;
/// All large bodies together, while they are read and until they are answered.
const BODY_ROOM_KIB: usize = 64 * 1024;
/// All answers together, from before they are written until they are sent.
const REPLY_ROOM_KIB: usize = 64 * 1024;
const TAILS_MAX: usize = 64;
const READS_MAX: usize = 4;
/// What was accepted has so long to be answered when the server stops.
const DRAIN: Duration = Duration::from_secs(10);

/// What its `options` in servers.toml say.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    pub listen: SocketAddr,
    pub database: PathBuf,
    /// What a client shows as `Authorization: Bearer`; required beyond loopback.
    pub token: Option<String>,
    pub allowed_hosts: Vec<String>,
    pub allowed_origins: Vec<String>,
    pub max_body_bytes: usize,
    pub keep_for: Duration,
    pub keep_bytes: u64,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { listen, database, token, allowed_hosts, allowed_origins, max_body_bytes, keep_for, keep_bytes } =
            self;
        f.debug_struct("Settings")
            .field("listen", listen)
            .field("database", database)
            .field("token", &token.as_ref().map(|_| "***"))
            .field("allowed_hosts", allowed_hosts)
            .field("allowed_origins", allowed_origins)
            .field("max_body_bytes", max_body_bytes)
            .field("keep_for", keep_for)
            .field("keep_bytes", keep_bytes)
            .finish()
    }
}

/// Where in servers.toml that is, for messages.
const TABLE: &str = "the options of the emit server";

/// What all requests share.
struct Server {
    guard: Arc<Guard>,
    max_body_bytes: usize,
    body_room: Arc<Semaphore>,
    reply_room: Arc<Semaphore>,
    intake: Intake,
    reader: IntakeReader,
    reads: Arc<Semaphore>,
    tails: Arc<Semaphore>,
    /// Moves with each commit.
    commits: watch::Receiver<()>,
    shutdown: CancellationToken,
}

/// Serves until `shutdown`, and then answers what it has taken; false if that could not be
/// done in time.
pub async fn serve(settings: Settings, listener: TcpListener, shutdown: CancellationToken) -> std::io::Result<bool> {
    let (committed, commits) = watch::channel(());
    let intake = Intake::open(
        IntakeSettings {
            path: settings.database.clone(),
            keep_for: settings.keep_for,
            keep_bytes: settings.keep_bytes,
        },
        move || {
            let _ = committed.send(());
        },
    )?;
    let server = Arc::new(Server {
        guard: Arc::new(Guard {
            allowed_hosts: settings.allowed_hosts,
            allowed_origins: settings.allowed_origins,
            token: settings.token,
            table: TABLE,
        }),
        max_body_bytes: settings.max_body_bytes,
        body_room: Arc::new(Semaphore::new(BODY_ROOM_KIB.max(settings.max_body_bytes / 1024 + 1))),
        reply_room: Arc::new(Semaphore::new(REPLY_ROOM_KIB)),
        intake,
        reader: IntakeReader::new(settings.database),
        reads: Arc::new(Semaphore::new(READS_MAX)),
        tails: Arc::new(Semaphore::new(TAILS_MAX)),
        commits,
        shutdown: shutdown.clone(),
    });
    let reception = Reception {
        guard: server.guard.clone(),
        connections_max: CONNECTIONS_MAX,
        keep_alive: KEEP_ALIVE,
        drain: DRAIN,
    };
    let answering = server.clone();
    let answer = move |request, peer, is_stranger| {
        let server = answering.clone();
        async move { front::respond(&server, request, peer, is_stranger).await }
    };
    let all_answered = reception.serve(listener, &shutdown, answer).await;
    // It joins a thread that may be at the disk.
    let closed = tokio::task::spawn_blocking(move || server.intake.close());
    Ok(timeout(DRAIN, closed).await.is_ok() && all_answered)
}
