//! Streamable HTTP: `/mcp` for all servers, `/mcp/NAME` for one, `/healthz`, `/readyz`.
//!
//! The listener's connections are bounded, its headers and bodies must arrive in
//! time, and every request passes the guard first.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, RwLock},
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, HeaderName, HeaderValue},
    service::service_fn,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    call::Payload,
    downstream::rounds::Rounds,
    listener::{
        self,
        guard::{Guard, Refusal, Strangers},
    },
    session::{Gate, Scope},
};

mod batch;
mod body;
mod headers;
mod modern;
mod outbox;
mod places;
mod post;
mod reply;
mod running;
mod session;
mod sessions;
mod streams;
mod tape;
mod tapes;

use body::ReplyBody;
use places::{Attended, Keeping, Place, Places};
use sessions::Sessions;
use streams::Streams;

const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// Answers that were given as the gateway ended have so long to reach their clients.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(500);
/// All large messages together, while they are read and until they are answered.
const BODY_ROOM_KIB: usize = 256 * 1024;
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

pub struct Settings {
    pub guard: Guard,
    pub max_message_bytes: usize,
}

/// What `/readyz` says: whether to send traffic here, and the state of each server.
pub type Readiness = Arc<dyn Fn() -> (bool, Payload) + Send + Sync>;

pub struct Front {
    gate: Arc<dyn Gate>,
    guard: RwLock<Arc<Guard>>,
    max_message_bytes: usize,
    sessions: Sessions,
    rounds: Rounds,
    streams: Streams,
    strangers: Strangers,
    /// Room for large messages that are on their way in.
    body_room: Arc<Semaphore>,
    readiness: Readiness,
    tasks: TaskTracker,
}

impl Front {
    pub fn new(settings: Settings, gate: Arc<dyn Gate>, readiness: Readiness, tasks: &TaskTracker) -> Arc<Self> {
        Arc::new(Front {
            gate,
            guard: RwLock::new(Arc::new(settings.guard)),
            max_message_bytes: settings.max_message_bytes,
            sessions: Sessions::default(),
            rounds: Rounds::default(),
            streams: Streams::default(),
            strangers: Strangers::default(),
            body_room: Arc::new(Semaphore::new(BODY_ROOM_KIB.max(settings.max_message_bytes / 1024 + 1))),
            readiness,
            tasks: tasks.clone(),
        })
    }

    /// Lets in others than before, from the next request on.
    pub fn set_guard(&self, guard: Guard) {
        *self.guard.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(guard);
    }

    fn guard(&self) -> Arc<Guard> {
        self.guard.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Accepts connections until `shutdown`; those that are open then end after the
    /// request that they are at, and all of them soon after `farewell`.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: CancellationToken,
        farewell: CancellationToken,
    ) {
        let places = Places::of_this_process();
        let mut sweep = interval(SWEEP_INTERVAL);
        loop {
            let (stream, peer) = tokio::select! {
                () = shutdown.cancelled() => break,
                _ = sweep.tick() => {
                    self.sessions.expire(&*self.gate);
                    self.rounds.expire();
                    continue;
                }
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors, most likely: others may give some back.
                        tracing::warn!("accepting a connection failed: {error}");
                        sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let Some(place) = places.take().await.map(Arc::new) else {
                tracing::warn!(%peer, "refused: {} connections are open, each with a request in hand", places.max);
                continue;
            };
            let front = self.clone();
            let (shutdown, farewell) = (shutdown.clone(), farewell.clone());
            self.tasks.spawn(async move {
                tokio::select! {
                    () = front.connection(stream, peer, &place, shutdown) => {}
                    () = place.leave.cancelled() => tracing::debug!(%peer, "idle, and made room for another"),
                    () = async { farewell.cancelled().await; sleep(LAST_WORDS_TIMEOUT).await } => {}
                }
            });
        }
        self.sessions.close_streams();
        self.streams.close();
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        place: &Arc<Place>,
        shutdown: CancellationToken,
    ) {
        // Without it an event waits up to 40 ms for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let stranger = self.strangers.is_one(&self.guard(), &stream, peer).await;
        self.converse(stream, peer, stranger, place, shutdown).await;
    }

    /// One connection that was accepted elsewhere, of somebody who is no stranger.
    pub async fn serve_stream(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        shutdown: CancellationToken,
    ) {
        // The only one of its kind: there is always room.
        let Some(place) = Places::of_this_process().take().await.map(Arc::new) else { return };
        self.converse(stream, SocketAddr::from(([127, 0, 0, 1], 0)), false, &place, shutdown).await;
    }

    async fn converse(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        stranger: bool,
        place: &Arc<Place>,
        shutdown: CancellationToken,
    ) {
        let service = service_fn(|mut request: Request<Incoming>| {
            let front = self.clone();
            let attended = Attended::soon(place);
            request.extensions_mut().insert(attended.clone());
            async move {
                let response = front.respond(request, peer, stranger).await;
                attended.is_whole();
                Ok::<_, Infallible>(response.map(|body| Keeping { body, _attended: attended }))
            }
        });
        listener::converse(stream, peer, service, shutdown).await;
    }

    async fn respond(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        stranger: bool,
    ) -> Response<ReplyBody> {
        let path = request.uri().path();
        if path == "/healthz" {
            return reply::text("ok\n");
        }
        if path == "/readyz" && peer.ip().is_loopback() {
            let (ready, states) = (self.readiness)();
            let mut response = reply::json(states);
            if !ready {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            return response;
        }
        if let Err(refusal) = self.guard().admit_from(stranger, request.headers()) {
            return reply::refusal(&refusal);
        }
        let scope = match self.scope_of(path) {
            Ok(scope) => scope,
            Err(refusal) => return reply::refusal(&refusal),
        };
        match *request.method() {
            Method::POST => post::post(self, scope, request).await,
            Method::GET => self.get(&scope, &request),
            Method::DELETE => self.delete(&scope, &request),
            _ => {
                let mut response = reply::empty(StatusCode::METHOD_NOT_ALLOWED);
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST, DELETE"));
                response
            }
        }
    }

    fn scope_of(&self, path: &str) -> Result<Scope, Refusal> {
        let path = path.strip_suffix('/').unwrap_or(path);
        if path == "/mcp" {
            return Ok(Scope::All);
        }
        let Some(name) = path.strip_prefix("/mcp/") else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "nothing is here: MCP is at /mcp and /mcp/NAME"));
        };
        self.gate.scope(name).ok_or_else(|| {
            let names: Vec<String> = self.gate.names().iter().map(ToString::to_string).collect();
            let name = crate::text::quote(name, 40);
            let reason = format!("there is no server \"{name}\"; servers are: {}", names.join(", "));
            Refusal::new(StatusCode::NOT_FOUND, reason)
        })
    }

    /// The standing stream, for what no call is there to answer on; or any stream of the
    /// session, after the event that `Last-Event-ID` names.
    fn get(&self, scope: &Scope, request: &Request<Incoming>) -> Response<ReplyBody> {
        let accept = request.headers().get(hyper::header::ACCEPT).and_then(|accept| accept.to_str().ok());
        if !accept.is_some_and(|accept| post::takes(accept, "text/event-stream")) {
            let reason = "a GET here opens a stream: Accept must include text/event-stream";
            return reply::refusal(&Refusal::new(StatusCode::NOT_ACCEPTABLE, reason));
        }
        let found =
            post::check_version(request.headers()).and_then(|()| post::find_session(self, scope, request.headers()));
        match found {
            Ok(session) => match request.headers().get(LAST_EVENT_ID) {
                None => reply::tape(session.listen()),
                Some(id) => match session.tapes.resume(id.to_str().unwrap_or_default()) {
                    Ok(Some(reader)) => reply::tape(reader),
                    // By which an EventSource knows that it need not come back. Clients that take
                    // the end of a stream for a broken connection would do so for ever.
                    Ok(None) => reply::empty(StatusCode::NO_CONTENT),
                    Err(refusal) => reply::refusal(&refusal),
                },
            },
            Err(refusal) => reply::refusal(&refusal),
        }
    }

    fn delete(&self, scope: &Scope, request: &Request<Incoming>) -> Response<ReplyBody> {
        match post::find_session(self, scope, request.headers()) {
            Ok(session) => {
                self.sessions.remove(&session.id, &*self.gate);
                reply::empty(StatusCode::NO_CONTENT)
            }
            Err(refusal) => reply::refusal(&refusal),
        }
    }
}
