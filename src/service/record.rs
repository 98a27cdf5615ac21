//! Writing down what happened to a service, and telling people what is worth it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{
    alarm::{self, ALERT_WITHIN, News, STORM_WITHIN},
    errand::Errands,
    moment::Moment,
    notify::{Message, Teller},
    run::Job,
};
use crate::{
    process::veil::Veil,
    store::{Event, EventRecord, EventType, Ledger, ReadError, Settings, Written},
    text,
};

/// How far back crashes may lie to be of one pattern.
const HISTORY_MS: i64 = 35 * 24 * 3600 * 1000;

/// Members of metadata that hold words of ours and no others: the value of a variable may
/// well be one of them.
const OWN_WORDS: &[&str] = &["reason", "action", "after", "of", "outcome", "clock"];

pub(super) struct Recorder<'a> {
    job: &'a Job,
    ledger: Ledger,
    errands: Errands,
    teller: Teller,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(job: &'a Job, errands: &Errands) -> Self {
        let ledger = ledger(job.database.clone(), &job.state);
        let teller = Teller::new(job.sinks.clone(), job.seawall.clone(), job.veil.clone(), errands.clone());
        Recorder { job, ledger, errands: errands.clone(), teller }
    }

    pub(super) fn name(&self) -> &'a str {
        &self.job.name
    }

    pub(super) fn veil(&self) -> &'a Veil {
        &self.job.veil
    }

    pub(super) fn errands(&self) -> &Errands {
        &self.errands
    }

    /// Lets whoever is still being told hear it out, for a few seconds in all.
    pub(super) fn farewell(&self) {
        self.teller.farewell();
    }

    /// Moves what an earlier life could not write into the database.
    pub(super) fn import(&self) {
        self.ledger.import();
    }

    /// Writes an event before it returns. Which clocks it was by goes along.
    pub(super) fn event(&self, event_type: EventType, metadata: Value) {
        self.event_of(&self.job.name, event_type, metadata);
    }

    fn event_of(&self, name: &str, event_type: EventType, metadata: Value) {
        let mut metadata = match metadata {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        metadata.insert("clock".to_owned(), Moment::now().as_json());
        let service_name = name.to_owned();
        let mut metadata = Value::Object(metadata);
        self.job.veil.hide_but_for(OWN_WORDS, &mut metadata);
        let event = Event { category: "service", event_type, service_name, metadata: metadata.clone() };
        if self.ledger.record(event) == Written::Lost {
            // The log is all that is left.
            say!("{event_type} of {name} could not be recorded: {metadata}");
        }
    }

    /// Whether the end of this process is on record although its life is open: whoever
    /// recorded it was killed before it could close it.
    pub(super) fn has_end_of(&self, pid: u32, since_ms: i64) -> bool {
        const ENDS: [&str; 5] = ["service_crash", "service_stop", "crash_inferred", "task_done", "task_failed"];
        let is_it = |event: &EventRecord| {
            let metadata: Value = serde_json::from_str(&event.metadata).unwrap_or_default();
            ENDS.contains(&event.event_type.as_str()) && metadata["pid"] == pid
        };
        self.ledger.events(&self.job.name, since_ms).is_ok_and(|events| events.iter().any(is_it))
    }

    /// What is on record of a service, in order.
    pub(super) fn history_of(&self, name: &str) -> Result<Vec<EventRecord>, ReadError> {
        self.ledger.events(name, Moment::now().wall_ms.saturating_sub(HISTORY_MS))
    }

    /// Looks at all that is on record, and says what is new about it.
    pub(super) fn judge(&self) {
        let now = Moment::now();
        let Ok(events) = self.history_of(&self.job.name) else { return };
        let (crashes, told) = alarm::history(&events);
        for news in alarm::news(&alarm::pattern(&crashes, &now), told) {
            self.say(news);
        }
    }

    fn say(&self, news: News) {
        let name = &self.job.name;
        let (event_type, metadata, title, text) = match news {
            News::Alert { crashes } => (
                EventType::Alert,
                json!({ "crashes": crashes, "within_s": ALERT_WITHIN.as_secs() }),
                format!("{name} keeps crashing"),
                format!("{name} crashed {crashes} times within {}", text::duration(ALERT_WITHIN)),
            ),
            News::Storm { crashes } => (
                EventType::RestartStorm,
                json!({ "crashes": crashes, "within_s": STORM_WITHIN.as_secs() }),
                format!("{name}: restart storm"),
                format!("{name} crashed {crashes} times within {}", text::duration(STORM_WITHIN)),
            ),
            News::Periodic { every } => (
                EventType::PeriodicRestart,
                json!({ "every_s": every.as_secs() }),
                format!("{name} crashes regularly"),
                format!("{name} crashes every {}", text::duration(every)),
            ),
            News::AlertOver => (
                EventType::AlertOver,
                json!({ "of": "alert" }),
                format!("{name} is well again"),
                format!("{name} has not crashed for {}", text::duration(ALERT_WITHIN)),
            ),
            News::PeriodicOver => (
                EventType::AlertOver,
                json!({ "of": "periodic_restart" }),
                format!("{name} is well again"),
                format!("{name} no longer crashes regularly"),
            ),
        };
        self.tell(event_type, metadata, title, text);
    }

    /// Records something that people are told of, and tells them: log, event, sinks.
    pub(super) fn tell(&self, event_type: EventType, metadata: Value, title: String, text: String) {
        self.tell_of(&self.job.name, event_type, metadata, title, text);
    }

    /// The same of another service.
    pub(super) fn tell_of(&self, name: &str, event_type: EventType, mut metadata: Value, title: String, text: String) {
        self.job.veil.hide_but_for(OWN_WORDS, &mut metadata);
        let json = json!({
            "type": event_type.name(),
            "service": name,
            "timestamp": Moment::now().wall_ms,
            "message": text,
            "details": metadata,
        });
        self.event_of(name, event_type, metadata);
        say!("{event_type}: {text}");
        self.teller.tell(&Message { title, text, json });
    }
}

/// What is on record of services, for whoever asks from outside.
pub fn ledger(database: Settings, state: &Path) -> Ledger {
    Ledger::new(database, state.join("services").join("crash.jsonl"))
}
