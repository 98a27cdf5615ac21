//! A session over HTTP: its id, its requests under way, and since when it is silent.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    outbox::Outbox,
    tapes::{Reader, Tapes},
};
use crate::{call::Payload, downstream::mailbox::Mailbox, session::Session};

/// Whose clients know an event that has only an id.
const PRIMED_VERSION: &str = "2025-11-25";
/// Requests of one session that have no answer yet.
const RUNNING_MAX_REQUESTS: usize = 1024;

pub(super) struct HttpSession {
    pub(super) id: String,
    pub(super) session: Arc<Session>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) tapes: Arc<Tapes>,
    running: Mutex<HashMap<u64, Running>>,
    last_running: AtomicU64,
    last_seen_s: AtomicU64,
    born: Instant,
}

/// One request that has no answer yet. Nothing keeps a client from using an id twice.
struct Running {
    id: Payload,
    mailbox: Arc<Mailbox>,
}

impl HttpSession {
    /// `kept` counts the bytes that all sessions keep of what was said to them.
    pub(super) fn new(session: Arc<Session>, outbox: Arc<Outbox>, kept: &Arc<AtomicUsize>) -> Self {
        HttpSession {
            id: format!("{:032x}", rand::random::<u128>()),
            // Older clients take the empty event for a message and break.
            tapes: Arc::new(Tapes::new(kept, &*session.protocol == PRIMED_VERSION)),
            session,
            outbox,
            running: Mutex::default(),
            last_running: AtomicU64::new(0),
            last_seen_s: AtomicU64::new(0),
            born: Instant::now(),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seen(&self) {
        self.last_seen_s.store(self.born.elapsed().as_secs(), Ordering::Relaxed);
    }

    pub(super) fn idle(&self) -> Duration {
        if !self.running().is_empty() || self.tapes.is_read() {
            return Duration::ZERO;
        }
        Duration::from_secs(self.born.elapsed().as_secs().saturating_sub(self.last_seen_s.load(Ordering::Relaxed)))
    }

    /// Enters a request that is under way, under a number; `None` if there are too many.
    pub(super) fn begin(&self, id: &Payload, mailbox: &Arc<Mailbox>) -> Option<u64> {
        let mut running = self.running();
        if running.len() >= RUNNING_MAX_REQUESTS {
            return None;
        }
        let number = self.last_running.fetch_add(1, Ordering::Relaxed) + 1;
        running.insert(number, Running { id: id.clone(), mailbox: mailbox.clone() });
        Some(number)
    }

    pub(super) fn finish(&self, number: u64) {
        self.running().remove(&number);
    }

    /// The client has taken a request back.
    pub(super) fn cancel(&self, id: &Payload) {
        for running in self.running().values().filter(|running| running.id == *id) {
            running.mailbox.cancel();
        }
    }

    /// A new standing stream; an older one ends.
    pub(super) fn listen(&self) -> Reader {
        self.tapes.read(&self.tapes.open(self.outbox.open_standing(), None))
    }

    pub(super) fn end(&self) {
        for running in self.running().values() {
            running.mailbox.cancel();
        }
        self.outbox.standing().close();
        // A server that asked it something must not wait for ever.
        self.outbox.questions.end();
        self.tapes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn an_id_that_is_used_twice_is_counted_twice_and_cancelled_twice() {
        let session = HttpSession::new(Arc::new(testing::session()), Arc::default(), &Arc::default());
        let id = Payload::literal("7");
        let mailboxes: Vec<Arc<Mailbox>> = (0..RUNNING_MAX_REQUESTS).map(|_| Arc::default()).collect();
        let numbers: Vec<_> = mailboxes.iter().map(|mailbox| session.begin(&id, mailbox)).collect();
        assert!(numbers.iter().all(Option::is_some));
        assert!(session.begin(&id, &Arc::default()).is_none(), "one id again and again is no way past the bound");
        session.finish(numbers[0].expect("it has begun"));
        session.cancel(&id);
        assert!(!mailboxes[0].has_ended() && mailboxes[1..].iter().all(|mailbox| mailbox.has_ended()));
    }
}
