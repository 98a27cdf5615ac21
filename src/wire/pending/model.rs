//! The pending table against a model of it, under random histories.

use proptest::{collection::vec, prelude::*, sample::Index};
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::call::Payload;

#[derive(Clone, Debug)]
enum Step {
    Ask,
    Sent(Index),
    /// In any order, late, twice.
    Answer(Index),
    /// Under an id that was never given out.
    Strange(u64),
    GiveUp(Index),
    /// `true` blames one of the requests.
    End(bool, Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = any::<Index>;
    let step = prop_oneof![
        6 => Just(Step::Ask),
        4 => one().prop_map(Step::Sent),
        5 => one().prop_map(Step::Answer),
        1 => (0..3_u64).prop_map(Step::Strange),
        2 => one().prop_map(Step::GiveUp),
        1 => (any::<bool>(), one()).prop_map(|(blames, whom)| Step::End(blames, whom)),
    ];
    vec(step, 1..120)
}

/// One request, and all that may be known of it.
struct Asked {
    id: u64,
    answer: oneshot::Receiver<Result<Answer, LinkError>>,
    trail: Arc<Trail>,
    state: State,
    sent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waits,
    Answered(usize),
    GivenUp,
    Ended { blamed: bool },
}

fn number(of: usize) -> Answer {
    Answer::Result(Payload::of(&of))
}

/// Its outcome is there, once, and is the one that the model says.
fn check(asked: &mut Asked) {
    match (asked.state, asked.answer.try_recv()) {
        (State::Waits, Err(TryRecvError::Empty)) | (State::GivenUp, Err(_)) => {}
        (State::Answered(step), Ok(Ok(answer))) => assert_eq!(answer, number(step)),
        (State::Ended { blamed: true }, Ok(Err(LinkError::Protocol(_)))) => {}
        (State::Ended { blamed: false }, Ok(Err(LinkError::Lost(_)))) if asked.sent => {}
        (State::Ended { blamed: false }, Ok(Err(LinkError::NotSent(_)))) if !asked.sent => {}
        (state, outcome) => panic!("request {} is {state:?} and got {outcome:?}", asked.id),
    }
    assert_eq!(asked.trail.instance().is_some(), asked.sent);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn each_request_ends_once_and_the_table_is_empty_at_the_end(steps in steps()) {
        let pending = Pending::default();
        let mut all: Vec<Asked> = Vec::new();
        let mut is_over = false;
        for (number_of_step, step) in steps.into_iter().enumerate() {
            let pick = |index: Index, all: &Vec<Asked>| (!all.is_empty()).then(|| index.index(all.len()));
            match step {
                Step::Ask => match pending.register(Arc::default()) {
                    Ok((id, answer)) => {
                        prop_assert!(!is_over);
                        prop_assert!(all.iter().all(|asked| asked.id != id), "an id was used again");
                        let trail = pending.table().waiting[&id].trail.clone();
                        all.push(Asked { id, answer, trail, state: State::Waits, sent: false });
                    }
                    Err(error) => prop_assert!(is_over && matches!(error, LinkError::NotSent(_))),
                },
                Step::Sent(index) => if let Some(asked) = pick(index, &all).map(|at| &mut all[at]) {
                    let waits = asked.state == State::Waits;
                    prop_assert_eq!(pending.mark_sent(asked.id, 1), waits);
                    asked.sent |= waits;
                },
                Step::Answer(index) => if let Some(asked) = pick(index, &all).map(|at| &mut all[at]) {
                    let waits = asked.state == State::Waits;
                    prop_assert_eq!(pending.settle(asked.id, Ok(number(number_of_step))), waits);
                    if waits {
                        asked.state = State::Answered(number_of_step);
                    }
                },
                Step::Strange(above) => {
                    let id = all.len() as u64 + 1 + above;
                    prop_assert!(!pending.settle(id, Ok(number(0))) && !pending.forget(id) && !pending.contains(id));
                }
                Step::GiveUp(index) => if let Some(asked) = pick(index, &all).map(|at| &mut all[at]) {
                    let waits = asked.state == State::Waits;
                    prop_assert_eq!(pending.forget(asked.id), waits && asked.sent, "who has it is told, nobody else");
                    if waits {
                        asked.state = State::GivenUp;
                    }
                },
                Step::End(blames, index) => {
                    let blamed = pick(index, &all).filter(|_| blames).map(|at| all[at].id);
                    let guilty = blamed.map_or(Guilty::None, Guilty::One);
                    prop_assert_eq!(pending.end(&Gone::because("it died"), guilty), !is_over);
                    is_over = true;
                    for asked in all.iter_mut().filter(|asked| asked.state == State::Waits) {
                        asked.state = State::Ended { blamed: blamed == Some(asked.id) };
                    }
                }
            }
            let waiting = all.iter().filter(|asked| asked.state == State::Waits);
            prop_assert_eq!(pending.table().waiting.len(), waiting.clone().count());
            prop_assert!(waiting.clone().all(|asked| pending.contains(asked.id)));
        }
        pending.end(&Gone::because("it was stopped"), Guilty::None);
        prop_assert!(pending.table().waiting.is_empty());
        for asked in all.iter_mut() {
            if asked.state == State::Waits {
                asked.state = State::Ended { blamed: false };
            }
            check(asked);
        }
    }
}

#[test]
fn more_than_the_bound_is_refused_until_one_has_ended() {
    let pending = Pending::default();
    let mut answers: Vec<_> =
        (0..PENDING_MAX_REQUESTS).map(|_| pending.register(Arc::default()).expect("room")).collect();
    assert!(matches!(pending.register(Arc::default()), Err(LinkError::NotSent(_))));
    let (first, _) = answers.remove(0);
    assert!(!pending.forget(first), "it was not sent");
    let (id, _answer) = pending.register(Arc::default()).expect("room again");
    assert_eq!(id, PENDING_MAX_REQUESTS as u64 + 1, "a refused request has no id");
}
