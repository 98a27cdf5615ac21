//! All sessions of a listener: a bounded number, of which those that are silent for long end.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicUsize},
    time::Duration,
};

use super::session::HttpSession;
use crate::session::Gate;

const SESSIONS_MAX: usize = 10_000;
/// A session that was silent for so long is over.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// When there are too many, one that was silent for this long makes room.
const IDLE_MIN: Duration = Duration::from_secs(60);

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
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{
        call::{Answer, Back, BoxFuture, Method, Payload, ServerName},
        session::{Hello, Scope, Session},
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
}
