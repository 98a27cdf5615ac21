//! One life of a service: started, watched, recorded, and ended as the service ended.

use std::{
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator::Signals,
};

use super::{
    child,
    errand::Errands,
    health::Health,
    leftover::{self, Leftovers},
    marker::{self, Held, How, Life, Marker, RunningAlready},
    moment::{self, Moment},
    notify::Sink,
    overdue::{self, Grace, Overseen},
    record::Recorder,
    schedule::{self, Due, Missed, Schedule},
};
use crate::{
    process::{mark, orphans, veil::Veil},
    store::{EventType, Settings},
};

mod life;

use life::Running;

/// What to run, and how to watch it.
#[derive(Clone, Debug)]
pub struct Job {
    pub name: String,
    /// Program and arguments, at least the program.
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
    pub schedule: Option<Schedule>,
    pub missed: Missed,
    /// Runs a scheduled one although it is not due.
    pub now: bool,
    pub health: Option<Health>,
    /// The Authorization of probes, for a listener that wants a token.
    pub bearer: Option<String>,
    pub growth_per_hour_bytes: Option<u64>,
    pub max_bytes: Option<u64>,
    pub sample_every: Duration,
    pub sinks: Vec<Sink>,
    /// What must not show in anything that is said or recorded.
    pub veil: Veil,
    /// Scheduled services that this one looks after besides.
    pub overseen: Vec<Overseen>,
    pub database: Settings,
    pub state: PathBuf,
    /// This program, for what is a process of its own.
    pub seawall: PathBuf,
    /// From the signal to stop to the one that cannot be refused.
    pub stop_within: Duration,
    /// Why it cannot run at all.
    pub problem: Option<String>,
}

/// How this process is to end, so that the supervisor sees what became of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Code(i32),
    Signal(i32),
}

/// A gateway has 30 s for its calls and is gone by 40; the supervisor ends all at 45.
pub const STOP_WITHIN: Duration = Duration::from_secs(42);
/// A service that ends with this asks to be started again: no crash.
const RECYCLE_CODE: i32 = 75;
/// `EX_CONFIG` of sysexits.h.
const CANNOT_START_CODE: i32 = 78;
const FORWARDED: [i32; 6] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2];
const STOPPING: [i32; 3] = [SIGTERM, SIGINT, SIGQUIT];

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Held(#[from] RunningAlready),
    #[error("signals cannot be waited for: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs a service to its end.
pub fn run(job: &Job) -> Result<Outcome, RunError> {
    let held = Held::take(&job.state, &job.name)?;
    if let Some(problem) = held.problem() {
        say!("{problem}; {} runs all the same, and a second one would not be noticed", job.name);
    }
    // Before the start: a signal in between must not be lost.
    let signals = Signals::new(FORWARDED.iter().chain([&SIGCHLD])).map_err(RunError::Signals)?;
    orphans::adopt();
    let mark = mark::unique();
    let errands = Errands::of(&mark, Some(job.seawall.clone()));
    let recorder = Recorder::new(job, &errands);
    recorder.import();
    let mut marker = held.read();
    leave_the_living_alone(job, &mut marker)?;
    let leftovers = account_for_predecessor(&recorder, &held, &mut marker);
    // Before anything carries it.
    marker.mark = Some(mark);
    if job.schedule.is_some() {
        marker.known_since_ms = marker.known_since_ms.or(Some(Moment::now().wall_ms));
    }
    let is_due = job.now || job.schedule.is_none_or(|schedule| is_due(job, schedule, &recorder, &mut marker));
    held.write(&marker);
    let outcome = match is_due {
        true => start(job, &recorder, &held, marker, signals, &leftovers),
        false => Outcome::Code(0),
    };
    recorder.farewell();
    Ok(outcome)
}

fn start(
    job: &Job,
    recorder: &Recorder<'_>,
    held: &Held,
    mut marker: Marker,
    signals: Signals,
    leftovers: &Leftovers,
) -> Outcome {
    let attempt = marker.next_attempt();
    let began = Moment::now();
    let mark = marker.mark.clone().unwrap_or_default();
    let started = match job.problem.clone().or_else(|| child::cannot_start(job)) {
        None => child::start(job, &mark).map_err(|error| error.to_string()),
        Some(problem) => Err(problem),
    };
    let outcome = match started {
        Ok((child, tail)) => {
            let before = marker.life.take();
            marker.life = Some(life_of(&job.state, &child, &began, attempt));
            held.write(&marker);
            let mut remarks = json!({ "pid": child.id(), "restart_attempt": attempt });
            if !leftovers.is_none() {
                remarks["ended_leftovers"] = leftovers.as_json();
            }
            if let Some(problem) = held.problem() {
                remarks["state_problem"] = problem.into();
            }
            record_start(recorder, before.as_ref(), remarks, &began);
            Running { job, recorder, held, mark: &mark, attempt, began }.live(child, &tail, marker, signals)
        }
        Err(problem) => cannot_start(recorder, held, marker, attempt, &problem),
    };
    oversee_itself(job, recorder);
    outcome
}

/// A scheduled service knows by now whether it has succeeded in its period.
fn oversee_itself(job: &Job, recorder: &Recorder<'_>) {
    if let Some(schedule) = job.schedule {
        let task = Overseen { name: job.name.clone(), schedule };
        overdue::look(recorder, &job.state, &task, None, &mut Grace::of(Duration::ZERO));
    }
}

/// A life whose `seawall run` is there has left nothing. Of this folder, the service is running
/// although nobody holds its lock; of another, of which this one is a copy, it is no business
/// of this process.
fn leave_the_living_alone(job: &Job, marker: &mut Marker) -> Result<(), RunningAlready> {
    let Some(life) = &marker.life else { return Ok(()) };
    let Some(pid) = life.living_wrapper(Moment::now().boot.as_deref()) else { return Ok(()) };
    if life.state_folder.is_some() && life.state_folder == marker::folder_id(&job.state) {
        return Err(RunningAlready { name: job.name.clone(), pid: Some(pid) });
    }
    say!("what is known of {} is of another folder, where process {pid} runs it; that one is left alone", job.name);
    marker.life = None;
    marker.mark = None;
    Ok(())
}

/// A life without an end on record was cut short: by a kill of the wrapper, or by the
/// machine. What it left running is ended; what of that is not on record yet is returned.
fn account_for_predecessor(recorder: &Recorder<'_>, held: &Held, marker: &mut Marker) -> Leftovers {
    let now = Moment::now();
    let leftovers = leftover::end(marker, now.boot.as_deref(), recorder.veil());
    if !leftovers.is_none() {
        say!("{}", leftovers.sentence(&format!("an earlier run of {}", recorder.name())));
    }
    let Some(life) = marker.life.as_mut().filter(|life| life.end.is_none()) else { return leftovers };
    let is_same_boot = life.boot_id.is_some() && life.boot_id == now.boot;
    let duration_ms = u64::try_from(life.seen_ms.saturating_sub(life.started_ms)).unwrap_or(0);
    let end = marker::End { how: How::Vanished, at_ms: life.seen_ms, duration_ms };
    if recorder.has_end_of(life.pid, life.started_ms) {
        life.end = Some(end);
        return leftovers;
    }
    let mut metadata = json!({
        "exit_code": null,
        "signal": null,
        "restart_attempt": life.restart_attempt,
        "duration_ms": duration_ms,
        "reason": if is_same_boot { "killed" } else { "power_or_reboot" },
        "started": life.started_ms,
        "last_seen": life.seen_ms,
        "pid": life.pid,
        "left_running": !leftovers.is_none(),
        "memory_bytes": life.memory_bytes,
    });
    if !leftovers.is_none() {
        metadata["ended_leftovers"] = leftovers.as_json();
    }
    recorder.event(EventType::CrashInferred, metadata);
    life.end = Some(end);
    // At once: this process too may be killed, and a death is not to be told twice.
    held.write(marker);
    recorder.judge();
    Leftovers::default()
}

fn is_due(job: &Job, schedule: Schedule, recorder: &Recorder<'_>, marker: &mut Marker) -> bool {
    let zone = TimeZone::system();
    let time = |ms: Option<i64>| ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let (last, known) = (time(marker.settled_ms), time(marker.known_since_ms));
    let (slot, missed, action) = match schedule::due(schedule, &zone, Timestamp::now(), last, known, job.missed) {
        Due::Now { slot: None, .. } => return true,
        Due::Now { slot: Some(slot), missed } => (slot, missed, "run"),
        Due::Late { slot, missed } => (slot, missed, "made_up"),
        Due::Skipped { slot, missed } => (slot, missed, "skipped"),
        Due::NotBefore(next) => {
            say!("{} is not due before {}; --now runs it all the same", job.name, zone.to_datetime(next));
            return false;
        }
    };
    let slot_ms = slot.as_millisecond();
    if last.is_none() && known.is_none_or(|known| known >= slot) {
        // Its first slot: should this run fail, it is the one that is tried again.
        marker.known_since_ms = Some(slot_ms - 1);
    }
    // A run that fails is tried again at the next start, and is not missed once more.
    if missed > 0 && marker.missed_told_ms != Some(slot_ms) {
        recorder.event(EventType::TaskMissed, json!({ "missed": missed, "slot": slot_ms, "action": action }));
        marker.missed_told_ms = Some(slot_ms);
    }
    if action == "skipped" {
        marker.settled_ms = Some(slot_ms);
    }
    action != "skipped"
}

fn life_of(state: &Path, child: &Child, began: &Moment, restart_attempt: u32) -> Life {
    Life {
        wrapper_pid: std::process::id(),
        wrapper_began: moment::began(std::process::id()),
        state_folder: marker::folder_id(state),
        pid: child.id(),
        began: moment::began(child.id()),
        boot_id: began.boot.clone(),
        started_ms: began.wall_ms,
        uptime_ms: began.uptime_ms,
        restart_attempt,
        seen_ms: began.wall_ms,
        ..Life::default()
    }
}

fn record_start(recorder: &Recorder<'_>, before: Option<&Life>, mut metadata: Value, began: &Moment) {
    let after = before.and_then(|life| life.end.as_ref()).filter(|end| end.how != How::Stopped);
    let Some(end) = after else { return recorder.event(EventType::ServiceStart, metadata) };
    metadata["after"] = json!(end.how);
    metadata["down_ms"] = began.wall_ms.saturating_sub(end.at_ms).into();
    metadata["planned"] = (end.how == How::Planned).into();
    recorder.event(EventType::ServiceRestart, metadata);
}

/// A start that fails is a crash: the supervisor tries again and again, and somebody
/// ought to hear of it.
fn cannot_start(recorder: &Recorder<'_>, held: &Held, mut marker: Marker, attempt: u32, problem: &str) -> Outcome {
    say!("{}", recorder.veil().hide(problem));
    recorder.event(
        EventType::ServiceCrash,
        json!({
            "exit_code": CANNOT_START_CODE,
            "signal": null,
            "restart_attempt": attempt,
            "duration_ms": 0,
            "stderr_tail": problem,
            "planned": false,
            "reason": "cannot_start",
        }),
    );
    let now = Moment::now();
    let end = Some(marker::End { how: How::Crashed, at_ms: now.wall_ms, duration_ms: 0 });
    marker.life = Some(Life {
        wrapper_pid: std::process::id(),
        restart_attempt: attempt,
        started_ms: now.wall_ms,
        seen_ms: now.wall_ms,
        end,
        ..Life::default()
    });
    held.write(&marker);
    recorder.judge();
    Outcome::Code(CANNOT_START_CODE)
}
