//! Sessions over HTTP: who holds which id, what waits to be said to them, and which
//! questions they owe an answer to.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::tapes::{Reader, Tapes};
use crate::{
    call::{Answer, BoxFuture, Method, Payload, Wire},
    downstream::{
        mailbox::{Mail, Mailbox},
        questions::Questions,
    },
    session::{Gate, Session},
    wire::envelope::Parts,
};

/// Whose clients know an event that has only an id.
const PRIMED_VERSION: &str = "2025-11-25";
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

/// What is said to a client on its standing stream, and asked of it on any.
#[derive(Default)]
pub(super) struct Outbox {
    standing: Mutex<Arc<Mailbox>>,
    pub(super) questions: Questions,
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

    fn idle(&self) -> Duration {
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

    fn end(&self) {
        for running in self.running().values() {
            running.mailbox.cancel();
        }
        self.outbox.standing().close();
        // A server that asked it something must not wait for ever.
        self.outbox.questions.end();
        self.tapes.clear();
    }
}

impl Outbox {
    fn standing(&self) -> Arc<Mailbox> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The mailbox of a new standing stream; an older stream ends.
    fn open_standing(&self) -> Arc<Mailbox> {
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

    /// `deliver` says whether the client will read it.
    async fn ask(&self, method: Method, params: Option<Payload>, deliver: impl FnOnce(Bytes) -> bool) -> Answer {
        let message = |id| Parts::request(id, &method, params.map(|params| params.on_one_line())).joined();
        self.questions.ask(|id| deliver(message(id))).await
    }
}

/// The way to a client when no call is there to answer on.
pub(super) struct StandingWire(pub(super) Arc<Outbox>);

impl Wire for StandingWire {
    fn tell(&self, method: Method, params: Option<Payload>) {
        self.0.tell(&method, params, None);
    }

    fn ask(&self, method: Method, params: Option<Payload>) -> BoxFuture<'_, Answer> {
        Box::pin(self.0.ask(method, params, |question| self.0.standing().put(Mail::Message(question))))
    }
}

/// The way to the client of one call: its own stream, else the standing one.
pub(super) struct CallWire {
    pub(super) stream: Arc<Mailbox>,
    pub(super) session: Arc<HttpSession>,
    /// Whether the call's reply may become a stream.
    pub(super) streams: bool,
}

impl CallWire {
    /// A question that nobody reads would keep its call waiting: where the reply is plain
    /// JSON, it needs a standing stream that is open now.
    fn deliver(&self, question: Bytes) -> bool {
        let standing = self.session.outbox.standing();
        if self.streams {
            return self.stream.put(Mail::Message(question.clone())) || standing.put(Mail::Message(question));
        }
        self.session.tapes.is_read_from(&standing) && standing.put(Mail::Message(question))
    }
}

impl Wire for CallWire {
    fn tell(&self, method: Method, params: Option<Payload>) {
        self.session.outbox.tell(&method, params, Some(&self.stream));
    }

    fn ask(&self, method: Method, params: Option<Payload>) -> BoxFuture<'_, Answer> {
        Box::pin(self.session.outbox.ask(method, params, |question| self.deliver(question)))
    }
}

/// All sessions of a listener.
#[derive(Default)]
pub(super) struct Sessions {
    all: RwLock<HashMap<String, Arc<HttpSession>>>,
    /// Bytes that all of them keep of what was said to them.
    pub(super) kept: Arc<AtomicUsize>,
}

impl Sessions {
    pub(super) fn get(&self, id: &str) -> Option<Arc<HttpSession>> {
        let session = self.all.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        session.inspect(|session| session.seen())
    }

    /// False if there are too many; sessions that are idle make room, and if none has been
    /// so for long, the one that was idle longest.
    pub(super) fn insert(&self, session: Arc<HttpSession>, gate: &dyn Gate) -> bool {
        if self.all.read().unwrap_or_else(PoisonError::into_inner).len() >= SESSIONS_MAX {
            self.sweep(IDLE_MIN, gate);
            self.make_room(gate);
        }
        let mut sessions = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS_MAX {
            return false;
        }
        sessions.insert(session.id.clone(), session);
        true
    }

    pub(super) fn remove(&self, id: &str, gate: &dyn Gate) -> bool {
        let removed = self.all.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        removed.is_some_and(|session| {
            session.end();
            gate.close(&session.session);
            true
        })
    }

    /// Ends the sessions that were silent for too long; the others forget what is old.
    pub(super) fn expire(&self, gate: &dyn Gate) {
        self.sweep(IDLE_MAX, gate);
        for session in self.all.read().unwrap_or_else(PoisonError::into_inner).values() {
            session.tapes.expire();
        }
    }

    fn sweep(&self, max_idle: Duration, gate: &dyn Gate) {
        let sessions = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let silent: Vec<String> =
            sessions.values().filter(|session| session.idle() >= max_idle).map(|session| session.id.clone()).collect();
        drop(sessions);
        for id in silent {
            self.remove(&id, gate);
        }
    }

    fn make_room(&self, gate: &dyn Gate) {
        let sessions = self.all.read().unwrap_or_else(PoisonError::into_inner);
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
        for session in self.all.read().unwrap_or_else(PoisonError::into_inner).values() {
            session.outbox.close_standing();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        call::{Back, ServerName},
        session::{Hello, Scope},
        testing,
    };

    /// Counts the sessions that it was told the end of.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Gate for Counting {
        fn scope(&self, _: &str) -> Option<Scope> {
            None
        }
        fn names(&self) -> Vec<ServerName> {
            Vec::new()
        }
        fn open(&self, _: Hello) -> BoxFuture<'static, Result<(Arc<Session>, Payload), Payload>> {
            unreachable!("nobody comes in")
        }
        fn ask(
            &self,
            _: &Arc<Session>,
            _: Payload,
            _: Method,
            _: Option<Payload>,
            _: Back,
        ) -> BoxFuture<'static, Answer> {
            unreachable!("nobody asks")
        }
        fn told(&self, _: &Arc<Session>, _: Method, _: Option<Payload>) {}
        fn listen(&self, _: &Arc<Session>, _: Payload) -> BoxFuture<'static, Result<Payload, Payload>> {
            unreachable!("nobody listens")
        }
        fn tool_with_headers(&self, _: &Scope, _: &str) -> Option<Payload> {
            None
        }
        fn close(&self, _: &Arc<Session>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn session(sessions: &Sessions) -> Arc<HttpSession> {
        Arc::new(HttpSession::new(Arc::new(testing::session()), Arc::default(), &sessions.kept))
    }

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
    }

    const A_SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_silent_for_long_ends_unless_something_is_open() {
        let (sessions, gate) = (Sessions::default(), Counting::default());
        let [silent, seen, listening, calling] = std::array::from_fn(|_| session(&sessions));
        for session in [&silent, &seen, &listening, &calling] {
            assert!(sessions.insert(session.clone(), &gate));
        }
        let stream = listening.listen();
        let call = calling.begin(&Payload::literal("1"), &Arc::default()).expect("there is room");
        pass(IDLE_MAX - A_SECOND).await;
        assert!(sessions.get(&seen.id).is_some());
        sessions.expire(&gate);
        assert_eq!(gate.0.load(Ordering::Relaxed), 0);
        pass(A_SECOND).await;
        sessions.expire(&gate);
        assert!(sessions.get(&silent.id).is_none());
        assert_eq!(gate.0.load(Ordering::Relaxed), 1, "its server-side part ends with it");
        drop(stream);
        calling.finish(call);
        pass(IDLE_MAX).await;
        sessions.expire(&gate);
        assert_eq!(gate.0.load(Ordering::Relaxed), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_table_makes_room_by_ending_the_idlest_and_never_a_busy_one() {
        let (sessions, gate) = (Sessions::default(), Counting::default());
        let first = session(&sessions);
        assert!(sessions.insert(first.clone(), &gate));
        for _ in 1..SESSIONS_MAX {
            assert!(sessions.insert(session(&sessions), &gate));
        }
        assert!(!sessions.insert(session(&sessions), &gate), "all of them were seen in this moment");
        pass(A_SECOND).await;
        let busy = first.begin(&Payload::literal("1"), &Arc::default()).expect("there is room");
        assert!(sessions.insert(session(&sessions), &gate));
        assert_eq!(gate.0.load(Ordering::Relaxed), 1, "one made room");
        pass(IDLE_MIN).await;
        assert!(sessions.insert(session(&sessions), &gate));
        assert_eq!(gate.0.load(Ordering::Relaxed), SESSIONS_MAX, "all that were idle for long did");
        assert!(sessions.get(&first.id).is_some(), "but for the one that has a call under way");
        first.finish(busy);
    }

    #[test]
    fn an_id_that_is_used_twice_is_counted_twice_and_cancelled_twice() {
        let session = session(&Sessions::default());
        let id = Payload::literal("7");
        let mailboxes: Vec<Arc<Mailbox>> = (0..RUNNING_MAX_REQUESTS).map(|_| Arc::default()).collect();
        let numbers: Vec<_> = mailboxes.iter().map(|mailbox| session.begin(&id, mailbox)).collect();
        assert!(numbers.iter().all(Option::is_some));
        assert!(session.begin(&id, &Arc::default()).is_none(), "one id again and again is no way past the bound");
        session.finish(numbers[0].expect("it has begun"));
        session.cancel(&id);
        assert!(!mailboxes[0].has_ended() && mailboxes[1..].iter().all(|mailbox| mailbox.has_ended()));
    }

    #[tokio::test]
    async fn who_asked_a_client_that_has_left_hears_so() {
        let outbox = Arc::new(Outbox::default());
        let session = HttpSession::new(Arc::new(testing::session()), outbox.clone(), &Arc::default());
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
