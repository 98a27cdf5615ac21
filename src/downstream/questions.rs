//! The questions of servers that one client has not answered yet.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::{
    call::{Answer, Payload},
    sync::{Mutex, MutexGuard, PoisonError},
    wire::envelope::rpc_error,
};

const OPEN_MAX_QUESTIONS: usize = 256;
const NO_ANSWER: i64 = -32000;

#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    open: HashMap<u64, oneshot::Sender<Answer>>,
    /// Nobody will answer any more.
    is_over: bool,
}

impl Questions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a question that `send` delivers under the id given, and waits for its answer.
    pub(super) async fn ask(&self, send: impl FnOnce(u64) -> bool) -> Answer {
        let no_answer = |why| Answer::Error(rpc_error(NO_ANSWER, why));
        let (asker, answer) = oneshot::channel();
        let id = {
            let mut table = self.table();
            if table.is_over {
                return no_answer("seawall: the client is gone");
            }
            if table.open.len() >= OPEN_MAX_QUESTIONS {
                return no_answer("seawall: this client has too many open questions");
            }
            table.last_id += 1;
            let id = table.last_id;
            table.open.insert(id, asker);
            id
        };
        let _open = OpenQuestion { questions: self, id };
        if !send(id) {
            return no_answer("seawall: this client reads no stream");
        }
        answer.await.unwrap_or_else(|_| no_answer("seawall: the client is gone"))
    }

    /// The client's answer to one of them.
    pub(super) fn answered(&self, id: u64, answer: Answer) {
        let asker = self.table().open.remove(&id);
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

    /// The client is gone: whoever waits for its answer, or asks from now on, hears so.
    pub(super) fn end(&self) {
        let unanswered = {
            let mut table = self.table();
            table.is_over = true;
            std::mem::take(&mut table.open)
        };
        // Dropping the sender is what tells the asker.
        drop(unanswered);
    }
}

/// Forgets a question that nobody waits for any more.
struct OpenQuestion<'a> {
    questions: &'a Questions,
    id: u64,
}

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        self.questions.table().open.remove(&self.id);
    }
}
