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
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{
        OwnedSemaphorePermit, Semaphore, TryAcquireError,
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    batch,
    envelope::{Envelope, Parts},
    lines::{LineError, LineReader},
    pending::Pending,
};
pub use super::{envelope::Malformed, pending::Guilty};
use crate::{
    call::{Answer, Message, Method, Payload, Trail},
    link::{Gone, LinkError},
};

/// Lines that wait to be written; what comes on top waits in its own future.
const QUEUE_MAX_LINES: usize = 256;
/// Bytes that wait to be written, in KiB so that they fit a semaphore's count.
const QUEUE_MAX_KIB: u32 = 64 * 1024;
/// Below this a payload is copied into the write buffer; above it is written in place.
const COPY_MAX_BYTES: usize = 16 * 1024;
const STRAY_MAX_PER_MINUTE: u32 = 100;
const STRAY_KEPT_BYTES: usize = 2048;

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

#[derive(Debug)]
struct Frame {
    /// Set for requests: not written any more once nobody waits.
    request: Option<u64>,
    parts: Parts,
    _room: OwnedSemaphorePermit,
}

/// Lines that were no JSON-RPC.
#[derive(Clone, Debug, Default)]
pub struct Stray {
    pub lines: u64,
    pub last: Option<String>,
    minute: Option<(Instant, u32)>,
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

    async fn enqueue(&self, request: Option<u64>, parts: Parts) -> Result<(), ()> {
        let kib = kib_of(&parts);
        let room = self.0.room.clone().acquire_many_owned(kib).await.map_err(|_| ())?;
        self.0.out.send(Frame { request, parts, _room: room }).await.map_err(|_| ())
    }

    fn try_enqueue(&self, parts: Parts) -> Result<(), LinkError> {
        let not_sent =
            |is_closed| LinkError::NotSent(if is_closed { self.reason() } else { "its queue is full".to_owned() });
        let room = self.0.room.clone().try_acquire_many_owned(kib_of(&parts));
        let room = room.map_err(|error| not_sent(error == TryAcquireError::Closed))?;
        let sent = self.0.out.try_send(Frame { request: None, parts, _room: room });
        sent.map_err(|error| not_sent(matches!(error, TrySendError::Closed(_))))
    }

    fn end(&self, reason: impl Into<String>, guilty: Guilty) {
        let end = End { reason: reason.into(), guilty };
        self.0.ended.send_if_modified(|current| current.is_none() && current.replace(end).is_none());
    }

    async fn read<R: AsyncRead + Unpin>(self, mut lines: LineReader<R>, listener: Arc<dyn Listener>) {
        let mut gone = self.0.gone.subscribe();
        loop {
            let line = tokio::select! {
                biased;
                _ = gone.wait_for(|gone| *gone) => return,
                line = lines.next() => line,
            };
            match line {
                Ok(Some(line)) => {
                    if let Err((reason, guilty)) = self.on_line(line, &*listener) {
                        return self.end(reason, guilty);
                    }
                }
                Ok(None) => return self.end("it closed its output", Guilty::None),
                Err(LineError::Oversized { max_bytes, start }) => {
                    let guilty = guess_id(&start).filter(|id| self.0.pending.contains(*id));
                    let reason = format!("it sent a line of more than {}", crate::text::bytes(max_bytes as u64));
                    return self.end(reason, guilty.map_or(Guilty::All, Guilty::One));
                }
                Err(LineError::Io(error)) => return self.end(format!("reading from it failed: {error}"), Guilty::None),
            }
        }
    }

    fn settle(&self, id: &Payload, answer: Answer) {
        // Ids of ours are plain integers; anything else is nobody's answer.
        let known = id.as_str().parse().is_ok_and(|id| self.0.pending.settle(id, Ok(answer)));
        if !known {
            tracing::debug!(instance = self.0.number, "an answer that nobody waits for");
        }
    }

    /// An array, taken apart.
    fn on_batch(&self, line: &Bytes, listener: &dyn Listener) -> Result<(), (String, Guilty)> {
        let items = match batch::parse(line) {
            Ok(items) => items,
            Err(malformed) => {
                listener.on_stray(self, malformed);
                return self.count_stray(line);
            }
        };
        let (mut messages, mut strays) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Ok(Envelope::Message(message)) => messages.push(message),
                Ok(Envelope::Response { id, answer }) => self.settle(&id, answer),
                Err(malformed) => strays.push(malformed),
            }
        }
        let ids = strays.iter().filter_map(|stray| stray.id.as_ref()?.as_str().parse().ok());
        let guilty = ids.into_iter().find(|id| self.0.pending.contains(*id));
        let is_stray = !strays.is_empty();
        listener.on_batch(self, messages, strays);
        match guilty {
            Some(id) => Err(("its answer was malformed".to_owned(), Guilty::One(id))),
            None if is_stray => self.count_stray(line),
            None => Ok(()),
        }
    }

    fn on_line(&self, line: Bytes, listener: &dyn Listener) -> Result<(), (String, Guilty)> {
        if batch::is_batch(&line) && listener.takes_batches() {
            return self.on_batch(&line, listener);
        }
        match parse_forgivingly(line) {
            Ok(Envelope::Message(message)) => listener.on(self, message),
            Ok(Envelope::Response { id, answer }) => self.settle(&id, answer),
            Err((malformed, line)) => {
                let read = malformed.id.as_ref().and_then(|id| id.as_str().parse().ok());
                // The beginning of an answer, broken off or mixed with another line. A log
                // line that quotes a message does not begin with the brace.
                let guilty = read.or_else(|| line.starts_with(b"{").then(|| guess_id(&line)).flatten());
                if let Some(id) = guilty.filter(|id| self.0.pending.contains(*id)) {
                    return Err((format!("its answer was {malformed}"), Guilty::One(id)));
                }
                listener.on_stray(self, malformed);
                return self.count_stray(&line);
            }
        }
        Ok(())
    }

    fn count_stray(&self, line: &[u8]) -> Result<(), (String, Guilty)> {
        let mut stray = self.0.stray.lock().unwrap_or_else(PoisonError::into_inner);
        stray.lines += 1;
        stray.last = Some(String::from_utf8_lossy(&line[..line.len().min(STRAY_KEPT_BYTES)]).into_owned());
        let now = Instant::now();
        let (_, count) = match &mut stray.minute {
            Some(minute) if now - minute.0 < Duration::from_secs(60) => minute,
            expired => expired.insert((now, 0)),
        };
        *count += 1;
        if *count > STRAY_MAX_PER_MINUTE {
            return Err((
                format!("it wrote more than {STRAY_MAX_PER_MINUTE} lines within a minute that are no JSON-RPC"),
                Guilty::All,
            ));
        }
        Ok(())
    }

    async fn write<W: AsyncWrite + Unpin>(self, mut write: W, mut queue: mpsc::Receiver<Frame>, limit: Duration) {
        let mut gone = self.0.gone.subscribe();
        let mut frames = Vec::with_capacity(64);
        loop {
            tokio::select! {
                biased;
                _ = gone.wait_for(|gone| *gone) => break,
                n = queue.recv_many(&mut frames, 64) => if n == 0 { break },
            }
            match timeout(limit, self.write_all(&mut write, &mut frames)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.end(format!("writing to it failed: {error}"), Guilty::None);
                    break;
                }
                Err(_) => {
                    let waited = crate::text::duration(limit);
                    self.end(format!("it has not read its input for {waited}"), Guilty::None);
                    break;
                }
            }
        }
        // Whoever still waits for room in the queue hears that there is none.
        self.0.room.close();
    }

    async fn write_all<W: AsyncWrite + Unpin>(&self, write: &mut W, frames: &mut Vec<Frame>) -> std::io::Result<()> {
        let mut buffer = BytesMut::with_capacity(4096);
        for frame in frames.drain(..) {
            if let Some(id) = frame.request
                && !self.0.pending.mark_sent(id, self.0.number)
            {
                continue;
            }
            buffer.extend_from_slice(&frame.parts.head);
            if let Some(body) = &frame.parts.body {
                if body.len() > COPY_MAX_BYTES {
                    write.write_all(&buffer).await?;
                    buffer.clear();
                    write.write_all(body.as_bytes()).await?;
                } else {
                    buffer.extend_from_slice(body.as_bytes());
                }
            }
            buffer.extend_from_slice(frame.parts.tail);
            buffer.extend_from_slice(b"\n");
        }
        write.write_all(&buffer).await?;
        write.flush().await
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

/// Reads a line; one that is not UTF-8 gets a second chance with the bad bytes replaced.
fn parse_forgivingly(line: Bytes) -> Result<Envelope, (Malformed, Bytes)> {
    match Envelope::parse(&line) {
        Ok(envelope) => Ok(envelope),
        Err(malformed) => match String::from_utf8_lossy(&line) {
            std::borrow::Cow::Owned(mended) => Envelope::parse(&Bytes::from(mended)).map_err(|_| (malformed, line)),
            std::borrow::Cow::Borrowed(_) => Err((malformed, line)),
        },
    }
}

/// The id at the start of a line that cannot be read, or was too long to be.
fn guess_id(start: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(start, b"\"id\":")? + 5;
    let digits: Vec<u8> =
        start[at..].iter().copied().skip_while(|b| *b == b' ').take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

fn kib_of(parts: &Parts) -> u32 {
    u32::try_from(parts.len() / 1024 + 1).unwrap_or(u32::MAX).min(QUEUE_MAX_KIB)
}
