//! The event streams of one session: how one is opened, how a client resumes one by the
//! id of the last event that it has, and how much is kept for that.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hyper::StatusCode;
use tokio::time::timeout;

use super::{
    body::{KEEP_ALIVE, STILL_HERE},
    tape::{Cursor, Kept, Next, Tape, as_event},
};
use crate::{
    call::{Method, Payload},
    downstream::mailbox::Mailbox,
    listener::guard::Refusal,
    wire::envelope::Parts,
};

/// Streams that are over, and can still be read again.
const ENDED_MAX_STREAMS: usize = 64;
/// So long after it has ended.
const ENDED_MAX: Duration = Duration::from_secs(300);
const SESSION_MAX_BYTES: usize = 32 * 1024 * 1024;
const EVERYBODY_MAX_BYTES: usize = 256 * 1024 * 1024;
/// What a client whose connection broke should wait before it comes back.
const RETRY_MS: u64 = 1000;

#[derive(Debug, Default)]
pub(super) struct Tapes {
    tapes: Mutex<BTreeMap<u64, Arc<Tape>>>,
    last_number: AtomicU64,
    kept: Arc<Kept>,
    /// Whether its streams begin with an event that has only an id.
    primes: bool,
}

impl Tapes {
    /// Of one session; `everybody` counts what all sessions keep.
    pub(super) fn new(everybody: &Arc<AtomicUsize>, primes: bool) -> Self {
        Tapes { kept: Arc::new(Kept::beside(everybody)), primes, ..Tapes::default() }
    }

    fn tapes(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Tape>>> {
        self.tapes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its streams begin with an event that has only an id.
    pub(super) fn primes(&self) -> bool {
        self.primes
    }

    /// A new stream of what the mailbox gets. The answer to `request` ends it.
    pub(super) fn open(&self, mailbox: Arc<Mailbox>, request: Option<Payload>) -> Arc<Tape> {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let tape = Arc::new(Tape::new(number, mailbox, request, &self.kept));
        self.tapes().insert(number, tape.clone());
        tape
    }

    /// Reads a stream from its beginning.
    pub(super) fn read(self: &Arc<Self>, tape: &Arc<Tape>) -> Reader {
        let greeting = self.primes.then(|| primer(tape.number));
        Reader { tapes: self.clone(), cursor: tape.attach(Some(0)), tape: tape.clone(), greeting }
    }

    /// Goes on after the event that `Last-Event-ID` names; `None` if it was the last of
    /// its stream.
    pub(super) fn resume(self: &Arc<Self>, last_event_id: &str) -> Result<Option<Reader>, Refusal> {
        let refused = |status, reason: String| Err(Refusal::new(status, reason));
        let quoted = || crate::text::quote(last_event_id, 40);
        let Some((stream, at)) = place(last_event_id) else {
            let reason = format!("Last-Event-ID \"{}\" is no id of an event of seawall's", quoted());
            return refused(StatusCode::BAD_REQUEST, reason);
        };
        let tape = self.tapes().get(&stream).cloned();
        match tape.map(|tape| (tape.last(), tape)) {
            Some(((last, true), _)) if at == last => Ok(None),
            Some(((last, _), tape)) if at <= last => {
                let cursor = tape.attach(Some(at));
                Ok(Some(Reader { tapes: self.clone(), cursor, tape, greeting: None }))
            }
            None if stream > 0 && stream <= self.last_number.load(Ordering::Relaxed) => {
                let reason = format!(
                    "the stream of event \"{}\" is kept no longer ({} after its end at most): its messages are gone",
                    quoted(),
                    crate::text::duration(ENDED_MAX)
                );
                refused(StatusCode::GONE, reason)
            }
            _ => refused(StatusCode::BAD_REQUEST, format!("this session has had no event \"{}\"", quoted())),
        }
    }

    /// Whether a client is reading any of them.
    pub(super) fn is_read(&self) -> bool {
        self.tapes().values().any(|tape| tape.is_read())
    }

    /// Whether a client is reading what this mailbox gets.
    pub(super) fn is_read_from(&self, mailbox: &Arc<Mailbox>) -> bool {
        self.tapes().values().any(|tape| Arc::ptr_eq(&tape.mailbox, mailbox) && tape.is_read())
    }

    /// Forgets the streams that ended long ago.
    pub(super) fn expire(&self) {
        self.tapes().retain(|_, tape| tape.ended_for().is_none_or(|ended| ended < ENDED_MAX));
    }

    pub(super) fn clear(&self) {
        self.tapes().clear();
    }

    fn is_too_much(&self) -> bool {
        self.kept.session_bytes() > SESSION_MAX_BYTES || self.kept.everybodys_bytes() > EVERYBODY_MAX_BYTES
    }

    /// Streams that are over go first, the oldest of them before the others; then what was
    /// said on those that go on.
    fn keep_within_bounds(&self) {
        let mut tapes = self.tapes();
        let mut ended: Vec<u64> =
            tapes.iter().filter(|(_, tape)| tape.ended_for().is_some()).map(|(number, _)| *number).rev().collect();
        while ended.len() > ENDED_MAX_STREAMS || (self.is_too_much() && !ended.is_empty()) {
            let oldest = ended.pop();
            tapes.retain(|number, _| Some(*number) != oldest);
        }
        for tape in tapes.values() {
            if !self.is_too_much() {
                return;
            }
            tape.forget();
        }
    }
}

/// `STREAM-PLACE`.
fn place(event_id: &str) -> Option<(u64, u64)> {
    let (stream, at) = event_id.split_once('-')?;
    let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    Some((number(stream)?, number(at)?))
}

/// Says nothing, but gives the client an id to come back with.
fn primer(stream: u64) -> Bytes {
    Bytes::from(format!("id: {stream}-0\nretry: {RETRY_MS}\ndata: \n\n"))
}

/// What a client is told where events are missing.
fn gap(count: u64) -> Bytes {
    let data = format!("seawall: {count} messages of this stream are kept no longer and were left out here");
    let params = serde_json::json!({"level": "warning", "logger": "seawall", "data": data});
    as_event(None, &Parts::notification(&Method::of("notifications/message"), Some(Payload::of(&params))).joined())
}

/// One connection's way through a stream.
pub(super) struct Reader {
    tapes: Arc<Tapes>,
    tape: Arc<Tape>,
    cursor: Cursor,
    greeting: Option<Bytes>,
}

impl Reader {
    /// The next event, or a sign of life; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        loop {
            match self.tape.next(&mut self.cursor) {
                Next::Event(event) => {
                    if self.tapes.is_too_much() {
                        self.tapes.keep_within_bounds();
                    }
                    return Some(event);
                }
                Next::Gap(count) => return Some(gap(count)),
                Next::End => return None,
                Next::Later => {}
            }
            if timeout(KEEP_ALIVE, self.tape.mailbox.changed()).await.is_err() {
                return Some(Bytes::from_static(STILL_HERE));
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.tape.detach(&self.cursor);
        self.tapes.keep_within_bounds();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::Answer, downstream::mailbox::Mail};

    fn tapes(primes: bool) -> Arc<Tapes> {
        Arc::new(Tapes::new(&Arc::default(), primes))
    }

    fn say(tape: &Tape, bytes: usize) {
        tape.record(&vec![b'x'; bytes]);
    }

    fn end(tape: &Tape) {
        tape.mailbox.answer(Answer::Result(Payload::literal("1")));
    }

    fn status(resumed: Result<Option<Reader>, Refusal>) -> Option<u16> {
        resumed.err().map(|refusal| refusal.status.as_u16())
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_resumed_is_told_apart() {
        let tapes = tapes(true);
        let tape = tapes.open(Arc::default(), Some(Payload::literal("1")));
        let mut reader = tapes.read(&tape);
        assert_eq!(reader.next().await.expect("a primer"), "id: 1-0\nretry: 1000\ndata: \n\n");
        say(&tape, 1);
        for wrong in ["", "-", "1", "1-", "1-x", "+1-1", "1-1-1", "x-1", "0-0", "1-2", "2-0", "99999999999999999999-1"]
        {
            assert_eq!(status(tapes.resume(wrong)), Some(400), "{wrong}");
        }
        for right in ["1-0", "1-1"] {
            assert_eq!(status(tapes.resume(right)), None, "{right}");
        }
        drop(reader);
        end(&tape);
        tokio::time::advance(ENDED_MAX - Duration::from_secs(1)).await;
        tapes.expire();
        assert_eq!(status(tapes.resume("1-1")), None);
        tokio::time::advance(ENDED_MAX).await;
        tapes.expire();
        assert_eq!(status(tapes.resume("1-1")), Some(410));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_told_what_is_missing_and_gets_the_rest() {
        let tapes = tapes(false);
        let tape = tapes.open(Arc::default(), Some(Payload::literal("1")));
        drop(tapes.read(&tape));
        say(&tape, 1);
        say(&tape, 1);
        tape.forget();
        end(&tape);
        let mut reader = tapes.resume("1-0").expect("it is there").expect("there is more");
        let told = String::from_utf8(reader.next().await.expect("a gap").to_vec()).expect("UTF-8");
        assert!(told.contains("2 messages") && told.contains("notifications/message"), "{told}");
        let answer = String::from_utf8(reader.next().await.expect("the answer").to_vec()).expect("UTF-8");
        assert!(answer.contains("id: 1-3\n") && answer.contains(r#""result":1"#), "{answer}");
        assert_eq!(reader.next().await, None);
        assert!(tapes.resume("1-3").expect("it is there").is_none(), "nothing is left to come back for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_says_nothing_shows_that_it_is_there() {
        let tapes = tapes(false);
        let tape = tapes.open(Arc::default(), None);
        let mut reader = tapes.read(&tape);
        let began = tokio::time::Instant::now();
        assert_eq!(reader.next().await.expect("a comment"), STILL_HERE);
        assert_eq!(began.elapsed(), KEEP_ALIVE);
        assert!(tape.mailbox.put(Mail::Message(Bytes::from_static(b"x"))));
        assert_eq!(reader.next().await.expect("an event"), "event: message\nid: 1-1\ndata: x\n\n");
    }

    #[test]
    fn a_session_keeps_so_many_streams_and_bytes_and_the_oldest_go() {
        let tapes = tapes(false);
        let many: Vec<_> = (0..ENDED_MAX_STREAMS + 3).map(|_| tapes.open(Arc::default(), None)).collect();
        many.iter().for_each(|tape| end(tape));
        tapes.keep_within_bounds();
        assert_eq!(status(tapes.resume("3-0")), Some(410));
        assert_eq!(status(tapes.resume("4-0")), None);

        drop(many);
        tapes.clear();
        let (ended, live) = (tapes.open(Arc::default(), None), tapes.open(Arc::default(), None));
        let (old, new) = (format!("{}-1", ended.number), format!("{}-1", live.number));
        say(&ended, 12 << 20);
        end(&ended);
        drop(ended);
        for _ in 0..3 {
            let live = tapes.open(Arc::default(), None);
            say(&live, 15 << 20);
        }
        say(&live, 1);
        tapes.keep_within_bounds();
        assert_eq!(status(tapes.resume(&old)), Some(410));
        assert_eq!(status(tapes.resume(&new)), None, "its stream goes on, whatever is kept of it");
        assert!(tapes.kept.session_bytes() <= SESSION_MAX_BYTES);
    }
}
