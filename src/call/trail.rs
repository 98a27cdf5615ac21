//! What the inner rooms learn about a call while it is under way.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::sync::{
    Notify,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// What the inner rooms learn about a call while it is under way, for the outer
/// ones to read: when its bytes left, when it last showed life, and who has it.
#[derive(Debug)]
pub struct Trail {
    began: Instant,
    /// Microseconds after `began`, plus one; zero while nothing was sent.
    last_life_us: AtomicU64,
    instance: AtomicU64,
    /// Questions of the server that the client has not answered yet.
    open_questions: AtomicU64,
    question: Notify,
    timed_out: AtomicBool,
    /// What the link knows of why this went wrong, beyond what the server has said.
    remark: std::sync::OnceLock<String>,
}

/// A question is open: see [`Trail::asks`].
#[derive(Debug)]
pub struct Asking(Arc<Trail>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.alive();
        // Who sees that no question is open sees the life above, too.
        self.0.open_questions.fetch_sub(1, Ordering::Release);
        self.0.question.notify_one();
    }
}

impl Default for Trail {
    fn default() -> Self {
        Self::new()
    }
}

impl Trail {
    pub fn new() -> Self {
        Trail {
            began: Instant::now(),
            last_life_us: AtomicU64::new(0),
            instance: AtomicU64::new(0),
            open_questions: AtomicU64::new(0),
            question: Notify::default(),
            timed_out: AtomicBool::new(false),
            remark: std::sync::OnceLock::new(),
        }
    }

    /// The first remark counts.
    pub fn remark(&self, remark: String) {
        let _ = self.remark.set(remark);
    }

    pub fn remarked(&self) -> Option<&str> {
        self.remark.get().map(String::as_str)
    }

    pub fn began(&self) -> Instant {
        self.began
    }

    /// The bytes were handed over to `instance`: the silence clock starts.
    pub fn sent_to(&self, instance: u64) {
        self.instance.store(instance, Ordering::Relaxed);
        self.alive();
    }

    /// The server showed life on behalf of this call.
    pub fn alive(&self) {
        let since_began_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        // Of two at once the later one counts, whichever comes here first.
        self.last_life_us.fetch_max(since_began_us + 1, Ordering::Relaxed);
    }

    /// The server waits for its client: while a person thinks, it is not silent.
    pub fn asks(self: &Arc<Self>) -> Asking {
        self.open_questions.fetch_add(1, Ordering::Relaxed);
        self.question.notify_one();
        Asking(self.clone())
    }

    pub fn is_asking(&self) -> bool {
        self.open_questions.load(Ordering::Acquire) > 0
    }

    /// Resolves when a question was asked or answered; for one listener.
    pub async fn question_changed(&self) {
        self.question.notified().await;
    }

    /// When the call was sent or last showed life; `None` while nothing was sent.
    pub fn last_life(&self) -> Option<Instant> {
        // Before the life: the answer to a question that was open just now is one.
        let is_asking = self.is_asking();
        match self.last_life_us.load(Ordering::Relaxed) {
            0 => None,
            _ if is_asking => Some(Instant::now()),
            after_us => Some(self.began + Duration::from_micros(after_us - 1)),
        }
    }

    /// The number of the instance that has the call, once it was sent.
    pub fn instance(&self) -> Option<u64> {
        match self.instance.load(Ordering::Relaxed) {
            0 => None,
            number => Some(number),
        }
    }

    /// The call is late: what is dropped now is dropped for that reason.
    pub fn time_out(&self) {
        self.timed_out.store(true, Ordering::Relaxed);
    }

    /// Tells a call that took too long from one whose client gave up.
    pub fn timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }
}
