//! What a server says on its own, sorted: progress to its call, list changes to the
//! server's task, everything else to the one client it can be for.

use std::sync::{Arc, Weak};

use tokio::sync::Semaphore;

use super::{Order, Shared, inflight::InFlight};
use crate::{
    call::{Answer, Message, Method, Payload},
    link::{Answerer, Inbox},
    wire::envelope::{METHOD_NOT_FOUND, rpc_error},
};

/// Questions of one instance that clients have not answered yet.
const OPEN_MAX_QUESTIONS: usize = 64;

pub(super) struct Intake {
    inflight: Arc<InFlight>,
    questions: Arc<Semaphore>,
    /// Weak: the server's task owns the link that owns this.
    upstream: Weak<Shared>,
}

impl Intake {
    pub(super) fn new(inflight: Arc<InFlight>, upstream: &Arc<Shared>) -> Self {
        let questions = Arc::new(Semaphore::new(OPEN_MAX_QUESTIONS));
        Intake { inflight, questions, upstream: Arc::downgrade(upstream) }
    }

    fn notification(&self, upstream: &Shared, method: Method, params: Option<Payload>) {
        match method.as_str() {
            "notifications/progress" => {
                if let Some(params) = params {
                    self.inflight.progress(&params);
                }
            }
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => upstream.order(Order::Relist),
            "notifications/resources/updated" => upstream.audience.said(&upstream.name, method, params),
            // The end of a question of its own: whoever answers it now answers in vain.
            "notifications/cancelled" => {}
            _ => match self.inflight.sole_client() {
                Some((session, back)) if session.wants(&method, params.as_ref()) => back.tell(method, params),
                Some(_) => {}
                None if self.inflight.len() == 0 => upstream.audience.said(&upstream.name, method, params),
                // Calls of several clients are in hand: telling all would be telling
                // one client about another's call.
                None => tracing::debug!(server = %upstream.name, %method, "a notification that is for no one client"),
            },
        }
    }

    fn question(&self, upstream: &Shared, method: Method, params: Option<Payload>, answerer: Answerer) {
        if method.as_str() == "ping" {
            return answerer.answer(Answer::Result(Payload::literal("{}")));
        }
        let refuse = |answerer: Answerer, why: &'static str| {
            answerer.answer(Answer::Error(rpc_error(METHOD_NOT_FOUND, why)));
        };
        let Some((session, back)) = self.inflight.sole_client() else {
            return refuse(
                answerer,
                "seawall cannot tell which client this question is for: it has no call in hand, or calls of several clients",
            );
        };
        if let Some(missing) = session.lacks(method.as_str(), params.as_ref()) {
            self.inflight.lacked(session.number, missing);
            return refuse(answerer, "the client behind this call has not declared that it answers such questions");
        }
        let Ok(permit) = self.questions.clone().try_acquire_owned() else {
            return refuse(answerer, "too many questions are open already");
        };
        let asking = self.inflight.asking(session.number);
        upstream.tasks.spawn(async move {
            answerer.answer(back.ask(method, params).await);
            drop((permit, asking));
        });
    }
}

impl Inbox for Intake {
    fn on(&self, message: Message, answerer: Option<Answerer>) {
        let Some(upstream) = self.upstream.upgrade() else { return };
        match (message, answerer) {
            (Message::Notification { method, params }, _) => self.notification(&upstream, method, params),
            (Message::Request { method, params, .. }, Some(answerer)) => {
                self.question(&upstream, method, params, answerer);
            }
            (Message::Request { .. }, None) => {}
        }
    }
}
