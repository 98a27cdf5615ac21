//! One request that is under way over HTTP, until its first message is there.
//!
//! If that is the answer, the reply is plain JSON; if the server has something to
//! say before, the reply becomes a stream. A client that disconnects has not
//! cancelled (versions up to 2025-11-25 say so): the call then ends on its own.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::task::TaskTracker;

use super::{
    mailbox::{Mail, Mailbox},
    session::HttpSession,
};
use crate::{
    call::{Answer, BoxFuture, Payload},
    wire::envelope::Parts,
};

pub(super) struct Running {
    pub(super) session: Arc<HttpSession>,
    pub(super) id: Payload,
    pub(super) mailbox: Arc<Mailbox>,
    /// `None` once it was answered, cancelled or handed to a task.
    pub(super) answer: Option<BoxFuture<'static, Answer>>,
    pub(super) tasks: TaskTracker,
}

pub(super) enum First {
    Answer(Answer),
    Message(Bytes),
    Cancelled,
}

impl Running {
    /// Waits for the first message. Without `streams` the client takes only the answer.
    pub(super) async fn first(&mut self, streams: bool) -> First {
        let Some(answer) = &mut self.answer else { return First::Cancelled };
        loop {
            tokio::select! {
                biased;
                mail = self.mailbox.next() => match mail {
                    Mail::Message(message) if streams => return First::Message(message),
                    Mail::Message(_) => {}
                    Mail::Cancelled | Mail::Closed => {
                        // Dropping the future is what tells the server.
                        self.answer = None;
                        return First::Cancelled;
                    }
                },
                answer = answer.as_mut() => {
                    self.answer = None;
                    return First::Answer(answer);
                }
            }
        }
    }

    /// Lets the call end in a task of its own, with its answer put on the stream: a
    /// client that does not read must not keep a call from ending.
    pub(super) fn detach(mut self) {
        self.spawn();
    }

    fn spawn(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        let rest = Running {
            session: self.session.clone(),
            id: self.id.clone(),
            mailbox: self.mailbox.clone(),
            answer: None,
            tasks: self.tasks.clone(),
        };
        self.tasks.spawn(rest.finish(answer));
    }

    async fn finish(self, answer: BoxFuture<'static, Answer>) {
        let cancelled = self.mailbox.cancelled();
        tokio::select! {
            biased;
            answer = answer => {
                let answer = match answer {
                    Answer::Result(result) => Answer::Result(result.on_one_line()),
                    Answer::Error(error) => Answer::Error(error.on_one_line()),
                };
                self.mailbox.put_last(Parts::response(&self.id, answer).joined());
            }
            () = cancelled => {}
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.answer.is_some() {
            // The client has gone away before anything was said.
            self.spawn();
        } else {
            self.session.finish(&self.id);
        }
    }
}
