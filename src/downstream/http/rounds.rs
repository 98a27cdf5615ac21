//! Calls that wait for a modern client to come back with an answer: a server of the
//! legacy era has asked something in mid-call, and the client was told in a result.
//!
//! The call goes on in its task meanwhile. What finds it again is an unguessable
//! `requestState` that works once, for the same request, for a bounded time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    mailbox::{Mailbox, Question},
    modern::Request,
    session::Outbox,
};
use crate::{
    call::{Answer, Method, Payload},
    downstream::stateless,
    session::Scope,
};

const WAITING_MAX_CALLS: usize = 1024;
const WAITING_MAX: Duration = Duration::from_secs(600);
/// By this a client's `requestState` is known to be seawall's and not a server's.
const PREFIX: &str = "seawall-round-";

/// What a round needs to go on.
pub(super) struct Round {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) outbox: Arc<Outbox>,
}

#[derive(Default)]
pub(super) struct Rounds(Mutex<HashMap<String, Waiting>>);

struct Waiting {
    /// Taken when the round goes on; a call that is left here is cancelled.
    round: Option<Round>,
    question: u64,
    asked: (Method, Option<Payload>),
    scope: Scope,
    method: Method,
    target: Option<Payload>,
    until: Instant,
}

impl Rounds {
    pub(super) fn is_own(state: &str) -> bool {
        state.starts_with(PREFIX)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a call aside and returns the result that asks its client.
    pub(super) fn suspend(&self, scope: Scope, request: &Request, round: Round, question: &Question) -> Payload {
        let state = format!("{PREFIX}{:032x}", rand::random::<u128>());
        let result = stateless::input_required(&key(question.id), &question.method, question.params.as_ref(), &state);
        let waiting = Waiting {
            round: Some(round),
            question: question.id,
            asked: (question.method.clone(), question.params.clone()),
            scope,
            method: request.method.clone(),
            target: target(&request.params),
            until: Instant::now() + WAITING_MAX,
        };
        let mut all = self.waiting();
        self.make_room(&mut all);
        all.insert(state, waiting);
        result
    }

    /// Expired calls go; if all places are taken, so does the one that expires first.
    fn make_room(&self, all: &mut HashMap<String, Waiting>) {
        let now = Instant::now();
        all.retain(|_, waiting| waiting.until > now);
        if all.len() >= WAITING_MAX_CALLS
            && let Some(oldest) = all.iter().min_by_key(|(_, waiting)| waiting.until).map(|(state, _)| state.clone())
        {
            all.remove(&oldest);
        }
    }

    /// The call behind `state`, with the answer handed on to its server. A request that
    /// brings no answer gets the same question again.
    pub(super) fn resume(&self, state: &str, scope: &Scope, request: &Request) -> Option<Round> {
        let mut waiting = {
            let mut all = self.waiting();
            let found = all.get(state)?;
            let fits =
                found.scope == *scope && found.method == request.method && found.target == target(&request.params);
            if !fits || found.until <= Instant::now() {
                return None;
            }
            all.remove(state)?
        };
        let round = waiting.round.take()?;
        let responses = request.params.member("inputResponses");
        match responses.and_then(|responses| responses.member(&key(waiting.question))) {
            Some(response) => round.outbox.answered(waiting.question, Answer::Result(response)),
            None => {
                let (method, params) = waiting.asked.clone();
                let again = Question { id: waiting.question, method, params };
                round.mailbox.put(super::mailbox::Mail::Question(again));
            }
        }
        Some(round)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(round) = &self.round {
            round.mailbox.cancel();
        }
    }
}

fn key(question: u64) -> String {
    format!("q{question}")
}

/// What the request is about: a round belongs to one tool, prompt or resource.
fn target(params: &Payload) -> Option<Payload> {
    params.member("name").or_else(|| params.member("uri"))
}
