//! The database of the event intake: what programs of the user's hand in, written before
//! it is acknowledged.
//!
//! A file of its own, so that its load never delays a crash row. One thread owns the one
//! connection that writes. Whatever waits for it is committed together, with one flush of
//! the disk, and only then acknowledged; what cannot be written is refused, never spilled:
//! whoever handed it in still has it.
//!
//! ```text
//! submit ─ queue ─ writer: one transaction for all that wait ─ flush ─ acknowledge
//! ```

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

mod file;
mod reader;
mod writer;

pub use reader::{IntakeFilter, IntakeReader, Lost, Page};

use super::{database::Trouble, retention::Step};
use crate::id::unix_ms;
use writer::Writer;

/// Submissions that wait for the writer; their bytes are bounded by whoever reads them.
const QUEUE_MAX_SUBMISSIONS: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeSettings {
    pub path: PathBuf,
    /// Events older than this are deleted.
    pub keep_for: Duration,
    /// The oldest events are deleted once the file holds more than this.
    pub keep_bytes: u64,
}

/// An event that its writer has described; what it left out is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    pub id: Option<String>,
    pub timestamp_ms: Option<i64>,
    pub category: String,
    pub event_type: String,
    pub service_name: String,
    /// A JSON object, as text.
    pub metadata: String,
}

/// Events that are taken all together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    pub events: Vec<NewEvent>,
    /// Taken once, however often it is handed in.
    pub key: Option<Key>,
    /// Nobody waits for it any longer after that.
    pub until: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub text: String,
    /// Of what was handed in under it.
    pub digest: String,
}

/// One event, durable.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Accepted {
    pub id: String,
    #[serde(rename = "timestamp")]
    pub timestamp_ms: i64,
}

/// What was handed in is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// In the order in which they were handed in.
    pub events: Vec<Accepted>,
    /// All of it was there already.
    pub is_repeat: bool,
}

/// Nothing of a submission was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("too many submissions are waiting to be written")]
    Overloaded,
    #[error("nothing can be written: {0}")]
    Unavailable(String),
    #[error("an event with the id \"{id}\" is there already, and it is another one")]
    OtherEvent { index: usize, id: String },
    #[error("this idempotency key was used before, for something else")]
    OtherSubmission,
    #[error("the database does not take it: {0}")]
    Unfit(String),
}

/// What is called with the outcome, on the writer's thread.
pub type Answer = Box<dyn FnOnce(Result<Receipt, Refused>) + Send>;

/// Deletes what need not be kept any more, beside whoever writes.
pub(super) fn retain(settings: &IntakeSettings) -> Result<(), Trouble> {
    let mut file = file::File::open(settings)?;
    let now_ms = i64::try_from(unix_ms()).unwrap_or(i64::MAX);
    while file.tidy(now_ms)? == Step::More {}
    Ok(())
}

/// The handle, for as many as like to submit.
pub struct Intake {
    sender: RwLock<Option<SyncSender<Waiting>>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A submission in the queue.
struct Waiting {
    submission: Submission,
    answer: Answer,
}

/// What the writer tells.
struct Shared {
    waiting: AtomicUsize,
    trouble: Mutex<Option<String>>,
    on_commit: Box<dyn Fn() + Send + Sync>,
}

impl Intake {
    /// Starts the writer, which calls `on_commit` after each commit. What is wrong with
    /// the file, submissions are told.
    pub fn open(settings: IntakeSettings, on_commit: impl Fn() + Send + Sync + 'static) -> std::io::Result<Self> {
        let (sender, inbox) = sync_channel(QUEUE_MAX_SUBMISSIONS);
        let shared = Arc::new(Shared {
            waiting: AtomicUsize::new(0),
            trouble: Mutex::default(),
            on_commit: Box::new(on_commit),
        });
        let writer = Writer::new(settings, inbox, shared.clone());
        let thread = thread::Builder::new().name("intake".to_owned()).spawn(move || writer.run())?;
        Ok(Intake { sender: RwLock::new(Some(sender)), shared, thread: Mutex::new(Some(thread)) })
    }

    /// Hands a submission over and returns at once; `answer` is called when it is durable
    /// or refused, and dropped without a call if the writer dies.
    pub fn submit(&self, submission: Submission, answer: Answer) {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = sender.as_ref() else {
            return answer(Err(Refused::Unavailable("seawall is stopping".to_owned())));
        };
        // Before it is sent: the writer may take it out at once.
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = sender.try_send(Waiting { submission, answer }) {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(waiting) => (waiting.answer)(Err(Refused::Overloaded)),
                TrySendError::Disconnected(waiting) => {
                    (waiting.answer)(Err(Refused::Unavailable("the writer has died".to_owned())));
                }
            }
        }
    }

    /// Why the last attempt to write failed; `None` if it did not.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Submissions that are not answered yet.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Takes nothing more, writes what waits, and lets go of the file.
    pub fn close(&self) {
        self.sender.write().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of its own was logged by the runtime.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
