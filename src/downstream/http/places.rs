//! Places for connections: bounded, and where all are taken the one that has been without
//! a whole request for longest makes room. Who opens connections and says nothing, or says
//! it byte by byte, keeps nobody out.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http_body::{Body, Frame, SizeHint};
use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const CONNECTIONS_MAX: usize = 4096;
/// Of the descriptors that this process may have: the rest is for servers, database, files.
const DESCRIPTORS_SHARE: u64 = 2;

pub(super) struct Places {
    pub(super) max: usize,
    held: Mutex<Held>,
    freed: Notify,
}

#[derive(Default)]
struct Held {
    last_number: u64,
    /// Counts up with each change: who is idle for longest has the lowest.
    turn: u64,
    slots: HashMap<u64, Slot>,
}

struct Slot {
    /// Whole requests whose replies have not been handed over yet.
    requests: usize,
    was_served: bool,
    idle_since: u64,
    leave: CancellationToken,
}

/// One connection's place, given back when it ends.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    /// Cancelled where somebody else needs the place more.
    pub(super) leave: CancellationToken,
}

/// A request of a connection, until its reply has been handed over. It keeps the place
/// from the moment that it is whole.
pub(super) struct Attended {
    place: Arc<Place>,
    is_whole: AtomicBool,
}

impl Places {
    pub(super) fn of_this_process() -> Arc<Self> {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let share = usize::try_from(descriptors / DESCRIPTORS_SHARE).unwrap_or(usize::MAX);
        Places::of(share.clamp(1, CONNECTIONS_MAX))
    }

    fn of(max: usize) -> Arc<Self> {
        Arc::new(Places { max, held: Mutex::default(), freed: Notify::new() })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` where every place has a request in hand.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Place> {
        loop {
            // Registered before the look, so that no place is given back in between.
            let freed = self.freed.notified();
            if let Some(place) = self.try_take()? {
                return Some(place);
            }
            // Who was asked to leave is gone at once; its descriptor must be too.
            freed.await;
        }
    }

    /// `Some(None)` where one is being vacated, `None` where none can be.
    fn try_take(self: &Arc<Self>) -> Option<Option<Place>> {
        let mut held = self.held();
        if held.slots.len() >= self.max {
            if !held.slots.values().any(|slot| slot.leave.is_cancelled()) {
                let idle = held.slots.values().filter(|slot| slot.requests == 0);
                // Clients that have been served come after those that have only connected.
                idle.min_by_key(|slot| (slot.was_served, slot.idle_since))?.leave.cancel();
            }
            return Some(None);
        }
        held.last_number += 1;
        held.turn += 1;
        let (number, leave) = (held.last_number, CancellationToken::new());
        let slot = Slot { requests: 0, was_served: false, idle_since: held.turn, leave: leave.clone() };
        held.slots.insert(number, slot);
        drop(held);
        Some(Some(Place { places: self.clone(), number, leave }))
    }
}

impl Attended {
    pub(super) fn soon(place: &Arc<Place>) -> Arc<Self> {
        Arc::new(Attended { place: place.clone(), is_whole: AtomicBool::new(false) })
    }

    /// All of it has arrived.
    pub(super) fn is_whole(&self) {
        if self.is_whole.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(slot) = self.place.places.held().slots.get_mut(&self.place.number) {
            slot.requests += 1;
            slot.was_served = true;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held().slots.remove(&self.number);
        self.places.freed.notify_waiters();
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        if !*self.is_whole.get_mut() {
            return;
        }
        let mut held = self.place.places.held();
        held.turn += 1;
        let turn = held.turn;
        if let Some(slot) = held.slots.get_mut(&self.place.number) {
            slot.requests -= 1;
            slot.idle_since = turn;
        }
    }
}

/// A reply's body that keeps its connection's place until it has been handed over.
pub(super) struct Keeping<B> {
    pub(super) body: B,
    pub(super) _attended: Arc<Attended>,
}

impl<B: Body + Unpin> Body for Keeping<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attend(place: &Arc<Place>) -> Arc<Attended> {
        let attended = Attended::soon(place);
        attended.is_whole();
        attended.is_whole();
        attended
    }

    fn taken(places: &Arc<Places>) -> Arc<Place> {
        Arc::new(places.try_take().expect("none is needed more").expect("there is room"))
    }

    /// One more comes: which of these is asked to leave?
    fn who_leaves(places: &Arc<Places>, held: &[Arc<Place>]) -> Vec<usize> {
        assert!(places.try_take().expect("one can leave").is_none(), "it leaves first");
        (0..held.len()).filter(|number| held[*number].leave.is_cancelled()).collect()
    }

    #[test]
    fn who_was_never_served_leaves_before_who_was_and_the_oldest_first() {
        let places = Places::of(3);
        let mut held: Vec<_> = (0..3).map(|_| taken(&places)).collect();
        drop(attend(&held[0]));
        let half = Attended::soon(&held[1]);
        assert_eq!(who_leaves(&places, &held), [1]);
        assert_eq!(who_leaves(&places, &held), [1], "one is enough");
        drop(half);
        // The place is given back before it is taken again.
        held[1] = held[2].clone();
        held[1] = taken(&places);
        assert_eq!(who_leaves(&places, &held), [2]);
        drop(attend(&held[1]));
        held[2] = held[1].clone();
        held[2] = taken(&places);
        drop(attend(&held[2]));
        assert_eq!(who_leaves(&places, &held), [0], "served longest ago");
    }

    #[test]
    fn who_is_being_served_stays() {
        let places = Places::of(2);
        let held: Vec<_> = (0..2).map(|_| taken(&places)).collect();
        let (one, two) = (attend(&held[0]), attend(&held[0]));
        let other = attend(&held[1]);
        drop(one);
        assert!(places.try_take().is_none(), "each has a request in hand");
        drop(other);
        assert_eq!(who_leaves(&places, &held), [1]);
        drop(two);
    }

    #[tokio::test]
    async fn a_place_is_free_when_whoever_had_it_is_gone() {
        let places = Places::of(1);
        let first = taken(&places);
        let next = tokio::spawn({
            let places = places.clone();
            async move { places.take().await }
        });
        first.leave.cancelled().await;
        let reply = Attended::soon(&first);
        drop(first);
        tokio::task::yield_now().await;
        assert!(!next.is_finished(), "a request keeps it");
        drop(reply);
        assert!(next.await.expect("no panic").is_some());
        assert!(places.held().slots.is_empty());
    }
}
