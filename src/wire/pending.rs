//! The requests that await an answer: who waits, and whether the bytes have left.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::oneshot;

use crate::{
    call::{Answer, Trail},
    link::{Gone, LinkError},
    sync::{Mutex, MutexGuard, PoisonError},
};

#[cfg(test)]
#[path = "pending/model.rs"]
mod model;

/// More than this at once is a client gone wild; the rest is refused.
const PENDING_MAX_REQUESTS: usize = 16_384;

type Waiter = oneshot::Sender<Result<Answer, LinkError>>;

#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    waiting: HashMap<u64, Entry>,
    gone: Option<Gone>,
}

#[derive(Debug)]
struct Entry {
    waiter: Waiter,
    trail: Arc<Trail>,
    sent: bool,
}

impl Pending {
    fn table(&self) -> MutexGuard<'_, Table> {
        // No code of ours panics while it holds the lock; a table is whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(
        &self,
        trail: Arc<Trail>,
    ) -> Result<(u64, oneshot::Receiver<Result<Answer, LinkError>>), LinkError> {
        let mut table = self.table();
        if let Some(gone) = &table.gone {
            return Err(LinkError::NotSent(gone.reason.clone()));
        }
        if table.waiting.len() >= PENDING_MAX_REQUESTS {
            return Err(LinkError::NotSent(format!("{PENDING_MAX_REQUESTS} requests already await its answer")));
        }
        table.last_id += 1;
        let id = table.last_id;
        let (waiter, answer) = oneshot::channel();
        table.waiting.insert(id, Entry { waiter, trail, sent: false });
        Ok((id, answer))
    }

    /// The bytes are about to leave for `instance`; false if nobody waits any more.
    pub(super) fn mark_sent(&self, id: u64, instance: u64) -> bool {
        match self.table().waiting.get_mut(&id) {
            Some(entry) => {
                entry.sent = true;
                entry.trail.sent_to(instance);
                true
            }
            None => false,
        }
    }

    /// Hands over the outcome of one request; false if nobody waits for it.
    pub(super) fn settle(&self, id: u64, outcome: Result<Answer, LinkError>) -> bool {
        let entry = self.table().waiting.remove(&id);
        entry.is_some_and(|entry| entry.waiter.send(outcome).is_ok())
    }

    /// The caller gave up. True if the other side must be told.
    pub(super) fn forget(&self, id: u64) -> bool {
        self.table().waiting.remove(&id).is_some_and(|entry| entry.sent)
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.table().waiting.contains_key(&id)
    }

    /// Ends all requests, and every later one. `guilty` is the request whose answer
    /// broke the protocol, if that is why. True for the first end, which is the one
    /// that counts.
    pub(super) fn end(&self, gone: &Gone, guilty: Guilty) -> bool {
        let ended = {
            let mut table = self.table();
            if table.gone.is_some() {
                return false;
            }
            table.gone = Some(gone.clone());
            std::mem::take(&mut table.waiting)
        };
        for (id, entry) in ended {
            let error = if guilty == Guilty::All || guilty == Guilty::One(id) {
                LinkError::Protocol(gone.reason.clone())
            } else if entry.sent {
                LinkError::Lost(gone.clone())
            } else {
                LinkError::NotSent(gone.reason.clone())
            };
            let _ = entry.waiter.send(Err(error));
        }
        true
    }

    pub(super) fn gone(&self) -> Option<Gone> {
        self.table().gone.clone()
    }
}

/// Which requests the end of a connection is to be blamed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guilty {
    None,
    One(u64),
    All,
}
