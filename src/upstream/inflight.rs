//! Which calls one instance has in hand: so that its progress reaches the right
//! caller under the caller's own token, and so that what it says without naming a
//! call reaches nobody else's client.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::pulse::Pulse;
use crate::{
    call::{Asking, Back, Call, Caller, Edit, Method, Payload, Trail},
    session::Session,
    sync::{Mutex, MutexGuard, Notify, PoisonError},
};

#[cfg(test)]
#[path = "inflight/model.rs"]
mod model;

#[derive(Debug, Default)]
pub(super) struct InFlight {
    table: Mutex<Table>,
    emptied: Notify,
    /// A call has ended, and others may be in hand.
    left: Notify,
    pub(super) pulse: Pulse,
}

#[derive(Debug, Default)]
struct Table {
    calls: HashMap<u64, Entry>,
    /// Takes no more calls: the instance is on its way out.
    is_sealed: bool,
    /// All calls that it ever took.
    admitted: u64,
}

#[derive(Debug)]
struct Entry {
    caller: Arc<Caller>,
    trail: Arc<Trail>,
    /// The client's own progress token, as text.
    token: Option<Payload>,
    /// Progress must increase; what does not is no sign of life.
    last_progress: Option<f64>,
    /// What the client would have had to declare for a question that was refused.
    lacking: Option<Payload>,
}

/// Takes the call out of the table when it ends, however it ends.
#[derive(Debug)]
pub(super) struct Admission {
    table: Arc<InFlight>,
    number: u64,
    /// The how-manieth call of its instance this is.
    pub(super) nth: u64,
}

impl InFlight {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a call; `None` once it was sealed. The params returned carry a progress
    /// token of seawall's own where the client had set one: tokens of two clients may
    /// be the same.
    pub(super) fn admit(self: &Arc<Self>, call: &Call) -> Option<(Admission, Payload)> {
        static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = LAST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
        let (token, params) = match own_token(&call.params, number) {
            Some((token, params)) => (Some(token), params),
            None => (None, call.params.clone()),
        };
        let entry =
            Entry { caller: call.caller.clone(), trail: call.trail.clone(), token, last_progress: None, lacking: None };
        let nth = {
            let mut table = self.table();
            if table.is_sealed {
                return None;
            }
            table.calls.insert(number, entry);
            table.admitted += 1;
            table.admitted
        };
        Some((Admission { table: self.clone(), number, nth }, params))
    }

    /// From now on no call enters. Those inside go on.
    pub(super) fn seal(&self) {
        self.table().is_sealed = true;
    }

    /// Seals it unless a call is inside; true if it did.
    pub(super) fn seal_if_idle(&self) -> bool {
        let mut table = self.table();
        let is_idle = table.calls.is_empty();
        table.is_sealed |= is_idle;
        is_idle
    }

    pub(super) fn admitted(&self) -> u64 {
        self.table().admitted
    }

    /// Resolves when no call is in hand.
    pub(super) async fn idle(&self) {
        loop {
            // Registered before the look, so that the last call cannot end in between.
            let emptied = self.emptied.notified();
            if self.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Resolves when no call of this session is in hand.
    pub(super) async fn without(&self, session: u64) {
        loop {
            // Registered before the look, as above.
            let left = self.left.notified();
            if !self.table().calls.values().any(|entry| entry.caller.session.number == session) {
                return;
            }
            left.await;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table().calls.len()
    }

    /// Passes progress on to the call it is for.
    pub(super) fn progress(&self, params: &Payload) {
        let Some(number) = params.member("progressToken").and_then(|token| token.read::<u64>().ok()) else { return };
        let progress = params.member("progress").and_then(|progress| progress.read::<f64>().ok());
        let (back, token) = {
            let mut table = self.table();
            let Some(entry) = table.calls.get_mut(&number) else { return };
            if progress > entry.last_progress {
                entry.last_progress = progress;
                entry.trail.alive();
                self.pulse.sign();
            }
            let Some(token) = entry.token.clone() else { return };
            (entry.caller.back.clone(), token)
        };
        let params = params.edit(&[("progressToken", Edit::Set(token))]);
        back.tell(Method::of("notifications/progress"), Some(params));
    }

    /// A question to this session was refused: its client has not declared `missing`.
    pub(super) fn lacked(&self, session: u64, missing: &Payload) {
        for entry in self.table().calls.values_mut().filter(|entry| entry.caller.session.number == session) {
            entry.lacking.get_or_insert_with(|| missing.clone());
        }
    }

    /// Holds the silence clock of this session's calls: the server waits for its client.
    pub(super) fn asking(&self, session: u64) -> Vec<Asking> {
        let table = self.table();
        let asked = table.calls.values().filter(|entry| entry.caller.session.number == session);
        asked.map(|entry| entry.trail.asks()).collect()
    }

    /// The client of one call, if it is in hand, and the way to it.
    pub(super) fn client_of(&self, trail: &Arc<Trail>) -> Option<(Arc<Session>, Back)> {
        let table = self.table();
        let entry = table.calls.values().find(|entry| Arc::ptr_eq(&entry.trail, trail))?;
        Some((entry.caller.session.clone(), entry.caller.back.clone()))
    }

    /// The client behind all calls in hand, if it is one and the same, and the way to
    /// it: on the stream of its only call, else on its session's. A client that was
    /// asked to come back may have forgotten its call: it counts only where there is
    /// no other.
    pub(super) fn sole_client(&self) -> Option<(Arc<Session>, Back)> {
        let table = self.table();
        let is_anybody_here = table.calls.values().any(|entry| !entry.caller.back.is_away());
        let mut entries = table.calls.values().filter(|entry| !(is_anybody_here && entry.caller.back.is_away()));
        let first = entries.next()?;
        let mut alone = true;
        for other in entries {
            if other.caller.session.number != first.caller.session.number {
                return None;
            }
            alone = false;
        }
        let session = first.caller.session.clone();
        let back = if alone { first.caller.back.clone() } else { session.back.clone() };
        Some((session, back))
    }
}

impl Admission {
    /// What the client should have declared for a question that this call led to.
    pub(super) fn lacking(&self) -> Option<Payload> {
        self.table.table().calls.get(&self.number)?.lacking.clone()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let is_empty = {
            let mut table = self.table.table();
            table.calls.remove(&self.number);
            table.calls.is_empty()
        };
        self.table.left.notify_waiters();
        if is_empty {
            self.table.emptied.notify_waiters();
        }
    }
}

/// The token that the client set and the params with ours in its place.
fn own_token(params: &Payload, number: u64) -> Option<(Payload, Payload)> {
    // Most calls carry none, which a look at the bytes tells without parsing.
    memchr::memmem::find(params.as_bytes(), b"progressToken")?;
    let meta = params.member("_meta")?;
    let token = meta.member("progressToken")?;
    let meta = meta.edit(&[("progressToken", Edit::Set(Payload::of(&number)))]);
    Some((token, params.edit(&[("_meta", Edit::Set(meta))])))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::{
        call::{Answer, BoxFuture, Wire},
        testing,
    };

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>, AtomicBool);

    impl Wire for Heard {
        fn tell(&self, method: Method, params: Option<Payload>) {
            let params = params.expect("params");
            self.0.lock().expect("unpoisoned").push(format!("{method} {}", params.as_str()));
        }
        fn ask(&self, _: Method, _: Option<Payload>) -> BoxFuture<'_, Answer> {
            unreachable!("nobody asks")
        }
        fn is_away(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }

    fn call_of(session: u64, heard: &Arc<Heard>) -> Call {
        let mut call = testing::call("a", "b");
        let mut session_of = testing::session();
        session_of.number = session;
        call.caller =
            Arc::new(Caller { session: Arc::new(session_of), request_id: Payload::literal("1"), back: heard.clone() });
        call.params = Payload::literal(r#"{"name":"b","_meta":{"progressToken":"same","x":1e400}}"#);
        call
    }

    #[tokio::test]
    async fn colliding_progress_tokens_stay_apart() {
        let table = Arc::new(InFlight::default());
        let (one, two) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
        let (_first, _) = table.admit(&call_of(1, &one)).expect("open");
        let (second, params) = table.admit(&call_of(2, &two)).expect("open");
        assert!(params.as_str().contains(r#""x":1e400"#));
        assert!(!params.as_str().contains("same"));
        let progress = format!(r#"{{"progressToken":{},"progress":1,"message":"m"}}"#, second.number);
        table.progress(&Payload::from_json(progress).expect("JSON"));
        assert!(one.0.lock().expect("unpoisoned").is_empty());
        assert_eq!(
            *two.0.lock().expect("unpoisoned"),
            [r#"notifications/progress {"progressToken":"same","progress":1,"message":"m"}"#]
        );
        assert!(table.sole_client().is_none(), "two clients have calls in hand");
        drop(second);
        assert!(table.sole_client().is_some());
    }

    #[tokio::test]
    async fn a_client_that_is_away_makes_way_for_one_that_is_here() {
        let table = Arc::new(InFlight::default());
        let (one, two) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
        let (_forgotten, _) = table.admit(&call_of(1, &one)).expect("open");
        one.1.store(true, Ordering::Relaxed);
        let sole = || table.sole_client().map(|(session, _)| session.number);
        assert_eq!(sole(), Some(1), "there is no other");
        let (second, _) = table.admit(&call_of(2, &two)).expect("open");
        assert_eq!(sole(), Some(2));
        let (_third, _) = table.admit(&call_of(3, &Arc::default())).expect("open");
        assert_eq!(sole(), None, "two are here");
        drop(second);
        assert_eq!(sole(), Some(3));
    }

    #[test]
    fn what_is_sealed_takes_no_more_calls() {
        let table = Arc::new(InFlight::default());
        let call = call_of(1, &Arc::default());
        let (first, _) = table.admit(&call).expect("open");
        assert!(!table.seal_if_idle());
        assert_eq!(table.admit(&call).map(|(second, _)| second.nth), Some(2));
        drop(first);
        assert!(table.seal_if_idle());
        assert!(table.admit(&call).is_none());
        assert_eq!(table.admitted(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn only_progress_that_increases_is_life() {
        let table = Arc::new(InFlight::default());
        let call = call_of(1, &Arc::default());
        let (admission, _) = table.admit(&call).expect("open");
        let tell = |progress: &str| {
            let params = format!(r#"{{"progressToken":{},"progress":{progress}}}"#, admission.number);
            table.progress(&Payload::from_json(params).expect("JSON"));
            call.trail.last_life()
        };
        let first = tell("1");
        assert!(first.is_some());
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(tell("1"), first);
        assert_eq!(tell("0.5"), first);
        assert!(tell("1.5") > first);
    }
}
