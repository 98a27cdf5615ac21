//! Messages on their way to one stream of a client: bounded, never blocking, and
//! without cost for the many calls on whose stream nothing is ever said.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

/// A client that does not read loses what comes on top.
const HELD_MAX_MESSAGES: usize = 256;
const HELD_MAX_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    held: Mutex<Held>,
    changed: Notify,
    /// Apart from `changed`, which is for the one reader of the stream.
    cancellation: Notify,
}

#[derive(Debug, Default)]
struct Held {
    messages: VecDeque<Bytes>,
    bytes: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The client has taken the request back.
    Cancelled,
    /// Nobody will read any more.
    Closed,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mail {
    Message(Bytes),
    Cancelled,
    Closed,
}

impl Mailbox {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if nobody will read it, or if there is no room.
    pub(super) fn put(&self, message: Bytes) -> bool {
        let mut held = self.held();
        if held.state != State::Open {
            return false;
        }
        if held.messages.len() >= HELD_MAX_MESSAGES || held.bytes + message.len() > HELD_MAX_BYTES {
            return false;
        }
        held.bytes += message.len();
        held.messages.push_back(message);
        drop(held);
        self.changed.notify_one();
        true
    }

    /// The message that ends the stream: there is always room for it.
    pub(super) fn put_last(&self, message: Bytes) {
        let mut held = self.held();
        if held.state == State::Open {
            held.bytes += message.len();
            held.messages.push_back(message);
            held.state = State::Closed;
        }
        drop(held);
        self.changed.notify_one();
    }

    /// Ends this one; what it held goes on to its successor.
    pub(super) fn hand_over(&self) -> Mailbox {
        let held = std::mem::replace(&mut *self.held(), Held { state: State::Closed, ..Held::default() });
        self.changed.notify_one();
        Mailbox { held: Mutex::new(Held { state: State::Open, ..held }), ..Mailbox::default() }
    }

    /// The next message; cancel-safe.
    pub(super) async fn next(&self) -> Mail {
        loop {
            if let Some(mail) = self.take() {
                return mail;
            }
            self.changed.notified().await;
        }
    }

    fn take(&self) -> Option<Mail> {
        let mut held = self.held();
        if held.state == State::Cancelled {
            return Some(Mail::Cancelled);
        }
        if let Some(message) = held.messages.pop_front() {
            held.bytes -= message.len();
            return Some(Mail::Message(message));
        }
        (held.state == State::Closed).then_some(Mail::Closed)
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
        self.held().state = state;
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bounded_in_messages_and_bytes() {
        let mailbox = Mailbox::default();
        for _ in 0..HELD_MAX_MESSAGES {
            assert!(mailbox.put(Bytes::from_static(b"x")));
        }
        assert!(!mailbox.put(Bytes::from_static(b"x")));
        assert_eq!(mailbox.next().await, Mail::Message(Bytes::from_static(b"x")));
        assert!(!mailbox.put(Bytes::from(vec![0; HELD_MAX_BYTES])));
        assert!(mailbox.put(Bytes::from_static(b"y")));
        mailbox.close();
        assert!(!mailbox.put(Bytes::from_static(b"z")));
        for _ in 0..HELD_MAX_MESSAGES {
            assert!(matches!(mailbox.next().await, Mail::Message(_)), "what was held is still delivered");
        }
        assert_eq!(mailbox.next().await, Mail::Closed);
    }
}
