//! The process of a model, seen from outside: started, asked over its pipes, and ended.
//!
//! Whoever asks hears of its end within the moment: by the end of its output, or of itself.

use std::{
    collections::HashMap,
    io,
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    ModelSettings, SUBCOMMAND,
    talk::{self, About, Input, LENGTHS_BYTES, Order, Word},
};
use crate::{heap, process::memory};

/// A large model is read from a slow disk by then.
const LOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// One whose input was closed has so long to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// And so much longer where it says what had filled its memory: to give the places their names,
/// it reads the whole program's own description of itself.
const REPORT_TIMEOUT: Duration = Duration::from_secs(60);
/// Frames on their way to it: requests are bounded by the queue, and each may be cancelled.
const ORDERS: usize = 64;

/// An answer, before anybody has called it good or bad.
pub(super) struct Answer {
    pub(super) values: Vec<f32>,
    pub(super) tokens: Vec<u32>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum AskError {
    /// It had ended before it was asked.
    NotSent,
    /// It ended while it had the request in hand.
    Lost,
    Unfit {
        index: usize,
        what: String,
    },
    Failed(String),
}

type Outcome = Result<Answer, AskError>;

pub(super) struct Worker {
    pub(super) about: About,
    pub(super) pid: u32,
    /// Tells one process of a keeper from the next.
    pub(super) number: u64,
    orders: mpsc::Sender<Vec<u8>>,
    pending: Mutex<Pending>,
    next_id: AtomicU64,
    pub(super) answered: AtomicU64,
    /// Moves with each answer, and when it ends.
    pub(super) turn: Notify,
    /// Its input is to be closed.
    close: CancellationToken,
    kill: CancellationToken,
    pub(super) gone: CancellationToken,
}

struct Pending {
    /// `None` once it takes no more.
    waiting: Option<HashMap<u64, oneshot::Sender<Outcome>>>,
    heard: Instant,
}

impl Worker {
    /// Starts one, and waits until its model is loaded. `Err` is a sentence.
    pub(super) async fn start(settings: &ModelSettings, number: u64) -> Result<Arc<Worker>, String> {
        let mut child = spawn(settings).map_err(|error| format!("its process cannot be started: {error}"))?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("its process has no pipes".to_owned());
        };
        let mut output = BufReader::new(output);
        let batch_wait_us = u64::try_from(settings.batch_wait.as_micros()).unwrap_or(u64::MAX);
        let load = Order::<&[Input]>::Load { folder: settings.folder.clone(), batch_wait_us };
        let load = talk::frame(&load, &[]).map_err(|error| error.to_string())?;
        let loaded = async {
            input.write_all(&load).await?;
            Ok::<_, io::Error>(word(&mut output).await?.map(|(word, _)| word))
        };
        let about = match timeout(LOAD_TIMEOUT, loaded).await {
            Ok(Ok(Some(Word::Ready(about)))) => about,
            Ok(Ok(Some(Word::CannotLoad { why }))) => return Err(why),
            Ok(Ok(Some(_) | None)) => return Err("its process ended before the model was loaded".to_owned()),
            Ok(Err(error)) => return Err(format!("its process does not answer: {error}")),
            Err(_) => return Err(format!("the model was not loaded within {} s", LOAD_TIMEOUT.as_secs())),
        };
        let (orders, queue) = mpsc::channel(ORDERS);
        let worker = Arc::new(Worker {
            about,
            pid: child.id().unwrap_or_default(),
            number,
            orders,
            pending: Mutex::new(Pending { waiting: Some(HashMap::new()), heard: Instant::now() }),
            next_id: AtomicU64::new(1),
            answered: AtomicU64::new(0),
            turn: Notify::new(),
            close: CancellationToken::new(),
            kill: CancellationToken::new(),
            gone: CancellationToken::new(),
        });
        tokio::spawn(send(queue, input, worker.close.clone()));
        tokio::spawn(worker.clone().listen(output));
        tokio::spawn(worker.clone().live(child));
        Ok(worker)
    }

    /// One request. Dropping the future takes it back.
    pub(super) async fn ask(&self, inputs: &[Input]) -> Outcome {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = talk::frame(&Order::Embed { id, inputs }, &[]);
        let frame = frame.map_err(|error| AskError::Failed(error.to_string()))?;
        let (answer, answered) = oneshot::channel();
        {
            let mut pending = self.pending();
            let Some(waiting) = &mut pending.waiting else { return Err(AskError::NotSent) };
            let is_first = waiting.is_empty();
            waiting.insert(id, answer);
            if is_first {
                // It owed nobody anything until now.
                pending.heard = Instant::now();
            }
        }
        let mut taken_back = TakenBack { worker: self, id, is_answered: false };
        if self.orders.send(frame).await.is_err() {
            return Err(AskError::NotSent);
        }
        let outcome = answered.await.unwrap_or(Err(AskError::Lost));
        taken_back.is_answered = true;
        outcome
    }

    pub(super) fn in_hand(&self) -> usize {
        self.pending().waiting.as_ref().map_or(0, HashMap::len)
    }

    /// How long it has said nothing although it owes an answer.
    pub(super) fn silent_for(&self) -> Duration {
        let pending = self.pending();
        match &pending.waiting {
            Some(waiting) if !waiting.is_empty() => pending.heard.elapsed(),
            _ => Duration::ZERO,
        }
    }

    pub(super) fn memory_bytes(&self) -> Option<u64> {
        memory::of_process(self.pid)
    }

    pub(super) fn kill(&self) {
        self.kill.cancel();
    }

    /// Lets it answer what it has in hand, for `drain` at most, and end.
    pub(super) async fn retire(&self, drain: Duration) {
        let answered = async {
            while self.in_hand() > 0 {
                let turn = self.turn.notified();
                if self.in_hand() > 0 {
                    turn.await;
                }
            }
        };
        let _ = timeout(drain, answered).await;
        self.close.cancel();
        if timeout(END_TIMEOUT + report_time(), self.gone.cancelled()).await.is_err() {
            tracing::warn!("the process {} of the model does not end and is killed", self.pid);
            self.kill();
            let _ = timeout(END_TIMEOUT, self.gone.cancelled()).await;
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listen(self: Arc<Self>, mut output: BufReader<ChildStdout>) {
        loop {
            match word(&mut output).await {
                Ok(Some((said, tail))) => self.hear(said, &tail),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!("the process of the model says what nobody understands: {error}");
                    break;
                }
            }
        }
        self.lose();
        // What cannot be heard any more is of no use, whether it runs or not.
        if timeout(END_TIMEOUT, self.gone.cancelled()).await.is_err() {
            self.kill();
        }
    }

    fn hear(&self, said: Word, tail: &[u8]) {
        let mut pending = self.pending();
        pending.heard = Instant::now();
        let (id, outcome) = match said {
            Word::Done { id, tokens } => (id, Ok(Answer { values: talk::values(tail), tokens })),
            Word::Unfit { id, index, what } => (id, Err(AskError::Unfit { index, what })),
            Word::Failed { id, why } => (id, Err(AskError::Failed(why))),
            Word::Beat | Word::Ready(_) | Word::CannotLoad { .. } => return,
        };
        let answer = pending.waiting.as_mut().and_then(|waiting| waiting.remove(&id));
        drop(pending);
        if let Some(answer) = answer {
            let _ = answer.send(outcome);
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        self.turn.notify_waiters();
    }

    /// Whoever waits is told so: the senders are dropped.
    fn lose(&self) {
        let waiting = self.pending().waiting.take();
        drop(waiting);
        self.turn.notify_waiters();
    }

    async fn live(self: Arc<Self>, mut child: Child) {
        let ended = tokio::select! {
            ended = child.wait() => ended,
            () = self.kill.cancelled() => {
                let _ = child.start_kill();
                child.wait().await
            }
        };
        match ended {
            Ok(status) if status.success() => {}
            Ok(status) => tracing::warn!("the process {} of the model ended with {status}", self.pid),
            Err(error) => tracing::warn!("the process of the model cannot be waited for: {error}"),
        }
        self.lose();
        self.gone.cancel();
        self.turn.notify_waiters();
    }
}

/// Takes a request back that nobody waits for any more.
struct TakenBack<'w> {
    worker: &'w Worker,
    id: u64,
    is_answered: bool,
}

impl Drop for TakenBack<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        if let Some(waiting) = &mut self.worker.pending().waiting {
            waiting.remove(&self.id);
        }
        self.worker.turn.notify_waiters();
        // Where its queue is full it computes what nobody reads, which harms nobody.
        if let Ok(frame) = talk::frame(&Order::<&[Input]>::Cancel { id: self.id }, &[]) {
            let _ = self.worker.orders.try_send(frame);
        }
    }
}

/// What a process may take at its end for a report of its memory.
pub(super) fn report_time() -> Duration {
    if heap::is_report_wanted() { REPORT_TIMEOUT } else { Duration::ZERO }
}

fn spawn(settings: &ModelSettings) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    // The libraries under the model ask for it there.
    command.env("RAYON_NUM_THREADS", settings.threads.to_string());
    if heap::is_report_wanted() {
        command.env(heap::SAMPLING.0, heap::SAMPLING.1);
    }
    command.spawn()
}

/// Hands frames over until its input is to be closed.
async fn send(mut queue: mpsc::Receiver<Vec<u8>>, mut input: ChildStdin, close: CancellationToken) {
    loop {
        let frame = tokio::select! {
            () = close.cancelled() => return,
            frame = queue.recv() => frame,
        };
        let Some(frame) = frame else { return };
        if input.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// The next frame; `None` at the end.
async fn word(output: &mut BufReader<ChildStdout>) -> io::Result<Option<(Word, Vec<u8>)>> {
    let mut lengths = [0; LENGTHS_BYTES];
    match output.read_exact(&mut lengths).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (head_bytes, tail_bytes) = talk::lengths(lengths)?;
    let mut head = vec![0; head_bytes];
    let mut tail = vec![0; tail_bytes];
    output.read_exact(&mut head).await?;
    output.read_exact(&mut tail).await?;
    Ok(Some((serde_json::from_slice(&head)?, tail)))
}
