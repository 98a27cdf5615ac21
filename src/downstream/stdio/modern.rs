//! A request of the modern era on a byte stream: as over HTTP, but with one channel for
//! everything, and with `notifications/cancelled` where HTTP closes a stream.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::{
    call::{Answer, Payload},
    downstream::{
        mailbox::{CancelIfDropped, Mail, Mailbox},
        rounds::{self, Asked, Resumed, Round, Rounds},
        stateless::{self, Request, Subscription},
    },
    session::{Gate, Scope, Session},
    wire::peer::Peer,
};

/// Who asked, and what a call of theirs needs.
pub(super) struct Client {
    /// One client is at the other end of a byte stream, whatever it asks at once.
    pub(super) visitor: u64,
    pub(super) gate: Arc<dyn Gate>,
    pub(super) rounds: Arc<Rounds>,
    pub(super) peer: Peer,
    pub(super) calls: TaskTracker,
}

/// Answers one request. Dropping the future cancels it.
pub(super) async fn answer(client: Client, scope: Scope, request: Request) {
    let Client { visitor, gate, rounds, peer, calls } = client;
    let Request { id, method, params } = request;
    let round = Round::default();
    let session = match stateless::visitor(visitor, scope.clone(), &params, Arc::new(round.clone())) {
        Ok(session) => session,
        Err(error) => return respond(&peer, &id, Answer::Error(error)).await,
    };
    if stateless::is_dropped(&method) {
        return respond(&peer, &id, Answer::Error(stateless::not_found(&method))).await;
    }
    if method.as_str() == "subscriptions/listen" {
        return listen(&gate, &peer, &id, &session, params).await;
    }
    let asked = Asked::of(&scope, &method, &params);
    match rounds.resume(&asked, &params) {
        Resumed::Unknown => respond(&peer, &id, Answer::Error(stateless::unknown_round())).await,
        Resumed::Round(round) => carry(&peer, &rounds, (id, asked), round).await,
        Resumed::NotOurs => {
            let answer = gate.ask(&session, id.clone(), method, Some(params), Arc::new(round.clone()));
            let mailbox = round.mailbox.clone();
            // In a task of its own, for the call outlives this request if it asks something.
            calls.spawn(async move {
                tokio::select! {
                    biased;
                    answer = answer => mailbox.answer(answer),
                    () = mailbox.cancelled() => {}
                }
            });
            carry(&peer, &rounds, (id, asked), round).await;
        }
    }
}

/// Passes on what comes until the request has its answer, or its question.
async fn carry(peer: &Peer, rounds: &Rounds, (id, asked): (Payload, Asked), round: Round) {
    let guard = CancelIfDropped::new(&round.mailbox);
    loop {
        match round.mailbox.next().await {
            Mail::Message(message) => peer.pass_on(message).await,
            Mail::Question(question) => {
                let questions = rounds::gather(&round.mailbox, question).await;
                guard.disarm();
                let result = rounds.suspend(asked, round, questions);
                return respond(peer, &id, Answer::Result(result)).await;
            }
            Mail::Answer(answer) => {
                guard.disarm();
                return respond(peer, &id, stateless::completed(&asked.method, answer)).await;
            }
            Mail::Cancelled | Mail::Closed => return,
        }
    }
}

async fn listen(gate: &Arc<dyn Gate>, peer: &Peer, id: &Payload, session: &Arc<Session>, params: Payload) {
    let mailbox = Arc::new(Mailbox::default());
    match Subscription::open(gate, session, (id, params), &mailbox).await {
        Err(error) => respond(peer, id, Answer::Error(error)).await,
        Ok((_open, first)) => {
            peer.pass_on(first).await;
            while let Mail::Message(message) = mailbox.next().await {
                peer.pass_on(message).await;
            }
        }
    }
}

async fn respond(peer: &Peer, id: &Payload, answer: Answer) {
    let _ = peer.respond(id, answer).await;
}
