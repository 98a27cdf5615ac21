//! `seawall file-watcher`: watches the folders of a service with `builtin = "watch"`,
//! and says what it saw and how it is.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    block_on, load_config,
    print::{Cell, Colour, Columns, Style, between, now_ms},
    profile_on_usr2,
    standing::{self, Called},
    told_to_stop,
};
use crate::{
    config::{Config, Options},
    gateway::reload::Overrides,
    heap, say,
    service::moment,
    store::watch::{WatchEvent, WatchReader},
    watch::{self, Settings},
};

const CALLED: Called = Called {
    builtin: "watch",
    usually: "file-watcher",
    plural: "file watchers",
    example: "[services.file-watcher]\nbuiltin = \"watch\"\noptions = { folders = [\"~/Downloads\"] }",
};

const EXAMPLES: &str = "\
Examples:
  seawall file-watcher                        watch, until Ctrl-C
  seawall file-watcher --list                 the last 50 files that it saw
  seawall file-watcher --list --state given_up --json | jq -r .path
  seawall file-watcher --check                is it watching? (for health = { command = … })
  sqlite3 watch.db \"select * from events where state = 'pending'\"";

/// Watch folders, and hand what appears in them to a command
///
/// What to watch is in the options of the service with builtin = "watch". `seawall run`
/// starts it; by itself it watches in the foreground.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The NAME of [services.NAME], where several watch
    name: Option<String>,

    /// List what was seen, and what became of it
    #[arg(long, conflicts_with = "check")]
    list: bool,

    /// Only those in this state
    #[arg(long, requires = "list", value_parser = ["pending", "done", "given_up", "noted", "gone", "superseded"])]
    state: Option<String>,

    /// At most so many
    #[arg(long, requires = "list", value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,

    /// Exit with 0 if a watcher is at work, with 1 if not
    #[arg(long)]
    check: bool,

    /// With --list or --check: as JSON, an event a line
    #[arg(long)]
    json: bool,
}

/// A watcher that has not said for so long how it is does not work.
const BEAT_MAX_AGE_MS: i64 = 60_000;

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (_, config) = load_config(config, Overrides::default())?;
    let heap_profiles = config.gateway.state.join("heap");
    let settings = settings(args.name.as_deref(), &config)?;
    if args.list {
        return list(&args, &settings.database);
    }
    if args.check {
        return check(&args, &settings.database);
    }
    block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(profile_on_usr2(heap_profiles, "file-watcher"));
        let told = told_to_stop();
        heap::tidy();
        let watching = tokio::spawn(watch::run(settings, stop.clone()));
        tokio::pin!(watching);
        tokio::select! {
            ended = &mut watching => {
                ended??;
                return Ok(ExitCode::SUCCESS);
            }
            told = told => told?,
        }
        stop.cancel();
        tokio::select! {
            ended = &mut watching => ended??,
            // Asked twice: what is under way ends with this process, and is handled again.
            told = told_to_stop() => told?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Those of the one service that is meant.
fn settings(name: Option<&str>, config: &Config) -> anyhow::Result<Settings> {
    let (service, settings) = standing::chosen(name, config, &CALLED, |options| match options {
        Options::Watch(settings) => Some(&**settings),
        _ => None,
    })?;
    let mut settings = settings.clone();
    for handling in settings.folders.iter_mut().filter_map(|folder| folder.handling.as_mut()) {
        handling.cwd.clone_from(&service.cwd);
        handling.veil = super::run::veil(service, config);
    }
    Ok(settings)
}

fn list(args: &Args, database: &Path) -> anyhow::Result<ExitCode> {
    let events = WatchReader::open(database)?.events(args.state.as_deref(), args.limit)?;
    let mut out = say::out();
    if args.json {
        for event in &events {
            writeln!(out, "{}", serde_json::to_string(event)?)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    const HEADER: [&str; 5] = ["TIME", "EVENT", "STATE", "TRIES", "PATH"];
    let style = Style::of_stdout();
    let rows: Vec<Vec<Cell>> = events.iter().map(|event| cells(event, &style)).collect();
    let Some(first) = rows.first() else {
        writeln!(out, "nothing was seen yet")?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut columns = Columns::new(&HEADER);
    columns.widen(&rows);
    let header: Vec<Cell> = HEADER.iter().zip(first).map(|(name, cell)| cell.header(name)).collect();
    for row in std::iter::once(&header).chain(&rows) {
        writeln!(out, "{}", columns.line(row, &style))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(event: &WatchEvent, style: &Style) -> Vec<Cell> {
    let colour = match event.state.as_str() {
        "given_up" => Colour::Red,
        "pending" => Colour::Yellow,
        _ => Colour::Plain,
    };
    let path = match (&event.moved_from, &event.message) {
        (Some(from), _) => format!("{} (was {from})", event.path),
        (None, Some(message)) => format!("{}: {message}", event.path),
        (None, None) => event.path.clone(),
    };
    vec![
        Cell::of(&style.time(event.timestamp_ms)),
        Cell::of(&event.event),
        Cell::of(&event.state).painted(colour),
        Cell::of(&event.attempts.to_string()).on_the_right(),
        Cell::of(&path),
    ]
}

fn check(args: &Args, database: &Path) -> anyhow::Result<ExitCode> {
    let reader = WatchReader::open(database)?;
    let (told_ms, status) = reader.status()?.unwrap_or((0, Value::Null));
    let (files, pending) = reader.counts()?;
    let is_fresh = now_ms().saturating_sub(told_ms) <= BEAT_MAX_AGE_MS;
    let pid = status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    // One that was killed could not say so.
    let is_gone = status["state"] == "watching" && pid.is_none_or(|pid| moment::began(pid).is_none());
    let is_well = is_fresh && status["state"] == "watching" && !is_gone;
    let mut out = say::out();
    if args.json {
        let answer =
            json!({ "well": is_well, "timestamp": told_ms, "files": files, "pending": pending, "status": status });
        writeln!(out, "{answer:#}")?;
    } else if is_well {
        for folder in status["folders"].as_array().into_iter().flatten() {
            let (path, state) = (folder["path"].as_str().unwrap_or(""), folder["state"].as_str().unwrap_or(""));
            writeln!(out, "{state:<10} {}", crate::text::quote(path, 1000))?;
        }
        writeln!(out, "files known: {files}, waiting to be handled: {pending}")?;
    } else if status["state"] == "stopped" {
        writeln!(out, "it was stopped {} ago", between(told_ms, now_ms()))?;
    } else if is_gone {
        writeln!(out, "its process is gone; it was last seen at work {} ago", between(told_ms, now_ms()))?;
    } else {
        writeln!(out, "it was last seen at work {} ago", between(told_ms, now_ms()))?;
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
