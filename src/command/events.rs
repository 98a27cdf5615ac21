//! `seawall events`: what happened to servers, services and seawall itself.

use std::{path::Path, process::ExitCode};

use clap::Args;

use super::{
    listing::{self, Extent, Listing},
    print::{Cell, Colour, Style},
};
use crate::store::{EventFilter, EventRecord, EventType, ReadError, Reader, Table};

const EXAMPLES: &str = "\
Examples:
  seawall events                                  the last 50
  seawall events --server files --since 1d        a day in the life of \"files\"
  seawall events --type service_crash             every crash on record
  seawall events --follow                         and whatever comes, until Ctrl-C
  seawall events --json | jq 'select(.metadata.exit_code == 137)'
  seawall why ID                                  what one of them means, and what to do";

/// List what happened to servers and services, the newest last
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct EventsArgs {
    /// Only about this server or service; "gateway" is seawall itself
    #[arg(long, visible_alias = "service", value_name = "NAME")]
    server: Option<String>,
    /// Only of this type
    #[arg(long = "type", value_parser = types())]
    event_type: Option<String>,
    /// Only of this category
    #[arg(long, value_name = "NAME")]
    category: Option<String>,
    #[command(flatten)]
    extent: Extent,
}

pub fn run(args: &EventsArgs, database: &Path) -> anyhow::Result<ExitCode> {
    listing::run(args, &Reader::open(database)?, &args.extent)
}

fn types() -> Vec<&'static str> {
    EventType::ALL.iter().map(|event_type| event_type.name()).collect()
}

impl Listing for EventsArgs {
    type Row = EventRecord;
    const TABLE: Table = Table::Events;
    const HEADER: &'static [&'static str] = &["TIME", "ID", "ABOUT", "EVENT", "DETAILS"];

    fn rows(&self, reader: &Reader, after_seq: Option<i64>) -> Result<Vec<EventRecord>, ReadError> {
        reader.events(&EventFilter {
            service: self.server.clone(),
            event_type: self.event_type.clone(),
            category: self.category.clone(),
            since_ms: self.extent.since,
            until_ms: None,
            after_seq,
            limit: self.extent.limit(after_seq),
        })
    }

    fn seq(row: &EventRecord) -> i64 {
        row.seq
    }

    fn cells(row: &EventRecord, style: &Style) -> Vec<Cell> {
        vec![
            Cell::of(&style.time(row.timestamp_ms)),
            Cell::of(&row.id).painted(Colour::Dim),
            Cell::of(&row.service_name),
            Cell::of(&row.event_type).painted(colour_of(&row.event_type)),
            Cell::of(&details(&row.metadata)),
        ]
    }
}

/// The metadata as `name=value`, which reads better than JSON in a line.
pub(super) fn details(metadata: &str) -> String {
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(metadata) {
        Ok(members) => {
            let known = members.iter().filter(|(_, value)| !value.is_null());
            known.map(|(name, value)| format!("{name}={}", plainly(value))).collect::<Vec<_>>().join(" ")
        }
        Err(_) => metadata.to_owned(),
    }
}

fn plainly(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) if !text.contains(' ') => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn colour_of(event_type: &str) -> Colour {
    match event_type {
        "service_crash" | "crash_inferred" | "service_hang" | "alert" | "restart_storm" | "task_failed"
        | "database_recreated" => Colour::Red,
        "breaker_opened" | "server_down" | "server_parked" | "config_rejected" | "sandbox_refused"
        | "sandbox_denied" | "tool_changed" | "events_dropped" | "memory_growth" | "task_missed" => Colour::Yellow,
        _ => Colour::Plain,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;
    use crate::{
        command::listing::{Form, tests::printed},
        store::{Event, Settings, Store},
    };

    fn parsed(line: &str) -> Result<EventsArgs, clap::Error> {
        let command = EventsArgs::augment_args(Command::new("events"));
        EventsArgs::from_arg_matches(&command.try_get_matches_from(line.split(' '))?)
    }

    #[test]
    fn events_are_filtered_and_their_metadata_reads_well() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(Settings::at(folder.path().join("a.db")));
        for (event_type, service_name) in [(EventType::ServerReady, "files"), (EventType::ServerDown, "docs")] {
            store.event(Event {
                category: "server",
                event_type,
                service_name: service_name.to_owned(),
                metadata: serde_json::json!({"pid": 4711, "reason": "a\nb c", "signal": null}),
            });
        }
        assert!(store.close(std::time::Duration::from_secs(60)));
        let reader = Reader::open(folder.path().join("a.db")).expect("opens");
        let args = parsed("events --type server_down --server docs").expect("arguments");
        let (table, _) = printed(&args, &reader, Form::Table, || {});
        assert_eq!(table.lines().count(), 2);
        assert!(table.ends_with("docs   server_down  pid=4711 reason=\"a\\nb c\"\n"), "{table}");
        let (json, _) = printed(&args, &reader, Form::Json, || {});
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["metadata"]["reason"], "a\nb c");
    }

    #[test]
    fn the_arguments_are_checked_and_the_help_has_examples() {
        assert!(parsed("events --service embedding-server --follow --json").is_ok());
        parsed("events --type no_such").expect_err("no such type");
        let help = EventsArgs::augment_args(Command::new("events")).render_help().to_string();
        assert!(help.contains("seawall events --type service_crash"), "{help}");
    }
}
