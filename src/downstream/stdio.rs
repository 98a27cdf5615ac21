//! A client on a byte stream: `seawall stdio`, or the same over the control socket.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::{interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod modern;

use super::{rounds::Rounds, stateless};
use crate::{
    call::{Answer, Back, BoxFuture, Message, Method, Payload, Trail, Wire},
    era,
    link::Gone,
    session::{Gate, Hello, Scope, Session},
    wire::{
        batch::{self, Answers, BATCH_VERSION},
        envelope::{INVALID_REQUEST, OVERLOADED, PARSE_ERROR, Parts, rpc_error},
        peer::{Guilty, Limits, Listener, Malformed, Peer},
    },
};

/// Requests of one client that have no answer yet; what comes on top is refused.
const RUNNING_MAX_REQUESTS: usize = 1024;
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
const NOT_INITIALIZED: &str = "seawall: the first request must be initialize";
/// What was said last has so long to reach a client that may not read.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(500);

/// Serves one client until its input ends or `farewell` comes, then lets its calls
/// finish for `drain`.
pub async fn serve<R, W>(
    streams: (R, W),
    gate: Arc<dyn Gate>,
    scope: Scope,
    limits: Limits,
    drain: Duration,
    farewell: CancellationToken,
    tasks: &TaskTracker,
) where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let calls = TaskTracker::new();
    let front = Arc::new(Front {
        gate: gate.clone(),
        scope,
        opening: Arc::default(),
        running: Mutex::default(),
        visitor: Session::next_number(),
        rounds: Arc::default(),
        calls: calls.clone(),
    });
    let peer = Peer::start(0, streams, front.clone(), limits, tasks);
    let mut sweep = interval(SWEEP_INTERVAL);
    let (reason, guilty) = loop {
        tokio::select! {
            end = peer.ended() => break (end.reason, end.guilty),
            () = farewell.cancelled() => break ("the gateway is ending".to_owned(), Guilty::None),
            _ = sweep.tick() => front.rounds.expire(),
        }
    };
    calls.close();
    let _ = timeout(drain, calls.wait()).await;
    // Whoever is cut off hears why; whoever has left does not read it.
    if guilty == Guilty::All {
        let error = rpc_error(INVALID_REQUEST, format!("seawall: this connection is closed: {reason}"));
        peer.complain(Parts::error_without_id(error));
    }
    front.abort_all();
    let _ = timeout(LAST_WORDS_TIMEOUT, peer.flushed()).await;
    peer.fail(&Gone::because(reason), Guilty::None);
    if let Opening::Open(session) = front.opening() {
        gate.close(&session);
    }
}

/// How far the handshake is. Clients may say everything at once: what comes before
/// the handshake's end waits for it.
#[derive(Clone, Default)]
enum Opening {
    #[default]
    Awaited,
    UnderWay,
    Open(Arc<Session>),
}

impl Opening {
    fn is_open(&self) -> bool {
        matches!(self, Opening::Open(_))
    }

    fn has_batches(&self) -> bool {
        matches!(self, Opening::Open(session) if &*session.protocol == BATCH_VERSION)
    }
}

/// How the handshake that may be under way has ended.
async fn ended(opening: &watch::Sender<Opening>) -> Opening {
    let mut opening = opening.subscribe();
    let ended = opening.wait_for(|opening| !matches!(opening, Opening::UnderWay)).await;
    ended.map(|opening| opening.clone()).unwrap_or_default()
}

struct Front {
    gate: Arc<dyn Gate>,
    scope: Scope,
    opening: Arc<watch::Sender<Opening>>,
    running: Mutex<HashMap<Payload, AbortHandle>>,
    /// The number of its requests of the modern era, which have no session.
    visitor: u64,
    rounds: Arc<Rounds>,
    calls: TaskTracker,
}

impl Listener for Front {
    fn on(&self, peer: &Peer, message: Message) {
        match message {
            Message::Notification { method, params } => self.notification(method, params),
            Message::Request { id, method, params } => self.request(peer, id, method, params),
        }
    }

    fn takes_batches(&self) -> bool {
        // While the handshake goes on, nobody knows yet.
        matches!(self.opening(), Opening::UnderWay) || self.opening().has_batches()
    }

    /// Answered together, when the last of them is, and not before the handshake has ended:
    /// if that brings a version without batches, the whole is refused.
    fn on_batch(&self, peer: &Peer, messages: Vec<Message>, strays: Vec<Malformed>) {
        let mut replies: Vec<Bytes> = strays.into_iter().map(|stray| malformed_reply(stray).joined()).collect();
        let (mut running, answers) = (Vec::new(), Arc::new(Answers::default()));
        for message in messages {
            match message {
                Message::Notification { method, params } => self.notification(method, params),
                Message::Request { id, method, params } => match self.of_batch(peer, &answers, &id, method, params) {
                    Ok(reply) => running.push(reply),
                    Err(error) => replies.push(Parts::response(&id, Answer::Error(error)).joined()),
                },
            }
        }
        let (peer, opening) = (peer.clone(), self.opening.clone());
        self.calls.spawn(async move {
            if !ended(&opening).await.has_batches() {
                running.iter().for_each(JoinHandle::abort);
                return peer.complain(malformed_reply(Malformed::batch()));
            }
            for reply in running {
                // One that was cancelled is owed nothing.
                replies.extend(reply.await);
            }
            if !replies.is_empty() {
                peer.pass_on(batch::joined(&replies)).await;
            }
        });
    }

    /// JSON-RPC wants an answer to this too, without an id where none could be read.
    fn on_stray(&self, peer: &Peer, malformed: Malformed) {
        peer.complain(malformed_reply(malformed));
    }
}

fn malformed_reply(malformed: Malformed) -> Parts {
    let code = if malformed.is_json { INVALID_REQUEST } else { PARSE_ERROR };
    let error = rpc_error(code, format!("seawall: {}", malformed.reason));
    match malformed.id {
        Some(id) => Parts::response(&id, Answer::Error(error)),
        None => Parts::error_without_id(error),
    }
}

impl Front {
    fn opening(&self) -> Opening {
        self.opening.borrow().clone()
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Payload, AbortHandle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notification(&self, method: Method, params: Option<Payload>) {
        if method.as_str() == "notifications/cancelled" {
            let id = params.as_ref().and_then(|params| params.member("requestId"));
            if let Some(call) = id.and_then(|id| self.running().remove(&id)) {
                call.abort();
            }
        } else if let Opening::Open(session) = self.opening() {
            self.gate.told(&session, method, params);
        }
    }

    fn request(&self, peer: &Peer, id: Payload, method: Method, params: Option<Payload>) {
        // By what a request says of itself, never by its method.
        if let Some(params) = params.as_ref().filter(|params| era::is_modern(Some(params))) {
            let request = stateless::Request { id: id.clone(), method, params: params.clone() };
            let client = modern::Client {
                visitor: self.visitor,
                gate: self.gate.clone(),
                rounds: self.rounds.clone(),
                peer: peer.clone(),
                calls: self.calls.clone(),
            };
            let answered = modern::answer(client, self.scope.clone(), request);
            return self.run(peer, id, answered);
        }
        if method.as_str() == "initialize" && matches!(self.opening(), Opening::Awaited) {
            return self.initialize(peer, id, params, Arc::new(StdioWire(peer.clone())));
        }
        match self.answer(peer, &id, method, params, Opening::is_open) {
            Ok(answer) => {
                let (peer_of_call, answered) = (peer.clone(), id.clone());
                self.run(peer, id, async move {
                    let _ = peer_of_call.respond(&answered, answer.await).await;
                });
            }
            Err(error) => drop(peer.try_respond(&id, Answer::Error(error))),
        }
    }

    /// The answer to a request of a session, or the JSON-RPC error that is due at once.
    /// One that waits for the handshake is asked if that ends in what `admits` it.
    fn answer(
        &self,
        peer: &Peer,
        id: &Payload,
        method: Method,
        params: Option<Payload>,
        admits: fn(&Opening) -> bool,
    ) -> Result<BoxFuture<'static, Answer>, Payload> {
        let back: Back = Arc::new(StdioWire(peer.clone()));
        Ok(match (method.as_str(), self.opening()) {
            ("initialize", _) => {
                return Err(rpc_error(INVALID_REQUEST, "seawall: this session is initialized already"));
            }
            ("ping", Opening::Awaited | Opening::UnderWay) => {
                Box::pin(std::future::ready(Answer::Result(Payload::literal("{}"))))
            }
            (_, Opening::Awaited) => return Err(rpc_error(INVALID_REQUEST, NOT_INITIALIZED)),
            (_, Opening::UnderWay) => Box::pin(self.once_open(id.clone(), method, params, back, admits)),
            (_, opening @ Opening::Open(_)) if !admits(&opening) => {
                return Err(rpc_error(INVALID_REQUEST, Malformed::batch().reason));
            }
            (_, Opening::Open(session)) => self.gate.ask(&session, id.clone(), method, params, back),
        })
    }

    /// A request of a batch, running: its whole reply, unless it is cancelled.
    fn of_batch(
        &self,
        peer: &Peer,
        answers: &Arc<Answers>,
        id: &Payload,
        method: Method,
        params: Option<Payload>,
    ) -> Result<JoinHandle<Bytes>, Payload> {
        let answer = self.answer(peer, id, method, params, Opening::has_batches)?;
        let (answers, named) = (answers.clone(), id.clone());
        self.start(id.clone(), async move { answers.reply(&named, answer.await) })
    }

    /// Runs a request that can be cancelled by its id.
    fn run(&self, peer: &Peer, id: Payload, request: impl Future<Output = ()> + Send + 'static) {
        if let Err(error) = self.start(id.clone(), request) {
            let _ = peer.try_respond(&id, Answer::Error(error));
        }
    }

    /// The same; the error is due if there are too many.
    fn start<T: Send + 'static>(
        &self,
        id: Payload,
        request: impl Future<Output = T> + Send + 'static,
    ) -> Result<JoinHandle<T>, Payload> {
        let mut running = self.running();
        if running.len() >= RUNNING_MAX_REQUESTS {
            running.retain(|_, call| !call.is_finished());
        }
        // The tasks are counted, not the ids: a client may use one id again and again.
        if self.calls.len() >= RUNNING_MAX_REQUESTS {
            return Err(rpc_error(OVERLOADED, "seawall: too many requests of this client are under way"));
        }
        let call = self.calls.spawn(request);
        running.insert(id, call.abort_handle());
        Ok(call)
    }

    fn initialize(&self, peer: &Peer, id: Payload, params: Option<Payload>, back: Back) {
        let params = params.unwrap_or(Payload::literal("{}"));
        let opening = self.gate.open(Hello { scope: self.scope.clone(), params, back });
        let peer = peer.clone();
        // The handshake of one server may take a while: the reader must not wait for it.
        let state = self.opening.clone();
        state.send_replace(Opening::UnderWay);
        self.calls.spawn(async move {
            let (answer, next) = match opening.await {
                Ok((session, hello)) => (Answer::Result(hello), Opening::Open(session)),
                Err(error) => (Answer::Error(error), Opening::Awaited),
            };
            // Before what waits for it, so that its answer is the first.
            let _ = peer.respond(&id, answer).await;
            state.send_replace(next);
        });
    }

    /// Asks as soon as the handshake that is under way has ended.
    fn once_open(
        &self,
        id: Payload,
        method: Method,
        params: Option<Payload>,
        back: Back,
        admits: fn(&Opening) -> bool,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let (gate, opening) = (self.gate.clone(), self.opening.clone());
        async move {
            match ended(&opening).await {
                ended @ Opening::Open(_) if !admits(&ended) => {
                    Answer::Error(rpc_error(INVALID_REQUEST, Malformed::batch().reason))
                }
                Opening::Open(session) => gate.ask(&session, id, method, params, back).await,
                _ => Answer::Error(rpc_error(INVALID_REQUEST, NOT_INITIALIZED)),
            }
        }
    }

    fn abort_all(&self) {
        for (_, call) in self.running().drain() {
            call.abort();
        }
    }
}

struct StdioWire(Peer);

impl Wire for StdioWire {
    fn tell(&self, method: Method, params: Option<Payload>) {
        if self.0.tell(&method, params).is_err() {
            tracing::debug!(%method, "dropped: the client does not read");
        }
    }

    fn ask(&self, method: Method, params: Option<Payload>) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            match self.0.ask(method, params, Arc::new(Trail::new())).await {
                Ok(answer) => answer,
                Err(error) => Answer::Error(rpc_error(OVERLOADED, format!("the client did not answer: {error}"))),
            }
        })
    }
}
