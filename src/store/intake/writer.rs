//! The thread that writes: it takes what waits as one group, commits it, and answers.

use std::{
    fs,
    sync::{
        Arc, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::{IntakeSettings, Receipt, Refused, Shared, Submission, Waiting, file::File};
use crate::{
    id::unix_ms,
    store::{
        database::{self, FileId, Trouble},
        retention::Step,
    },
};

/// So much is committed together at most, so that nobody waits long for all of it.
const GROUP_MAX_SUBMISSIONS: usize = 256;
const GROUP_MAX_EVENTS: usize = 20_000;
const TIDY_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    settings: IntakeSettings,
    inbox: Receiver<Waiting>,
    shared: Arc<Shared>,
    /// Opened when it is needed, and again after anything went wrong with it.
    file: Option<File>,
    tidy_at: Instant,
}

impl Writer {
    pub(super) fn new(settings: IntakeSettings, inbox: Receiver<Waiting>, shared: Arc<Shared>) -> Self {
        Writer { settings, inbox, shared, file: None, tidy_at: Instant::now() }
    }

    /// Until the last handle is closed and what it handed over is answered.
    pub(super) fn run(mut self) {
        // At once, so that readers find a file.
        let opened = self.reach().map(|_| ());
        self.note(opened.err());
        loop {
            match self.inbox.recv_timeout(self.tidy_at.saturating_duration_since(Instant::now())) {
                Ok(first) => self.commit(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.tidy_at <= Instant::now() {
                self.tidy();
            }
        }
    }

    fn commit(&mut self, first: Waiting) {
        let group = self.gather(first);
        let submissions = group.iter().map(|waiting| &waiting.submission);
        let outcomes = self.write(submissions);
        match outcomes {
            Ok(outcomes) => {
                self.note(None);
                for (waiting, outcome) in group.into_iter().zip(outcomes) {
                    self.answer(waiting, outcome);
                }
                (self.shared.on_commit)();
            }
            Err(trouble) => {
                let refused = Refused::Unavailable(trouble.to_string());
                self.note(Some(trouble));
                for waiting in group {
                    self.answer(waiting, Err(refused.clone()));
                }
            }
        }
    }

    /// The first and all that wait behind it, but for those that nobody waits for.
    fn gather(&mut self, first: Waiting) -> Vec<Waiting> {
        let now = Instant::now();
        let mut group = Vec::new();
        let mut events = 0;
        let mut next = Some(first);
        while let Some(waiting) = next {
            if waiting.submission.until <= now {
                self.answer(waiting, Err(Refused::Overloaded));
            } else {
                events += waiting.submission.events.len();
                group.push(waiting);
            }
            if group.len() == GROUP_MAX_SUBMISSIONS || events >= GROUP_MAX_EVENTS {
                break;
            }
            next = self.inbox.try_recv().ok();
        }
        group
    }

    fn answer(&self, waiting: Waiting, outcome: Result<Receipt, Refused>) {
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        (waiting.answer)(outcome);
    }

    fn write<'a>(
        &mut self,
        group: impl IntoIterator<Item = &'a Submission>,
    ) -> Result<Vec<Result<Receipt, Refused>>, Trouble> {
        let now_ms = i64::try_from(unix_ms()).unwrap_or(i64::MAX);
        let outcome = self.reach().and_then(|file| file.commit(group, now_ms));
        if let Err(trouble) = &outcome {
            self.recover(trouble);
        }
        self.let_go_if_spent();
        outcome
    }

    fn let_go_if_spent(&mut self) {
        self.file.take_if(|file| file.is_spent());
    }

    fn reach(&mut self) -> Result<&mut File, Trouble> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.settings)?,
        };
        Ok(self.file.insert(file))
    }

    /// The next attempt finds the file opened anew, and a damaged one out of the way.
    fn recover(&mut self, trouble: &Trouble) {
        match trouble {
            // Another process, and a connection that is as good as before.
            Trouble::Busy => {}
            Trouble::Damaged(detail) => {
                let damaged = FileId::of(&self.settings.path);
                self.file = None;
                match database::set_aside(&self.settings.path, damaged) {
                    Ok(aside) => {
                        tracing::error!(%detail, ?aside, "the database is damaged, a fresh one takes its place")
                    }
                    Err(error) => tracing::error!(%detail, %error, "the database is damaged and cannot be set aside"),
                }
            }
            Trouble::Full => {
                self.file = None;
                // There may be something that need not be kept.
                self.tidy_at = Instant::now();
            }
            _ => self.file = None,
        }
    }

    fn tidy(&mut self) {
        let now_ms = i64::try_from(unix_ms()).unwrap_or(i64::MAX);
        let step = match self.reach() {
            Ok(file) => file.tidy(now_ms),
            Err(trouble) => Err(trouble),
        };
        let pause = match step {
            Ok(Step::More) => Duration::ZERO,
            Ok(Step::Done) => TIDY_EVERY,
            Err(trouble) => {
                self.file = None;
                tracing::debug!(%trouble, "nothing could be tidied up");
                TIDY_EVERY
            }
        };
        self.let_go_if_spent();
        // A file that is gone is not made anew by reading: the next writer does that.
        if fs::metadata(&self.settings.path).is_err() {
            self.file = None;
        }
        self.tidy_at = Instant::now() + pause;
    }

    fn note(&self, trouble: Option<Trouble>) {
        let text = trouble.map(|trouble| trouble.to_string());
        let mut known = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != text {
            match &text {
                Some(text) => tracing::warn!("events are refused: {text}"),
                None => tracing::warn!("events are taken again"),
            }
            *known = text;
        }
    }
}
