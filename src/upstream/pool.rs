//! One instance for each session: `instances = { per_session = N }`.
//!
//! A lane for each session that calls, and one that is started only to be listed. A
//! session's lane ends with the session, or when it was not used for long.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_util::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{
    carry::{carry, draining},
    common::Common,
    lane::{Lane, Role},
    orders::Order,
};
use crate::{
    call::{Call, Outcome},
    era::Era,
    failure::{Class, Failure},
    session::Session,
};

/// A lane that was found at its end is replaced by a new one so often for one call.
const LANES_MAX_PER_CALL: u32 = 3;
/// When a call that found no place should come back: sessions end when they do.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) struct Pool {
    pub(super) common: Arc<Common>,
    /// Knows what the server offers.
    pub(super) listing: Arc<Lane>,
    max: u32,
    places: Arc<Semaphore>,
    members: Mutex<HashMap<u64, Member>>,
}

struct Member {
    lane: Arc<Lane>,
    /// Given back when nothing of the lane's process is left.
    _place: OwnedSemaphorePermit,
}

/// Requests of the modern era have no session: they share one instance.
fn seat(session: &Session) -> u64 {
    match session.era {
        Era::Legacy => session.number,
        Era::Modern => 0,
    }
}

impl Pool {
    pub(super) fn start(common: &Arc<Common>, max: u32) -> Arc<Self> {
        Arc::new(Pool {
            common: common.clone(),
            listing: Lane::start(common, Role::Listing),
            max,
            places: Arc::new(Semaphore::new(usize::try_from(max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS))),
            members: Mutex::default(),
        })
    }

    fn members(&self) -> MutexGuard<'_, HashMap<u64, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn carry(self: &Arc<Self>, call: &Call) -> Outcome {
        let deadline = Instant::now() + call.patience;
        let mut tries = 1;
        loop {
            let lane = self.lane_for(&call.caller.session)?;
            let outcome = carry(&lane, call).await;
            // Stopped for being idle in this very moment: nothing was sent.
            let is_unlucky = matches!(&outcome, Err(failure) if failure.class == Class::Draining)
                && call.trail.instance().is_none()
                && !self.common.is_closed();
            if !is_unlucky || tries == LANES_MAX_PER_CALL || timeout_at(deadline, lane.stopped()).await.is_err() {
                return outcome;
            }
            self.remove(seat(&call.caller.session), &lane);
            tries += 1;
        }
    }

    /// The session's own lane, started if need be.
    fn lane_for(self: &Arc<Self>, session: &Arc<Session>) -> Result<Arc<Lane>, Failure> {
        let mut members = self.members();
        // Under the lock: whoever closes the pool empties it afterwards.
        if self.common.is_closed() {
            return Err(draining());
        }
        if let Some(member) = members.get(&seat(session)) {
            return Ok(member.lane.clone());
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let message = format!(
                "{} sessions have an instance of it each, which is all that servers.toml allows (instances = \
                 {{ per_session = {} }}); one is free when a session ends or has not used it for 10 minutes",
                self.max, self.max
            );
            return Err(Failure::new(Class::Overloaded, message).retry_after(RETRY_AFTER));
        };
        let owner = (session.era == Era::Legacy).then(|| session.clone());
        let role = Role::Session { session: owner, listing: self.listing.clone() };
        let lane = Lane::start(&self.common, role);
        self.common.tasks.spawn(clear_up(Arc::downgrade(self), seat(session), lane.clone()));
        members.insert(seat(session), Member { lane: lane.clone(), _place: place });
        Ok(lane)
    }

    fn remove(&self, session: u64, lane: &Arc<Lane>) {
        let mut members = self.members();
        if members.get(&session).is_some_and(|member| Arc::ptr_eq(&member.lane, lane)) {
            members.remove(&session);
        }
    }

    /// The lane of a session that has one.
    pub(super) fn lane_of(&self, session: u64) -> Option<Arc<Lane>> {
        self.members().get(&session).map(|member| member.lane.clone())
    }

    /// The lanes of all sessions that have one.
    pub(super) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.members().values().map(|member| member.lane.clone()).collect()
    }

    /// The session is over: so is its instance.
    pub(super) fn leave(&self, session: u64) {
        if let Some(lane) = self.lane_of(session) {
            lane.stop.cancel();
        }
    }

    pub(super) fn restart(&self) {
        self.listing.order(Order::Restart);
        for lane in self.lanes() {
            lane.order(Order::Restart);
        }
    }

    /// Ends them all. The pool must be closed, so that no new ones come.
    pub(super) async fn end(&self) {
        let lanes = self.lanes();
        join_all(lanes.iter().chain([&self.listing]).map(|lane| lane.end())).await;
    }
}

async fn clear_up(pool: Weak<Pool>, session: u64, lane: Arc<Lane>) {
    lane.stopped().await;
    if let Some(pool) = pool.upgrade() {
        pool.remove(session, &lane);
    }
}
