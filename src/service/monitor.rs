//! The second thread of `seawall run`: asks for health, samples memory, and says when
//! an alert is over. What it finds it records; what hangs it ends, and the first thread
//! sees that end like any other.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use super::{
    child,
    health::{Verdict, Watch},
    marker::{Held, Marker},
    memory::Growth,
    moment::Moment,
    overdue::{self, Grace},
    probe::Prober,
    record::Recorder,
    run::Job,
};
use crate::{process::memory, store::EventType, text};

/// After SIGABRT, which leaves a trace of where it hung.
const ABORT_GRACE: Duration = Duration::from_secs(5);
const JUDGE_EVERY: Duration = Duration::from_secs(15);
/// Where samples are taken more often, it is judged more often too.
const JUDGE_SAMPLES: u32 = 5;
/// A task that was overdue for so long: 15 minutes, as samples usually come.
const OVERDUE_SAMPLES: u32 = 15;
const FIRST_SAMPLE: Duration = Duration::from_secs(2);

/// What the threads of one life share.
pub(super) struct Shared<'a> {
    pub(super) job: &'a Job,
    pub(super) recorder: &'a Recorder<'a>,
    pub(super) held: &'a Held,
    pub(super) pid: u32,
    pub(super) started: Instant,
    pub(super) marker: Mutex<Marker>,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Asked to stop: a probe that fails now is no hang.
    pub(super) stopping: bool,
    /// It was found to hang and is being killed for it.
    pub(super) hung: bool,
    pub(super) ended: bool,
    /// It cannot be ended, and is not waited for any longer.
    pub(super) given_up: bool,
}

impl Shared<'_> {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the process has ended, for so long at most; whether it has.
    pub(super) fn ended_within(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), time, |state| !state.ended);
        waited.map_or_else(|poisoned| poisoned.into_inner().0.ended, |(state, _)| state.ended)
    }

    /// Of the service and all that it started, its daemons too.
    fn memory_bytes(&self) -> Option<u64> {
        let tree = memory::of_tree(self.pid)?;
        let daemons = self.recorder.errands().daemons(self.pid).into_iter();
        Some(tree + daemons.filter_map(memory::of_process).sum::<u64>())
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Marker)) {
        let mut marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut marker);
        self.held.write(&marker);
    }
}

/// Watches until the process has ended.
pub(super) fn watch(shared: &Shared<'_>) {
    let has_ended = || shared.state().ended;
    let mut health = Health::of(shared, &has_ended);
    let mut memory = Memory::of(shared.job);
    let mut judge_at = Instant::now();
    let judge_every = JUDGE_EVERY.min(shared.job.sample_every * JUDGE_SAMPLES);
    let mut grace = Grace::of(shared.job.sample_every * OVERDUE_SAMPLES);
    loop {
        let now = Instant::now();
        if let Some(health) = &mut health
            && health.next <= now
            && health.look(shared)
        {
            return;
        }
        if memory.next <= now {
            memory.look(shared);
        }
        if judge_at <= now {
            shared.recorder.import();
            shared.recorder.judge();
            oversee(shared, &mut grace);
            judge_at = Instant::now() + judge_every;
        }
        let next = health.as_ref().map_or(judge_at, |health| health.next).min(memory.next).min(judge_at);
        if shared.ended_within(next.saturating_duration_since(Instant::now())) {
            return;
        }
    }
}

/// Looks after the tasks that may never be started.
fn oversee(shared: &Shared<'_>, grace: &mut Grace) {
    let tasks = &shared.job.overseen;
    let known = |marker: &Marker| tasks.iter().all(|task| marker.tasks_since_ms.contains_key(&task.name));
    if !shared.marker.lock().is_ok_and(|marker| known(&marker)) {
        let now_ms = Moment::now().wall_ms;
        shared.update(|marker| {
            for task in tasks {
                marker.tasks_since_ms.entry(task.name.clone()).or_insert(now_ms);
            }
        });
    }
    for task in tasks {
        let since_ms = shared.marker.lock().ok().and_then(|marker| marker.tasks_since_ms.get(&task.name).copied());
        overdue::look(shared.recorder, &shared.job.state, task, since_ms, grace);
    }
}

/// How it answers.
struct Health<'a> {
    every: Duration,
    next: Instant,
    prober: Prober<'a>,
    watch: Watch,
    /// By both clocks, at the last look: their difference is sleep.
    last: (Instant, Moment),
}

impl<'a> Health<'a> {
    fn of(shared: &'a Shared<'_>, has_ended: &'a (dyn Fn() -> bool + Sync)) -> Option<Self> {
        let job = shared.job;
        let health = job.health.clone()?;
        let errands = shared.recorder.errands();
        Some(Health {
            every: health.every,
            next: Instant::now() + health.every,
            prober: Prober::new(job, health.clone(), errands, has_ended),
            watch: Watch::new(health),
            last: (Instant::now(), Moment::now()),
        })
    }

    /// Asks once; true if it hung and was ended.
    fn look(&mut self, shared: &Shared<'_>) -> bool {
        let answer = self.prober.ask();
        let now = (Instant::now(), Moment::now());
        let slept = now.1.slept_since(&self.last.1, now.0.duration_since(self.last.0));
        self.last = now;
        self.next = Instant::now() + self.every;
        let State { stopping, ended, .. } = *shared.state();
        if stopping || ended {
            return false;
        }
        let verdict = self.watch.observe(answer.is_ok(), shared.started.elapsed(), slept);
        let seen = match (&answer, verdict) {
            (Ok(()), _) => "well".to_owned(),
            (Err(_), Verdict::Excused) => "starting".to_owned(),
            (Err(why), _) => why.clone(),
        };
        if shared
            .marker
            .lock()
            .is_ok_and(|marker| marker.life.as_ref().and_then(|life| life.health.as_ref()) != Some(&seen))
        {
            shared.update(|marker| {
                if let Some(life) = &mut marker.life {
                    life.health = Some(seen);
                }
            });
        }
        match (verdict, answer) {
            (Verdict::Hung, Err(why)) => end_hung(shared, &why),
            _ => false,
        }
    }
}

/// False where it has ended meanwhile, or is told to.
fn end_hung(shared: &Shared<'_>, why: &str) -> bool {
    {
        let mut state = shared.state();
        if state.stopping || state.ended {
            return false;
        }
        state.hung = true;
    }
    shared.recorder.event(
        EventType::ServiceHang,
        json!({
            "seen": why,
            "misses": shared.job.health.as_ref().map(|health| health.misses),
            "pid": shared.pid,
            "age_ms": u64::try_from(shared.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "memory_bytes": shared.memory_bytes(),
        }),
    );
    child::signal(shared.pid, Signal::ABORT);
    say!("{} hangs: {}", shared.job.name, text::quote(why, 200));
    if !shared.ended_within(ABORT_GRACE) {
        // One that is stopped, or that catches the signal, does not end by it.
        child::kill_group(shared.pid);
        if !shared.ended_within(ABORT_GRACE) {
            say!("{} cannot be ended from here, and is watched no longer: it may be another user's", shared.job.name);
        }
    }
    true
}

/// What it uses.
struct Memory {
    every: Duration,
    next: Instant,
    growth: Option<Growth>,
    max_bytes: Option<u64>,
    told_growth: bool,
    told_max: bool,
}

impl Memory {
    fn of(job: &Job) -> Self {
        Memory {
            every: job.sample_every,
            next: Instant::now() + FIRST_SAMPLE.min(job.sample_every),
            growth: job.growth_per_hour_bytes.map(|allowed| Growth::new(allowed, job.sample_every)),
            max_bytes: job.max_bytes,
            told_growth: false,
            told_max: false,
        }
    }

    fn look(&mut self, shared: &Shared<'_>) {
        self.next = Instant::now() + self.every;
        let Some(bytes) = shared.memory_bytes() else { return };
        let is_leak = self.growth.as_mut().is_some_and(|growth| growth.sample(shared.started.elapsed(), bytes));
        let per_hour = self.growth.as_ref().and_then(Growth::bytes_per_hour);
        shared.update(|marker| {
            if let Some(life) = &mut marker.life {
                life.seen_ms = Moment::now().wall_ms;
                life.memory_bytes = Some(bytes);
                life.growth_bytes_per_hour = per_hour;
            }
        });
        let name = &shared.job.name;
        if is_leak && !std::mem::replace(&mut self.told_growth, true) {
            let allowed = shared.job.growth_per_hour_bytes;
            let metadata =
                json!({ "memory_bytes": bytes, "growth_bytes_per_hour": per_hour, "allowed_bytes_per_hour": allowed });
            let text = format!("the memory of {name} grows steadily and is {} now", text::bytes(bytes));
            shared.recorder.tell(EventType::MemoryGrowth, metadata, format!("{name} leaks memory"), text);
        }
        let is_over = self.max_bytes.is_some_and(|max| bytes > max);
        if is_over && !std::mem::replace(&mut self.told_max, true) {
            let metadata = json!({ "memory_bytes": bytes, "max_bytes": self.max_bytes });
            let max = text::bytes(self.max_bytes.unwrap_or(0));
            let text = format!("{name} uses {}, more than the {max} that servers.toml allows", text::bytes(bytes));
            shared.recorder.tell(EventType::MemoryGrowth, metadata, format!("{name} uses too much memory"), text);
        }
    }
}
