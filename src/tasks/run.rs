//! A task: its steps one after the other, each until it has succeeded or cannot any more.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Step, What, expect, process,
    report::{Kept, Outcome, Report, StepReport},
};
use crate::{
    process::veil::Veil,
    say::{note, say},
    text,
};

/// What the steps of one task need to know.
#[derive(Clone, Debug)]
pub struct Task {
    pub steps: Vec<Step>,
    /// Program and arguments that perform step N of seawall's own, but for the N.
    pub perform: Vec<String>,
    /// This program.
    pub seawall: PathBuf,
    /// Where the report goes.
    pub report: PathBuf,
    /// The gateway's own, for questions that name none.
    pub database: PathBuf,
    /// What must not show in why a step failed.
    pub veil: Veil,
}

const WHY_MAX_CHARS: usize = 200;

/// Runs all steps, and says whether each of them succeeded. SIGTERM, SIGINT and SIGQUIT end
/// the one that is under way, and the rest is left out.
pub fn run(task: &Task) -> std::io::Result<bool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGQUIT] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let waiting = |step: &Step| StepReport {
        name: step.name.clone(),
        outcome: Outcome::Waiting,
        attempts: 0,
        duration_ms: 0,
        why: None,
    };
    let steps = task.steps.iter().map(waiting).collect();
    let mut kept = Kept::new(task.report.clone(), Report { pid: std::process::id(), steps });
    for (index, step) in task.steps.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        run_step(task, index, step, &mut kept, &stop);
    }
    Ok(kept.report.steps.iter().all(|step| step.outcome == Outcome::Done))
}

fn run_step(task: &Task, index: usize, step: &Step, kept: &mut Kept, stop: &AtomicBool) {
    let began = Instant::now();
    let argv = argv(task, index, step);
    let mut attempt = 0;
    let outcome = loop {
        attempt += 1;
        kept.update(index, |report| {
            report.outcome = Outcome::Running;
            report.attempts = attempt;
        });
        let outcome = self::attempt(task, step, &argv, stop);
        let Err(why) = &outcome else { break outcome };
        if attempt > step.retries || stop.load(Ordering::Relaxed) {
            break outcome;
        }
        note!("seawall: step {} failed, again in {}: {why}", step.name, text::duration(step.retry_after));
        process::pause(step.retry_after, stop);
    };
    let took = began.elapsed();
    match &outcome {
        // A task is no less done where nobody hears of it.
        Ok(()) => drop(say!("seawall: step {} is done after {}", step.name, text::duration(took))),
        Err(why) => note!("seawall: step {} failed: {why}", step.name),
    }
    kept.update(index, |report| {
        report.outcome = if outcome.is_ok() { Outcome::Done } else { Outcome::Failed };
        report.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        report.why = outcome.err();
    });
}

fn argv(task: &Task, index: usize, step: &Step) -> Vec<String> {
    match &step.what {
        What::Command(argv) => argv.clone(),
        _ => task.perform.iter().cloned().chain([index.to_string()]).collect(),
    }
}

/// Once; an error is a sentence.
fn attempt(task: &Task, step: &Step, argv: &[String], stop: &AtomicBool) -> Result<(), String> {
    let began = expect::Began::now(&step.expect);
    let until = Instant::now() + step.timeout;
    let ended = process::to_its_end(&task.seawall, argv, until, stop);
    let status = ended.map_err(|why| match why {
        process::Why::Late => format!("it did not end within {}", text::duration(step.timeout)),
        other => other.to_string(),
    })?;
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    expect::judge(&step.expect, status, &began, &task.database, left)
        .map_err(|why| text::quote(&task.veil.hide(&why), WHY_MAX_CHARS))
}
