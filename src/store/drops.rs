//! What gives way when there is no room, and the count of what did.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use super::row::{Event, EventRecord, EventType};
use crate::failure::{Class, Recording, Verdict};

/// What a row is about, as far as dropping it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Failure(Class),
    Event(EventType),
}

const CLASSES: usize = Class::ALL.len();
const KINDS: usize = CLASSES + EventType::ALL.len();

impl Kind {
    fn all() -> impl Iterator<Item = Kind> {
        Class::ALL.into_iter().map(Kind::Failure).chain(EventType::ALL.into_iter().map(Kind::Event))
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Failure(class) => class.name(),
            Kind::Event(event_type) => event_type.name(),
        }
    }

    fn index(self) -> usize {
        match self {
            Kind::Failure(class) => class as usize,
            Kind::Event(event_type) => CLASSES + event_type as usize,
        }
    }

    /// Whether a place of `capacity` rows that holds `held` has room for this one.
    /// The last eighth is kept for crashes and alerts, the eighth before it also for
    /// failures that say something about a server's health.
    pub(super) fn fits(self, held: usize, capacity: usize) -> bool {
        let room = match self.importance() {
            Importance::Low => capacity / 8 * 6,
            Importance::Normal => capacity / 8 * 7,
            Importance::High => capacity,
        };
        held < room
    }

    fn importance(self) -> Importance {
        match self {
            Kind::Failure(class) if class.verdict() == Verdict::Success => Importance::Low,
            Kind::Failure(class) if class.recording() != Recording::Row => Importance::Low,
            Kind::Failure(_) => Importance::Normal,
            Kind::Event(
                EventType::ServiceCrash
                | EventType::ServiceRestart
                | EventType::CrashInferred
                | EventType::ServiceHang
                | EventType::Alert
                | EventType::AlertOver
                | EventType::RestartStorm
                | EventType::EventsDropped
                | EventType::DatabaseRecreated,
            ) => Importance::High,
            Kind::Event(_) => Importance::Normal,
        }
    }
}

enum Importance {
    Low,
    Normal,
    High,
}

/// Rows lost since the start, by kind. The counts only grow.
#[derive(Debug)]
pub(super) struct Drops([AtomicU64; KINDS]);

/// The counts at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tally([u64; KINDS]);

impl Default for Drops {
    fn default() -> Self {
        Drops(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Default for Tally {
    fn default() -> Self {
        Tally([0; KINDS])
    }
}

impl Drops {
    pub(super) fn count(&self, kind: Kind) {
        self.0[kind.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn tally(&self) -> Tally {
        Tally(std::array::from_fn(|i| self.0[i].load(Ordering::Relaxed)))
    }

    pub(super) fn by_name(&self) -> BTreeMap<&'static str, u64> {
        self.tally().named(Kind::all())
    }
}

impl Tally {
    /// The event that tells of what was lost between `earlier` and now, if anything was.
    pub(super) fn report(&self, earlier: &Tally) -> Option<EventRecord> {
        let lost = Tally(std::array::from_fn(|i| self.0[i].saturating_sub(earlier.0[i])));
        let total: u64 = lost.0.iter().sum();
        (total > 0).then(|| {
            EventRecord::now(Event {
                category: "store",
                event_type: EventType::EventsDropped,
                service_name: "gateway".to_owned(),
                metadata: serde_json::json!({
                    "total": total,
                    "failures": lost.named(Class::ALL.into_iter().map(Kind::Failure)),
                    "events": lost.named(EventType::ALL.into_iter().map(Kind::Event)),
                }),
            })
        })
    }

    fn named(&self, kinds: impl Iterator<Item = Kind>) -> BTreeMap<&'static str, u64> {
        kinds.map(|kind| (kind.name(), self.0[kind.index()])).filter(|(_, n)| *n > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_place_of_its_own() {
        let places: Vec<usize> = Kind::all().map(Kind::index).collect();
        assert_eq!(places, (0..KINDS).collect::<Vec<_>>());
    }

    #[test]
    fn the_least_important_goes_first() {
        let last_room = |kind: Kind| (0..=800).take_while(|held| kind.fits(*held, 800)).count();
        assert_eq!(last_room(Kind::Failure(Class::RateLimited)), 600);
        assert_eq!(last_room(Kind::Failure(Class::ToolError)), 600);
        assert_eq!(last_room(Kind::Failure(Class::Lost)), 700);
        assert_eq!(last_room(Kind::Event(EventType::ServerDown)), 700);
        assert_eq!(last_room(Kind::Event(EventType::ServiceCrash)), 800);
    }

    #[test]
    fn a_report_tells_only_what_is_new() {
        let drops = Drops::default();
        let before = drops.tally();
        assert!(drops.tally().report(&before).is_none());
        drops.count(Kind::Failure(Class::Lost));
        let told = drops.tally();
        drops.count(Kind::Failure(Class::Lost));
        drops.count(Kind::Event(EventType::ServerReady));
        let report = drops.tally().report(&told).expect("something was lost");
        assert_eq!(report.metadata, r#"{"total":2,"failures":{"lost":1},"events":{"server_ready":1}}"#);
    }
}
