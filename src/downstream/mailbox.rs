//! What is on its way to one stream of a client: bounded, never blocking, and without
//! cost for the many calls on whose stream nothing is ever said.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    call::{Answer, Method, Payload},
    sync::{
        Mutex, MutexGuard, Notify, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    wire::envelope::{OVERLOADED, Parts, rpc_error},
};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A client that does not read loses what comes on top.
const HELD_MAX_MESSAGES: usize = 256;
const HELD_MAX_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    held: Mutex<Held>,
    changed: Notify,
    /// Apart from `changed`, which is for the one reader of the stream.
    cancellation: Notify,
    /// No stream is there: the client was asked to come back.
    is_aside: AtomicBool,
}

#[derive(Debug, Default)]
struct Held {
    mail: VecDeque<Mail>,
    bytes: usize,
    /// Messages for which there was no room, and of which the reader has not heard yet.
    missed: u64,
    state: State,
    /// While no stream is there: what an answer that comes may take its room of, and what it took.
    aside: Option<Arc<Semaphore>>,
    room: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The client has taken the request back.
    Cancelled,
    /// Nothing more will come.
    Closed,
}

/// What a reader finds.
#[derive(Debug)]
pub(super) enum Mail {
    /// A whole JSON-RPC message.
    Message(Bytes),
    /// A question of the server's that is not a message by itself.
    Question(Question),
    /// The answer to the request whose stream this is: its last mail.
    Answer(Answer),
    Cancelled,
    Closed,
}

#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) id: u64,
    pub(super) method: Method,
    pub(super) params: Option<Payload>,
}

impl Mail {
    fn len(&self) -> usize {
        match self {
            Mail::Message(message) => message.len(),
            Mail::Question(question) => question.params.as_ref().map_or(0, Payload::len),
            Mail::Answer(Answer::Result(payload) | Answer::Error(payload)) => payload.len(),
            Mail::Cancelled | Mail::Closed => 0,
        }
    }
}

impl Mailbox {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if nobody will read it, or if there is no room.
    pub(super) fn put(&self, mail: Mail) -> bool {
        let mut held = self.held();
        // What is larger than all the room has it to itself: one message may be of any size.
        let is_full =
            held.mail.len() >= HELD_MAX_MESSAGES || (!held.mail.is_empty() && held.bytes + mail.len() > HELD_MAX_BYTES);
        if held.state != State::Open || is_full {
            return false;
        }
        held.bytes += mail.len();
        held.mail.push_back(mail);
        drop(held);
        self.changed.notify_one();
        true
    }

    /// The same; the client is told how much of it was lost. Not for 2026-07-28, whose clients
    /// hear log messages only where they asked for them.
    pub(super) fn tell(&self, message: Bytes) {
        if !self.put(Mail::Message(message)) {
            let mut held = self.held();
            held.missed += u64::from(held.state == State::Open);
        }
    }

    /// The whole answer to one of several requests whose stream this is: they are few, and
    /// there is always room for it.
    pub(super) fn put_reply(&self, reply: Bytes) {
        let mut held = self.held();
        if held.state == State::Open {
            held.bytes += reply.len();
            held.mail.push_back(Mail::Message(reply));
        }
        drop(held);
        self.changed.notify_one();
    }

    /// The answer ends the stream: there is always room for it.
    pub(super) fn answer(&self, answer: Answer) {
        let mut held = self.held();
        if held.state == State::Open {
            let mail = held.within_room(Mail::Answer(answer));
            held.mail.push_back(mail);
            held.state = State::Closed;
        }
        drop(held);
        self.changed.notify_one();
    }

    /// Questions that wait, taken out from between what else is held.
    pub(super) fn take_questions(&self) -> Vec<Question> {
        let mut held = self.held();
        let mut questions = Vec::new();
        for mail in std::mem::take(&mut held.mail) {
            match mail {
                Mail::Question(question) => questions.push(question),
                mail => held.mail.push_back(mail),
            }
        }
        held.bytes = held.mail.iter().map(Mail::len).sum();
        questions
    }

    /// Its client was asked to come back: an answer that comes meanwhile takes of `room`, which is
    /// counted in KiB, or is lost.
    pub(super) fn set_aside(&self, room: &Arc<Semaphore>) {
        self.held().aside = Some(room.clone());
        self.is_aside.store(true, Ordering::Relaxed);
    }

    /// Its client has come back.
    pub(super) fn set_upright(&self) {
        let mut held = self.held();
        (held.aside, held.room) = (None, None);
        self.is_aside.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_aside(&self) -> bool {
        self.is_aside.load(Ordering::Relaxed)
    }

    /// Ends this one; what it held goes on to its successor.
    pub(super) fn hand_over(&self) -> Mailbox {
        let held = std::mem::replace(&mut *self.held(), Held { state: State::Closed, ..Held::default() });
        self.changed.notify_one();
        Mailbox { held: Mutex::new(Held { state: State::Open, ..held }), ..Mailbox::default() }
    }

    /// The next mail; cancel-safe.
    pub(super) async fn next(&self) -> Mail {
        loop {
            if let Some(mail) = self.take() {
                return mail;
            }
            self.changed.notified().await;
        }
    }

    /// The next mail, if it is there already.
    pub(super) fn take(&self) -> Option<Mail> {
        let mut held = self.held();
        if held.state == State::Cancelled {
            return Some(Mail::Cancelled);
        }
        // Behind all that came before, and before the last word.
        if held.missed > 0 && matches!(held.mail.front(), None | Some(Mail::Answer(_))) {
            return Some(Mail::Message(left_out(std::mem::take(&mut held.missed))));
        }
        if let Some(mail) = held.mail.pop_front() {
            held.bytes = held.bytes.saturating_sub(mail.len());
            return Some(mail);
        }
        (held.state == State::Closed).then_some(Mail::Closed)
    }

    /// Resolves when there may be mail; for the one reader of the stream.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Lets the reader look again.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Whether nothing more will come than what is held.
    pub(super) fn has_ended(&self) -> bool {
        self.held().state != State::Open
    }

    /// Whether nothing is held either.
    pub(super) fn is_spent(&self) -> bool {
        let held = self.held();
        held.state == State::Cancelled || (held.state == State::Closed && held.mail.is_empty())
    }

    /// Resolves when the client has taken the request back.
    pub(super) async fn cancelled(&self) {
        loop {
            let cancelled = self.cancellation.notified();
            if self.held().state == State::Cancelled {
                return;
            }
            cancelled.await;
        }
    }

    pub(super) fn cancel(&self) {
        self.end(State::Cancelled);
        self.cancellation.notify_waiters();
    }

    pub(super) fn close(&self) {
        self.end(State::Closed);
    }

    fn end(&self, state: State) {
        let mut held = self.held();
        // What was cancelled stays so: whoever waits for that may look only now.
        if held.state != State::Cancelled {
            held.state = state;
        }
        drop(held);
        self.changed.notify_one();
    }
}

impl Held {
    /// What fits beside all that others keep for clients that may come back.
    fn within_room(&mut self, answer: Mail) -> Mail {
        let Some(room) = &self.aside else { return answer };
        match take_kib(room, answer.len()) {
            Some(taken) => {
                self.room = Some(taken);
                answer
            }
            None => Mail::Answer(Answer::Error(rpc_error(
                OVERLOADED,
                "seawall: the answer came while the client was away, and there was no room to keep it; \
                 the call may have taken effect",
            ))),
        }
    }
}

/// Room for so many bytes, if there is any; what takes none at all is free.
pub(super) fn take_kib(room: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    room.clone().try_acquire_many_owned(kib).ok()
}

fn left_out(count: u64) -> Bytes {
    let data = format!("seawall: {count} messages to this client were left out: it did not read what came before them");
    let params = serde_json::json!({"level": "warning", "logger": "seawall", "data": data});
    Parts::notification(&Method::of("notifications/message"), Some(Payload::of(&params))).joined()
}

/// A client that goes away while its round goes on has cancelled it.
pub(super) struct CancelIfDropped(Option<Arc<Mailbox>>);

impl CancelIfDropped {
    pub(super) fn new(mailbox: &Arc<Mailbox>) -> Self {
        CancelIfDropped(Some(mailbox.clone()))
    }

    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelIfDropped {
    fn drop(&mut self) {
        if let Some(mailbox) = &self.0 {
            mailbox.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &'static str) -> Mail {
        Mail::Message(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn bounded_in_messages_and_bytes() {
        let mailbox = Mailbox::default();
        for _ in 0..HELD_MAX_MESSAGES {
            assert!(mailbox.put(message("x")));
        }
        assert!(!mailbox.put(message("x")));
        assert!(matches!(mailbox.next().await, Mail::Message(_)));
        assert!(!mailbox.put(Mail::Message(Bytes::from(vec![0; HELD_MAX_BYTES]))));
        assert!(mailbox.put(message("y")));
        mailbox.answer(Answer::Result(Payload::literal("1")));
        assert!(!mailbox.put(message("z")), "the answer is the last");
        for _ in 0..HELD_MAX_MESSAGES {
            assert!(matches!(mailbox.next().await, Mail::Message(_)), "what was held is still delivered");
        }
        assert!(matches!(mailbox.next().await, Mail::Answer(_)));
        assert!(matches!(mailbox.next().await, Mail::Closed));
    }

    #[tokio::test]
    async fn one_message_may_be_larger_than_all_the_room() {
        let mailbox = Mailbox::default();
        let image = || Mail::Message(Bytes::from(vec![0; HELD_MAX_BYTES + 1]));
        assert!(mailbox.put(image()));
        assert!(!mailbox.put(message("x")), "then there is room for nothing else");
        assert!(matches!(mailbox.next().await, Mail::Message(_)));
        assert!(mailbox.put(message("x")) && !mailbox.put(image()));
    }

    #[test]
    fn who_has_lost_messages_is_told_how_many() {
        let mailbox = Mailbox::default();
        for _ in 0..HELD_MAX_MESSAGES + 3 {
            mailbox.tell(Bytes::from_static(b"x"));
        }
        mailbox.answer(Answer::Result(Payload::literal("1")));
        mailbox.tell(Bytes::from_static(b"too late"));
        for _ in 0..HELD_MAX_MESSAGES {
            assert!(matches!(mailbox.take(), Some(Mail::Message(text)) if text == "x"));
        }
        let Some(Mail::Message(told)) = mailbox.take() else { panic!("it is told") };
        let told = String::from_utf8(told.to_vec()).expect("UTF-8");
        assert!(told.contains("3 messages to this client were left out"), "{told}");
        assert!(matches!(mailbox.take(), Some(Mail::Answer(_))));
        assert!(matches!(mailbox.take(), Some(Mail::Closed)));
    }

    #[test]
    fn questions_are_taken_out_from_between_messages() {
        let mailbox = Mailbox::default();
        let question = |id| Mail::Question(Question { id, method: Method::of("roots/list"), params: None });
        for mail in [message("a"), question(1), message("b"), question(2)] {
            assert!(mailbox.put(mail));
        }
        let taken: Vec<u64> = mailbox.take_questions().iter().map(|question| question.id).collect();
        assert_eq!(taken, [1, 2]);
        assert!(matches!(mailbox.take(), Some(Mail::Message(text)) if text == "a"));
        assert!(matches!(mailbox.take(), Some(Mail::Message(text)) if text == "b"));
        assert!(mailbox.take().is_none());
    }
}
