//! Rows of a process that may die at any moment and has no writer thread: each is
//! written before the call returns, or appended to a file that a later call imports.

use std::{path::PathBuf, time::Duration};

use super::{
    EventFilter, ReadError, Reader, Settings, Written,
    database::{Database, Durability, Trouble},
    reserve::Reserve,
    row::{Event, EventRecord, Record},
    spill::{Spill, Sync},
};

/// How long one statement waits for other processes. A row takes four of them at worst,
/// and no more than a second may pass.
const PATIENCE: Duration = Duration::from_millis(250);
/// More than this is not imported from the file beside the database.
const BESIDE_MAX_BYTES: u64 = 256 << 10;

/// Writes events one by one.
#[derive(Clone, Debug)]
pub struct Ledger {
    settings: Settings,
    aside: PathBuf,
}

impl Ledger {
    /// `aside` is the file for rows that the database does not take.
    pub fn new(settings: Settings, aside: impl Into<PathBuf>) -> Self {
        Ledger { settings, aside: aside.into() }
    }

    /// Writes an event that survives a loss of power right after. Never waits for the
    /// database longer than a second.
    pub fn record(&self, event: Event) -> Written {
        let event = Record::Event(EventRecord::now(event));
        let Err(trouble) = self.open().and_then(|mut database| database.commit([&event])) else {
            return Written::Database;
        };
        // Where the one place takes nothing, the other one may: whoever writes to the
        // database next finds it there too.
        let aside = Spill::at(&self.aside).append([&event], Sync::Yes);
        let beside = || Spill::of(&self.settings.path).append([&event], Sync::Yes);
        match aside.or_else(|_| beside()).or_else(|error| self.reserve().append([&event]).map_err(|_| error)) {
            Ok(()) => {
                tracing::warn!(%trouble, "an event was put aside");
                Written::Spilled
            }
            Err(error) => {
                tracing::error!(%trouble, %error, "an event is lost");
                Written::Lost
            }
        }
    }

    /// Moves what lies aside into the database; false if some of it has to wait on.
    pub fn import(&self) -> bool {
        let beside = Spill::of(&self.settings.path);
        // A large one is a gateway's, which has the time for it.
        let is_left = beside.bytes() > BESIDE_MAX_BYTES;
        let is_taken = self.take(&Spill::at(&self.aside)) && self.take_reserve() && !is_left && self.take(&beside);
        self.reserve().take_room();
        is_taken
    }

    fn reserve(&self) -> Reserve {
        Reserve::of(&self.aside)
    }

    fn take_reserve(&self) -> bool {
        let reserve = self.reserve();
        !reserve.is_used() || self.replayed(|database| reserve.replay(|rows| database.commit(rows)))
    }

    fn take(&self, aside: &Spill) -> bool {
        if aside.bytes() == 0 {
            return true;
        }
        self.replayed(|database| aside.replay(|rows| database.commit(rows))) && aside.bytes() == 0
    }

    fn replayed(&self, replay: impl FnOnce(&mut Database) -> Result<(), Trouble>) -> bool {
        let replayed = self.open().and_then(|mut database| replay(&mut database));
        if let Err(trouble) = &replayed {
            tracing::warn!(%trouble, "events that were put aside wait on");
        }
        replayed.is_ok()
    }

    /// The events of one service since a time, in the order in which they happened,
    /// those aside included.
    pub fn events(&self, service: &str, since_ms: i64) -> Result<Vec<EventRecord>, ReadError> {
        match self.known(service, since_ms) {
            (events, Some(error)) if events.is_empty() => Err(error),
            (events, _) => Ok(events),
        }
    }

    /// The same as far as they are known, and why the database does not tell the rest.
    pub fn known(&self, service: &str, since_ms: i64) -> (Vec<EventRecord>, Option<ReadError>) {
        const LIMIT: u32 = 5000;
        let filter = EventFilter {
            service: Some(service.to_owned()),
            since_ms: Some(since_ms),
            limit: Some(LIMIT),
            ..EventFilter::default()
        };
        let stored = Reader::patient(&self.settings.path, PATIENCE).and_then(|reader| reader.events(&filter));
        let (mut events, error) = match stored {
            Ok(events) => (events, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let aside = [Spill::at(&self.aside), Spill::of(&self.settings.path)];
        for record in aside.iter().flat_map(Spill::waiting).chain(self.reserve().waiting()) {
            // One that was being imported when that broke off may be in both places.
            if let Record::Event(event) = record
                && event.service_name == service
                && event.timestamp_ms >= since_ms
                && !events.iter().any(|known| known.id == event.id)
            {
                events.push(event);
            }
        }
        (events, error)
    }

    fn open(&self) -> Result<Database, Trouble> {
        Database::open(&self.settings, PATIENCE, Durability::Power)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::store::EventType;

    fn crash(n: u32) -> Event {
        Event {
            category: "service",
            event_type: EventType::ServiceCrash,
            service_name: "gateway".to_owned(),
            metadata: serde_json::json!({ "exit_code": n }),
        }
    }

    #[test]
    fn a_locked_database_costs_no_row_and_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("seawall.db");
        let ledger = Ledger::new(Settings::at(&path), folder.path().join("crash.jsonl"));
        assert_eq!(ledger.record(crash(1)), Written::Database);
        let neighbour = rusqlite::Connection::open(&path).expect("opens");
        neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
        let began = Instant::now();
        assert_eq!(ledger.record(crash(2)), Written::Spilled);
        // SQLite's own patience is longer; a busy machine is granted the difference.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(ledger.events("gateway", 0).expect("reads").len(), 2, "what lies aside counts");
        assert!(!ledger.import(), "still locked");
        neighbour.execute_batch("COMMIT").expect("unlocks");
        assert!(ledger.import());
        assert!(ledger.import(), "nothing left");
        let events = ledger.events("gateway", 0).expect("reads");
        assert_eq!(
            events.iter().map(|event| event.metadata.as_str()).collect::<Vec<_>>(),
            [r#"{"exit_code":1}"#, r#"{"exit_code":2}"#]
        );
    }

    #[test]
    fn where_nothing_can_be_put_aside_it_goes_beside_the_database_and_counts() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("seawall.db");
        // A file in the place of the state folder.
        std::fs::write(folder.path().join("state"), "").expect("written");
        let ledger = Ledger::new(Settings::at(&path), folder.path().join("state/crash.jsonl"));
        assert_eq!(ledger.record(crash(1)), Written::Database);
        let neighbour = rusqlite::Connection::open(&path).expect("opens");
        neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
        assert_eq!(ledger.record(crash(2)), Written::Spilled);
        assert_eq!(ledger.events("gateway", 0).expect("reads").len(), 2);
        neighbour.execute_batch("COMMIT").expect("unlocks");
        assert!(ledger.import());
        assert_eq!(ledger.events("gateway", 0).expect("reads").len(), 2, "imported, and there once");
    }

    #[test]
    fn what_is_known_without_the_database_is_told_with_why() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("seawall.db");
        std::fs::write(&path, "no database, by far".repeat(1000)).expect("written");
        let ledger = Ledger::new(Settings::at(&path), folder.path().join("crash.jsonl"));
        assert_eq!(ledger.record(crash(1)), Written::Spilled);
        let (events, error) = ledger.known("gateway", 0);
        assert_eq!(events.len(), 1);
        assert!(matches!(error, Some(ReadError::Unreadable { .. })), "{error:?}");
    }

    #[test]
    fn no_database_at_all_loses_nothing_either() {
        let folder = tempfile::tempdir().expect("folder");
        // A folder in its place: it can neither be opened nor made.
        let path = folder.path().join("seawall.db");
        std::fs::create_dir(&path).expect("a folder");
        let ledger = Ledger::new(Settings::at(&path), folder.path().join("crash.jsonl"));
        assert_eq!(ledger.record(crash(1)), Written::Spilled);
        std::fs::remove_dir(&path).expect("mended");
        assert!(ledger.import());
        assert_eq!(ledger.events("gateway", 0).expect("reads").len(), 1);
    }
}
