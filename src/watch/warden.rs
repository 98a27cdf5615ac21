//! The one thread that owns folders and watch.db: it takes hints, looks, lets files
//! come to rest, records, and hands out what is to be handled. Nothing else writes.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    eyes::Eyes,
    folder::Folder,
    handler::Handlers,
    hints::{Gathered, Hints},
    nap::{Nap, since_boot},
    settings::Settings,
    settle::Settling,
};
use crate::store::watch::{Change, WatchDb, WatchDbError};

mod hand;
mod look;
mod take;

/// It looks up so often although nobody told it anything.
const TICK: Duration = Duration::from_secs(1);
/// The first hint of a burst is followed by others.
const GATHER: Duration = Duration::from_millis(50);
/// Where the system does not tell, all is looked through this often.
pub(super) const POLL_EVERY: Duration = Duration::from_secs(10);
/// A survey is followed by a rest of at least so long.
const SURVEY_REST: Duration = Duration::from_secs(1);
/// What could not be read is tried again this often.
const UNREADABLE_EVERY: Duration = Duration::from_secs(10);
const RETAIN_EVERY: Duration = Duration::from_secs(60);
/// How it is goes to watch.db this often at least.
const BEAT_EVERY: Duration = Duration::from_secs(10);
/// watch.db is locked or the disk is full: so long until the next attempt.
const TROUBLE_REST: Duration = Duration::from_secs(1);
/// So many changes are one transaction.
const BATCH_CHANGES: usize = 1000;
/// Commands that were told to end at last are waited for so much longer.
const BREAK_OFF_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Warden {
    settings: Settings,
    db: WatchDb,
    hints: Hints,
    stopping: Arc<AtomicBool>,
    eyes: Eyes,
    folders: Vec<Folder>,
    settling: Settling,
    handlers: Handlers,
    /// Seen, and not yet recorded.
    changes: Vec<Change>,
    nap: Nap,
    /// Why all folders are to be looked through; `None` where they need not be.
    survey_wanted: Option<String>,
    survey_not_before: Instant,
    /// Files were left where they are, for want of room: they are looked for again.
    left_out: bool,
    /// There are more files than may be known.
    is_full: bool,
    /// There are more subfolders than are walked through.
    is_too_deep: bool,
    trouble: Option<String>,
    rescan_at: Instant,
    unreadable_at: Instant,
    retain_at: Instant,
    beat_at: Instant,
    told: Value,
}

impl Warden {
    pub(super) fn new(
        settings: Settings,
        db: WatchDb,
        hints: Hints,
        stopping: Arc<AtomicBool>,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let now = Instant::now();
        Warden {
            eyes: Eyes::open(hints.clone()),
            folders: settings.folders.iter().cloned().map(Folder::new).collect(),
            handlers: Handlers::new(runtime, settings.concurrency, hints.clone()),
            settings,
            db,
            hints,
            stopping,
            settling: Settling::default(),
            changes: Vec::new(),
            nap: Nap::new(since_boot()),
            survey_wanted: Some("it starts".to_owned()),
            survey_not_before: now,
            left_out: false,
            is_full: false,
            is_too_deep: false,
            trouble: None,
            rescan_at: now,
            unreadable_at: now,
            retain_at: now,
            beat_at: now,
            told: Value::Null,
        }
    }

    /// Until it is told to stop, or watch.db is beyond use.
    pub(super) fn run(mut self) -> Result<(), WatchDbError> {
        while !self.is_stopping() {
            let gathered = self.gather();
            match self.pass(gathered) {
                Ok(()) if self.trouble.is_some() => {
                    tracing::info!("watch.db takes rows again");
                    self.trouble = None;
                }
                Ok(()) => {}
                Err(error) if error.is_passing() => self.rest_after(&error),
                Err(error) => {
                    self.handlers.break_off();
                    return Err(error);
                }
            }
        }
        self.drain()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Nothing is lost: what was not recorded is found again.
    fn rest_after(&mut self, error: &WatchDbError) {
        if self.trouble.is_none() {
            tracing::warn!("{error}; trying again every {TROUBLE_REST:?}");
        }
        self.trouble = Some(error.to_string());
        self.changes.clear();
        self.want_survey("watch.db was not to be had");
        thread::sleep(TROUBLE_REST);
    }

    fn gather(&self) -> Gathered {
        let mut gathered = self.hints.wait(self.pause());
        if !gathered.paths.is_empty() {
            thread::sleep(GATHER);
            let more = self.hints.wait(Duration::ZERO);
            gathered.paths.extend(more.paths);
            gathered.lost = gathered.lost.or(more.lost);
        }
        gathered
    }

    fn pause(&self) -> Duration {
        let now = Instant::now();
        let survey = self.survey_wanted.as_ref().map(|_| self.survey_not_before);
        let next = self.settling.next().into_iter().chain(survey).min();
        next.map_or(TICK, |next| next.saturating_duration_since(now).min(TICK))
    }

    /// Looks at whatever there is to look at, once.
    fn pass(&mut self, gathered: Gathered) -> Result<(), WatchDbError> {
        if let Some(away) = self.nap.was_away(since_boot(), TICK) {
            self.want_survey(&format!("the machine slept for {}", crate::text::duration(away)));
        }
        if let Some(why) = gathered.lost {
            self.want_survey(&why);
        }
        self.look_at_presence()?;
        self.look_at_hints(gathered.paths)?;
        self.look_again()?;
        self.survey_if_wanted()?;
        self.take_rested()?;
        self.flush()?;
        self.hear_of_commands()?;
        self.hand_out()?;
        self.retain()?;
        self.beat()
    }

    fn want_survey(&mut self, why: &str) {
        if self.survey_wanted.is_none() {
            tracing::info!("looking through all folders: {why}");
            self.survey_wanted = Some(why.to_owned());
        }
    }

    /// What nobody tells of: time passes, rights are given, room is made.
    fn look_again(&mut self) -> Result<(), WatchDbError> {
        let now = Instant::now();
        if now >= self.rescan_at {
            let every = match self.eyes.trouble() {
                Some(_) => POLL_EVERY.min(self.settings.rescan_every),
                None => self.settings.rescan_every,
            };
            self.rescan_at = now + every;
            self.survey_wanted.get_or_insert_with(|| "time has passed".to_owned());
        }
        if self.left_out && self.settling.has_room() {
            self.left_out = false;
            self.want_survey("there is room again for files that were left out");
        }
        if self.is_full && self.db.files() < self.settings.max_files {
            self.want_survey("there is room again for files beyond max_files");
        }
        if now >= self.unreadable_at {
            self.unreadable_at = now + UNREADABLE_EVERY;
            self.look_at_unreadable()?;
        }
        Ok(())
    }

    /// All of it, with a rest in between that grows with what it takes.
    fn survey_if_wanted(&mut self) -> Result<(), WatchDbError> {
        let began = Instant::now();
        if self.survey_wanted.is_none() || began < self.survey_not_before {
            return Ok(());
        }
        self.survey_wanted = None;
        self.is_full = false;
        for index in 0..self.folders.len() {
            let whole = self.folders[index].path().to_owned();
            self.survey(index, &whole)?;
        }
        self.survey_not_before = Instant::now() + SURVEY_REST.max(began.elapsed() * 2);
        Ok(())
    }

    /// Records what was seen, so far as it is not known.
    fn flush(&mut self) -> Result<(), WatchDbError> {
        for batch in self.changes.chunks(BATCH_CHANGES) {
            self.db.record(batch)?;
        }
        self.changes.clear();
        Ok(())
    }

    fn retain(&mut self) -> Result<(), WatchDbError> {
        let now = Instant::now();
        // Where files are left out, room is looked for at once.
        if now < self.retain_at && !self.is_full {
            return Ok(());
        }
        // A tenth is kept free for what is new.
        let keep_files = self.settings.max_files - (self.settings.max_files / 10).max(1);
        let more = self.db.retain(self.settings.keep_for, self.settings.keep_bytes, keep_files)?;
        // One step a pass, so that nothing waits for it.
        self.retain_at = if more { now } else { now + RETAIN_EVERY };
        Ok(())
    }

    /// Says how it is, where that has changed or was said too long ago.
    fn beat(&mut self) -> Result<(), WatchDbError> {
        let now = Instant::now();
        let status = self.status("watching");
        if status != self.told || now >= self.beat_at {
            self.db.beat(&status)?;
            self.told = status;
            self.beat_at = now + BEAT_EVERY;
        }
        Ok(())
    }

    fn status(&self, state: &str) -> Value {
        json!({
            "state": state,
            "pid": std::process::id(),
            "folders": self.folders.iter().map(Folder::as_json).collect::<Value>(),
            "polled": self.eyes.trouble(),
            "full": self.is_full,
        })
    }

    /// Nothing new is begun; what is under way may end.
    fn drain(mut self) -> Result<(), WatchDbError> {
        tracing::info!("stopping; commands under way: {}", self.handlers.commands());
        let until = Instant::now() + self.settings.drain;
        while self.handlers.commands() > 0 && Instant::now() < until {
            self.hints.wait(TICK);
            self.hear_of_commands()?;
        }
        self.handlers.break_off();
        let until = Instant::now() + BREAK_OFF_WAIT;
        while self.handlers.commands() > 0 && Instant::now() < until {
            self.hints.wait(TICK);
            self.hear_of_commands()?;
        }
        let status = self.status("stopped");
        self.db.beat(&status)
    }

    fn folder_of(&self, told: &std::path::Path) -> Option<(usize, PathBuf)> {
        self.folders.iter().enumerate().find_map(|(index, folder)| Some((index, folder.own(told)?)))
    }
}
