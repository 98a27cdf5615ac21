//! `seawall tasks`: the scheduled services: which there are, what became of their runs, and
//! one run now.

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{
    load_config,
    print::{Cell, Colour, Columns, Style, between, moment, now_ms},
    run, services,
};
use crate::{
    config::{Config, Options, Schedule, Service, ServiceKind},
    gateway::reload::Overrides,
    say::{self, note},
    service::marker,
    store::{EventFilter, EventRecord, ReadError, Reader, Settings, intake::IntakeSettings, upkeep::Kept},
    tasks::{self, Now, Step, run::Task},
    text,
};

const EXAMPLES: &str = "\
Examples:
  seawall tasks list
  seawall tasks run daily-tasks --dry-run   what it would do
  seawall tasks run daily-tasks             do it now, due or not
  seawall tasks history --since 7d          what became of the runs
  seawall tasks history weekly-tasks --json | jq '.steps'";

/// Show scheduled tasks, what became of their runs, and run one now
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the tasks: when they run next, and how the last run went
    #[command(after_help = "Examples:\n  seawall tasks list\n  seawall tasks list --json")]
    List {
        /// Everything, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a task now, due or not, watched and recorded like any other run
    ///
    /// Exits as the task does. While it runs already, says who runs it and exits with 1.
    #[command(after_help = "Examples:\n  seawall tasks run daily-tasks\n  seawall tasks run daily-tasks --dry-run")]
    Run {
        /// The NAME of [services.NAME]
        name: String,
        /// Say what it would do, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the runs on record, the newest last
    #[command(after_help = "Examples:\n  seawall tasks history\n  seawall tasks history daily-tasks --since 30d")]
    History {
        /// Only of this task
        name: Option<String>,
        /// Only since then: 2h, 3d, 2026-11-24
        #[arg(long, value_name = "WHEN", value_parser = moment)]
        since: Option<i64>,
        /// At most so many, the newest
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Run the steps of a task: what `seawall run` starts
    #[command(hide = true, after_help = "Example:\n  seawall tasks steps daily-tasks")]
    Steps { name: String },
    /// Perform one step of seawall's own
    #[command(hide = true, after_help = "Example:\n  seawall tasks step daily-tasks 0")]
    Step { name: String, index: usize },
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (_, config) = load_config(config, Overrides::default())?;
    match args.verb {
        Verb::List { json } => list(&config, json),
        Verb::Run { name, dry_run: true } => dry_run(&name, &config),
        Verb::Run { name, dry_run: false } => {
            scheduled(&name, &config)?;
            run::hold(&name, &config, |job| job.now = true)
        }
        Verb::History { name, since, limit, json } => history(&config, name.as_deref(), since, limit, json),
        Verb::Steps { name } => steps(&name, &config),
        Verb::Step { name, index } => step(&name, index, &config),
    }
}

fn scheduled<'c>(name: &str, config: &'c Config) -> anyhow::Result<(&'c Service, Schedule)> {
    let service = run::find(name, config)?;
    match service.schedule {
        Some(schedule) => Ok((service, schedule)),
        None => bail!("{name} runs for good and is no task; `seawall run {name}` starts it"),
    }
}

/// Its steps; `None` of one that is a command.
fn steps_of(service: &Service) -> Option<&[Step]> {
    match &service.kind {
        ServiceKind::Builtin { options: Options::Tasks(settings), .. } => Some(&settings.steps),
        _ => None,
    }
}

fn own_steps<'c>(name: &str, config: &'c Config) -> anyhow::Result<&'c [Step]> {
    let service = run::find(name, config)?;
    steps_of(service).with_context(|| format!("[services.{name}] has no steps; its builtin is not \"tasks\""))
}

fn steps(name: &str, config: &Config) -> anyhow::Result<ExitCode> {
    let seawall = std::env::current_exe().context("this program has no path of its own")?;
    let program = seawall.to_string_lossy().into_owned();
    let path = config.path.to_string_lossy().into_owned();
    let words = [program.as_str(), "tasks", "step", "--config", &path, name].map(str::to_owned);
    let task = Task {
        steps: own_steps(name, config)?.to_vec(),
        perform: words.to_vec(),
        seawall,
        report: marker::steps_path(&config.gateway.state, name),
        database: config.gateway.database.clone(),
        veil: run::veil(run::find(name, config)?, config),
    };
    // It profiles services; a task that is asked by mistake goes on.
    signal_hook::flag::register(signal_hook::consts::SIGUSR2, Arc::default()).context("signals cannot be heard")?;
    let all_done = tasks::run::run(&task).context("signals cannot be waited for")?;
    Ok(if all_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn step(name: &str, index: usize, config: &Config) -> anyhow::Result<ExitCode> {
    let steps = own_steps(name, config)?;
    let step = steps.get(index).with_context(|| format!("{name} has {} steps", steps.len()))?;
    tasks::perform(&step.what, &databases(config), &config.gateway.database, &Now::here())?;
    Ok(ExitCode::SUCCESS)
}

/// All that seawall keeps, by this servers.toml.
fn databases(config: &Config) -> Vec<Kept> {
    let of_services = config.services.iter().filter_map(|service| match &service.kind {
        ServiceKind::Builtin { options: Options::Emit(settings), .. } => Some(Kept::Intake(IntakeSettings {
            path: settings.database.clone(),
            keep_for: settings.keep_for,
            keep_bytes: settings.keep_bytes,
        })),
        ServiceKind::Builtin { options: Options::Watch(settings), .. } => Some(Kept::Watch(settings.database.clone())),
        _ => None,
    });
    [Kept::Store(Settings::at(&config.gateway.database))].into_iter().chain(of_services).collect()
}

fn dry_run(name: &str, config: &Config) -> anyhow::Result<ExitCode> {
    let (service, schedule) = scheduled(name, config)?;
    let veil = run::veil(service, config);
    let mut out = say::out();
    writeln!(out, "{name}, {}: would run, in {}", described(schedule), service.cwd.display())?;
    if let Some(problem) = &service.problem {
        writeln!(out, "  it cannot: {problem}")?;
    }
    let Some(steps) = steps_of(service) else {
        if let ServiceKind::Command { argv } = &service.kind {
            writeln!(out, "  {}", text::quote(&veil.hide(&argv.join(" ")), 500))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    for (number, step) in steps.iter().enumerate() {
        let what = text::quote(&veil.hide(&step.what.describe()), 500);
        let timeout = text::duration(step.timeout);
        let attempts = step.retries + 1;
        writeln!(out, "  {}. {}: {what}; within {timeout}, attempts: {attempts}", number + 1, step.name)?;
    }
    for kept in databases(config) {
        let there = if kept.path().exists() { "" } else { " (not there yet)" };
        writeln!(out, "  database {}{there}", kept.path().display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn described(schedule: Schedule) -> String {
    match schedule {
        Schedule::Every(pause) => format!("every {}", text::duration(pause)),
        Schedule::Daily(time) => format!("daily {:02}:{:02}", time.hour(), time.minute()),
        Schedule::Weekly(day, time) => {
            format!("weekly {} {:02}:{:02}", format!("{day:?}").to_lowercase(), time.hour(), time.minute())
        }
    }
}

fn list(config: &Config, as_json: bool) -> anyhow::Result<ExitCode> {
    let style = Style::of_stdout();
    let mut out = say::out();
    let (mut rows, mut problem) = (Vec::new(), None);
    for service in &config.services {
        let Some(schedule) = service.schedule else { continue };
        let kept = marker::read(&config.gateway.state, &service.name);
        let next = services::next_ms(service, &kept);
        let last = match runs(config, &[&service.name], None, 1) {
            Ok(mut runs) => runs.pop(),
            Err(error) => {
                problem = problem.or(Some(error));
                None
            }
        };
        let names: Vec<&str> = steps_of(service).unwrap_or_default().iter().map(|step| step.name.as_str()).collect();
        if as_json {
            let last = last.as_ref().map(|event| json!({ "timestamp": event.timestamp_ms, "outcome": outcome(event) }));
            let task = json!({
                "name": service.name,
                "schedule": described(schedule),
                "next": next,
                "last": last,
                "settled": kept.settled_ms,
                "steps": names,
                "problem": service.problem,
            });
            writeln!(out, "{task}")?;
            continue;
        }
        let steps = if names.is_empty() { "a command".to_owned() } else { names.join(", ") };
        rows.push(vec![
            Cell::of(&service.name),
            Cell::of(&described(schedule)),
            Cell::of(&next.map_or_else(|| "-".to_owned(), |ms| style.time(ms))),
            match &last {
                Some(event) => Cell::of(&format!("{} {} ago", outcome(event), between(event.timestamp_ms, now_ms())))
                    .painted(colour_of(outcome(event))),
                None => Cell::of(if problem.is_some() { "?" } else { "-" }),
            },
            Cell::of(&steps),
        ]);
    }
    if !as_json {
        table(&mut out, &["TASK", "SCHEDULE", "NEXT", "LAST", "STEPS"], &rows, &style)?;
    }
    match problem {
        // After what is known all the same.
        Some(problem) => Err(problem.into()),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn history(
    config: &Config,
    name: Option<&str>,
    since: Option<i64>,
    limit: u32,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let names: Vec<&str> = match name {
        Some(name) => vec![scheduled(name, config)?.0.name.as_str()],
        None => {
            let tasks = config.services.iter().filter(|service| service.schedule.is_some());
            tasks.map(|service| service.name.as_str()).collect()
        }
    };
    let runs = runs(config, &names, since, limit)?;
    let style = Style::of_stdout();
    let mut out = say::out();
    if as_json {
        for event in &runs {
            let metadata = metadata(event);
            let run = json!({
                "id": event.id,
                "timestamp": event.timestamp_ms,
                "task": event.service_name,
                "outcome": outcome(event),
                "duration_ms": metadata["duration_ms"],
                "steps": metadata["steps"],
                "metadata": metadata,
            });
            writeln!(out, "{run}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<Cell>> = runs
        .iter()
        .map(|event| {
            let took = metadata(event)["duration_ms"].as_u64().map(std::time::Duration::from_millis);
            vec![
                Cell::of(&style.time(event.timestamp_ms)),
                Cell::of(&event.id).painted(Colour::Dim),
                Cell::of(&event.service_name),
                Cell::of(outcome(event)).painted(colour_of(outcome(event))),
                Cell::of(&took.map_or_else(|| "-".to_owned(), text::duration)).on_the_right(),
                Cell::of(&details(event)),
            ]
        })
        .collect();
    table(&mut out, &["ENDED", "ID", "TASK", "OUTCOME", "TOOK", "DETAILS"], &rows, &style)?;
    Ok(ExitCode::SUCCESS)
}

fn table(out: &mut impl std::io::Write, header: &[&str], rows: &[Vec<Cell>], style: &Style) -> std::io::Result<()> {
    let Some(first) = rows.first() else {
        note!("nothing found");
        return Ok(());
    };
    let mut columns = Columns::new(header);
    columns.widen(rows);
    let head: Vec<Cell> = header.iter().zip(first).map(|(name, cell)| cell.header(name)).collect();
    for row in [&head].into_iter().chain(rows) {
        writeln!(out, "{}", columns.line(row, style).trim_end())?;
    }
    Ok(())
}

/// How runs end, as events, and in a word.
const OUTCOMES: [(&str, &str); 6] = [
    ("task_done", "done"),
    ("task_failed", "failed"),
    ("task_missed", "missed"),
    ("service_stop", "stopped"),
    ("crash_inferred", "killed"),
    ("service_crash", "not started"),
];

fn outcome(event: &EventRecord) -> &'static str {
    OUTCOMES.iter().find(|(event_type, _)| *event_type == event.event_type).map_or("-", |(_, word)| word)
}

fn colour_of(outcome: &str) -> Colour {
    match outcome {
        "done" | "stopped" => Colour::Plain,
        "missed" => Colour::Yellow,
        _ => Colour::Red,
    }
}

/// The newest, in their order. No database yet is no run yet.
fn runs(config: &Config, names: &[&str], since_ms: Option<i64>, limit: u32) -> Result<Vec<EventRecord>, ReadError> {
    let reader = match Reader::open(&config.gateway.database) {
        Ok(reader) => reader,
        Err(ReadError::NoDatabase(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut runs = Vec::new();
    for name in names {
        for (event_type, _) in OUTCOMES {
            runs.extend(reader.events(&EventFilter {
                service: Some((*name).to_owned()),
                event_type: Some(event_type.to_owned()),
                since_ms,
                limit: Some(limit),
                ..EventFilter::default()
            })?);
        }
    }
    runs.sort_by_key(|event| (event.timestamp_ms, event.seq));
    let surplus = runs.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    runs.drain(..surplus);
    Ok(runs)
}

fn metadata(event: &EventRecord) -> Value {
    serde_json::from_str(&event.metadata).unwrap_or_default()
}

/// What became of each step; of a run that was missed, how many.
fn details(event: &EventRecord) -> String {
    let metadata = metadata(event);
    if let Some(missed) = metadata["missed"].as_u64() {
        return format!("{missed} missed, {}", metadata["action"].as_str().unwrap_or("-").replace('_', " "));
    }
    let Some(steps) = metadata["steps"].as_array() else {
        let words = metadata["stderr_tail"].as_str().and_then(|tail| tail.lines().last());
        return words.unwrap_or_default().to_owned();
    };
    let step = |step: &Value| {
        let word = |key: &str| step[key].as_str().unwrap_or("-").replace('_', " ");
        match step["why"].as_str() {
            Some(why) => format!("{} {}: {why}", word("name"), word("outcome")),
            None => format!("{} {}", word("name"), word("outcome")),
        }
    };
    steps.iter().map(step).collect::<Vec<_>>().join(", ")
}
