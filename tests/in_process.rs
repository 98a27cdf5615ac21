//! Servers in this process: a handler that panics, hangs, hogs its thread or talks
//! a lot harms its own calls and nothing else.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use seawall::{
    call::{Answer, Method, Payload, Trail},
    gateway::Gateway,
    link::{Connector, LinkError},
    session::{Hello, Scope, Session},
    testing::Nowhere,
    upstream::local::LocalConnector,
};
use serde_json::json;
use tokio::time::timeout;

use self::rig::{Rascal, Record, connect, tool, tool_with};

#[path = "in_process/rig.rs"]
mod rig;

/// Far more than anything here takes; reached only by a test that fails.
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_kind_of_panic_ends_its_own_call_and_no_other() {
    let (rascal, mut seen) = Rascal::new();
    let link = connect(&LocalConnector::new("rascal", rascal.clone()), Record::new()).await;
    let sibling = tokio::spawn({
        let link = link.clone();
        async move { tool(&*link, "wait_for_gate").await }
    });
    assert_eq!(seen.recv().await, Some("wait_for_gate"));

    for (kind, message) in [
        ("literal", "it panicked: a literal"),
        ("formatted", "it panicked: formatted 42"),
        ("value", "it panicked with a value that is no text"),
        ("bomb", "it panicked with a value that is no text"),
        ("before_first_poll", "it panicked: before the first poll"),
        ("after_await", "it panicked: after an await"),
    ] {
        let outcome = timeout(LONG, tool_with(&*link, "panic", json!({ "kind": kind }))).await;
        match outcome.expect("a panic is answered") {
            Err(LinkError::Panicked(said)) => assert_eq!(said, message, "{kind}"),
            other => panic!("{kind}: {other:?}"),
        }
    }

    assert_eq!(rig::text(tool(&*link, "hello").await), "hello");
    rascal.gate.notify_one();
    assert_eq!(rig::text(sibling.await.expect("the sibling's task")), "the gate opened");
}

#[tokio::test]
async fn a_handler_that_never_yields_stops_neither_its_server_nor_another() {
    let (rascal, mut seen) = Rascal::new();
    let hog = connect(&LocalConnector::new("hog", rascal.clone()), Record::new()).await;
    let other = connect(&LocalConnector::new("other", Rascal::new().0), Record::new()).await;

    let spinning = tokio::spawn({
        let hog = hog.clone();
        async move { tool(&*hog, "spin").await }
    });
    assert_eq!(seen.recv().await, Some("spin"));

    // This runtime has one thread: that it gets here at all is half of the proof.
    assert_eq!(rig::text(timeout(LONG, tool(&*other, "hello")).await.expect("the other server answers")), "hello");
    assert_eq!(rig::text(timeout(LONG, tool(&*hog, "hello")).await.expect("the server itself answers")), "hello");
    assert!(!spinning.is_finished());
    rascal.spin.store(false, Ordering::Relaxed);
    assert_eq!(rig::text(spinning.await.expect("the spinning call's task")), "spun");
}

#[tokio::test]
async fn a_server_whose_threads_are_all_hogged_is_replaced_by_one_that_works() {
    let (rascal, mut seen) = Rascal::new();
    let connector = LocalConnector::new("hog", rascal.clone());
    let hog = connect(&connector, Record::new()).await;
    for _ in 0..2 {
        let hog = hog.clone();
        tokio::spawn(async move { tool(&*hog, "spin").await });
        assert_eq!(seen.recv().await, Some("spin"));
    }
    timeout(LONG, hog.close(Duration::from_millis(10))).await.expect("closing does not wait for the hog");

    let next = timeout(LONG, connect(&connector, Record::new())).await.expect("a new runtime");
    assert_eq!(rig::text(timeout(LONG, tool(&*next, "hello")).await.expect("the next one answers")), "hello");
    rascal.spin.store(false, Ordering::Relaxed);
}

#[tokio::test]
async fn giving_up_a_call_tells_its_handler() {
    let (rascal, mut seen) = Rascal::new();
    let link = connect(&LocalConnector::new("rascal", rascal), Record::new()).await;
    let call = tokio::spawn({
        let link = link.clone();
        async move { tool(&*link, "wait_for_cancel").await }
    });
    assert_eq!(seen.recv().await, Some("wait_for_cancel"));
    call.abort();
    assert_eq!(timeout(LONG, seen.recv()).await.expect("the handler hears of it"), Some("cancelled"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_says_arrives_in_order_and_before_its_answer() {
    let record = Record::new();
    let link = connect(&LocalConnector::new("rascal", Rascal::new().0), record.clone()).await;
    for round in 1..=20 {
        let params = json!({ "name": "talk", "arguments": {}, "_meta": { "progressToken": round } });
        let answer = link.ask(Method::of(Method::TOOLS_CALL), Some(Payload::of(&params)), Arc::default()).await;
        // Nothing may still be on its way once the answer is here.
        let heard = record.take();
        assert_eq!(rig::text(answer), "talked");
        let expected: Vec<String> = (1..=rig::PROGRESS)
            .map(|step| format!("notifications/progress {round} {step}"))
            .chain(["notifications/message".to_owned(), "notifications/tools/list_changed".to_owned()])
            .collect();
        assert_eq!(heard, expected);
    }
}

#[tokio::test]
async fn a_question_of_the_handler_reaches_the_client_and_its_answer_the_handler() {
    let record = Record::answering(r#"{"roots":[{"uri":"file:///from-the-client"}]}"#);
    let link = connect(&LocalConnector::new("rascal", Rascal::new().0), record.clone()).await;
    let answer = timeout(LONG, tool(&*link, "ask_for_roots")).await.expect("an answer");
    assert_eq!(rig::text(answer), "file:///from-the-client");
    assert_eq!(record.take(), ["roots/list"]);

    // An inbox without a client refuses, and the handler hears that too.
    let link = connect(&LocalConnector::new("rascal", Rascal::new().0), Record::new()).await;
    let answer = timeout(LONG, tool(&*link, "ask_for_roots")).await.expect("an answer");
    assert!(rig::text(answer).contains("no client to answer this"));
}

#[tokio::test]
async fn a_server_is_served_without_a_session_as_well() {
    let connector = LocalConnector::new("rascal", Rascal::new().0);
    let link = connector.connect(rig::INSTANCE, Record::new()).await.expect("threads can be started");
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let ask = |method: &'static str, params: serde_json::Value| {
        timeout(LONG, link.ask(Method::of(method), Some(Payload::of(&params)), Arc::default()))
    };
    let discovered = ask("server/discover", json!({ "_meta": meta })).await.expect("an answer");
    let Ok(Answer::Result(discovered)) = discovered else { panic!("{discovered:?}") };
    assert!(discovered.member("capabilities").is_some_and(|them| them.member("tools").is_some()), "{discovered:?}");

    let call = json!({ "name": "hello", "arguments": {}, "_meta": meta });
    let answer = ask("tools/call", call).await.expect("an answer");
    if let Ok(Answer::Result(result)) = &answer {
        assert_eq!(result.text("resultType").as_deref(), Some("complete"), "this version requires it");
    }
    assert_eq!(rig::text(answer), "hello");
}

#[tokio::test]
async fn errors_of_the_protocol_are_answers() {
    let link = connect(&LocalConnector::new("rascal", Rascal::new().0), Record::new()).await;
    let code = |answer: Result<Answer, LinkError>| match answer {
        Ok(Answer::Error(error)) => error.error_code(),
        other => panic!("{other:?}"),
    };
    let ask = |method: &'static str, params: &'static str| {
        timeout(LONG, link.ask(Method::of(method), Some(Payload::literal(params)), Arc::default()))
    };

    assert_eq!(code(ask("vendor/unknown", "{}").await.expect("an answer")), Some(-32601));
    // rmcp alone would call these an unknown method, or drop them without an answer.
    assert_eq!(code(ask("tools/call", r#"{"arguments":{}}"#).await.expect("an answer")), Some(-32602));
    assert_eq!(
        code(ask("tools/call", r#"{"name":"hello","arguments":{"n":1e400}}"#).await.expect("an answer")),
        Some(-32602)
    );

    let Ok(Answer::Error(error)) = tool(&*link, "refuse").await else { panic!("an error was expected") };
    assert_eq!(error.as_str(), r#"{"code":-32050,"message":"not today","data":{"why":"tired"}}"#);
}

#[tokio::test]
async fn closing_waits_for_calls_within_its_grace_and_ends_the_rest() {
    let (rascal, mut seen) = Rascal::new();
    let link = connect(&LocalConnector::new("rascal", rascal.clone()), Record::new()).await;
    let patient = tokio::spawn({
        let link = link.clone();
        async move { tool(&*link, "wait_for_gate").await }
    });
    assert_eq!(seen.recv().await, Some("wait_for_gate"));
    let closing = tokio::spawn({
        let link = link.clone();
        async move { link.close(LONG).await }
    });
    // Refused from the moment that it is being closed, which the spawned task brings about.
    while !matches!(tool(&*link, "hello").await, Err(LinkError::NotSent(_))) {
        tokio::task::yield_now().await;
    }
    rascal.gate.notify_one();
    assert_eq!(rig::text(patient.await.expect("the patient call's task")), "the gate opened");
    timeout(LONG / 2, closing).await.expect("closing ends with the last call").expect("the closing task");
    assert_eq!(timeout(LONG, link.gone()).await.expect("gone").reason, "it was stopped");
}

#[tokio::test]
async fn a_call_that_outlives_the_grace_is_lost_and_its_handler_dropped() {
    let (rascal, mut seen) = Rascal::new();
    let connector = LocalConnector::new("rascal", rascal);
    let link = connect(&connector, Record::new()).await;
    let stubborn = tokio::spawn({
        let link = link.clone();
        async move { tool(&*link, "wait_for_ever").await }
    });
    assert_eq!(seen.recv().await, Some("wait_for_ever"));
    timeout(LONG, link.close(Duration::from_millis(10))).await.expect("closing is bounded");

    let outcome = timeout(LONG, stubborn).await.expect("an outcome").expect("the stubborn call's task");
    assert!(matches!(outcome, Err(LinkError::Lost(ref gone)) if gone.reason == "it was stopped"), "{outcome:?}");
    assert_eq!(timeout(LONG, seen.recv()).await.expect("the handler is dropped"), Some("dropped"));
    assert!(matches!(tool(&*link, "hello").await, Err(LinkError::NotSent(_))));
    assert!(matches!(link.tell(Method::of("notifications/initialized"), None), Err(LinkError::NotSent(_))));

    // The same handler, asked for another connection.
    let next = connect(&connector, Record::new()).await;
    assert_eq!(rig::text(tool(&*next, "hello").await), "hello");
}

#[tokio::test]
async fn everything_may_be_dropped_inside_a_runtime() {
    let (rascal, mut seen) = Rascal::new();
    let connector = LocalConnector::new("rascal", rascal);
    let link = connect(&connector, Record::new()).await;
    let call = tokio::spawn(async move { tool(&*link, "wait_for_ever").await });
    assert_eq!(seen.recv().await, Some("wait_for_ever"));
    drop(connector);
    call.abort();
    assert!(call.await.expect_err("aborted").is_cancelled());
    assert_eq!(timeout(LONG, seen.recv()).await.expect("its runtime ended"), Some("dropped"));
}

#[tokio::test]
async fn the_trail_learns_when_the_request_was_handed_over() {
    let link = connect(&LocalConnector::new("rascal", Rascal::new().0), Record::new()).await;
    let trail = Arc::new(Trail::new());
    let params = Payload::literal(r#"{"name":"hello","arguments":{}}"#);
    let answer = link.ask(Method::of(Method::TOOLS_CALL), Some(params), trail.clone()).await;
    assert_eq!(rig::text(answer), "hello");
    assert_eq!(trail.instance(), Some(rig::INSTANCE));
    assert!(trail.last_life().is_some());
}

/// Else 32 of them, each of a large message, would take all the room that there is for those.
#[tokio::test]
async fn a_session_keeps_nothing_of_the_message_that_began_it() {
    let said = json!({"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}, "clientInfo": {"name": "x"}});
    let message = bytes::Bytes::from(said.to_string());
    let params = Payload::from_json(message.clone()).expect("JSON");
    let hello = Hello { scope: Scope::All, params, back: Arc::new(Nowhere) };
    let (session, _) = Gateway::builder().start().gate().open(hello).await.expect("it is let in");
    assert_eq!(session.capabilities.as_str(), r#"{"roots":{}}"#);
    assert!(message.is_unique(), "or the message is kept as long as the session");
    let copy = Session::like(&session);
    drop(session);
    assert_eq!(copy.client_info.as_str(), r#"{"name":"x"}"#);
}
