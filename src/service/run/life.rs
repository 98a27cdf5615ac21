//! A life that has begun: waited for, with its signals passed on, and recorded.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Child, ExitStatus},
    sync::{Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use signal_hook::{consts::SIGCHLD, iterator::Signals};

use super::{Job, Outcome, RECYCLE_CODE, STOPPING};
use crate::{
    process::mark,
    service::{
        child::{self, Tail},
        leftover::Leftovers,
        marker::{self, Held, How, Marker},
        moment::Moment,
        monitor::{self, Shared, State},
        record::Recorder,
    },
    store::{EventType, redact},
    text,
};

/// From the signal that cannot be refused to the end; the supervisor has as much left.
const KILL_WAIT: Duration = Duration::from_secs(1);

/// A life that has begun.
pub(super) struct Running<'a> {
    pub(super) job: &'a Job,
    pub(super) recorder: &'a Recorder<'a>,
    pub(super) held: &'a Held,
    /// What all of it carries.
    pub(super) mark: &'a str,
    pub(super) attempt: u32,
    pub(super) began: Moment,
}

impl Running<'_> {
    /// To its end, and how this process is to end then.
    pub(super) fn live(self, mut child: Child, tail: &Tail, marker: Marker, mut signals: Signals) -> Outcome {
        let shared = Shared {
            job: self.job,
            recorder: self.recorder,
            held: self.held,
            pid: child.id(),
            started: Instant::now(),
            marker: Mutex::new(marker),
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        };
        let (status, left) = thread::scope(|scope| {
            let watching = thread::Builder::new().name("monitor".to_owned());
            if let Err(error) = watching.spawn_scoped(scope, || monitor::watch(&shared)) {
                say!("{} runs unwatched: {error}", self.job.name);
            }
            let status = wait(&mut child, &mut signals, &shared, || {
                let ending = thread::Builder::new().name("stop".to_owned());
                let _ = ending.spawn_scoped(scope, || {
                    if !shared.ended_within(self.job.stop_within) {
                        child::kill_group(shared.pid);
                        self.give_up_after_a_kill(&shared);
                    }
                });
            });
            // First of all: a probe that finds nobody now is no hang.
            shared.state().ended = true;
            shared.changed.notify_all();
            let left = self.end_group(&shared);
            self.record_end(&status, tail, &shared);
            (status, left)
        });
        self.end_what_it_left(left, &shared);
        self.recorder.judge();
        outcome(&status)
    }

    /// Ends what is left of its group at once, and says what of that is news.
    fn end_group(&self, shared: &Shared<'_>) -> Leftovers {
        let mut left = Leftovers::default();
        // Those in other groups may yet end by themselves.
        let daemons = self.recorder.errands().daemons(shared.pid).into_iter();
        let in_group = daemons.filter(|pid| child::is_in_group(*pid, shared.pid)).collect();
        left.add(&Self::news(in_group, shared), self.recorder.veil());
        child::kill_group(shared.pid);
        left
    }

    /// What it started does not outlive it, in whatever group or session it is.
    fn end_what_it_left(&self, mut left: Leftovers, shared: &Shared<'_>) {
        let veil = self.recorder.veil();
        self.recorder.errands().end_orphans(|pids| left.add(&Self::news(pids.to_vec(), shared), veil));
        left.add(&Self::news(child::marked(self.mark), shared), veil);
        mark::end_all(|| child::marked(self.mark));
        if left.is_none() {
            return;
        }
        left.settle();
        self.recorder.event(EventType::LeftoversEnded, json!({ "ended_leftovers": left.as_json() }));
        say!("{}", left.sentence(&self.job.name));
    }

    /// That the rest of its own group ends with one that was told to stop is as it should be.
    fn news(pids: Vec<u32>, shared: &Shared<'_>) -> Vec<u32> {
        let is_asked = shared.state().stopping;
        let is_news = |pid: &u32| !is_asked || !child::is_in_group(*pid, shared.pid) || !mark::may_signal(*pid);
        pids.into_iter().filter(is_news).collect()
    }

    /// Even that signal does not end what is another user's, or waits for a device.
    fn give_up_after_a_kill(&self, shared: &Shared<'_>) {
        if !shared.ended_within(KILL_WAIT) {
            shared.state().given_up = true;
            // For the thread that waits.
            let _ = signal_hook::low_level::raise(SIGCHLD);
        }
    }

    fn record_end(&self, status: &std::io::Result<ExitStatus>, tail: &Tail, shared: &Shared<'_>) {
        let now = Moment::now();
        let duration_ms = u64::try_from(now.since(&self.began).as_millis()).unwrap_or(u64::MAX);
        let (code, signal) = match status {
            Ok(status) => (status.code(), status.signal()),
            Err(_) => (None, None),
        };
        let State { stopping, hung, .. } = *shared.state();
        let how = match code {
            _ if stopping => How::Stopped,
            _ if hung => How::Hung,
            Some(0) => How::Stopped,
            Some(RECYCLE_CODE) => How::Planned,
            _ => How::Crashed,
        };
        let is_failure = matches!(how, How::Crashed | How::Hung);
        let event_type = match (self.job.schedule, is_failure) {
            (_, _) if stopping => EventType::ServiceStop,
            (Some(_), false) => EventType::TaskDone,
            (Some(_), true) => EventType::TaskFailed,
            (None, false) => EventType::ServiceStop,
            (None, true) => EventType::ServiceCrash,
        };
        let mut metadata = json!({
            "exit_code": code,
            "signal": signal,
            "restart_attempt": self.attempt,
            "duration_ms": duration_ms,
            // Its end is what matters, and what would be cut off.
            "stderr_tail": tail.last_words().filter(|_| is_failure).map(|words| redact::tail(&words)),
            "planned": how == How::Planned,
            "reason": reason(how, stopping, code),
            "pid": shared.pid,
        });
        match status {
            Ok(status) if status.core_dumped() => metadata["core_dumped"] = Value::Bool(true),
            Ok(_) => {}
            Err(error) => metadata["problem"] = error.to_string().into(),
        }
        if self.job.schedule.is_some()
            && let Some(steps) = marker::steps_of(&self.job.state, &self.job.name, shared.pid)
        {
            metadata["steps"] = steps;
        }
        self.recorder.event(event_type, metadata);
        shared.update(|marker| {
            if self.job.schedule.is_some() && how == How::Stopped && !stopping {
                marker.settled_ms = Some(self.began.wall_ms);
            }
            if let Some(life) = &mut marker.life {
                life.seen_ms = now.wall_ms;
                life.end = Some(marker::End { how, at_ms: now.wall_ms, duration_ms });
            }
        });
    }
}

fn reason(how: How, stopping: bool, code: Option<i32>) -> &'static str {
    match how {
        How::Stopped if stopping => "requested",
        How::Stopped => "finished",
        How::Planned => "recycle",
        How::Hung => "hang",
        How::Crashed | How::Vanished if code.is_some() => "exit",
        How::Crashed | How::Vanished => "signal",
    }
}

/// Waits for the process, and meanwhile passes signals on.
fn wait(
    child: &mut Child,
    signals: &mut Signals,
    shared: &Shared<'_>,
    on_stop: impl FnOnce(),
) -> std::io::Result<ExitStatus> {
    let mut on_stop = Some(on_stop);
    // It may have ended before its first signal could be waited for.
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    for signal in signals.forever() {
        if signal == SIGCHLD {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if shared.state().given_up {
                return Err(std::io::Error::other("it cannot be ended from here: it may be another user's"));
            }
            shared.recorder.errands().bury_orphans(shared.pid);
            continue;
        }
        if STOPPING.contains(&signal) {
            shared.state().stopping = true;
            if !mark::may_signal(shared.pid) {
                let (name, within) = (&shared.job.name, text::duration(shared.job.stop_within));
                say!("{name} cannot be told to stop, since it is another user's; it is waited for, for {within}");
            }
            if let Some(on_stop) = on_stop.take() {
                on_stop();
            }
        }
        if let Some(signal) = Signal::from_named_raw(signal) {
            child::signal(shared.pid, signal);
        }
    }
    child.wait()
}

fn outcome(status: &std::io::Result<ExitStatus>) -> Outcome {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Outcome::Code(code),
            (None, Some(signal)) => Outcome::Signal(signal),
            (None, None) => Outcome::Code(1),
        },
        Err(error) => {
            say!("the service could not be waited for: {error}");
            Outcome::Code(1)
        }
    }
}
