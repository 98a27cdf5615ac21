//! Rows of a process that may die at any moment and has no writer thread: each is
//! written before the call returns, or appended to a file that a later call imports.

use std::{path::PathBuf, time::Duration};

use super::{
    EventFilter, ReadError, Reader, Settings, Written,
    database::{Database, Durability, Trouble},
    row::{Event, EventRecord, Record},
    spill::{Spill, Sync},
};

/// How long one statement waits for other processes. A row takes four of them at worst,
/// and no more than a second may pass.
const PATIENCE: Duration = Duration::from_millis(250);

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
        match Spill::at(&self.aside).append([&event], Sync::Yes) {
            Ok(()) => {
                tracing::warn!(%trouble, "an event went to {}", self.aside.display());
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
        let aside = Spill::at(&self.aside);
        if aside.bytes() == 0 {
            return true;
        }
        let replayed = self.open().and_then(|mut database| aside.replay(|rows| database.commit(rows)));
        if let Err(trouble) = &replayed {
            tracing::warn!(%trouble, "the events in {} wait on", self.aside.display());
        }
        replayed.is_ok() && aside.bytes() == 0
    }

    /// The events of one service since a time, in the order in which they happened,
    /// those aside included.
    pub fn events(&self, service: &str, since_ms: i64) -> Result<Vec<EventRecord>, ReadError> {
        const LIMIT: u32 = 5000;
        let filter = EventFilter {
            service: Some(service.to_owned()),
            since_ms: Some(since_ms),
            limit: Some(LIMIT),
            ..EventFilter::default()
        };
        let stored = Reader::patient(&self.settings.path, PATIENCE).and_then(|reader| reader.events(&filter));
        let waiting = Spill::at(&self.aside).waiting().into_iter().filter_map(|record| match record {
            Record::Event(event) if event.service_name == service && event.timestamp_ms >= since_ms => Some(event),
            _ => None,
        });
        let waiting: Vec<EventRecord> = waiting.collect();
        match stored {
            Ok(mut events) => {
                events.extend(waiting);
                Ok(events)
            }
            Err(_) if !waiting.is_empty() => Ok(waiting),
            Err(error) => Err(error),
        }
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
