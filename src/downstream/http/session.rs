//! Sessions over HTTP: who holds which id, what waits to be said to them, and which
//! questions they owe an answer to.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    call::{Answer, BoxFuture, Method, Payload, Wire},
    downstream::{
        mailbox::{Mail, Mailbox},
        questions::Questions,
    },
    session::{Gate, Session},
    wire::envelope::Parts,
};

const SESSIONS_MAX: usize = 10_000;
/// A session that was silent for so long is over.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// When there are too many, one that was silent for this long makes room.
const IDLE_MIN: Duration = Duration::from_secs(60);
/// Requests of one session that have no answer yet.
const RUNNING_MAX_REQUESTS: usize = 1024;

pub(super) struct HttpSession {
    pub(super) id: String,
    pub(super) session: Arc<Session>,
    pub(super) outbox: Arc<Outbox>,
    running: Mutex<HashMap<Payload, Arc<Mailbox>>>,
    last_seen_s: AtomicU64,
    born: Instant,
}

/// What is said to a client on its standing stream, and asked of it on any.
#[derive(Default)]
pub(super) struct Outbox {
    standing: Mutex<Arc<Mailbox>>,
    pub(super) questions: Questions,
}

impl HttpSession {
    pub(super) fn new(session: Arc<Session>, outbox: Arc<Outbox>) -> Self {
        HttpSession {
            id: format!("{:032x}", rand::random::<u128>()),
            session,
            outbox,
            running: Mutex::default(),
            last_seen_s: AtomicU64::new(0),
            born: Instant::now(),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Payload, Arc<Mailbox>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seen(&self) {
        self.last_seen_s.store(self.born.elapsed().as_secs(), Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        if !self.running().is_empty() || Arc::strong_count(&self.outbox.standing()) > 2 {
            // A call is under way, or a standing stream is open: it holds the mailbox
            // beside the outbox and this very look.
            return Duration::ZERO;
        }
        Duration::from_secs(self.born.elapsed().as_secs().saturating_sub(self.last_seen_s.load(Ordering::Relaxed)))
    }

    /// Enters a request that is under way; false if there are too many.
    pub(super) fn begin(&self, id: &Payload, mailbox: &Arc<Mailbox>) -> bool {
        let mut running = self.running();
        if running.len() >= RUNNING_MAX_REQUESTS {
            return false;
        }
        running.insert(id.clone(), mailbox.clone());
        true
    }

    pub(super) fn finish(&self, id: &Payload) {
        self.running().remove(id);
    }

    /// The client has taken a request back.
    pub(super) fn cancel(&self, id: &Payload) {
        if let Some(mailbox) = self.running().get(id) {
            mailbox.cancel();
        }
    }

    fn end(&self) {
        for mailbox in self.running().values() {
            mailbox.cancel();
        }
        self.outbox.standing().close();
        // A server that asked it something must not wait for ever.
        self.outbox.questions.end();
    }
}

impl Outbox {
    fn standing(&self) -> Arc<Mailbox> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The mailbox of a new standing stream; an older stream ends.
    pub(super) fn open_standing(&self) -> Arc<Mailbox> {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        *standing = Arc::new(standing.hand_over());
        standing.clone()
    }

    pub(super) fn close_standing(&self) {
        self.standing().close();
    }

    fn tell(&self, method: &Method, params: Option<Payload>, stream: Option<&Mailbox>) {
        let message = Parts::notification(method, params.map(|params| params.on_one_line())).joined();
        let _ = stream.is_some_and(|stream| stream.put(Mail::Message(message.clone())))
            || self.standing().put(Mail::Message(message));
    }

    async fn ask(&self, method: Method, params: Option<Payload>, stream: Option<&Mailbox>) -> Answer {
        self.questions
            .ask(|id| {
                let message = Parts::request(id, &method, params.map(|params| params.on_one_line())).joined();
                stream.is_some_and(|stream| stream.put(Mail::Message(message.clone())))
                    || self.standing().put(Mail::Message(message))
            })
            .await
    }
}

/// The way to a client when no call is there to answer on.
pub(super) struct StandingWire(pub(super) Arc<Outbox>);

impl Wire for StandingWire {
    fn tell(&self, method: Method, params: Option<Payload>) {
        self.0.tell(&method, params, None);
    }

    fn ask(&self, method: Method, params: Option<Payload>) -> BoxFuture<'_, Answer> {
        Box::pin(self.0.ask(method, params, None))
    }
}

/// The way to the client of one call: its own stream, else the standing one.
pub(super) struct CallWire {
    pub(super) stream: Arc<Mailbox>,
    pub(super) outbox: Arc<Outbox>,
}

impl Wire for CallWire {
    fn tell(&self, method: Method, params: Option<Payload>) {
        self.outbox.tell(&method, params, Some(&self.stream));
    }

    fn ask(&self, method: Method, params: Option<Payload>) -> BoxFuture<'_, Answer> {
        Box::pin(self.outbox.ask(method, params, Some(&self.stream)))
    }
}

/// All sessions of a listener.
#[derive(Default)]
pub(super) struct Sessions(RwLock<HashMap<String, Arc<HttpSession>>>);

impl Sessions {
    pub(super) fn get(&self, id: &str) -> Option<Arc<HttpSession>> {
        let session = self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        session.inspect(|session| session.seen())
    }

    /// False if there are too many; sessions that are idle make room, and if none has been
    /// so for long, the one that was idle longest.
    pub(super) fn insert(&self, session: Arc<HttpSession>, gate: &dyn Gate) -> bool {
        if self.0.read().unwrap_or_else(PoisonError::into_inner).len() >= SESSIONS_MAX {
            self.sweep(IDLE_MIN, gate);
            self.make_room(gate);
        }
        let mut sessions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS_MAX {
            return false;
        }
        sessions.insert(session.id.clone(), session);
        true
    }

    pub(super) fn remove(&self, id: &str, gate: &dyn Gate) -> bool {
        let removed = self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        removed.is_some_and(|session| {
            session.end();
            gate.close(&session.session);
            true
        })
    }

    /// Ends the sessions that were silent for too long.
    pub(super) fn expire(&self, gate: &dyn Gate) {
        self.sweep(IDLE_MAX, gate);
    }

    fn sweep(&self, max_idle: Duration, gate: &dyn Gate) {
        let sessions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let silent: Vec<String> =
            sessions.values().filter(|session| session.idle() >= max_idle).map(|session| session.id.clone()).collect();
        drop(sessions);
        for id in silent {
            self.remove(&id, gate);
        }
    }

    fn make_room(&self, gate: &dyn Gate) {
        let sessions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() < SESSIONS_MAX {
            return;
        }
        let idlest = sessions.values().max_by_key(|session| session.idle()).filter(|session| !session.idle().is_zero());
        let idlest = idlest.map(|session| session.id.clone());
        drop(sessions);
        if let Some(id) = idlest {
            self.remove(&id, gate);
        }
    }

    /// Ends every standing stream: the listener is closing.
    pub(super) fn close_streams(&self) {
        for session in self.0.read().unwrap_or_else(PoisonError::into_inner).values() {
            session.outbox.close_standing();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn who_asked_a_client_that_has_left_hears_so() {
        let outbox = Arc::new(Outbox::default());
        let session = HttpSession::new(Arc::new(testing::session()), outbox.clone());
        let _standing = outbox.open_standing();
        let wire = StandingWire(outbox);
        let mut question = wire.ask(Method::of("roots/list"), None);
        assert!((&mut question).now_or_never().is_none(), "the client has not answered");
        session.end();
        let answer = question.now_or_never().expect("it is answered at once");
        assert!(matches!(&answer, Answer::Error(error) if error.as_str().contains("the client is gone")), "{answer:?}");
        let late = wire.ask(Method::of("roots/list"), None).now_or_never().expect("nobody is asked any more");
        assert!(matches!(late, Answer::Error(_)));
    }
}
