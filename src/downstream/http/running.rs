//! One request that is under way over HTTP, until its first message is there.
//!
//! If that is the answer, the reply is plain JSON; if the server has something to
//! say before, the reply becomes a stream.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::task::TaskTracker;

use super::{body::Ending, session::HttpSession};
use crate::{
    call::{Answer, BoxFuture, Payload},
    downstream::mailbox::{Mail, Mailbox, Question},
    wire::envelope::Parts,
};

/// A call that no task has yet: it runs in the future of its HTTP request.
pub(super) struct Running {
    mailbox: Arc<Mailbox>,
    /// `None` once it was answered, cancelled or handed to a task.
    answer: Option<BoxFuture<'static, Answer>>,
    /// What is to be done when the call has ended, however that happens.
    end: Option<Enrolment>,
    on_disconnect: OnDisconnect,
    tasks: TaskTracker,
}

/// What a client that disconnects before anything was said means by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDisconnect {
    /// Nothing: versions up to 2025-11-25 say so. The call ends by itself.
    GoOn,
    /// It has cancelled: 2026-07-28 says so.
    Cancel,
}

/// Keeps a request in its session's list of those that can be cancelled by id.
pub(super) struct Enrolment {
    session: Arc<HttpSession>,
    id: Payload,
}

impl Enrolment {
    /// `None` if the session has too many requests under way.
    pub(super) fn begin(session: &Arc<HttpSession>, id: &Payload, mailbox: &Arc<Mailbox>) -> Option<Self> {
        session.begin(id, mailbox).then(|| Enrolment { session: session.clone(), id: id.clone() })
    }
}

impl Drop for Enrolment {
    fn drop(&mut self) {
        self.session.finish(&self.id);
    }
}

pub(super) enum First {
    Answer(Answer),
    Message(Bytes),
    Question(Question),
    Cancelled,
}

impl Running {
    pub(super) fn new(
        mailbox: Arc<Mailbox>,
        answer: BoxFuture<'static, Answer>,
        end: Option<Enrolment>,
        on_disconnect: OnDisconnect,
        tasks: &TaskTracker,
    ) -> Self {
        Running { mailbox, answer: Some(answer), end, on_disconnect, tasks: tasks.clone() }
    }

    /// Waits for the first message. Without `streams` the client takes only the answer.
    pub(super) async fn first(&mut self, streams: bool) -> First {
        let Some(answer) = &mut self.answer else { return First::Cancelled };
        loop {
            tokio::select! {
                biased;
                mail = self.mailbox.next() => match mail {
                    Mail::Message(message) if streams => return First::Message(message),
                    Mail::Message(_) => {}
                    Mail::Question(question) => return First::Question(question),
                    Mail::Answer(answer) => return First::Answer(answer),
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

    /// Lets the call end in a task of its own, with its answer put into the mailbox: a
    /// client that does not read must not keep a call from ending.
    pub(super) fn detach(mut self) {
        self.spawn();
    }

    fn spawn(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        let (mailbox, end) = (self.mailbox.clone(), self.end.take());
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                answer = answer => mailbox.answer(answer),
                () = mailbox.cancelled() => {}
            }
            drop(end);
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.on_disconnect == OnDisconnect::GoOn {
            self.spawn();
        }
    }
}

/// The stream of a legacy request ends with its answer; questions are messages on it.
pub(super) struct Plain {
    pub(super) id: Payload,
}

impl Ending for Plain {
    fn answer(&mut self, answer: Answer) -> Bytes {
        Parts::response(&self.id, answer.on_one_line()).joined()
    }

    fn questions(&mut self, _: Vec<Question>) -> Option<Bytes> {
        None
    }
}
