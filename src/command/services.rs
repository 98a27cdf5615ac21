//! `seawall services`: how the services are, by what the supervisor says, by what
//! `seawall run` keeps, and by what is on record.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use serde_json::{Value, json};

use super::{
    launchd::Printed,
    load_config,
    print::{Cell, Colour, Columns, Style, between, now_ms},
    units::tool::Tool,
};
use crate::{
    config::{Config, Service, ServiceKind},
    gateway::reload::Overrides,
    say,
    service::{
        self,
        marker::{self, How, Life, Marker},
        moment,
        own::{self, Own},
        schedule,
    },
    store::{EventRecord, ReadError, Settings},
    text,
    unit::LABEL_PREFIX,
};

const EXAMPLES: &str = "\
Examples:
  seawall services
  seawall services --json | jq '.services.gateway.last_crash'
  seawall events --server gateway --since 7d      all that happened to one of them";

/// Show how the services are: uptime, restarts, memory, the last crash and why
///
/// Exits with 1 where one that ought to run does not, or does not answer, and where what is
/// on record cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Everything, as JSON
    #[arg(long)]
    json: bool,

    /// The launchctl to use
    #[arg(long, value_name = "PATH", default_value = "launchctl", hide = true)]
    launchctl: String,
    /// The systemctl to use
    #[arg(long, value_name = "PATH", default_value = "systemctl", hide = true)]
    systemctl: String,
}

const WEEK_MS: i64 = 7 * 24 * 3600 * 1000;

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (_, config) = load_config(config, Overrides::default())?;
    let ledger = service::ledger(Settings::at(&config.gateway.database), &config.gateway.state);
    let mut problem = None;
    let mut views = Vec::new();
    for service in &config.services {
        let (events, error) = ledger.known(&service.name, now_ms().saturating_sub(WEEK_MS));
        // No database yet is no events yet.
        problem = problem.or(error.filter(|error| !matches!(error, ReadError::NoDatabase(_))));
        views.push(View::of(service, &config, &args, &events, problem.is_none()));
    }
    let problem = problem.map(|error| error.to_string());
    let mut out = say::out();
    if args.json {
        let services: serde_json::Map<String, Value> =
            views.iter().map(|view| (view.name.clone(), view.as_json())).collect();
        writeln!(out, "{:#}", json!({ "services": services, "database_problem": problem }))?;
    } else {
        write!(out, "{}", as_text(&views, problem.as_deref(), &Style::of_stdout()))?;
    }
    let all_well = problem.is_none() && views.iter().all(|view| view.state.is_well());
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a service is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// Its process is there and does not answer.
    Unwell,
    /// Of a scheduled one: between its runs.
    Waiting,
    /// A scheduled one whose last run failed.
    Failed,
    /// Ended well, and not to be started again by itself.
    Stopped,
    /// Ended otherwise; the supervisor has not started it again.
    Down,
    NeverStarted,
    /// This binary was built without it.
    NotBuiltIn,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Unwell => "unwell",
            State::Waiting => "waiting",
            State::Failed => "failed",
            State::Stopped => "stopped",
            State::Down => "down",
            State::NeverStarted => "never started",
            State::NotBuiltIn => "not built in",
        }
    }

    fn is_well(self) -> bool {
        !matches!(self, State::Unwell | State::Failed | State::Down)
    }
}

/// All that is known of one service.
struct View {
    name: String,
    state: State,
    life: Option<Life>,
    /// Restarts on record within a week.
    restarts: usize,
    crashes: usize,
    /// Whether what is on record could be read: else there may have been more.
    is_record_whole: bool,
    last_crash: Option<(i64, String)>,
    next_ms: Option<i64>,
    problem: Option<String>,
    supervisor: Option<String>,
}

impl View {
    fn of(service: &Service, config: &Config, args: &Args, events: &[EventRecord], is_record_whole: bool) -> Self {
        let marker = marker::read(&config.gateway.state, &service.name);
        let count = |types: &[&str]| events.iter().filter(|event| types.contains(&event.event_type.as_str())).count();
        let crashes = ["service_crash", "crash_inferred", "task_failed"];
        let last = events.iter().rev().find(|event| crashes.contains(&event.event_type.as_str()));
        let last_crash = last.map(|event| (event.timestamp_ms, cause(event)));
        View {
            name: service.name.clone(),
            state: state_of(service, marker.life.as_ref(), config),
            next_ms: next_ms(service, &marker),
            last_crash: last_crash.or_else(|| crash_in(&marker)),
            life: marker.life,
            restarts: count(&["service_restart"]),
            crashes: count(&crashes),
            is_record_whole,
            problem: service.problem.clone().or_else(|| marker::unreadable(&config.gateway.state, &service.name)),
            supervisor: supervised(service, args),
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.state, State::Running | State::Unwell)
    }

    fn as_json(&self) -> Value {
        let life = self.life.as_ref().filter(|_| self.is_up());
        json!({
            "state": self.state.name(),
            "well": self.state.is_well(),
            "pid": life.map(|life| life.pid),
            "uptime_ms": life.map(|life| now_ms().saturating_sub(life.started_ms)),
            "restart_attempt": life.map(|life| life.restart_attempt),
            "health": life.and_then(|life| life.health.as_ref()),
            "memory_bytes": life.and_then(|life| life.memory_bytes),
            "growth_bytes_per_hour": life.and_then(|life| life.growth_bytes_per_hour),
            "restarts_7d": self.restarts,
            "crashes_7d": self.crashes,
            "record_is_whole": self.is_record_whole,
            "last_crash": self.last_crash.as_ref().map(|(at, why)| json!({ "timestamp": at, "why": why })),
            "next_run": self.next_ms,
            "problem": self.problem,
            "supervisor": self.supervisor,
        })
    }

    fn cells(&self, style: &Style) -> Vec<Cell> {
        let colour = match self.state {
            state if !state.is_well() => Colour::Red,
            State::Running | State::Waiting => Colour::Plain,
            _ => Colour::Dim,
        };
        let life = self.life.as_ref().filter(|_| self.is_up());
        let dash = || "-".to_owned();
        let uptime = match (life, self.next_ms) {
            (Some(life), _) => between(life.started_ms, now_ms()),
            (None, Some(next)) => format!("next {}", style.time(next)),
            (None, None) => dash(),
        };
        vec![
            Cell::of(&self.name),
            Cell::of(self.state.name()).painted(colour),
            Cell::of(&life.map_or_else(dash, |life| life.pid.to_string())).on_the_right(),
            Cell::of(&uptime),
            Cell::of(&format!("{}{}", self.restarts, if self.is_record_whole { "" } else { "+?" })).on_the_right(),
            Cell::of(&life.and_then(|life| life.memory_bytes).map_or_else(dash, text::bytes)).on_the_right(),
            Cell::of(&life.and_then(|life| life.growth_bytes_per_hour).map_or_else(dash, trend)),
            Cell::of(
                &self
                    .last_crash
                    .as_ref()
                    .map_or_else(dash, |(at, why)| format!("{} ago: {why}", between(*at, now_ms()))),
            ),
        ]
    }
}

fn as_text(views: &[View], problem: Option<&str>, style: &Style) -> String {
    const HEADER: [&str; 8] = ["SERVICE", "STATE", "PID", "UP", "RESTARTS", "MEMORY", "TREND", "LAST CRASH"];
    if views.is_empty() {
        return "no services: add [services.NAME] to servers.toml\n".to_owned();
    }
    let rows: Vec<Vec<Cell>> = views.iter().map(|view| view.cells(style)).collect();
    let mut columns = Columns::new(&HEADER);
    columns.widen(&rows);
    let header: Vec<Cell> = HEADER.iter().zip(&rows[0]).map(|(name, cell)| cell.header(name)).collect();
    let mut out = String::new();
    if let Some(problem) = problem {
        let problem = style.paint(Colour::Red, &text::harmless(problem));
        out = format!("{problem}\nwhat follows is known without it; restarts and crashes may be missing\n\n");
    }
    out += &(columns.line(&header, style) + "\n");
    for (view, row) in views.iter().zip(&rows) {
        out.push_str(columns.line(row, style).trim_end());
        out.push('\n');
        let health = view.life.as_ref().and_then(|life| life.health.as_deref()).filter(|_| view.state == State::Unwell);
        for remark in [health, view.problem.as_deref()].into_iter().flatten() {
            out.push_str(&format!("    {}\n", text::harmless(remark)));
        }
    }
    out
}

/// `+1.2 MB/h`
fn trend(bytes_per_hour: f64) -> String {
    format!("{:+.1} MB/h", bytes_per_hour / 1e6)
}

fn state_of(service: &Service, life: Option<&Life>, config: &Config) -> State {
    let seawall = std::env::current_exe().unwrap_or_default();
    if let ServiceKind::Builtin { name, .. } = &service.kind
        && own::find(name, &service.name, &seawall, &config.path) == Own::NotBuiltIn
    {
        return State::NotBuiltIn;
    }
    let is_scheduled = service.schedule.is_some();
    let Some(life) = life else { return if is_scheduled { State::Waiting } else { State::NeverStarted } };
    let is_there = life.end.is_none() && life.began.is_some() && moment::began(life.pid) == life.began;
    let is_answering = life.health.as_deref().is_none_or(|seen| matches!(seen, "well" | "starting"));
    match life.end.as_ref().map(|end| end.how) {
        _ if is_there && is_answering => State::Running,
        _ if is_there => State::Unwell,
        // Between its runs it has no process, and that is as it should be.
        Some(How::Stopped | How::Planned) if is_scheduled => State::Waiting,
        Some(_) | None if is_scheduled => State::Failed,
        Some(How::Stopped) => State::Stopped,
        Some(_) | None => State::Down,
    }
}

/// When a scheduled one runs next; one that runs again and again, at the latest.
pub(super) fn next_ms(service: &Service, marker: &Marker) -> Option<i64> {
    let last_start = marker.life.as_ref().map(|life| life.started_ms);
    let last_start = last_start.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let next = schedule::next_run(service.schedule?, &jiff::tz::TimeZone::system(), jiff::Timestamp::now(), last_start);
    next.map(jiff::Timestamp::as_millisecond)
}

/// What its own file knows of a crash, where nothing of one is on record.
fn crash_in(marker: &Marker) -> Option<(i64, String)> {
    let end = marker.life.as_ref()?.end.as_ref()?;
    let what = match end.how {
        How::Crashed => "it crashed; its log may say why",
        How::Hung => "it hung and was ended",
        How::Vanished => "killed without a word",
        How::Stopped | How::Planned => return None,
    };
    Some((end.at_ms, what.to_owned()))
}

/// Why it crashed, in a few words.
fn cause(event: &EventRecord) -> String {
    let metadata: Value = serde_json::from_str(&event.metadata).unwrap_or_default();
    let how = match (metadata["exit_code"].as_i64(), metadata["signal"].as_i64()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => match metadata["reason"].as_str() {
            Some("power_or_reboot") => "the machine went down".to_owned(),
            _ => "killed without a word".to_owned(),
        },
    };
    let hang = if metadata["reason"] == "hang" { "hang, " } else { "" };
    let words = metadata["stderr_tail"].as_str().and_then(|tail| tail.lines().last());
    match words {
        Some(words) => format!("{hang}{how}: {}", text::quote(words, 120)),
        None => format!("{hang}{how}"),
    }
}

/// What launchd or systemd says of it; `None` where neither is here or knows it.
fn supervised(service: &Service, args: &Args) -> Option<String> {
    let launchctl = Tool { program: args.launchctl.clone(), dry_run: false };
    let target = format!("gui/{}/{LABEL_PREFIX}{}", rustix::process::getuid().as_raw(), service.name);
    if let Some(printed) = launchctl.ask(&["print", &target]) {
        let runs = Printed::of(&printed).runs.map(|runs| format!(", {runs} runs")).unwrap_or_default();
        return Some(format!("launchd{runs}"));
    }
    let systemctl = Tool { program: args.systemctl.clone(), dry_run: false };
    let kind = if service.schedule.is_some() { "timer" } else { "service" };
    let unit = format!("seawall-{}.{kind}", service.name);
    let state = systemctl.ask(&["--user", "is-active", &unit])?;
    Some(format!("systemd, {}", state.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::print::tests::plain;

    fn view(state: State) -> View {
        let life = Life { pid: 812, started_ms: now_ms() - 5000, memory_bytes: Some(25 << 20), ..Life::default() };
        View {
            name: "gateway".to_owned(),
            state,
            life: Some(Life { growth_bytes_per_hour: Some(1.24e6), ..life }),
            restarts: 2,
            crashes: 2,
            is_record_whole: true,
            last_crash: Some((now_ms() - 600_000, "exit code 3: boom".to_owned())),
            next_ms: None,
            problem: None,
            supervisor: None,
        }
    }

    #[test]
    fn a_table_shows_what_there_is() {
        let text = as_text(&[view(State::Running), view(State::Waiting)], None, &plain());
        for part in ["running", "812", "25 MiB", "+1.2 MB/h", "10 min ago: exit code 3: boom", "waiting"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(as_text(&[], None, &plain()).contains("no services"));
        let partly = View { is_record_whole: false, ..view(State::Running) };
        let text = as_text(&[partly], Some("the database is damaged"), &plain());
        assert!(text.starts_with("the database is damaged\n") && text.contains("2+?"), "{text}");
    }

    #[test]
    fn one_between_its_runs_is_well_and_one_that_is_down_is_not() {
        assert!(State::Waiting.is_well() && State::Stopped.is_well() && State::NotBuiltIn.is_well());
        assert!(!State::Down.is_well() && !State::Failed.is_well() && !State::Unwell.is_well());
    }
}
