//! Who waits for which answer of one in-process server, and whether it still runs.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{oneshot, watch};

use crate::{
    call::Answer,
    link::{Gone, LinkError},
};

type Outcome = Result<Answer, LinkError>;

/// The pending table. Its size is bounded by the queue's places: see `QUEUE_MESSAGES`.
#[derive(Default)]
pub(super) struct Desk {
    table: Mutex<Table>,
    waiting: watch::Sender<usize>,
    over: watch::Sender<Option<Gone>>,
}

#[derive(Default)]
struct Table {
    waiting: HashMap<u64, oneshot::Sender<Outcome>>,
    /// Why no further request is taken.
    refusing: Option<String>,
}

impl Desk {
    pub(super) fn enter(&self, id: u64) -> Result<oneshot::Receiver<Outcome>, LinkError> {
        let mut table = self.table();
        if let Some(reason) = &table.refusing {
            return Err(LinkError::NotSent(reason.clone()));
        }
        let (answered, answer) = oneshot::channel();
        table.waiting.insert(id, answered);
        self.waiting.send_replace(table.waiting.len());
        Ok(answer)
    }

    /// Ends the wait for `id`. The first outcome counts; later ones have nobody to go to.
    pub(super) fn settle(&self, id: u64, outcome: Outcome) {
        if let Some(answered) = self.take(id) {
            // Whoever asked may have left in this very moment.
            let _ = answered.send(outcome);
        }
    }

    /// Whether `id` was still waiting.
    pub(super) fn leave(&self, id: u64) -> bool {
        self.take(id).is_some()
    }

    pub(super) fn refuse(&self, reason: &str) {
        self.table().refusing.get_or_insert_with(|| reason.to_owned());
    }

    /// Everyone who waits has lost; the first reason given is the one that stays.
    pub(super) fn end(&self, reason: &str) {
        let gone = super::gone(reason);
        let first = self.over.send_if_modified(|over| {
            let first = over.is_none();
            over.get_or_insert_with(|| gone.clone());
            first
        });
        if !first {
            return;
        }
        let mut table = self.table();
        table.refusing = Some(reason.to_owned());
        for (_, answered) in table.waiting.drain() {
            let _ = answered.send(Err(LinkError::Lost(gone.clone())));
        }
        self.waiting.send_replace(0);
    }

    /// Nobody waits.
    pub(super) async fn idle(&self) {
        // Fails only without a sender, and `self` is one.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting == 0).await;
    }

    pub(super) async fn gone(&self) -> Gone {
        let mut over = self.over.subscribe();
        match over.wait_for(Option::is_some).await {
            Ok(gone) => gone.clone().unwrap_or_else(|| super::gone("its connection ended")),
            Err(_) => super::gone("its connection ended"),
        }
    }

    fn take(&self, id: u64) -> Option<oneshot::Sender<Outcome>> {
        let mut table = self.table();
        let answered = table.waiting.remove(&id)?;
        self.waiting.send_replace(table.waiting.len());
        Some(answered)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
