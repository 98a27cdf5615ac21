//! Keeps one process of the model alive and its requests answered: starts it, replaces it
//! when it has served enough or grown too much, and asks the next one what the last one
//! lost.
//!
//! A request is lost with two processes at most; then it is refused, for it may be what
//! kills them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    ModelSettings,
    talk::Input,
    worker::{Answer, AskError, Worker},
};

mod tend;

/// Texts of all requests that wait or are under way.
const INPUTS_MAX: usize = 16_384;
/// A request waits so long for a process that is being started.
const START_WAIT: Duration = Duration::from_secs(20);
const LOSSES_MAX: usize = 2;
/// Processes that were retired between being found and being asked.
const CHANGES_MAX: usize = 8;

/// The vectors of one request, in its order.
pub struct Vectors {
    pub dimensions: usize,
    /// One vector after the other, each of length 1.
    pub values: Vec<f32>,
    /// Of each text, as many as the model was given.
    pub tokens: Vec<u32>,
}

/// Why there are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("too many requests wait for the model")]
    Busy,
    #[error("{0}")]
    Unavailable(String),
    #[error("the model did not answer within {}", crate::text::duration(*.0))]
    TooLate(Duration),
    #[error("input[{index}]: {what}")]
    Unfit { index: usize, what: String },
    #[error("{0}")]
    Failed(String),
}

/// The handle; all clones are of one model.
#[derive(Clone)]
pub struct Keeper(Arc<Inner>);

struct Inner {
    settings: ModelSettings,
    state: watch::Sender<State>,
    requests: Arc<Semaphore>,
    inputs: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Somebody asks, and nothing runs.
    wanted: Notify,
    is_tended: AtomicBool,
    recycled: AtomicU64,
}

#[derive(Clone)]
enum State {
    /// Nothing runs, and nobody has asked yet.
    Asleep,
    Starting,
    Ready(Arc<Worker>),
    /// Nothing can be started now, and why.
    Trouble(String),
    Closed,
}

/// How it is, for `/health`.
pub(super) struct Condition {
    pub(super) state: &'static str,
    pub(super) trouble: Option<String>,
    pub(super) pid: Option<u32>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) dimensions: Option<usize>,
    pub(super) max_tokens: Option<usize>,
    pub(super) served: u64,
    pub(super) waiting: usize,
    pub(super) recycled: u64,
}

impl Keeper {
    /// Starts nothing: that is [`Keeper::tend`].
    pub fn new(settings: ModelSettings) -> Self {
        Keeper(Arc::new(Inner {
            state: watch::channel(State::Asleep).0,
            requests: Arc::new(Semaphore::new(settings.queue)),
            inputs: Arc::new(Semaphore::new(INPUTS_MAX)),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            is_tended: AtomicBool::new(false),
            recycled: AtomicU64::new(0),
            settings,
        }))
    }

    /// Whether somebody is to call [`Keeper::tend`]: true once.
    pub fn is_to_be_tended(&self) -> bool {
        !self.0.is_tended.swap(true, Ordering::Relaxed)
    }

    /// Replaces the process from time to time, or when it has died, until `stop`; then lets it end.
    pub async fn tend(&self, stop: CancellationToken) {
        tend::tend(&self.0, stop).await;
    }

    /// The vectors of these texts. Dropping the future takes the request back.
    pub async fn embed(&self, inputs: &[Input]) -> Result<Vectors, Refused> {
        let _places = self.0.places(inputs.len())?;
        let _waiting = Waiting::of(&self.0.waiting);
        let limit = self.0.settings.timeout;
        let until = Instant::now() + limit;
        match timeout_at(until, self.0.asked(inputs)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Refused::TooLate(limit)),
        }
    }

    /// Of each vector, once a model is loaded.
    pub(super) fn dimensions(&self) -> Option<usize> {
        match &*self.0.state.borrow() {
            State::Ready(worker) => Some(worker.about.dimensions),
            _ => None,
        }
    }

    pub(super) fn condition(&self) -> Condition {
        let inner = &self.0;
        let state = inner.state.borrow().clone();
        let worker = match &state {
            State::Ready(worker) => Some(worker.clone()),
            _ => None,
        };
        Condition {
            state: match &state {
                State::Asleep => "asleep",
                State::Starting => "starting",
                State::Ready(_) => "ready",
                State::Trouble(_) => "trouble",
                State::Closed => "closed",
            },
            trouble: match state {
                State::Trouble(why) => Some(why),
                _ => None,
            },
            pid: worker.as_ref().map(|worker| worker.pid),
            memory_bytes: worker.as_ref().and_then(|worker| worker.memory_bytes()),
            dimensions: worker.as_ref().map(|worker| worker.about.dimensions),
            max_tokens: worker.as_ref().map(|worker| worker.about.max_tokens),
            served: worker.as_ref().map_or(0, |worker| worker.answered.load(Ordering::Relaxed)),
            waiting: inner.waiting.load(Ordering::Relaxed),
            recycled: inner.recycled.load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    fn places(&self, inputs: usize) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), Refused> {
        let inputs = u32::try_from(inputs.clamp(1, INPUTS_MAX)).map_err(|_| Refused::Busy)?;
        let request = self.requests.clone().try_acquire_owned().map_err(|_| Refused::Busy)?;
        let inputs = self.inputs.clone().try_acquire_many_owned(inputs).map_err(|_| Refused::Busy)?;
        Ok((request, inputs))
    }

    async fn asked(&self, inputs: &[Input]) -> Result<Vectors, Refused> {
        let mut losses = 0;
        let mut seen = None;
        for _ in 0..CHANGES_MAX {
            let worker = self.ready(seen).await?;
            seen = Some(worker.number);
            let dimensions = worker.about.dimensions;
            match worker.ask(inputs).await {
                Ok(Answer { values, tokens }) if values.len() == dimensions * inputs.len() => {
                    return Ok(Vectors { dimensions, values, tokens });
                }
                Ok(_) => return Err(Refused::Failed("the model gave fewer vectors than were asked for".to_owned())),
                Err(AskError::NotSent) => {}
                Err(AskError::Lost) => {
                    losses += 1;
                    if losses == LOSSES_MAX {
                        let why = format!("the process of the model died {LOSSES_MAX} times with this request in hand");
                        return Err(Refused::Failed(why));
                    }
                }
                Err(AskError::Unfit { index, what }) => return Err(Refused::Unfit { index, what }),
                Err(AskError::Failed(why)) => return Err(Refused::Failed(why)),
            }
        }
        Err(Refused::Unavailable("the process of the model ends again and again".to_owned()))
    }

    /// A process that is ready, and another one than `seen`.
    async fn ready(&self, seen: Option<u64>) -> Result<Arc<Worker>, Refused> {
        let mut state = self.state.subscribe();
        let until = Instant::now() + START_WAIT;
        loop {
            match &*state.borrow_and_update() {
                State::Ready(worker) if seen != Some(worker.number) => return Ok(worker.clone()),
                State::Trouble(why) => return Err(Refused::Unavailable(why.clone())),
                State::Closed => return Err(Refused::Unavailable("the embedding server is stopping".to_owned())),
                State::Asleep => self.wanted.notify_one(),
                State::Ready(_) | State::Starting => {}
            }
            match timeout_at(until, state.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Refused::Unavailable("the model is still being loaded".to_owned())),
            }
        }
    }
}

/// One more that waits, for as long as this is there.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
