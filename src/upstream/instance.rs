//! One running incarnation of a server.

use std::{
    fmt,
    sync::{Arc, OnceLock},
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
    /// Of single resources, in the modern era.
    pub(super) streams: Arc<Streams>,
    /// Why seawall itself ends it, once it does.
    pub(super) sentence: OnceLock<Sentence>,
}

#[derive(Clone, Debug)]
pub(super) struct Sentence {
    /// A clause: "it was replaced by a fresh instance".
    pub(super) reason: String,
    /// Nothing was wrong with it: its end is no death.
    pub(super) is_planned: bool,
}

impl Instance {
    /// A proven instance's death starts the ladder anew.
    pub(super) fn is_proven(&self) -> bool {
        self.ready_since.elapsed() >= PROVEN_AFTER || self.inflight.pulse.answers() >= PROVEN_ANSWERS
    }

    pub(super) fn has(&self, capability: &str) -> bool {
        self.hello.member("capabilities").is_some_and(|has| has.member(capability).is_some())
    }

    /// What calls that are cut off by its end are told. The first sentence counts.
    pub(super) fn condemn(&self, reason: impl Into<String>, is_planned: bool) {
        let _ = self.sentence.set(Sentence { reason: reason.into(), is_planned });
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("number", &self.number).finish_non_exhaustive()
    }
}
