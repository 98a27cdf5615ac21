//! Whether an instance still does its work: answers, and timeouts in a row.
//!
//! Calls that time out say that it may hang, and a ping decides. Silence to the ping
//! alone is not death, and who answers other calls in the meantime does not hang.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

use super::instance::Instance;
use crate::call::{Method, Trail};

/// So many timeouts without an answer in between make an instance suspect.
const TIMEOUTS_TO_SUSPECT: u32 = 3;
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Pulse {
    answers: AtomicU64,
    /// Answers, and progress of calls.
    signs: AtomicU64,
    timeouts: AtomicU32,
}

impl Pulse {
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.sign();
    }

    /// A sign of life on behalf of a call.
    pub(super) fn sign(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
        self.timeouts.store(0, Ordering::Relaxed);
    }

    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// A call that it had was given up as late; true if that makes it suspect.
    pub(super) fn timed_out(&self) -> bool {
        self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_TO_SUSPECT
    }
}

/// Asks a suspect whether it lives; true if it hangs.
pub(super) async fn hangs(suspect: Arc<Instance>) -> bool {
    let pulse = &suspect.inflight.pulse;
    let signs_before = pulse.signs.load(Ordering::Relaxed);
    let ping = suspect.link.ask(Method::of("ping"), None, Arc::new(Trail::new()));
    // An error is an answer of somebody: the end of the connection is noticed elsewhere.
    let is_silent = timeout(PING_TIMEOUT, ping).await.is_err();
    if !is_silent {
        // From here on it takes as many timeouts again.
        pulse.timeouts.store(0, Ordering::Relaxed);
    }
    is_silent && pulse.signs.load(Ordering::Relaxed) == signs_before
}
