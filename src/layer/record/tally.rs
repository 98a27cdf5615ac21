//! [`Tally`]: how many calls a server got and how they ended.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::failure::Class;

const CLASSES: usize = Class::ALL.len();

/// The counters of one server, shared by the stacks of all its tools.
#[derive(Debug, Default)]
pub struct Tally {
    began: AtomicU64,
    /// One per class, in the order of [`Class::ALL`].
    ended: [AtomicU64; CLASSES],
}

/// A [`Tally`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub calls: u64,
    pub in_flight: u64,
    ended: [u64; CLASSES],
}

impl Tally {
    pub fn snapshot(&self) -> Snapshot {
        // Ends before beginnings: a call that comes and goes between the two looks
        // then counts as under way, instead of making their difference negative.
        let ended = std::array::from_fn(|class| self.ended[class].load(Ordering::Acquire));
        let calls = self.began.load(Ordering::Acquire);
        Snapshot { calls, in_flight: calls.saturating_sub(ended.iter().sum()), ended }
    }

    pub(super) fn enter(self: &Arc<Self>) -> Entry {
        self.began.fetch_add(1, Ordering::Relaxed);
        Entry(Some(self.clone()))
    }
}

impl Snapshot {
    /// How many calls ended as `class`.
    pub fn ended(&self, class: Class) -> u64 {
        self.ended[class as usize]
    }

    /// How many calls got no answer of their server, though their client waited.
    pub fn failures(&self) -> u64 {
        let answered = |class| matches!(class, Class::Ok | Class::ToolError | Class::Rejected | Class::Cancelled);
        Class::ALL.into_iter().filter(|class| !answered(*class)).map(|class| self.ended(class)).sum()
    }
}

/// One call under way. Dropped before its end, the client has left, or a layer
/// below panicked.
pub(super) struct Entry(Option<Arc<Tally>>);

impl Entry {
    pub(super) fn ended(mut self, class: Class) {
        self.count(class);
    }

    fn count(&mut self, class: Class) {
        if let Some(tally) = self.0.take() {
            tally.ended[class as usize].fetch_add(1, Ordering::Release);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.count(if std::thread::panicking() { Class::Internal } else { Class::Cancelled });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_own_counter() {
        for (i, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, i, "{class}");
        }
    }

    #[test]
    fn what_began_and_has_not_ended_is_in_flight() {
        let tally = Arc::new(Tally::default());
        let (first, second) = (tally.enter(), tally.enter());
        first.ended(Class::Timeout);
        assert_eq!((tally.snapshot().calls, tally.snapshot().in_flight), (2, 1));
        drop(second);
        let now = tally.snapshot();
        assert_eq!((now.in_flight, now.ended(Class::Timeout), now.ended(Class::Cancelled)), (0, 1, 1));
        assert_eq!(now.failures(), 1, "a client that left is no failure");
    }
}
