//! What a server says on its own, sorted: progress to its call, list changes to the
//! server's task, everything else to the one client it can be for.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::Semaphore, time::sleep};

use super::{
    inflight::InFlight,
    lane::{Lane, Role},
    orders::Order,
    subscriptions::Streams,
};
use crate::{
    call::{Answer, Back, Message, Method, Payload, Trail},
    link::{Answerer, Inbox},
    session::Session,
    wire::envelope::{METHOD_NOT_FOUND, rpc_error},
};

/// Questions of one instance that clients have not answered yet.
const OPEN_MAX_QUESTIONS: usize = 64;
/// So long one is open that no call is behind; others are as long as their call.
const QUESTION_MAX: Duration = Duration::from_secs(600);
const NO_ANSWER: i64 = -32000;

pub(super) struct Intake {
    instance: u64,
    inflight: Arc<InFlight>,
    streams: Arc<Streams>,
    questions: Arc<Semaphore>,
    /// Weak: the lane owns the link that owns this.
    lane: Weak<Lane>,
}

impl Intake {
    pub(super) fn new(instance: u64, inflight: Arc<InFlight>, streams: Arc<Streams>, lane: &Arc<Lane>) -> Self {
        let questions = Arc::new(Semaphore::new(OPEN_MAX_QUESTIONS));
        Intake { instance, inflight, streams, questions, lane: Arc::downgrade(lane) }
    }

    fn notification(&self, lane: &Lane, of: Option<&Arc<Trail>>, method: Method, params: Option<Payload>) {
        let common = &lane.common;
        match (method.as_str(), self.client(lane, of)) {
            ("notifications/progress", _) => {
                if let Some(params) = params {
                    self.inflight.progress(&params);
                }
            }
            (
                "notifications/tools/list_changed"
                | "notifications/prompts/list_changed"
                | "notifications/resources/list_changed",
                _,
            ) => lane.order(Order::Relist(self.instance)),
            // Seawall has asked for the stream itself; it is nobody else's.
            ("notifications/subscriptions/acknowledged", _) => {
                if let Some(params) = params {
                    self.streams.acknowledged(&params);
                }
            }
            // The end of a question of its own: whoever answers it now answers in vain.
            ("notifications/cancelled", _) => {}
            // Whoever has subscribed hears it, in whatever call it came.
            ("notifications/resources/updated", _) if lane.is_listed() => {
                common.audience.said(&common.name, method, params);
            }
            (_, Some((session, back))) => {
                if session.wants(&method, params.as_ref()) {
                    back.tell(method, params);
                }
            }
            (_, None) if self.inflight.len() == 0 => common.audience.said(&common.name, method, params),
            // Calls of several clients are in hand: telling all would be telling
            // one client about another's call.
            (_, None) => tracing::debug!(server = %common.name, %method, "a notification that is for no one client"),
        }
    }

    /// The one client that this can be about: that of the call on whose stream it came, or
    /// of all calls in hand, or the one that has the instance to itself.
    fn client(&self, lane: &Lane, of: Option<&Arc<Trail>>) -> Option<(Arc<Session>, Back)> {
        if let Some(client) = of.and_then(|trail| self.inflight.client_of(trail)) {
            return Some(client);
        }
        let owner = match &lane.role {
            Role::Session { session, .. } => session.as_ref().map(|session| (session.clone(), session.back.clone())),
            Role::Everybody | Role::Listing => None,
        };
        self.inflight.sole_client().or(owner)
    }

    fn question(
        &self,
        lane: &Lane,
        of: Option<&Arc<Trail>>,
        method: Method,
        params: Option<Payload>,
        answerer: Answerer,
    ) {
        if method.as_str() == "ping" {
            return answerer.answer(Answer::Result(Payload::literal("{}")));
        }
        let refuse = |answerer: Answerer, why: &'static str| {
            answerer.answer(Answer::Error(rpc_error(METHOD_NOT_FOUND, why)));
        };
        let Some((session, back)) = self.client(lane, of) else {
            return refuse(
                answerer,
                "seawall cannot tell which client this question is for: it has no call in hand, or calls of several clients",
            );
        };
        if let Some(missing) = session.lacks(method.as_str(), params.as_ref()) {
            self.inflight.lacked(session.number, &missing);
            return refuse(answerer, "the client behind this call has not declared that it answers such questions");
        }
        let Ok(permit) = self.questions.clone().try_acquire_owned() else {
            return refuse(answerer, "too many questions are open already");
        };
        let asking = self.inflight.asking(session.number);
        let over = self.over(lane, &session, !asking.is_empty());
        lane.common.tasks.spawn(async move {
            let answer = tokio::select! {
                answer = back.ask(method, params) => answer,
                why = over => Answer::Error(rpc_error(NO_ANSWER, why)),
            };
            answerer.answer(answer);
            drop((permit, asking));
        });
    }
}

impl Intake {
    /// Resolves when a question is nobody's any more: a client that never answers must
    /// not keep it, and with it one of the places for questions, for ever.
    fn over(&self, lane: &Lane, session: &Session, has_call: bool) -> impl Future<Output = &'static str> + use<> {
        let (inflight, session, stop) = (self.inflight.clone(), session.number, lane.stop.clone());
        async move {
            let unwanted = async {
                match has_call {
                    true => inflight.without(session).await,
                    false => sleep(QUESTION_MAX).await,
                }
            };
            tokio::select! {
                () = unwanted => "seawall: the call behind this question has ended",
                () = stop.cancelled() => "seawall: this server is being stopped",
            }
        }
    }

    fn sort(&self, of: Option<&Arc<Trail>>, message: Message, answerer: Option<Answerer>) {
        let Some(lane) = self.lane.upgrade() else { return };
        match (message, answerer) {
            (Message::Notification { method, params }, _) => self.notification(&lane, of, method, params),
            (Message::Request { method, params, .. }, Some(answerer)) => {
                self.question(&lane, of, method, params, answerer);
            }
            (Message::Request { .. }, None) => {}
        }
    }
}

impl Inbox for Intake {
    fn on(&self, message: Message, answerer: Option<Answerer>) {
        self.sort(None, message, answerer);
    }

    fn on_stream_of(&self, call: &Arc<Trail>, message: Message, answerer: Option<Answerer>) {
        self.sort(Some(call), message, answerer);
    }
}
