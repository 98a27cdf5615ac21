//! Rows: what a handle takes, and the records that are stored, spilled and read.
//!
//! Everything in a row is bounded here, so that a bound on rows is a bound on memory.

use serde::{Deserialize, Serialize};

use super::redact;
use crate::{
    call::ServerName,
    failure::Class,
    id::{Id, unix_ms},
};

/// One row of `failures`, as it is handed over.
#[derive(Clone, Debug)]
pub struct FailureRow {
    pub id: Id,
    pub timestamp_ms: u64,
    pub server: ServerName,
    /// The tool, or the method where no tool is named.
    pub tool: String,
    pub class: Class,
    pub message: String,
    pub duration_ms: u64,
    pub client: String,
    pub protocol: String,
    pub request_id: String,
    pub instance: Option<u64>,
    /// JSON, already reduced or redacted: see [`redact::shape`] and [`redact::redacted`].
    pub arguments: Option<String>,
    pub exit_status: Option<String>,
    pub stderr_tail: Option<String>,
}

/// One row of `events`, as it is handed over: its id and time are those of that moment.
#[derive(Clone, Debug)]
pub struct Event {
    pub category: &'static str,
    pub event_type: EventType,
    /// The server, or the service, that it is about; `gateway` for seawall itself.
    pub service_name: String,
    pub metadata: serde_json::Value,
}

/// One row of `failures` as it is stored; the names in JSON are those of the columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    pub id: String,
    #[serde(rename = "timestamp")]
    pub timestamp_ms: i64,
    pub server: String,
    pub tool: String,
    pub class: String,
    pub message: String,
    pub duration_ms: i64,
    pub client: String,
    pub protocol: String,
    pub request_id: String,
    pub instance: Option<i64>,
    /// JSON, as text.
    #[serde(with = "maybe_json")]
    pub arguments: Option<String>,
    pub exit_status: Option<String>,
    pub stderr_tail: Option<String>,
    /// Grows in the order in which rows were stored: the place to go on from.
    #[serde(skip)]
    pub seq: i64,
}

/// One row of `events` as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    pub id: String,
    #[serde(rename = "timestamp")]
    pub timestamp_ms: i64,
    pub category: String,
    pub event_type: String,
    pub service_name: String,
    /// A JSON object, as text.
    #[serde(with = "json")]
    pub metadata: String,
    #[serde(skip)]
    pub seq: i64,
}

/// Either, on its way to the database; a line of the spill file holds one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    Failure(FailureRecord),
    Event(EventRecord),
}

macro_rules! event_types {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// What happened. The name is the one in SQLite and in the docs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum EventType { $($variant),* }

        impl EventType {
            pub const ALL: [EventType; [$($name),*].len()] = [$(EventType::$variant),*];

            pub fn name(self) -> &'static str {
                match self { $(EventType::$variant => $name),* }
            }
        }
    };
}

event_types! {
    ServiceStart "service_start",
    ServiceStop "service_stop",
    ServiceCrash "service_crash",
    ServiceRestart "service_restart",
    CrashInferred "crash_inferred",
    ServiceHang "service_hang",
    LeftoversEnded "leftovers_ended",
    Alert "alert",
    AlertOver "alert_over",
    RestartStorm "restart_storm",
    PeriodicRestart "periodic_restart",
    MemoryGrowth "memory_growth",
    BreakerOpened "breaker_opened",
    BreakerClosed "breaker_closed",
    ServerReady "server_ready",
    ServerDown "server_down",
    ServerParked "server_parked",
    ServerRecycled "server_recycled",
    ConfigReloaded "config_reloaded",
    ConfigRejected "config_rejected",
    SandboxRefused "sandbox_refused",
    SandboxDenied "sandbox_denied",
    ToolChanged "tool_changed",
    EventsDropped "events_dropped",
    DatabaseRecreated "database_recreated",
    TaskDone "task_done",
    TaskFailed "task_failed",
    TaskMissed "task_missed",
    // The type of a note is its writer's own; this one is for counting lost ones.
    Note "note",
}

impl std::fmt::Display for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// For names: of clients, tools, methods, request ids.
const NAME_MAX_BYTES: usize = 256;

impl FailureRow {
    /// Without secrets that are recognisable as such, and bounded.
    pub(super) fn made_safe(mut self) -> Self {
        self.message = redact::text(&self.message);
        self.stderr_tail = self.stderr_tail.map(|tail| redact::tail(&tail));
        self.exit_status = self.exit_status.map(|status| redact::text(&status));
        self.arguments = self.arguments.map(|json| match json.len() <= redact::MAX_BYTES && !json.contains('\n') {
            true => json,
            // Whoever made it was to keep the bound; the names are better than nothing.
            false => redact::shape(json.as_bytes()),
        });
        for name in [&mut self.tool, &mut self.client, &mut self.protocol, &mut self.request_id] {
            if name.len() > NAME_MAX_BYTES {
                *name = redact::clipped(name, NAME_MAX_BYTES);
            }
        }
        self
    }

    pub(super) fn into_record(self) -> FailureRecord {
        FailureRecord {
            id: self.id.to_string(),
            timestamp_ms: signed(self.timestamp_ms),
            server: self.server.to_string(),
            tool: self.tool,
            class: self.class.name().to_owned(),
            message: self.message,
            duration_ms: signed(self.duration_ms),
            client: self.client,
            protocol: self.protocol,
            request_id: self.request_id,
            instance: self.instance.map(signed),
            arguments: self.arguments,
            exit_status: self.exit_status,
            stderr_tail: self.stderr_tail,
            seq: 0,
        }
    }
}

impl EventRecord {
    /// The record of something that happens at this moment.
    pub fn now(event: Event) -> Self {
        EventRecord {
            id: Id::now().to_string(),
            timestamp_ms: signed(unix_ms()),
            category: event.category.to_owned(),
            event_type: event.event_type.name().to_owned(),
            service_name: redact::clipped(&event.service_name, NAME_MAX_BYTES),
            metadata: redact::metadata(&event.metadata),
            seq: 0,
        }
    }
}

/// An event of the user's own, under a type of the user's own.
#[derive(Clone, Debug)]
pub struct Note {
    pub category: &'static str,
    pub event_type: String,
    pub service_name: String,
    pub metadata: serde_json::Value,
}

impl EventRecord {
    pub(super) fn of_note(note: Note) -> Self {
        EventRecord {
            id: Id::now().to_string(),
            timestamp_ms: signed(unix_ms()),
            category: note.category.to_owned(),
            event_type: redact::clipped(&note.event_type, NAME_MAX_BYTES),
            service_name: redact::clipped(&note.service_name, NAME_MAX_BYTES),
            metadata: redact::note(&note.metadata),
            seq: 0,
        }
    }
}

/// Text that is JSON is written as the JSON that it is, and read back as text.
mod json {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::value::RawValue;

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(text) {
            Ok(json) => json.serialize(serializer),
            Err(_) => text.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        Ok(Box::<RawValue>::deserialize(deserializer)?.get().to_owned())
    }
}

/// The same, or null.
mod maybe_json {
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_json::value::RawValue;

    pub(super) fn serialize<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
        match text {
            Some(text) => super::json::serialize(text, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
        let json = Option::<Box<RawValue>>::deserialize(deserializer)?;
        Ok(json.map(|json| json.get().to_owned()))
    }
}

/// SQLite's integers are signed.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::failure;

    #[test]
    fn the_name_in_sqlite_is_the_name_in_json() {
        for event_type in EventType::ALL {
            assert_eq!(serde_json::json!(event_type), event_type.name());
        }
    }

    #[test]
    fn a_record_survives_the_spill_file() {
        let event = EventRecord::now(Event {
            category: "server",
            event_type: EventType::ServerDown,
            service_name: "files".into(),
            metadata: serde_json::json!({"reason": "line\nbreak", "n": 1}),
        });
        let mut failure = failure(Class::Lost, "read").into_record();
        failure.arguments = Some(r#"{"n":1e400}"#.to_owned());
        for record in [Record::Event(event), Record::Failure(failure)] {
            let line = serde_json::to_string(&record).expect("serialises");
            assert!(!line.contains('\n') && !line.contains("\\\""), "{line}");
            assert_eq!(serde_json::from_str::<Record>(&line).expect("reads"), record);
        }
    }
}
