//! What the builtin servers are told of the gateway that they run in.

use std::sync::{Arc, Weak};

use serde_json::Value;

use super::{Inner, connect::InProcess};
use crate::{
    builtin::{
        events::{CATEGORY, EventQuery, EventsServer, Journal, NewEvent, StoredEvent},
        seawall::{FailureQuery, Introspect, SeawallServer},
    },
    config::Config,
    id::unix_ms,
    link::Connector,
    store::{EventFilter, FailureFilter, Found, Note, ReadError, Reader, Store},
    upstream::local::LocalConnector,
};

/// The values of `builtin` in servers.toml.
pub(super) const BUILTINS: [&str; 3] = ["seawall", "events", "embed"];

pub(super) fn builtins(gateway: &Weak<Inner>, config: &Config, store: &Store) -> InProcess {
    let database = config.gateway.database.clone();
    let about = SeawallServer::new(Arc::new(About {
        gateway: gateway.clone(),
        database: database.clone(),
        store: store.clone(),
    }));
    let journal = EventsServer::new(Arc::new(StoredJournal { store: store.clone(), database }));
    let seawall: Arc<dyn Connector> = Arc::new(LocalConnector::new("seawall", about));
    let events: Arc<dyn Connector> = Arc::new(LocalConnector::new("events", journal));
    // The model of `embed` is each server's own: see embed.rs.
    [("seawall".to_owned(), seawall), ("events".to_owned(), events)].into()
}

struct About {
    gateway: Weak<Inner>,
    database: std::path::PathBuf,
    store: Store,
}

impl About {
    fn reader(&self) -> Result<Reader, String> {
        read_own_writes(&self.store);
        Reader::open(&self.database).map_err(sentence)
    }
}

impl Introspect for About {
    fn status(&self) -> Value {
        let status = self.gateway.upgrade().map(|gateway| gateway.status());
        serde_json::to_value(status).unwrap_or(Value::Null)
    }

    fn failures(&self, query: FailureQuery) -> Result<Vec<Value>, String> {
        let since = query.since_minutes.map(|minutes| unix_ms().saturating_sub(minutes.saturating_mul(60_000)));
        let filter = FailureFilter {
            server: query.server,
            tool: query.tool,
            class: query.class.map(|class| class.name().to_owned()),
            since_ms: since.and_then(|ms| i64::try_from(ms).ok()),
            limit: u32::try_from(query.limit).ok(),
            ..FailureFilter::default()
        };
        let rows = self.reader()?.failures(&filter).map_err(sentence)?;
        rows.iter().rev().map(|row| serde_json::to_value(row).map_err(|error| error.to_string())).collect()
    }

    fn why(&self, id: &str) -> Result<Value, String> {
        let found = self.reader()?.find(id).map_err(sentence)?;
        match found {
            Found::Failure(row) => serde_json::to_value(row).map_err(|error| error.to_string()),
            Found::Event(_) => Err(format!("{id} is an event, not a failure")),
            Found::None => Err(format!("there is no failure whose id begins with {id}")),
            Found::Ambiguous(ids) => Err(format!("{id} is the beginning of several: {}", ids.join(", "))),
        }
    }
}

struct StoredJournal {
    store: Store,
    database: std::path::PathBuf,
}

impl Journal for StoredJournal {
    fn append(&self, event: NewEvent) -> Result<String, String> {
        let service = event.service.unwrap_or_default();
        let metadata = Value::Object(event.data);
        let note = Note { category: CATEGORY, event_type: event.event_type, service_name: service, metadata };
        Ok(self.store.note(note))
    }

    fn query(&self, query: EventQuery) -> Result<Vec<StoredEvent>, String> {
        read_own_writes(&self.store);
        let filter = EventFilter {
            service: query.service,
            event_type: query.event_type,
            category: Some(CATEGORY.to_owned()),
            since_ms: query.since_ms.and_then(|ms| i64::try_from(ms).ok()),
            limit: u32::try_from(query.limit).ok(),
            ..EventFilter::default()
        };
        let rows = Reader::open(&self.database).and_then(|reader| reader.events(&filter)).map_err(sentence)?;
        let stored = rows.into_iter().rev().map(|row| StoredEvent {
            id: row.id,
            timestamp_ms: u64::try_from(row.timestamp_ms).unwrap_or(0),
            event_type: row.event_type,
            service: Some(row.service_name).filter(|service| !service.is_empty()),
            data: serde_json::from_str(&row.metadata).unwrap_or(Value::Null),
        });
        Ok(stored.collect())
    }
}

/// Who has just written something expects to read it.
fn read_own_writes(store: &Store) {
    store.flush(std::time::Duration::from_secs(2));
}

fn sentence(error: ReadError) -> String {
    error.to_string()
}
