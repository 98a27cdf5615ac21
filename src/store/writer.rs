//! The one thread that writes. It takes rows in all the time, and whatever is wrong
//! with the database costs it only patience: rows wait in memory, then in the spill
//! file, then the least important are dropped and counted.

use std::{
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use super::{
    Settings,
    backlog::{BATCH_ROWS, Backlog},
    clock::Clock,
    database::Trouble,
    drops::{Kind, Tally},
    minutes::{Minutes, Taken},
    queue::{Inbox, Nothing, Parcel, Shared},
    retention::Step,
    row::{FailureRow, Record},
};
use crate::failure::Recording;

mod complaints;
mod condition;
mod target;

use complaints::Complaints;
use condition::Ailing;
use target::Target;

/// How long a row waits for others to share a transaction with.
const BATCH_WAIT: Duration = Duration::from_millis(250);
/// SQLite waits this long for a lock, and the queue waits with it: so the five seconds
/// of [`LOCK_PATIENCE`] are cut into slices, and rows are taken in between them.
const LOCK_SLICE: Duration = Duration::from_millis(250);
/// Other processes may hold the lock for so long before it is called a trouble.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);
const TIDY_EVERY: Duration = Duration::from_secs(600);
const TIDY_AFTER_START: Duration = Duration::from_secs(30);
/// When every handle was dropped and nobody waits.
const LAST_CHANCE: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    inbox: Inbox,
    shared: Arc<Shared>,
    minutes: Minutes,
    backlog: Backlog,
    target: Target,
    /// What of the drops has been told in an event.
    told: Tally,
    write_at: Option<Instant>,
    tidy_at: Instant,
    ailing: Option<Ailing>,
    complaints: Complaints,
    flushes: Vec<SyncSender<bool>>,
    ending: Option<Ending>,
    clock: Clock,
}

struct Ending {
    until: Instant,
    done: Option<SyncSender<bool>>,
}

impl Writer {
    pub(super) fn new(settings: Settings, inbox: Inbox, shared: Arc<Shared>) -> Self {
        let clock = settings.clock.clone();
        let now = clock.now();
        Writer {
            inbox,
            shared,
            minutes: Minutes::of(settings.count_for),
            backlog: Backlog::of(&settings.path),
            told: Tally::default(),
            // At once, so that whoever reads finds a database.
            write_at: Some(now),
            tidy_at: now + TIDY_AFTER_START,
            ailing: None,
            complaints: Complaints::default(),
            flushes: Vec::new(),
            ending: None,
            clock,
            target: Target::new(settings),
        }
    }

    pub(super) fn run(mut self) {
        while self.ending.is_none() {
            self.collect();
            let now = self.clock.now();
            for row in self.minutes.over(now) {
                self.keep_failure(row);
            }
            if self.is_due(now) {
                self.write();
            }
            if self.tidy_at <= now {
                self.tidy();
            }
        }
        self.finish();
    }

    /// Takes parcels until there is something to do, but not for ever: under a flood
    /// the next parcel is always there already.
    fn collect(&mut self) {
        for _ in 0..BATCH_ROWS {
            if self.ending.is_some() || self.has_full_batch() {
                return;
            }
            match self.inbox.next(self.wake_at()) {
                Ok(parcel) => self.take(parcel),
                Err(Nothing::Yet) => return,
                Err(Nothing::EverAgain) => {
                    self.ending = Some(Ending { until: Instant::now() + LAST_CHANCE, done: None });
                }
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self.flushes.is_empty() {
            true => [self.write_at, self.minutes.next_end(), Some(self.tidy_at)].into_iter().flatten().min(),
            false => Some(self.clock.now()),
        }
    }

    fn take(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Failure(row, recording) => self.take_failure(row, recording),
            Parcel::Event(event_type, event) => self.keep(Kind::Event(event_type), Record::Event(*event)),
            Parcel::Flush(done) => self.flushes.push(done),
            Parcel::Close { until, done } => self.ending = Some(Ending { until, done: Some(done) }),
        }
    }

    fn take_failure(&mut self, row: Box<FailureRow>, recording: Recording) {
        match self.minutes.take(row, recording, self.clock.now()) {
            Taken::Row(row) => self.keep_failure(*row),
            Taken::Counted => {}
            Taken::NoRoom(class) => self.shared.drops.count(Kind::Failure(class)),
        }
    }

    fn keep_failure(&mut self, row: FailureRow) {
        self.keep(Kind::Failure(row.class), Record::Failure(row.into_record()));
    }

    fn keep(&mut self, kind: Kind, record: Record) {
        if !self.backlog.take(kind, record) {
            self.shared.drops.count(kind);
        }
        self.write_at.get_or_insert_with(|| self.clock.now() + BATCH_WAIT);
        self.show_waiting();
    }

    fn has_full_batch(&self) -> bool {
        self.ailing.is_none() && self.backlog.len() >= BATCH_ROWS
    }

    fn is_due(&self, now: Instant) -> bool {
        self.has_full_batch() || !self.flushes.is_empty() || self.write_at.is_some_and(|at| at <= now)
    }

    /// Writes all that waits, or finds out why that is impossible.
    fn write(&mut self) {
        let written = self.write_all();
        match &written {
            Ok(()) => self.well(),
            Err(trouble) => self.ill(trouble),
        }
        if !self.ailing.as_ref().is_some_and(Ailing::is_passing) {
            for done in self.flushes.drain(..) {
                // Whoever asked may have given up.
                let _ = done.try_send(written.is_ok());
            }
        }
        self.show_waiting();
    }

    fn write_all(&mut self) -> Result<(), Trouble> {
        let Writer { target, backlog, shared, told, .. } = self;
        target.write(|database| {
            // Told once in a round: under a flood more is lost at every moment, and
            // telling of it must not keep the writer from the queue.
            let tally = shared.drops.tally();
            let mut report = tally.report(told).map(Record::Event);
            while backlog.len() > 0 || report.is_some() {
                let batch = backlog.batch();
                let rows = batch.len();
                database.commit(batch.chain(&report))?;
                backlog.done(rows);
                if report.take().is_some() {
                    *told = tally.clone();
                }
            }
            backlog.replay(|rows| database.commit(rows))
        })
    }

    fn well(&mut self) {
        self.write_at = None;
        let Some(ailing) = self.ailing.take() else { return };
        self.shared.set_trouble(None);
        if ailing.since.elapsed() > LOCK_PATIENCE {
            tracing::info!(after_s = ailing.since.elapsed().as_secs(), "the database is written again");
        }
    }

    fn ill(&mut self, trouble: &Trouble) {
        let now = self.clock.now();
        let ailing = self.ailing.get_or_insert(Ailing { since: Instant::now(), delay: RETRY_MIN, locked: false });
        ailing.locked = matches!(trouble, Trouble::Busy);
        self.write_at = Some(now + ailing.delay);
        ailing.delay = (ailing.delay * 2).min(RETRY_MAX);
        if ailing.is_passing() {
            return;
        }
        match trouble {
            Trouble::Busy => {}
            // Old rows may be what fills it.
            Trouble::Full => self.tidy_at = now,
            _ => self.target.hang_up(),
        }
        self.backlog.may_spill_again();
        self.shared.set_trouble(Some(trouble.to_string()));
        self.complaints.say(trouble.kind(), || {
            let path = self.target.path().display();
            tracing::warn!(%trouble, %path, waiting = self.backlog.len(), "failures and events are not being written");
        });
    }

    /// One step of retention; the next at once if there is more to do.
    fn tidy(&mut self) {
        self.tidy_at = match self.target.tidy() {
            Ok(Step::More) => self.clock.now(),
            Ok(Step::Done) => self.clock.now() + TIDY_EVERY,
            // Whatever it is, the next batch will meet it and say so.
            Err(_) => self.clock.now() + RETRY_MAX,
        };
    }

    /// Takes the last rows, writes them within the time left, and answers.
    fn finish(mut self) {
        while let Some(parcel) = self.inbox.last() {
            self.take(parcel);
            if self.has_full_batch() {
                self.write();
            }
        }
        for row in self.minutes.all(self.clock.now()) {
            self.keep_failure(row);
        }
        self.write();
        let Some(Ending { until, done }) = self.ending.take() else { return };
        // Only a lock is worth waiting for, and each try waits for it, so this never spins.
        while self.ailing.as_ref().is_some_and(|ailing| ailing.locked) && Instant::now() + 2 * LOCK_SLICE < until {
            self.write();
        }
        let all_written = self.ailing.is_none();
        if !all_written {
            let Writer { backlog, shared, .. } = &mut self;
            backlog.abandon(|kind| shared.drops.count(kind));
            self.show_waiting();
            let lost = self.shared.drops.by_name();
            tracing::warn!(spilled_bytes = self.backlog.spilled_bytes(), ?lost, "the store closes with rows unwritten");
        }
        if let Some(done) = done {
            let _ = done.try_send(all_written);
        }
    }

    fn show_waiting(&self) {
        self.shared.set_waiting(self.backlog.len(), self.backlog.spilled_bytes());
    }
}
