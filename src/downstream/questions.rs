//! The questions of servers that one client has not answered yet.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::{
    call::{Answer, Payload},
    wire::envelope::rpc_error,
};

const OPEN_MAX_QUESTIONS: usize = 256;
const NO_ANSWER: i64 = -32000;

#[derive(Debug, Default)]
pub(super) struct Questions {
    open: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    last_id: AtomicU64,
}

impl Questions {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a question that `send` delivers under the id given, and waits for its answer.
    pub(super) async fn ask(&self, send: impl FnOnce(u64) -> bool) -> Answer {
        let no_answer = |why| Answer::Error(rpc_error(NO_ANSWER, why));
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (asker, answer) = oneshot::channel();
        {
            let mut open = self.open();
            if open.len() >= OPEN_MAX_QUESTIONS {
                return no_answer("seawall: this client has too many open questions");
            }
            open.insert(id, asker);
        }
        let _open = OpenQuestion { questions: self, id };
        if !send(id) {
            return no_answer("seawall: this client reads no stream");
        }
        answer.await.unwrap_or_else(|_| no_answer("seawall: the client is gone"))
    }

    /// The client's answer to one of them.
    pub(super) fn answered(&self, id: u64, answer: Answer) {
        let asker = self.open().remove(&id);
        if let Some(asker) = asker {
            let _ = asker.send(answer);
        }
    }

    /// The same under an id as it came; ids of seawall's own are plain integers.
    pub(super) fn answered_to(&self, id: &Payload, answer: Answer) {
        if let Ok(id) = id.as_str().parse() {
            self.answered(id, answer);
        }
    }
}

/// Forgets a question that nobody waits for any more.
struct OpenQuestion<'a> {
    questions: &'a Questions,
    id: u64,
}

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        self.questions.open().remove(&self.id);
    }
}
