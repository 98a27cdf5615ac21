//! The life of a model's processes, one after the other: one is ready at every moment in
//! which one can be.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Inner, State};
use crate::embedding::{folder, worker::Worker};

/// How often a folder that is not there is looked for, and a process is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(60);
/// A process that lived so long, or has answered so much, has shown that it can.
const PROVEN_AFTER: Duration = Duration::from_secs(60);
const PROVEN_ANSWERS: u64 = 20;
/// A new process that is too large by itself is not replaced again and again.
const RENEW_EVERY: Duration = Duration::from_secs(60);
/// One that owes an answer and has said nothing for so long hangs: a batch takes seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long those that were told to end are waited for at the end.
const STOP_DRAIN: Duration = Duration::from_secs(2);

/// What happened to the process that is in use.
enum Turn {
    Died,
    /// It shall be replaced, and why.
    Due(String),
    Idle,
    Stop,
}

pub(super) async fn tend(inner: &Inner, stop: CancellationToken) {
    let mut keeping = Keeping { inner, number: 0, failures: 0, renewed_at: None, retired: JoinSet::new() };
    let stopped = stop.cancelled();
    tokio::pin!(stopped);
    tokio::select! {
        () = keeping.keep(&stop) => {}
        () = &mut stopped => {}
    }
    if let State::Ready(last) = inner.state.send_replace(State::Closed) {
        last.retire(STOP_DRAIN).await;
    }
    while keeping.retired.join_next().await.is_some() {}
}

struct Keeping<'i> {
    inner: &'i Inner,
    number: u64,
    /// In a row.
    failures: u32,
    renewed_at: Option<Instant>,
    /// Those that still have something in hand.
    retired: JoinSet<()>,
}

impl Keeping<'_> {
    /// Returns when it is told to stop.
    async fn keep(&mut self, stop: &CancellationToken) {
        loop {
            self.wish().await;
            let mut worker = self.first().await;
            loop {
                let began = Instant::now();
                match self.turn(&worker, stop).await {
                    Turn::Stop => return,
                    Turn::Due(why) => worker = self.renewed(worker, &why).await,
                    Turn::Died => {
                        // At once, where it had shown that it can live.
                        let answered = worker.answered.load(Ordering::Relaxed);
                        let is_proven = began.elapsed() >= PROVEN_AFTER || answered >= PROVEN_ANSWERS;
                        self.failures = if is_proven { 0 } else { self.failures + 1 };
                        self.inner.state.send_replace(State::Starting);
                        self.pause().await;
                        worker = self.first().await;
                    }
                    Turn::Idle => {
                        self.inner.state.send_replace(State::Asleep);
                        self.retire(worker);
                        break;
                    }
                }
            }
        }
    }

    /// Where a process runs only for those who ask: until somebody does.
    async fn wish(&self) {
        // A wish that was granted long ago may have been left behind.
        while self.inner.settings.idle_stop.is_some() && self.inner.waiting.load(Ordering::Relaxed) == 0 {
            self.inner.state.send_replace(State::Asleep);
            self.inner.wanted.notified().await;
        }
    }

    /// One that is ready, after however many attempts.
    async fn first(&mut self) -> Arc<Worker> {
        let mut said = String::new();
        loop {
            let trouble = match folder::missing(&self.inner.settings.folder) {
                Some(missing) => missing,
                None => {
                    if said.is_empty() {
                        self.inner.state.send_replace(State::Starting);
                    }
                    self.number += 1;
                    match Worker::start(&self.inner.settings, self.number).await {
                        Ok(worker) => {
                            self.inner.state.send_replace(State::Ready(worker.clone()));
                            if !said.is_empty() {
                                tracing::warn!("the model is there now");
                            }
                            return worker;
                        }
                        Err(why) => {
                            self.failures += 1;
                            why
                        }
                    }
                }
            };
            if said != trouble {
                tracing::error!("{trouble}");
            }
            said.clone_from(&trouble);
            self.inner.state.send_replace(State::Trouble(trouble));
            sleep(LOOK_EVERY).await;
            self.wish().await;
            if folder::missing(&self.inner.settings.folder).is_none() {
                self.pause().await;
            }
        }
    }

    /// 0 after the first failure, then one second and doubling.
    async fn pause(&self) {
        if let Some(doublings) = self.failures.checked_sub(2) {
            sleep(Duration::from_secs(1 << doublings.min(6)).min(DELAY_MAX)).await;
        }
    }

    async fn turn(&self, worker: &Worker, stop: &CancellationToken) -> Turn {
        let settings = &self.inner.settings;
        let mut busy_at = Instant::now();
        loop {
            let turn = worker.turn.notified();
            if worker.gone.is_cancelled() {
                return Turn::Died;
            }
            if worker.silent_for() > SILENCE_MAX {
                tracing::warn!("the process {} of the model hangs and is killed", worker.pid);
                worker.kill();
            }
            if let Some(why) = self.due(worker) {
                return Turn::Due(why);
            }
            if settings.idle_stop.is_some_and(|idle| busy_at.elapsed() >= idle && worker.in_hand() == 0) {
                return Turn::Idle;
            }
            tokio::select! {
                () = stop.cancelled() => return Turn::Stop,
                () = turn => busy_at = Instant::now(),
                () = worker.gone.cancelled() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn due(&self, worker: &Worker) -> Option<String> {
        let limit = self.inner.settings.recycle;
        let answered = worker.answered.load(Ordering::Relaxed);
        if answered >= limit.requests {
            return Some(format!("it has served {answered} requests"));
        }
        if self.renewed_at.is_some_and(|at| at.elapsed() < RENEW_EVERY) {
            return None;
        }
        let bytes = worker.memory_bytes().filter(|bytes| *bytes > limit.memory_bytes)?;
        Some(format!("it uses {}", crate::text::bytes(bytes)))
    }

    /// The new one is ready before the old one is let go.
    async fn renewed(&mut self, old: Arc<Worker>, why: &str) -> Arc<Worker> {
        self.number += 1;
        self.renewed_at = Some(Instant::now());
        match Worker::start(&self.inner.settings, self.number).await {
            Ok(new) => {
                tracing::info!("the process {} of the model is replaced by {}: {why}", old.pid, new.pid);
                self.inner.state.send_replace(State::Ready(new.clone()));
                self.inner.recycled.fetch_add(1, Ordering::Relaxed);
                self.retire(old);
                new
            }
            Err(problem) => {
                tracing::warn!("the process {} of the model cannot be replaced now: {problem}", old.pid);
                let _ = timeout(RENEW_EVERY, old.gone.cancelled()).await;
                old
            }
        }
    }

    fn retire(&mut self, worker: Arc<Worker>) {
        let drain = self.inner.settings.timeout;
        while self.retired.try_join_next().is_some() {}
        self.retired.spawn(async move { worker.retire(drain).await });
    }
}
