//! What time it is for the store: the system's time, or, where a test wants to see a
//! week of retention in a moment, a time that was put ahead of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::id::unix_ms;

/// Clones are the same clock. It never goes backwards.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicU64>,
}

impl Clock {
    /// Puts it ahead. A writer that sleeps notices when it is next handed something.
    pub fn advance(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Instant {
        Instant::now() + self.ahead()
    }

    /// Milliseconds since 1970.
    pub(super) fn unix_ms(&self) -> u64 {
        unix_ms().saturating_add(self.ahead_ms.load(Ordering::Relaxed))
    }

    fn ahead(&self) -> Duration {
        Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed))
    }
}

impl PartialEq for Clock {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ahead_ms, &other.ahead_ms) || self.ahead() == other.ahead()
    }
}

impl Eq for Clock {}
