//! Calls of modern clients whose server, of the legacy era, asks something in mid-call:
//! the client is told in a result and comes back with the answer.
//!
//! The call goes on in its task meanwhile. What finds it again is an unguessable
//! `requestState` that works once, for the same request, for a bounded time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};

use super::{
    mailbox::{Mail, Mailbox, Question, take_kib},
    questions::Questions,
    stateless,
};
use crate::{
    call::{Answer, BoxFuture, Method, Payload, Wire},
    session::Scope,
    wire::envelope::Parts,
};

const WAITING_MAX_CALLS: usize = 1024;
/// What they ask, and what is answered while their clients are away.
const WAITING_MAX_KIB: usize = 64 * 1024;
const WAITING_MAX: Duration = Duration::from_secs(600);
/// A server that asks several things at once sends them one by one.
const GATHER: Duration = Duration::from_millis(20);
/// By this a client's `requestState` is known to be seawall's and not a server's.
const PREFIX: &str = "seawall-round-";

/// The way to the client of one modern call: its mailbox, questions included. Clones
/// are the same way.
#[derive(Clone, Default)]
pub(super) struct Round {
    pub(super) mailbox: Arc<Mailbox>,
    questions: Arc<Questions>,
}

impl Wire for Round {
    fn tell(&self, method: Method, params: Option<Payload>) {
        let message = Parts::notification(&method, params.map(|params| params.on_one_line())).joined();
        self.mailbox.put(Mail::Message(message));
    }

    fn ask(&self, method: Method, params: Option<Payload>) -> BoxFuture<'_, Answer> {
        Box::pin(self.questions.ask(move |id| self.mailbox.put(Mail::Question(Question { id, method, params }))))
    }

    fn is_away(&self) -> bool {
        self.mailbox.is_aside()
    }
}

/// `first` and what is asked along with it.
pub(super) async fn gather(mailbox: &Mailbox, first: Question) -> Vec<Question> {
    sleep(GATHER).await;
    let mut questions = vec![first];
    questions.extend(mailbox.take_questions());
    questions
}

/// What a round belongs to: the same request, when it comes back.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) scope: Scope,
    pub(super) method: Method,
    /// The tool, the prompt or the resource.
    target: Option<Payload>,
}

impl Asked {
    pub(super) fn of(scope: &Scope, method: &Method, params: &Payload) -> Self {
        let target = params.member("name").or_else(|| params.member("uri"));
        Asked { scope: scope.clone(), method: method.clone(), target: target.map(|target| target.apart()) }
    }
}

pub(super) struct Rounds {
    waiting: Mutex<HashMap<String, Waiting>>,
    /// In KiB.
    room: Arc<Semaphore>,
}

impl Default for Rounds {
    fn default() -> Self {
        Rounds { waiting: Mutex::default(), room: Arc::new(Semaphore::new(WAITING_MAX_KIB)) }
    }
}

struct Waiting {
    /// Taken when the round goes on; a call that is left here is cancelled.
    round: Option<Round>,
    questions: Vec<Question>,
    asked: Asked,
    until: Instant,
    /// For the questions.
    room: Option<OwnedSemaphorePermit>,
}

/// What a request's `requestState` leads to.
pub(super) enum Resumed {
    /// It is the server's own, or there is none.
    NotOurs,
    Round(Round),
    /// Used already, expired, made up, or of another request.
    Unknown,
}

impl Rounds {
    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a call aside and returns the result that asks its client.
    pub(super) fn suspend(&self, asked: Asked, round: Round, questions: Vec<Question>) -> Payload {
        let state = format!("{PREFIX}{:032x}", rand::random::<u128>());
        let result = stateless::input_required(questions.iter().map(|question| (key(question.id), question)), &state);
        round.mailbox.set_aside(&self.room);
        let bytes = questions.iter().map(|question| question.params.as_ref().map_or(0, Payload::len)).sum::<usize>();
        let mut all = self.waiting();
        let room = make_room(&mut all, &self.room, bytes);
        let waiting = Waiting { round: Some(round), questions, asked, until: Instant::now() + WAITING_MAX, room };
        all.insert(state, waiting);
        result
    }

    /// Lets go of calls whose clients do not come back, and of questions that nobody needs an
    /// answer to any more. To be called now and then.
    pub(super) fn expire(&self) {
        let mut all = self.waiting();
        retain_current(&mut all);
        for waiting in all.values_mut() {
            if waiting.round.as_ref().is_some_and(|round| round.mailbox.has_ended()) {
                waiting.questions = Vec::new();
                waiting.room = None;
            }
        }
    }

    /// The call behind the params' `requestState`, with the answers handed on to its
    /// server. A question to which the params hold no answer, or none that can be one,
    /// is asked again.
    pub(super) fn resume(&self, asked: &Asked, params: &Payload) -> Resumed {
        let Some(state) = params.text("requestState").filter(|state| state.starts_with(PREFIX)) else {
            return Resumed::NotOurs;
        };
        let taken = {
            let mut all = self.waiting();
            match all.get(&state) {
                Some(found) if found.asked == *asked && found.until > Instant::now() => all.remove(&state),
                _ => None,
            }
        };
        let Some((round, mut waiting)) = taken.and_then(|mut waiting| Some((waiting.round.take()?, waiting))) else {
            return Resumed::Unknown;
        };
        round.mailbox.set_upright();
        let responses = params.member("inputResponses");
        for question in std::mem::take(&mut waiting.questions) {
            let response = responses.as_ref().and_then(|responses| responses.member(&key(question.id)));
            match response.filter(|response| response.as_bytes().starts_with(b"{")) {
                Some(response) => round.questions.answered(question.id, Answer::Result(response)),
                None => _ = round.mailbox.put(Mail::Question(question)),
            }
        }
        Resumed::Round(round)
    }
}

fn retain_current(all: &mut HashMap<String, Waiting>) {
    let now = Instant::now();
    all.retain(|_, waiting| waiting.until > now);
}

/// Expired calls go; while all places or all room are taken, so does the one that expires first.
fn make_room(all: &mut HashMap<String, Waiting>, room: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    retain_current(all);
    // What one server may ask at once is bounded: it may have all the room to itself.
    let bytes = bytes.min(WAITING_MAX_KIB * 1024);
    loop {
        let taken = (all.len() < WAITING_MAX_CALLS).then(|| take_kib(room, bytes)).flatten();
        let oldest = all.iter().min_by_key(|(_, waiting)| waiting.until).map(|(state, _)| state.clone());
        match (taken, oldest) {
            (None, Some(oldest)) => drop(all.remove(&oldest)),
            (taken, _) => return taken,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(tool: &str) -> Asked {
        let params = Payload::of(&serde_json::json!({ "name": tool }));
        Asked::of(&Scope::All, &Method::of("tools/call"), &params)
    }

    fn question(id: u64) -> Question {
        Question { id, method: Method::of("roots/list"), params: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_works_once_for_its_own_request_and_in_time() {
        let rounds = Rounds::default();
        let suspend =
            || rounds.suspend(asked("a"), Round::default(), vec![question(1)]).text("requestState").expect("a state");
        let params = |state: &str| Payload::of(&serde_json::json!({ "requestState": state }));

        let state = suspend();
        assert!(matches!(rounds.resume(&asked("b"), &params(&state)), Resumed::Unknown), "another tool");
        assert!(matches!(rounds.resume(&asked("a"), &params(&state)), Resumed::Round(_)));
        assert!(matches!(rounds.resume(&asked("a"), &params(&state)), Resumed::Unknown), "used");
        assert!(matches!(rounds.resume(&asked("a"), &params("a server's own")), Resumed::NotOurs));

        let round = Round::default();
        let late = rounds.suspend(asked("a"), round.clone(), vec![question(1)]).text("requestState").expect("a state");
        tokio::time::advance(WAITING_MAX).await;
        assert!(matches!(rounds.resume(&asked("a"), &params(&late)), Resumed::Unknown), "expired");
        suspend();
        assert!(matches!(round.mailbox.next().await, Mail::Cancelled), "its call was cancelled");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_for_clients_that_are_away_is_bounded() {
        let rounds = Rounds::default();
        let mib = Payload::of(&"x".repeat(1024 * 1024 - 2));
        let question = |id| Question { params: Some(mib.clone()), ..question(id) };
        let all: Vec<Round> = (0..WAITING_MAX_KIB / 1024).map(|_| Round::default()).collect();
        for round in &all {
            rounds.suspend(asked("a"), round.clone(), vec![question(1)]);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        all[1].mailbox.answer(Answer::Result(mib.clone()));
        let Some(Mail::Answer(Answer::Error(error))) = all[1].mailbox.take() else { panic!("there was no room") };
        assert!(error.as_str().contains("may have taken effect"), "{}", error.as_str());
        rounds.suspend(asked("a"), Round::default(), vec![question(1), question(2)]);
        assert!(matches!(all[0].mailbox.take(), Some(Mail::Cancelled)), "the oldest make room");
        assert!(all[2].mailbox.take().is_none(), "as many as have to");

        all[3].mailbox.answer(Answer::Result(Payload::literal("{}")));
        rounds.expire();
        all[2].mailbox.answer(Answer::Result(mib.clone()));
        assert!(
            matches!(all[2].mailbox.take(), Some(Mail::Answer(Answer::Result(_)))),
            "questions of calls that ended go"
        );
        tokio::time::advance(WAITING_MAX).await;
        rounds.expire();
        drop(all);
        assert_eq!(rounds.room.available_permits(), WAITING_MAX_KIB);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_at_once_is_one_round_and_what_is_not_answered_is_asked_again() {
        let (rounds, round) = (Rounds::default(), Round::default());
        round.mailbox.put(Mail::Question(question(2)));
        let questions = gather(&round.mailbox, question(1)).await;
        let result = rounds.suspend(asked("a"), round.clone(), questions);
        let requests = result.member("inputRequests").expect("questions");
        assert!(["q1", "q2"].iter().all(|key| requests.member(key).is_some()), "{}", result.as_str());
        assert!(round.is_away());

        let state = result.text("requestState").expect("a state");
        let params = serde_json::json!({"requestState": state, "inputResponses": {"q1": {"roots": []}, "q2": 7}});
        assert!(matches!(rounds.resume(&asked("a"), &Payload::of(&params)), Resumed::Round(_)));
        assert!(!round.is_away());
        let again: Vec<u64> = round.mailbox.take_questions().iter().map(|question| question.id).collect();
        assert_eq!(again, [2], "a number is no answer");
    }
}
