//! The store: every failure and every event worth keeping, in one SQLite file.
//!
//! Nothing in a call's way waits for it. A handle redacts a row and hands it to one
//! writer thread through a bounded queue; a missing, locked, read-only, full, corrupt
//! or deleted database is that thread's trouble alone, and what is lost is counted.
//!
//! ```text
//! handle ─ redact ─ queue ─ writer: minutes ─ backlog ─ database
//!                                                └ spill file, replayed later
//! ```

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::failure::Recording;

mod backlog;
mod clock;
mod database;
mod drops;
pub mod intake;
mod ledger;
mod minutes;
mod query;
mod queue;
pub mod redact;
mod reserve;
mod retention;
mod row;
mod schema;
mod spill;
#[cfg(test)]
pub(crate) mod testing;
pub mod upkeep;
mod urgent;
pub mod watch;
mod writer;

pub use clock::Clock;
pub use ledger::Ledger;
pub use query::{Count, EventFilter, FailureFilter, Found, ReadError, Reader, Table};
pub use row::{Event, EventRecord, EventType, FailureRecord, FailureRow, Note};
pub use urgent::Written;

use drops::Kind;
use queue::{Parcel, Queue};
use writer::Writer;

/// Where the rows go and how long they stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub path: PathBuf,
    /// Rows older than this are deleted.
    pub keep_for: Duration,
    /// The oldest rows are deleted once the file holds more than this.
    pub keep_bytes: u64,
    /// The file never grows beyond this, whatever happens: a database that cannot
    /// delete must not fill the disk of the machine that it watches.
    pub max_bytes: u64,
    /// Refusals of one kind are counted for so long before one row tells of them.
    pub count_for: Duration,
    /// By which rows grow old.
    pub clock: Clock,
}

impl Settings {
    const KEEP_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    const KEEP_BYTES: u64 = 512 << 20;

    /// 30 days, 512 MiB, and never more than a GiB.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Settings {
            path: path.into(),
            keep_for: Self::KEEP_FOR,
            keep_bytes: Self::KEEP_BYTES,
            max_bytes: 2 * Self::KEEP_BYTES,
            count_for: minutes::MINUTE,
            clock: Clock::default(),
        }
    }
}

/// The handle that everyone clones. The default one keeps nothing.
///
/// [`close`](Store::close) it before the process ends: rows still under way when the
/// last handle is dropped are written only if the process lives long enough.
#[derive(Clone, Default)]
pub struct Store(Option<Arc<Open>>);

struct Open {
    settings: Settings,
    queue: Queue,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How the store is, cheap to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Why rows do not reach the database just now; `None` when they do.
    pub degraded: Option<String>,
    /// Rows lost since the start, by class or event type.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Rows in memory that wait to be written.
    pub pending: usize,
    /// Size of the file of rows that wait on disk for the database to come back.
    pub spilled_bytes: u64,
}

impl Store {
    /// A store that keeps nothing: for tests and one-off commands.
    pub fn discarding() -> Self {
        Store(None)
    }

    /// Starts the writer thread. Never fails and never waits for the database: what
    /// is wrong with it shows in [`health`](Store::health) and in the log.
    pub fn open(settings: Settings) -> Self {
        let (queue, inbox) = queue::new(&settings.clock);
        let writer = Writer::new(settings.clone(), inbox, queue.shared().clone());
        let thread = match thread::Builder::new().name("store".to_owned()).spawn(move || writer.run()) {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::error!(%error, "the store has no thread to write with: nothing is recorded");
                queue.shared().set_trouble(Some(format!("no thread to write with: {error}")));
                None
            }
        };
        Store(Some(Arc::new(Open { settings, queue, thread: Mutex::new(thread) })))
    }

    /// Hands a failure over, to be kept as `recording` says. Never blocks.
    pub fn failure(&self, row: FailureRow, recording: Recording) {
        let Some(open) = &self.0 else { return };
        if recording == Recording::No {
            return;
        }
        let kind = Kind::Failure(row.class);
        open.queue.offer(kind, Parcel::Failure(Box::new(row.made_safe()), recording));
    }

    /// Hands an event over. Never blocks.
    pub fn event(&self, event: Event) {
        let Some(open) = &self.0 else { return };
        let event_type = event.event_type;
        let parcel = Parcel::Event(event_type, Box::new(EventRecord::now(event)));
        open.queue.offer(Kind::Event(event_type), parcel);
    }

    /// Hands an event of the user's own over, and says under which id. Never blocks.
    pub fn note(&self, note: Note) -> String {
        let record = EventRecord::of_note(note);
        let id = record.id.clone();
        if let Some(open) = &self.0 {
            open.queue.offer(Kind::Event(EventType::Note), Parcel::Event(EventType::Note, Box::new(record)));
        }
        id
    }

    /// Writes an event before it returns, so that it outlives a crash and a loss of
    /// power right after. Waits two seconds at most for a locked database.
    pub fn event_now(&self, event: Event) -> Written {
        match &self.0 {
            Some(open) => urgent::write(&open.settings, EventRecord::now(event)),
            None => Written::Lost,
        }
    }

    /// Waits until every row handed over so far is in the database; false if that
    /// did not come about within `timeout`. Refusals still being counted stay so.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.0.as_ref().is_none_or(|open| open.ask(timeout, Parcel::Flush))
    }

    /// Writes all there is, stops the writer, and says whether every row handed over
    /// so far is in the database. What is not is in the spill file, or counted as lost.
    /// Rows handed over afterwards are lost.
    pub fn close(&self, timeout: Duration) -> bool {
        let Some(open) = &self.0 else { return true };
        let Some(thread) = lock(&open.thread).take() else { return self.is_healthy() };
        let until = Instant::now() + timeout;
        open.queue.shared().close();
        let all_written = open.ask(timeout, |done| Parcel::Close { until, done });
        if thread.is_finished() || all_written {
            // Its last act was to say so; a panic of its own was logged by the runtime.
            let _ = thread.join();
        }
        all_written
    }

    pub fn health(&self) -> Health {
        self.0.as_ref().map(|open| open.health()).unwrap_or_default()
    }

    pub fn is_healthy(&self) -> bool {
        self.health().degraded.is_none()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.0.as_ref().map(|open| &open.settings.path)).finish()
    }
}

impl Open {
    /// Sends a question that rides behind the rows, and waits for its answer.
    fn ask(&self, timeout: Duration, question: impl FnOnce(SyncSender<bool>) -> Parcel) -> bool {
        let (answer, answered) = sync_channel(1);
        self.queue.control(question(answer)) && answered.recv_timeout(timeout).unwrap_or(false)
    }

    fn health(&self) -> Health {
        let shared = self.queue.shared();
        let writer_died = lock(&self.thread).as_ref().is_some_and(JoinHandle::is_finished);
        Health {
            degraded: match writer_died {
                true => Some("the writer thread has died: nothing is recorded until seawall restarts".to_owned()),
                false => shared.trouble(),
            },
            dropped: shared.drops.by_name(),
            pending: shared.pending(),
            spilled_bytes: shared.spilled_bytes(),
        }
    }
}

/// A panic elsewhere leaves these values whole: each is replaced, never half-edited.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
