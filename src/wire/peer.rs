//! One JSON-RPC peer over a byte stream: requests and answers in both directions.
//!
//! Two tasks, one that reads and one that writes. A request's future registers an
//! id, queues its line and waits; dropping it sends `notifications/cancelled`. The
//! peer notices the end of its stream but does not decide what that means: its
//! owner hears of it through [`Peer::ended`] and calls [`Peer::fail`], so that a
//! child's exit status can be part of the explanation.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, mpsc, watch},
};
use tokio_util::task::TaskTracker;

pub use super::{envelope::Malformed, pending::Guilty};
use super::{envelope::Parts, lines::LineReader, pending::Pending};
use crate::{
    call::{Answer, Message, Method, Payload, Trail},
    link::{Gone, LinkError},
};

mod read;
mod write;

pub use read::Stray;
use write::{Frame, QUEUE_MAX_KIB, QUEUE_MAX_LINES};

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_line_bytes: usize,
    /// A write that takes longer means that nobody reads.
    pub write_timeout: Duration,
}

/// What the other side says on its own. Called in wire order; must not block.
pub trait Listener: Send + Sync + 'static {
    fn on(&self, peer: &Peer, message: Message);
    /// Whether an array of messages is taken for what is in it.
    fn takes_batches(&self) -> bool {
        true
    }
    /// The messages of one array, and what in it is none.
    fn on_batch(&self, peer: &Peer, messages: Vec<Message>, _: Vec<Malformed>) {
        for message in messages {
            self.on(peer, message);
        }
    }
    /// A line that is no message. Servers that log to stdout are left in peace.
    fn on_stray(&self, _: &Peer, _: Malformed) {}
}

/// A handle; clones speak to the same peer.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The instance that trails are marked with.
    number: u64,
    pending: Pending,
    out: mpsc::Sender<Frame>,
    room: Arc<Semaphore>,
    ended: watch::Sender<Option<End>>,
    gone: watch::Sender<bool>,
    stray: Mutex<Stray>,
}

/// Why reading or writing stopped.
#[derive(Clone, Debug)]
pub struct End {
    pub reason: String,
    pub guilty: Guilty,
}

impl Peer {
    /// Starts reading and writing. Both tasks end when the stream does or when the
    /// peer was failed.
    pub fn start<R, W>(
        number: u64,
        (read, write): (R, W),
        listener: Arc<dyn Listener>,
        limits: Limits,
        tasks: &TaskTracker,
    ) -> Peer
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (out, queue) = mpsc::channel(QUEUE_MAX_LINES);
        let peer = Peer(Arc::new(Shared {
            number,
            pending: Pending::default(),
            out,
            room: Arc::new(Semaphore::new(QUEUE_MAX_KIB as usize)),
            ended: watch::Sender::new(None),
            gone: watch::Sender::new(false),
            stray: Mutex::default(),
        }));
        tasks.spawn(peer.clone().read(LineReader::new(read, limits.max_line_bytes), listener));
        tasks.spawn(peer.clone().write(write, queue, limits.write_timeout));
        peer
    }

    /// Sends one request and waits for its answer. Dropped before that, it tells the
    /// other side.
    pub async fn ask(&self, method: Method, params: Option<Payload>, trail: Arc<Trail>) -> Result<Answer, LinkError> {
        let (id, answer) = self.0.pending.register(trail)?;
        let mut guard = CancelOnDrop { peer: self, id: Some(id) };
        let parts = Parts::request(id, &method, params.map(|params| params.on_one_line()));
        if self.enqueue(Some(id), parts).await.is_err() {
            return Err(LinkError::NotSent(self.reason()));
        }
        let outcome = answer.await;
        guard.id = None;
        outcome.unwrap_or_else(|_| Err(LinkError::NotSent(self.reason())))
    }

    /// Queues a notification; refused if the queue is full.
    pub fn tell(&self, method: &Method, params: Option<Payload>) -> Result<(), LinkError> {
        self.try_enqueue(Parts::notification(method, params.map(|params| params.on_one_line())))
    }

    /// Sends an answer, waiting for room in the queue.
    pub async fn respond(&self, id: &Payload, answer: Answer) -> Result<(), LinkError> {
        self.enqueue(None, Parts::response(id, answer.on_one_line()))
            .await
            .map_err(|()| LinkError::NotSent(self.reason()))
    }

    /// Queues an answer; refused if the queue is full.
    pub fn try_respond(&self, id: &Payload, answer: Answer) -> Result<(), LinkError> {
        self.try_enqueue(Parts::response(id, answer.on_one_line()))
    }

    /// Sends a whole message that was put together elsewhere, on one line.
    pub async fn pass_on(&self, message: Bytes) {
        let head = BytesMut::from(message);
        let _ = self.enqueue(None, Parts { head, body: None, tail: b"" }).await;
    }

    /// Queues what is said of a line that is no message; refused if the queue is full.
    pub fn complain(&self, complaint: Parts) {
        let _ = self.try_enqueue(complaint);
    }

    /// Resolves when reading or writing has stopped.
    pub async fn ended(&self) -> End {
        let mut ended = self.0.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or_else(|| End::plain("it was closed")),
            // The sender lives in `self`.
            Err(_) => End::plain("it was closed"),
        }
    }

    /// Ends the peer: every request that waits gets its error now. The first reason
    /// given is the one that counts.
    pub fn fail(&self, gone: &Gone, guilty: Guilty) {
        if self.0.pending.end(gone, guilty) {
            self.0.ended.send_if_modified(|end| {
                let first = end.is_none();
                if first {
                    *end = Some(End { reason: gone.reason.clone(), guilty });
                }
                first
            });
            self.0.gone.send_replace(true);
        }
    }

    /// Waits until all that was queued has been written, or cannot be any more.
    pub async fn flushed(&self) {
        let _all = self.0.room.acquire_many(QUEUE_MAX_KIB).await;
    }

    /// Resolves when the peer was failed.
    pub async fn gone(&self) -> Gone {
        let mut gone = self.0.gone.subscribe();
        let _ = gone.wait_for(|gone| *gone).await;
        self.0.pending.gone().unwrap_or_else(|| Gone::because("its connection was closed"))
    }

    pub fn is_gone(&self) -> bool {
        *self.0.gone.borrow()
    }

    pub fn stray(&self) -> Stray {
        self.0.stray.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reason(&self) -> String {
        self.0.pending.gone().map_or_else(|| "its connection is closing".to_owned(), |gone| gone.reason)
    }

    fn end(&self, reason: impl Into<String>, guilty: Guilty) {
        let end = End { reason: reason.into(), guilty };
        self.0.ended.send_if_modified(|current| current.is_none() && current.replace(end).is_none());
    }
}

struct CancelOnDrop<'a> {
    peer: &'a Peer,
    id: Option<u64>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id
            && self.peer.0.pending.forget(id)
        {
            let params = format!(r#"{{"requestId":{id},"reason":"the caller no longer waits"}}"#);
            let params = Payload::from_json(params).ok();
            let _ = self.peer.tell(&Method::of("notifications/cancelled"), params);
        }
    }
}

impl End {
    fn plain(reason: &str) -> Self {
        End { reason: reason.to_owned(), guilty: Guilty::None }
    }
}
