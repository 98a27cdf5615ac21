//! Since when the database cannot be written, and how soon it is tried again.

use std::time::{Duration, Instant};

use super::LOCK_PATIENCE;
/// Since when nothing could be written, and how long to wait before the next try.
pub(super) struct Ailing {
    pub(super) since: Instant,
    pub(super) delay: Duration,
    pub(super) locked: bool,
}

impl Ailing {
    /// A neighbour at work is no trouble yet.
    pub(super) fn is_passing(&self) -> bool {
        self.locked && self.since.elapsed() < LOCK_PATIENCE
    }
}
