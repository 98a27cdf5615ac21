//! One request that is under way over HTTP, until its first message is there.
//!
//! If that is the answer, the reply is plain JSON; if the server has something to
//! say before, the reply becomes a stream.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{session::HttpSession, tape::Tape};
use crate::{
    call::{Answer, BoxFuture, Payload},
    downstream::mailbox::{Mail, Mailbox, Question},
    wire::envelope::rpc_error,
};

/// So long a call of a session goes on without anybody who could hear its answer. Longer
/// than clients try to come back; a lost connection must not hold a place for ever.
pub(super) const DESERTED_MAX: Duration = Duration::from_secs(120);
const GIVEN_UP: i64 = -32000;

/// A call that no task has yet: it runs in the future of its HTTP request.
pub(super) struct Running {
    mailbox: Arc<Mailbox>,
    /// `None` once it was answered, cancelled or handed to a task.
    answer: Option<BoxFuture<'static, Answer>>,
    /// What is to be done when the call has ended, however that happens.
    end: Option<Enrolment>,
    on_disconnect: OnDisconnect,
    /// Of several requests: tells each that it was given up, for it to end with that.
    give_up: Option<CancellationToken>,
    tasks: TaskTracker,
}

/// What a client that disconnects before anything was said means by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDisconnect {
    /// Nothing: versions up to 2025-11-25 say so. The call ends by itself, or when the
    /// client has not come back for long.
    GoOn,
    /// It has cancelled: 2026-07-28 says so.
    Cancel,
}

/// Keeps a request in its session's list of those that can be cancelled by id.
pub(super) struct Enrolment {
    session: Arc<HttpSession>,
    number: u64,
}

impl Enrolment {
    /// `None` if the session has too many requests under way.
    pub(super) fn begin(session: &Arc<HttpSession>, id: &Payload, mailbox: &Arc<Mailbox>) -> Option<Self> {
        session.begin(id, mailbox).map(|number| Enrolment { session: session.clone(), number })
    }
}

impl Drop for Enrolment {
    fn drop(&mut self) {
        self.session.finish(self.number);
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
        Running { mailbox, answer: Some(answer), end, on_disconnect, give_up: None, tasks: tasks.clone() }
    }

    /// Stands for several requests, each of which answers for itself once `give_up` tells
    /// it that nobody came back; `answer` ends with the last of them.
    pub(super) fn of_several(mut self, give_up: CancellationToken) -> Self {
        self.give_up = Some(give_up);
        self
    }

    /// Waits for the first message. Without `streams` the client takes only the answer; no
    /// question of a session is among what it misses.
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
                    // Behind what was said in the very moment in which it came.
                    self.mailbox.answer(answer);
                    return self.first_held(streams);
                }
            }
        }
    }

    fn first_held(&self, streams: bool) -> First {
        loop {
            match self.mailbox.take() {
                Some(Mail::Message(message)) if streams => return First::Message(message),
                Some(Mail::Message(_)) => {}
                Some(Mail::Question(question)) => return First::Question(question),
                Some(Mail::Answer(answer)) => return First::Answer(answer),
                Some(Mail::Cancelled | Mail::Closed) | None => return First::Cancelled,
            }
        }
    }

    /// Lets the call end in a task of its own, with its answer put into the mailbox: a
    /// client that does not read must not keep a call from ending.
    pub(super) fn detach(mut self) {
        self.spawn(std::future::pending());
    }

    /// The same, for as long as somebody reads its stream or may still come back to it.
    pub(super) fn detach_from(mut self, tape: Arc<Tape>) {
        self.spawn(async move { tape.deserted(DESERTED_MAX).await });
    }

    fn spawn(&mut self, deserted: impl Future<Output = ()> + Send + 'static) {
        let Some(answer) = self.answer.take() else { return };
        let (mailbox, end, give_up) = (self.mailbox.clone(), self.end.take(), self.give_up.take());
        self.tasks.spawn(async move {
            let mut answer = answer;
            tokio::select! {
                biased;
                answer = &mut answer => mailbox.answer(answer),
                () = mailbox.cancelled() => {}
                // For whoever comes back after all.
                () = deserted => mailbox.answer(match give_up {
                    Some(give_up) => {
                        give_up.cancel();
                        answer.as_mut().await
                    }
                    None => given_up(),
                }),
            }
            drop((answer, end));
        });
    }
}

pub(super) fn given_up() -> Answer {
    let waited = crate::text::duration(DESERTED_MAX);
    let why = format!("seawall: nobody was connected to this request's stream for {waited}; it was cancelled");
    Answer::Error(rpc_error(GIVEN_UP, why))
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.on_disconnect == OnDisconnect::GoOn {
            self.spawn(sleep(DESERTED_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::downstream::http::tapes::Tapes;

    /// Stands for what a call holds: a permit, a place, the server's attention.
    struct Held(Arc<AtomicBool>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn hanging(on_disconnect: OnDisconnect) -> (Running, Arc<Mailbox>, Arc<AtomicBool>) {
        let (mailbox, is_over) = (Arc::new(Mailbox::default()), Arc::new(AtomicBool::new(false)));
        let held = Held(is_over.clone());
        let call = Box::pin(async move {
            let _held = held;
            std::future::pending().await
        });
        let running = Running::new(mailbox.clone(), call, None, on_disconnect, &TaskTracker::new());
        (running, mailbox, is_over)
    }

    async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
    }

    const A_SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_client_is_gone_goes_on_for_a_while_and_then_ends() {
        let (running, _, is_over) = hanging(OnDisconnect::GoOn);
        drop(running);
        pass(DESERTED_MAX - A_SECOND).await;
        assert!(!is_over.load(Ordering::Relaxed), "a lost connection cancels nothing");
        pass(A_SECOND * 2).await;
        assert!(is_over.load(Ordering::Relaxed), "but nobody came back");
        let (running, _, is_over) = hanging(OnDisconnect::Cancel);
        drop(running);
        assert!(is_over.load(Ordering::Relaxed), "since 2026-07-28 it cancels");
    }

    #[tokio::test]
    async fn what_is_said_in_the_moment_of_the_answer_is_not_lost() {
        for streams in [true, false] {
            let mailbox = Arc::new(Mailbox::default());
            let said = mailbox.clone();
            let call = Box::pin(async move {
                assert!(said.put(Mail::Message(Bytes::from_static(b"last words"))));
                Answer::Result(Payload::literal("1"))
            });
            let tasks = TaskTracker::new();
            let mut running = Running::new(mailbox.clone(), call, None, OnDisconnect::GoOn, &tasks);
            match running.first(streams).await {
                First::Message(message) if streams => assert_eq!(message, "last words"),
                First::Answer(_) if !streams => continue,
                _ => panic!("streams: {streams}"),
            }
            running.detach();
            assert!(matches!(mailbox.next().await, Mail::Answer(Answer::Result(_))), "then the answer");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_client_comes_back_goes_on() {
        let (running, mailbox, is_over) = hanging(OnDisconnect::GoOn);
        let tapes = Arc::new(Tapes::new(&Arc::default(), false));
        let tape = tapes.open(mailbox, Some(Payload::literal("7")));
        let reader = tapes.read(&tape);
        running.detach_from(tape);
        pass(DESERTED_MAX * 3).await;
        drop(reader);
        pass(DESERTED_MAX - A_SECOND).await;
        let reader = tapes.resume("1-0").expect("it is there").expect("it goes on");
        pass(DESERTED_MAX * 3).await;
        assert!(!is_over.load(Ordering::Relaxed), "somebody reads it");
        drop(reader);
        pass(DESERTED_MAX + A_SECOND).await;
        assert!(is_over.load(Ordering::Relaxed));
        let mut late = tapes.resume("1-0").expect("it is kept").expect("there is more");
        let told = String::from_utf8(late.next().await.expect("an answer").to_vec()).expect("UTF-8");
        assert!(told.contains(r#""id":7,"error""#) && told.contains("2 min"), "{told}");
        assert_eq!(late.next().await, None);
    }
}
