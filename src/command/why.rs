//! `seawall why ID`: the story of one failure or event, for someone in trouble at night.
//!
//! Only what the database knows, in the order in which one asks: what happened, what it
//! means, what else happened there, what to do.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    events::{colour_of, details},
    print::{self, Colour, Style},
};
use crate::{
    say,
    store::{EventFilter, EventRecord, FailureFilter, FailureRecord, Found, ReadError, Reader},
    text,
};

mod event;
mod failure;
mod words;

const EXAMPLES: &str = "\
Examples:
  seawall why 1rfq3k2m8a1c      the id is in the error that the client got,
  seawall why 1rfq3k            in `seawall failures` and in `seawall events`;
                                its beginning is enough if it is the only one";

/// Tell the whole story of one failure or event
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct WhyArgs {
    /// The id, or its beginning
    #[arg(value_name = "ID")]
    id: String,
}

pub fn run(args: &WhyArgs, database: &Path) -> anyhow::Result<ExitCode> {
    let reader = Reader::open(database)?;
    let style = Style::of_stdout();
    match find(&reader, &args.id)? {
        Found::Failure(row) => {
            let around = Around::failure(&reader, &row)?;
            failure::tell(&mut say::out(), &style, &row, &around)?;
        }
        Found::Event(row) => {
            let around = Around::event(&reader, &row)?;
            event::tell(&mut say::out(), &style, &row, &around)?;
        }
        Found::None => anyhow::bail!(
            "no failure or event has an id that begins with \"{}\": refusals have no row of their own, and old \
             rows are deleted; `seawall failures` lists what there is",
            text::quote(&args.id, 40)
        ),
        Found::Ambiguous(ids) => {
            anyhow::bail!("more than one id begins with \"{}\": {}", text::quote(&args.id, 40), ids.join(", "))
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A gateway writes its rows in batches: the id of an error that has just been seen may
/// be a moment ahead of its row.
const ROW_LATE_MAX: Duration = Duration::from_secs(1);

fn find(reader: &Reader, id: &str) -> Result<Found, ReadError> {
    let began = Instant::now();
    loop {
        match reader.find(id)? {
            Found::None if began.elapsed() < ROW_LATE_MAX => thread::sleep(Duration::from_millis(100)),
            found => return Ok(found),
        }
    }
}

/// So long before and after, what happened to the same server may be cause or effect.
const AROUND_MS: i64 = 5 * 60 * 1000;
const AROUND_ROWS: u32 = 200;
/// More are not told one by one.
const TOLD_EVENTS: usize = 20;

/// What else happened to a server, or to seawall, around a time.
#[derive(Debug, Default)]
struct Around {
    at_ms: i64,
    events: Vec<EventRecord>,
    failures: Vec<FailureRecord>,
}

impl Around {
    fn failure(reader: &Reader, row: &FailureRecord) -> Result<Self, ReadError> {
        let mut around = Self::of(reader, &row.server, row.timestamp_ms)?;
        around.failures.retain(|other| other.id != row.id);
        Ok(around)
    }

    fn event(reader: &Reader, row: &EventRecord) -> Result<Self, ReadError> {
        let mut around = Self::of(reader, &row.service_name, row.timestamp_ms)?;
        around.events.retain(|other| other.id != row.id);
        Ok(around)
    }

    fn of(reader: &Reader, name: &str, at_ms: i64) -> Result<Self, ReadError> {
        let (since_ms, until_ms) = (Some(at_ms - AROUND_MS), Some(at_ms + AROUND_MS + 1));
        let mut events = Vec::new();
        // What happened to seawall happened to every server.
        for service in [name, "gateway"].into_iter().take(if name == "gateway" { 1 } else { 2 }) {
            let service = Some(service.to_owned());
            let filter =
                EventFilter { service, since_ms, until_ms, limit: Some(AROUND_ROWS), ..EventFilter::default() };
            events.extend(reader.events(&filter)?);
        }
        events.sort_by_key(|event| (event.timestamp_ms, event.seq));
        let server = Some(name.to_owned());
        let filter = FailureFilter { server, since_ms, until_ms, limit: Some(AROUND_ROWS), ..FailureFilter::default() };
        Ok(Around { at_ms, events, failures: reader.failures(&filter)? })
    }

    /// The events one by one, the failures as numbers, both by how far away they are.
    fn tell(&self, out: &mut impl Write, style: &Style) -> io::Result<()> {
        section(out, style, "What else happened around that time")?;
        if self.events.is_empty() && self.failures.is_empty() {
            return writeln!(out, "  Nothing on record within five minutes before and after.");
        }
        // Those nearest in time are the ones to keep.
        let mut told: Vec<&EventRecord> = self.events.iter().collect();
        told.sort_by_key(|event| event.timestamp_ms.abs_diff(self.at_ms));
        told.truncate(TOLD_EVENTS);
        told.sort_by_key(|event| (event.timestamp_ms, event.seq));
        for event in &told {
            let line = format!(
                "  {}  {:<15} {:<16} {}",
                style.time_of_day(event.timestamp_ms),
                self.distance(event.timestamp_ms),
                text::quote(&event.service_name, 40),
                style.paint(colour_of(&event.event_type), &text::quote(&event.event_type, 40)),
            );
            writeln!(out, "{line}  {}", style.paint(Colour::Dim, &text::quote(&details(&event.metadata), 160)))?;
        }
        if told.len() < self.events.len() {
            writeln!(out, "  and {} more: `seawall events`", self.events.len() - told.len())?;
        }
        for (class, rows) in self.failures_by_class() {
            let (first, last) = (rows[0], rows[rows.len() - 1]);
            let when = match rows.len() {
                1 => self.distance(first.timestamp_ms),
                _ => format!("{} to {}", self.distance(first.timestamp_ms), self.distance(last.timestamp_ms)),
            };
            writeln!(out, "  {} other {} with this server, {when}", rows.len(), text::quote(class, 40))?;
        }
        Ok(())
    }

    fn failures_by_class(&self) -> Vec<(&str, Vec<&FailureRecord>)> {
        let mut classes: Vec<(&str, Vec<&FailureRecord>)> = Vec::new();
        for row in &self.failures {
            match classes.iter_mut().find(|(class, _)| *class == row.class) {
                Some((_, rows)) => rows.push(row),
                None => classes.push((&row.class, vec![row])),
            }
        }
        classes
    }

    fn distance(&self, at_ms: i64) -> String {
        let far = print::between(at_ms, self.at_ms);
        match at_ms.cmp(&self.at_ms) {
            std::cmp::Ordering::Less => format!("{far} before"),
            std::cmp::Ordering::Equal => "at that moment".to_owned(),
            std::cmp::Ordering::Greater => format!("{far} after"),
        }
    }
}

fn section(out: &mut impl Write, style: &Style, title: &str) -> io::Result<()> {
    writeln!(out, "\n{}", style.paint(Colour::Bold, title))
}

/// A paragraph of ours, indented and broken into lines.
fn paragraph(out: &mut impl Write, style: &Style, words: &str) -> io::Result<()> {
    const PROSE_MAX_CHARS: usize = 88;
    let width = style.width.unwrap_or(PROSE_MAX_CHARS).clamp(40, PROSE_MAX_CHARS);
    let mut line = String::from(" ");
    for word in words.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > width && line.len() > 1 {
            writeln!(out, "{line}")?;
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    writeln!(out, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::print::tests::plain,
        failure::{Class, Recording},
        store::{Event, EventType, FailureRow, Settings, Store, testing},
    };

    #[test]
    fn around_a_failure_is_what_happened_to_its_server_and_to_seawall() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.db");
        let store = Store::open(Settings::at(&path));
        for (event_type, service_name) in
            [(EventType::ServerDown, "files"), (EventType::ConfigReloaded, "gateway"), (EventType::ServerReady, "docs")]
        {
            let metadata = serde_json::json!({});
            store.event(Event { category: "server", event_type, service_name: service_name.into(), metadata });
        }
        let it = testing::failure(Class::Lost, "read");
        let long_ago = it.timestamp_ms - 2 * AROUND_MS.unsigned_abs();
        store.failure(it.clone(), Recording::Row);
        store.failure(testing::failure(Class::Timeout, "read"), Recording::Row);
        store.failure(FailureRow { timestamp_ms: long_ago, ..testing::failure(Class::Http, "read") }, Recording::Row);
        assert!(store.close(std::time::Duration::from_secs(60)));

        let reader = Reader::open(&path).expect("opens");
        let Found::Failure(row) = reader.find(it.id.as_str()).expect("searched") else { panic!("it is there") };
        let around = Around::failure(&reader, &row).expect("read");
        let events: Vec<&str> = around.events.iter().map(|event| event.event_type.as_str()).collect();
        assert_eq!(events, ["server_down", "config_reloaded"]);
        let mut out = Vec::new();
        around.tell(&mut out, &plain()).expect("writes");
        let told = String::from_utf8(out).expect("UTF-8");
        assert!(told.contains("1 other timeout with this server"), "{told}");
        assert!(!told.contains("http") && !told.contains("other lost"), "{told}");
    }

    #[test]
    fn an_id_that_nothing_has_is_an_error_that_helps() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.db");
        let why = |id: &str| run(&WhyArgs { id: id.to_owned() }, &path).expect_err("nothing there").to_string();
        assert!(why("06fq").starts_with("there is no database at "));
        let store = Store::open(Settings::at(&path));
        let it = testing::failure(Class::Lost, "read");
        // The first of eight characters of time changes once a year.
        let first = it.id.as_str()[..1].to_owned();
        store.failure(it, Recording::Row);
        store.failure(testing::failure(Class::Lost, "read"), Recording::Row);
        assert!(store.close(std::time::Duration::from_secs(60)));
        assert!(why("zz\u{1b}").contains("begins with \"zz\\u{1b}\": refusals have no row"));
        assert!(why(&first).starts_with(&format!("more than one id begins with \"{first}\": {first}")));
    }
}
