//! One event stream of a session: what was said on it is kept for a while, so that a
//! client whose connection broke can go on where it was.
//!
//! A stream outlives its connections. Whoever resumes it takes it over from whoever was
//! reading; a message that two of them read is the same event under the same id.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{sync::watch, time::Instant};

use crate::{
    call::Payload,
    downstream::mailbox::{Mail, Mailbox},
    wire::envelope::Parts,
};

/// What one stream keeps; the oldest goes first.
pub(super) const STREAM_MAX_EVENTS: usize = 256;
pub(super) const STREAM_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Bytes kept by one session, and by all of them.
#[derive(Debug, Default)]
pub(super) struct Kept {
    session: AtomicUsize,
    everybody: Arc<AtomicUsize>,
}

#[derive(Debug)]
pub(super) struct Tape {
    /// Unique within its session.
    pub(super) number: u64,
    pub(super) mailbox: Arc<Mailbox>,
    /// The id of the request whose answer ends the stream.
    request: Option<Payload>,
    log: Mutex<Log>,
    /// Since when nobody has been reading.
    deserted: watch::Sender<Option<Instant>>,
    kept: Arc<Kept>,
}

#[derive(Debug, Default)]
struct Log {
    events: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// Of the newest event; the first one is 1.
    last: u64,
    is_over: bool,
    /// Counts the readers: the newest has the stream.
    reader: u64,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Event(Bytes),
    /// So many events were kept no longer.
    Gap(u64),
    /// Nothing is there yet.
    Later,
    /// The stream is over, or somebody else has taken it over.
    End,
}

/// A place in a stream.
#[derive(Debug)]
pub(super) struct Cursor {
    reader: u64,
    /// The last event that was read.
    pub(super) at: u64,
}

impl Kept {
    pub(super) fn beside(everybody: &Arc<AtomicUsize>) -> Self {
        Kept { session: AtomicUsize::new(0), everybody: everybody.clone() }
    }

    pub(super) fn session_bytes(&self) -> usize {
        self.session.load(Ordering::Relaxed)
    }

    pub(super) fn everybodys_bytes(&self) -> usize {
        self.everybody.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.session.fetch_add(bytes, Ordering::Relaxed);
        self.everybody.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.session.fetch_sub(bytes, Ordering::Relaxed);
        self.everybody.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Tape {
    pub(super) fn new(number: u64, mailbox: Arc<Mailbox>, request: Option<Payload>, kept: &Arc<Kept>) -> Self {
        let deserted = watch::Sender::new(Some(Instant::now()));
        Tape { number, mailbox, request, log: Mutex::default(), deserted, kept: kept.clone() }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message on it that has left the mailbox already.
    pub(super) fn record(&self, message: &[u8]) {
        self.log().push(self.number, message, &self.kept);
    }

    /// A reader that has seen everything up to `at`; `None` is everything so far. Whoever
    /// was reading finds the end.
    pub(super) fn attach(&self, at: Option<u64>) -> Cursor {
        let mut log = self.log();
        log.reader += 1;
        let cursor = Cursor { reader: log.reader, at: at.unwrap_or(log.last).min(log.last) };
        self.deserted.send_replace(None);
        drop(log);
        self.mailbox.wake();
        cursor
    }

    pub(super) fn detach(&self, cursor: &Cursor) {
        let log = self.log();
        if log.reader == cursor.reader {
            self.deserted.send_replace(Some(Instant::now()));
        }
    }

    /// The next event after the cursor. What leaves the mailbox is on record before
    /// anybody else can look.
    pub(super) fn next(&self, cursor: &mut Cursor) -> Next {
        let mut log = self.log();
        if log.reader != cursor.reader {
            drop(log);
            // The wake-up may have been meant for the one who has the stream now.
            self.mailbox.wake();
            return Next::End;
        }
        if cursor.at < log.last {
            let first_kept = log.events.front().map_or(log.last + 1, |(number, _)| *number);
            if cursor.at + 1 < first_kept {
                let gone = first_kept - cursor.at - 1;
                cursor.at += gone;
                return Next::Gap(gone);
            }
            let place = usize::try_from(cursor.at + 1 - first_kept).unwrap_or(usize::MAX);
            cursor.at += 1;
            return log.events.get(place).map_or(Next::Later, |(_, event)| Next::Event(event.clone()));
        }
        if log.is_over {
            return Next::End;
        }
        let message = match self.mailbox.take() {
            None => return Next::Later,
            Some(Mail::Message(message)) => message,
            Some(Mail::Answer(answer)) => {
                log.is_over = true;
                let Some(id) = &self.request else { return Next::End };
                Parts::response(id, answer.on_one_line()).joined()
            }
            // Within a session a question is a message.
            Some(Mail::Question(_)) => return Next::Later,
            Some(Mail::Cancelled | Mail::Closed) => {
                log.is_over = true;
                return Next::End;
            }
        };
        cursor.at += 1;
        Next::Event(log.push(self.number, &message, &self.kept))
    }

    /// Resolves when nobody has been reading for so long.
    pub(super) async fn deserted(&self, for_so_long: Duration) {
        let mut deserted = self.deserted.subscribe();
        loop {
            let since = *deserted.borrow_and_update();
            let over = async {
                match since {
                    Some(since) => tokio::time::sleep_until(since + for_so_long).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                // The sender lives in `self`.
                _ = deserted.changed() => {}
            }
        }
    }

    /// Whether somebody reads it now.
    pub(super) fn is_read(&self) -> bool {
        self.deserted.borrow().is_none()
    }

    /// Nobody reads it, and nothing will be added to it: for how long nobody has.
    pub(super) fn ended_for(&self) -> Option<Duration> {
        let since = *self.deserted.borrow();
        since.filter(|_| self.log().is_over || self.mailbox.has_ended()).map(|since| since.elapsed())
    }

    /// Keeps nothing of what was said so far.
    pub(super) fn forget(&self) {
        let mut log = self.log();
        log.events = VecDeque::new();
        self.kept.remove(std::mem::take(&mut log.bytes));
    }

    /// The number of the newest event, and whether it is the last of all.
    pub(super) fn last(&self) -> (u64, bool) {
        let log = self.log();
        (log.last, log.is_over || self.mailbox.is_spent())
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Log {
    fn push(&mut self, stream: u64, message: &[u8], kept: &Kept) -> Bytes {
        self.last += 1;
        let event = as_event(Some((stream, self.last)), message);
        self.events.push_back((self.last, event.clone()));
        self.bytes += event.len();
        kept.add(event.len());
        while self.events.len() > STREAM_MAX_EVENTS || self.bytes > STREAM_MAX_BYTES {
            let Some((_, oldest)) = self.events.pop_front() else { break };
            self.bytes -= oldest.len();
            kept.remove(oldest.len());
        }
        event
    }
}

/// One chunk an event: four writes would be four wake-ups of the client. An event with
/// an id is named by its stream and its place there.
pub(super) fn as_event(id: Option<(u64, u64)>, message: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(message.len() + 64);
    event.put_slice(b"event: message\n");
    if let Some((stream, place)) = id {
        event.put_slice(format!("id: {stream}-{place}\n").as_bytes());
    }
    event.put_slice(b"data: ");
    event.put_slice(message);
    event.put_slice(b"\n\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Answer;

    fn tape() -> Tape {
        Tape::new(3, Arc::default(), Some(Payload::literal("7")), &Arc::default())
    }

    fn say(tape: &Tape, text: &str) {
        assert!(tape.mailbox.put(Mail::Message(Bytes::from(text.to_owned()))));
    }

    fn read(tape: &Tape, cursor: &mut Cursor) -> String {
        match tape.next(cursor) {
            Next::Event(event) => String::from_utf8_lossy(&event).into_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn who_resumes_gets_what_came_after_and_takes_the_stream_over() {
        let tape = tape();
        let mut first = tape.attach(None);
        say(&tape, "a");
        say(&tape, "b");
        assert_eq!(read(&tape, &mut first), "event: message\nid: 3-1\ndata: a\n\n");
        assert_eq!(read(&tape, &mut first), "event: message\nid: 3-2\ndata: b\n\n");
        let mut second = tape.attach(Some(1));
        tape.mailbox.answer(Answer::Result(Payload::literal("{}")));
        assert_eq!(tape.next(&mut first), Next::End, "it was taken over");
        assert!(read(&tape, &mut second).contains("data: b\n"));
        assert!(read(&tape, &mut second).contains(r#"data: {"jsonrpc":"2.0","id":7,"result":{}}"#));
        assert_eq!(tape.next(&mut second), Next::End);
        tape.detach(&first);
        assert!(tape.is_read(), "who has lost it takes it from nobody");
        let mut third = tape.attach(Some(2));
        assert!(read(&tape, &mut third).contains("id: 3-3\n"), "the answer is kept, too");
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_gone_is_counted() {
        let tape = tape();
        let mut cursor = tape.attach(None);
        for number in 0..STREAM_MAX_EVENTS + 5 {
            say(&tape, &number.to_string());
            assert!(matches!(tape.next(&mut cursor), Next::Event(_)));
        }
        let mut again = tape.attach(Some(2));
        assert_eq!(tape.next(&mut again), Next::Gap(3));
        assert_eq!(read(&tape, &mut again), "event: message\nid: 3-6\ndata: 5\n\n");
        // One that is as large as all that may be kept leaves room for nothing else.
        tape.record(&vec![b'x'; STREAM_MAX_BYTES]);
        assert_eq!((tape.log().bytes, tape.kept.session_bytes()), (0, 0));
        let mut late = tape.attach(Some(6));
        assert!(matches!(tape.next(&mut late), Next::Gap(_)));
        assert_eq!(tape.next(&mut late), Next::Later);
        say(&tape, "after");
        assert!(read(&tape, &mut late).contains("data: after\n"));
        assert!(tape.kept.everybodys_bytes() > 0);
        tape.forget();
        assert_eq!(tape.kept.everybodys_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_deserted_when_nobody_has_come_back_for_so_long() {
        let minute = Duration::from_secs(60);
        let tape = Arc::new(tape());
        let cursor = tape.attach(None);
        let deserted = tokio::spawn({
            let tape = tape.clone();
            async move { tape.deserted(minute).await }
        });
        tokio::time::sleep(minute * 3).await;
        tape.detach(&cursor);
        tokio::time::sleep(minute - Duration::from_secs(1)).await;
        let cursor = tape.attach(Some(0));
        tokio::time::sleep(minute * 3).await;
        assert!(!deserted.is_finished());
        tape.detach(&cursor);
        tokio::time::sleep(minute + Duration::from_secs(1)).await;
        assert!(deserted.is_finished());
    }
}
