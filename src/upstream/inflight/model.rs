//! The table of calls in hand against a model of it, under random histories: tokens
//! that collide, progress that comes late or for nobody, calls that end in any order.

use std::sync::Mutex as StdMutex;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::{
    call::{Answer, BoxFuture, Wire},
    testing,
};

#[derive(Clone, Debug)]
enum Step {
    /// A call of this client, with one of two tokens or none.
    Admit {
        session: u64,
        token: Option<u8>,
    },
    End(Index),
    /// Progress for a call that was ever admitted; it may have ended.
    Progress(Index, i8),
    /// Progress under a token that seawall never gave out.
    Strange(u64),
    SealIfIdle,
    Seal,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..4_u64, prop::option::of(0..2_u8)).prop_map(|(session, token)| Step::Admit { session, token }),
        4 => any::<Index>().prop_map(Step::End),
        5 => (any::<Index>(), any::<i8>()).prop_map(|(call, progress)| Step::Progress(call, progress)),
        1 => any::<u64>().prop_map(Step::Strange),
        1 => Just(Step::SealIfIdle),
        1 => prop::bool::weighted(0.2).prop_map(|seals| if seals { Step::Seal } else { Step::SealIfIdle }),
    ];
    vec(step, 1..80)
}

#[derive(Default)]
struct Ear(StdMutex<Vec<String>>);

impl Wire for Ear {
    fn tell(&self, _: Method, params: Option<Payload>) {
        self.0.lock().expect("unpoisoned").push(params.expect("params").as_str().to_owned());
    }
    fn ask(&self, _: Method, _: Option<Payload>) -> BoxFuture<'_, Answer> {
        unreachable!("nobody asks")
    }
}

struct Given {
    admission: Option<Admission>,
    number: u64,
    session: u64,
    token: Option<u8>,
    ear: Arc<Ear>,
    must_have_heard: Vec<String>,
}

fn call_of(session: u64, token: Option<u8>, ear: &Arc<Ear>) -> Call {
    let mut call = testing::call("a", "b");
    let session = Session { number: session, ..testing::session() };
    call.caller = Arc::new(Caller { session: Arc::new(session), request_id: Payload::literal("1"), back: ear.clone() });
    call.params = match token {
        Some(token) => {
            Payload::of(&serde_json::json!({ "name": "b", "_meta": { "progressToken": format!("t{token}") } }))
        }
        None => Payload::literal(r#"{"name":"b"}"#),
    };
    call
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(250) })]

    #[test]
    fn each_call_hears_its_own_progress_and_none_is_left(steps in steps()) {
        let table = Arc::new(InFlight::default());
        let mut given: Vec<Given> = Vec::new();
        let (mut is_sealed, mut admitted) = (false, 0);
        for step in steps {
            match step {
                Step::Admit { session, token } => {
                    let ear = Arc::new(Ear::default());
                    let entered = table.admit(&call_of(session, token, &ear));
                    prop_assert_eq!(entered.is_some(), !is_sealed);
                    let Some((admission, params)) = entered else { continue };
                    admitted += 1;
                    prop_assert_eq!(admission.nth, admitted);
                    let number = admission.number;
                    prop_assert!(given.iter().all(|other| other.number != number), "a token was used again");
                    let sent = params.member("_meta").and_then(|meta| meta.member("progressToken"));
                    prop_assert_eq!(sent.map(|sent| sent.read::<u64>().expect("ours are numbers")), token.map(|_| number));
                    let admission = Some(admission);
                    given.push(Given { admission, number, session, token, ear, must_have_heard: Vec::new() });
                }
                Step::End(index) if !given.is_empty() => {
                    let at = index.index(given.len());
                    given[at].admission = None;
                }
                Step::Progress(index, progress) if !given.is_empty() => {
                    let at = index.index(given.len());
                    let one = &mut given[at];
                    let params = format!(r#"{{"progressToken":{},"progress":{progress}}}"#, one.number);
                    table.progress(&Payload::from_json(params).expect("JSON"));
                    if let (Some(token), Some(_)) = (one.token, &one.admission) {
                        one.must_have_heard.push(format!(r#"{{"progressToken":"t{token}","progress":{progress}}}"#));
                    }
                }
                Step::Strange(above) => {
                    let number = given.iter().map(|one| one.number).max().unwrap_or(u64::MAX / 2);
                    let params = format!(r#"{{"progressToken":{},"progress":1}}"#, number.saturating_add(above).saturating_add(1));
                    table.progress(&Payload::from_json(params).expect("JSON"));
                }
                Step::End(_) | Step::Progress(..) => {}
                Step::SealIfIdle => {
                    let is_idle = given.iter().all(|one| one.admission.is_none());
                    prop_assert_eq!(table.seal_if_idle(), is_idle);
                    is_sealed |= is_idle;
                }
                Step::Seal => {
                    table.seal();
                    is_sealed = true;
                }
            }
            let inside: Vec<&Given> = given.iter().filter(|one| one.admission.is_some()).collect();
            prop_assert_eq!(table.len(), inside.len());
            prop_assert_eq!(table.admitted(), admitted);
            let first = inside.first().map(|one| one.session);
            let sole = first.filter(|session| inside.iter().all(|one| one.session == *session));
            prop_assert_eq!(table.sole_client().map(|(session, _)| session.number), sole);
        }
        for one in &given {
            prop_assert_eq!(&*one.ear.0.lock().expect("unpoisoned"), &one.must_have_heard);
        }
        given.clear();
        prop_assert_eq!(table.len(), 0);
        prop_assert!(futures_util::FutureExt::now_or_never(table.idle()).is_some());
    }
}
