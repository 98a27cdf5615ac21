//! One running incarnation of a server.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{inflight::InFlight, subscriptions::Streams};
use crate::{call::Payload, era::Era, link::Link};

/// Ready for so long, or after so many answers, an instance has proven itself.
const PROVEN_AFTER: Duration = Duration::from_secs(60);
const PROVEN_ANSWERS: u64 = 20;

pub(super) struct Instance {
    pub(super) number: u64,
    pub(super) link: Arc<dyn Link>,
    pub(super) era: Era,
    /// What it said of itself, in the shape of an `initialize` result.
    pub(super) hello: Payload,
    pub(super) inflight: Arc<InFlight>,
    pub(super) ready_since: Instant,
    pub(super) answers: AtomicU64,
    /// Of single resources, in the modern era.
    pub(super) streams: Streams,
}

impl Instance {
    /// A proven instance's death starts the ladder anew.
    pub(super) fn is_proven(&self) -> bool {
        self.ready_since.elapsed() >= PROVEN_AFTER || self.answers.load(Ordering::Relaxed) >= PROVEN_ANSWERS
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("number", &self.number).finish_non_exhaustive()
    }
}
