//! Questions of servers that no client answers: each ends with the call behind it, gives
//! its place to another, and holds up nobody's end. With a paused clock.

#[path = "support/fake.rs"]
mod fake;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fake::{Fake, Rig, call_of, class_of, lock, pass, settled};
use seawall::{
    call::{Answer, BoxFuture, Message, Method, Payload, Wire},
    link::Answerer,
    session::Session,
    testing,
    upstream::{Instances, Lifecycle},
};

/// Of one instance, at once.
const OPEN_MAX: usize = 64;

/// A client that hears everything and answers nothing.
struct Mute;

impl Wire for Mute {
    fn tell(&self, _: Method, _: Option<Payload>) {}

    fn ask(&self, _: Method, _: Option<Payload>) -> BoxFuture<'_, Answer> {
        Box::pin(std::future::pending())
    }
}

fn mute(number: u64) -> Arc<Session> {
    let capabilities = Payload::literal(r#"{"roots":{}}"#);
    Arc::new(Session { number, capabilities, back: Arc::new(Mute), ..testing::session() })
}

/// The errors that a server got for its questions.
type Refusals = Arc<Mutex<Vec<String>>>;

async fn asks(rig: &Rig, times: usize, refusals: &Refusals) {
    for number in 0..times {
        let refusals = refusals.clone();
        let answerer = Answerer::new(move |answer| match answer {
            Answer::Error(error) => lock(&refusals).push(error.text("message").expect("a message")),
            Answer::Result(result) => panic!("nobody answers: {result:?}"),
        });
        let id = Payload::of(&number);
        let question = Message::Request { id, method: "roots/list".into(), params: None };
        rig.fake.link().inbox.on(question, Some(answerer));
    }
    settled().await;
}

fn said(refusals: &Refusals) -> Vec<String> {
    std::mem::take(&mut *lock(refusals))
}

#[tokio::test(start_paused = true)]
async fn what_nobody_answers_ends_with_its_call_and_makes_room() {
    let rig = Rig::new(Lifecycle::default()).await;
    let refusals = Refusals::default();
    for _ in 0..2 {
        let call = rig.start(call_of(&mute(1), "hang")).await;
        asks(&rig, OPEN_MAX, &refusals).await;
        assert_eq!(said(&refusals), Vec::<String>::new(), "they wait for the client");
        asks(&rig, 1, &refusals).await;
        assert_eq!(said(&refusals), ["too many questions are open already"]);
        call.abort();
        settled().await;
        let over = said(&refusals);
        assert_eq!(over.len(), OPEN_MAX);
        assert!(over.iter().all(|why| why.contains("the call behind this question has ended")), "{over:?}");
    }
    assert_eq!(class_of(&rig.call("echo").await), "ok");
    rig.stop().await;
}

/// `stop` waits for every task that there is.
#[tokio::test(start_paused = true)]
async fn what_nobody_answers_holds_up_no_end() {
    let rig = Rig::new(Lifecycle::default()).await;
    let refusals = Refusals::default();
    let call = rig.start(call_of(&mute(1), "hang")).await;
    asks(&rig, 3, &refusals).await;
    rig.stop().await;
    assert_eq!(class_of(&call.await.expect("no panic")), "draining");
    assert_eq!(said(&refusals).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_no_call_is_behind_is_open_for_ten_minutes() {
    let rig = Rig::of(Fake::default(), Lifecycle::default(), Instances::PerSession(2)).await;
    let client = mute(1);
    assert_eq!(class_of(&rig.send(call_of(&client, "echo")).await), "ok");
    let refusals = Refusals::default();
    asks(&rig, 1, &refusals).await;
    pass(Duration::from_secs(590)).await;
    assert_eq!(said(&refusals), Vec::<String>::new());
    pass(Duration::from_secs(20)).await;
    assert_eq!(said(&refusals).len(), 1);
    rig.stop().await;
}
