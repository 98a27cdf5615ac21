//! A client whose connection broke goes on where it was: `Last-Event-ID`, within a
//! session, on the stream that it names and no other.

use std::{
    collections::BTreeSet,
    future::IntoFuture as _,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::any,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};

mod support;

use support::{Client, Exchange, Gateway, Hello, fixture, process::run, text_of, tools};

const SOON: Duration = Duration::from_secs(20);
const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

async fn gateway() -> Gateway {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    gateway
}

async fn progressing<'a>(client: &'a Client, token: &str, steps: u64) -> Exchange<'a> {
    let arguments = json!({"steps": steps, "every_ms": 15});
    client
        .start("tools/call", json!({"name": "progress", "arguments": arguments, "_meta": {"progressToken": token}}))
        .await
}

async fn next(exchange: &mut Exchange<'_>) -> Option<Value> {
    timeout(SOON, exchange.next()).await.expect("something comes, or the end")
}

/// Messages with the ids of their events, to the end of the stream.
async fn rest(mut exchange: Exchange<'_>) -> Vec<(String, Value)> {
    let mut messages = Vec::new();
    while let Some(message) = next(&mut exchange).await {
        messages.push((exchange.last_event_id.clone().expect("every event has an id"), message));
    }
    messages
}

/// The steps that progress tells, which must all be of one token.
fn steps(messages: &[(String, Value)], token: &str) -> Vec<u64> {
    let progress = messages.iter().filter(|(_, message)| message["method"] == "notifications/progress");
    let steps = progress.map(|(_, message)| {
        assert_eq!(message["params"]["progressToken"], token);
        message["params"]["progress"].as_u64().expect("a number")
    });
    steps.collect()
}

#[tokio::test]
async fn a_broken_connection_loses_no_message_and_repeats_none() {
    let gateway = gateway().await;
    join_all(LEGACY.map(async |version| {
        let client = gateway.client_as("/mcp/fix", Hello::version(version)).await;
        let mut broken = progressing(&client, "mine", 20).await;
        let request = broken.id;
        for step in 1..=3 {
            assert_eq!(next(&mut broken).await.expect("progress")["params"]["progress"], step, "{version}");
        }
        // The empty event at the beginning is for clients that know it.
        assert_eq!(broken.retry.is_some(), version == "2025-11-25", "{version}");
        let last = broken.last_event_id.clone().expect("events have ids");
        drop(broken);
        let resumed = client.resume(&last).await;
        assert!(resumed.head.is_event_stream(), "{version}");
        let messages = rest(resumed).await;
        assert_eq!(steps(&messages, "mine"), (4..=20).collect::<Vec<_>>(), "{version}");
        let (_, answer) = messages.last().expect("an answer");
        assert_eq!(answer["id"], request, "{version}");
        assert!(text_of(answer).starts_with("20 steps"), "{version}: {answer}");
        // All of it once more, for the connection may have broken at the very end.
        assert_eq!(rest(client.resume(&last).await).await, messages, "{version}");
        let last = &messages.last().expect("an answer").0;
        assert_eq!(client.resume(last).await.head.status, 204, "{version}: there is no more");
    }))
    .await;
}

#[tokio::test]
async fn no_stream_gets_the_messages_of_another() {
    let gateway = gateway().await;
    let client = gateway.client("/mcp/fix").await;
    let mut standing = client.listen().await;
    let mut broken = [progressing(&client, "one", 12).await, progressing(&client, "two", 12).await];
    let mut ids = BTreeSet::new();
    for stream in &mut broken {
        next(stream).await.expect("progress");
        ids.insert(stream.last_event_id.clone().expect("events have ids"));
    }
    let [one, two] = broken.map(|stream| stream.last_event_id.clone().expect("events have ids"));
    client.call_tool("change_tools", json!({"count": 1})).await;
    let told = next(&mut standing).await.expect("a change of lists");
    assert_eq!(told["method"], "notifications/tools/list_changed");
    ids.insert(standing.last_event_id.clone().expect("events have ids"));
    assert_eq!(ids.len(), 3, "ids are unique within a session: {ids:?}");
    for (last, token) in [(two, "two"), (one, "one")] {
        let messages = rest(client.resume(&last).await).await;
        assert_eq!(steps(&messages, token), (2..=12).collect::<Vec<_>>());
        assert_eq!(messages.len(), 12, "progress, the answer, and nothing else: {messages:?}");
        let stream = |id: &str| id.split_once('-').expect("stream and place").0.to_owned();
        assert!(messages.iter().all(|(id, _)| stream(id) == stream(&last)), "{messages:?}");
    }
    let other = gateway.client("/mcp/fix").await;
    let refused = other.resume(ids.first().expect("three")).await;
    assert_eq!(refused.head.status, 400, "an id of another session's means nothing");
    let refused = refused.reply().await;
    assert!(refused["error"]["message"].as_str().expect("a reason").contains("has had no event"), "{refused}");
    assert_eq!(client.resume("no id").await.head.status, 400);
    assert_eq!(client.end().await, 204);
    assert_eq!(client.resume(ids.first().expect("three")).await.head.status, 404, "the session is over");
}

#[tokio::test]
async fn the_standing_stream_can_be_resumed_and_taken_over() {
    let gateway = gateway().await;
    let client = gateway.client("/mcp/fix").await;
    let mut first = client.listen().await;
    client.call_tool("change_tools", json!({"count": 1})).await;
    assert!(first.head.is_event_stream());
    next(&mut first).await.expect("a change of lists");
    let last = first.last_event_id.clone().expect("events have ids");
    // Not closed: its connection may hang where nobody notices.
    let mut second = client.resume(&last).await;
    assert_eq!(rest(first).await, [], "it was taken over");
    client.call_tool("change_tools", json!({"count": 2})).await;
    let told = next(&mut second).await.expect("a change of lists");
    assert_eq!(told["method"], "notifications/tools/list_changed");
    drop(second);
    let mut third = client.resume(&last).await;
    assert_eq!(next(&mut third).await, Some(told), "it may not have arrived");
    let newest = third.last_event_id.clone().expect("events have ids");
    let fourth = client.listen().await;
    rest(third).await;
    assert_eq!(client.resume(&newest).await.head.status, 204, "a new stream has taken its place");
    drop(fourth);
}

#[tokio::test]
async fn a_call_that_takes_long_gives_a_client_that_knows_how_something_to_come_back_with() {
    let gateway = gateway().await;
    let slow = json!({"name": "slow", "arguments": {"ms": 3000}});
    let newest = async {
        let client = gateway.client("/mcp/fix").await;
        let mut broken = client.start("tools/call", slow.clone()).await;
        assert!(broken.head.is_event_stream());
        let nothing_yet = timeout(Duration::from_millis(100), broken.next()).await;
        assert!(nothing_yet.is_err(), "it has only its beginning: {nothing_yet:?}");
        assert!(broken.retry.as_deref().is_some_and(|retry| retry.parse::<u32>().is_ok()), "{:?}", broken.retry);
        let begun = broken.last_event_id.clone().expect("the first event has an id");
        drop(broken);
        let answer = client.resume(&begun).await.reply().await;
        assert!(text_of(&answer).starts_with("waited"), "{answer}");
    };
    let older = async {
        // It would take the empty event for a message.
        let client = gateway.client_as("/mcp/fix", Hello::version("2025-06-18")).await;
        let exchange = client.start("tools/call", slow.clone()).await;
        assert!(!exchange.head.is_event_stream());
        assert!(text_of(&exchange.reply().await).starts_with("waited"));
    };
    tokio::join!(newest, older);
}

/// A server that closes the stream of a call at once and wants to be asked again: what it
/// says comes piece by piece, one for each time.
async fn polled(State(polls): State<Arc<AtomicUsize>>, headers: HeaderMap, body: Bytes) -> Response {
    let events = |events: String| ([(CONTENT_TYPE, "text/event-stream")], events).into_response();
    let Some(last) = headers.get("last-event-id") else {
        let message: Value = serde_json::from_slice(&body).unwrap_or_default();
        let result = match message["method"].as_str() {
            Some("initialize") => json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "polled", "version": "1"},
            }),
            Some("tools/list") => json!({"tools": [{"name": "it", "inputSchema": {"type": "object"}}]}),
            Some("tools/call") => return events(format!("id: {}/0\nretry: 10\ndata: \n\n", message["id"])),
            Some(_) if message["id"].is_null() => return StatusCode::ACCEPTED.into_response(),
            _ => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
        };
        let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
        return ([(CONTENT_TYPE, "application/json")], answer).into_response();
    };
    polls.fetch_add(1, Ordering::Relaxed);
    match last.to_str().expect("an id of its own").split_once('/').expect("call and place") {
        (call, "0") => events(format!("id: {call}/1\ndata: \n\nid: {call}/2\ndata: {{\"half\":")),
        (call, "1") => {
            let result = json!({"content": [{"type": "text", "text": "in the end"}]});
            let answer = json!({"jsonrpc": "2.0", "id": call.parse::<u64>().expect("a number"), "result": result});
            events(format!("id: {call}/2\ndata: {answer}\n\n"))
        }
        (_, place) => panic!("{place} was never sent whole"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_its_stream_for_a_while_is_asked_for_the_rest() {
    let polls = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
    let router = Router::new().route("/mcp", any(polled)).with_state(polls.clone());
    let serving = tokio::spawn(axum::serve(listener, router).into_future());
    let gateway = Gateway::start(&format!("[servers.far]\nurl = \"{url}\"\n")).await;
    gateway.server_is_ready("far").await;
    let answer = gateway.client("/mcp/far").await.call_tool("it", json!({})).await;
    assert_eq!(text_of(&answer), "in the end");
    assert_eq!(polls.load(Ordering::Relaxed), 2);
    serving.abort();
}

#[tokio::test]
async fn the_official_client_goes_on_by_itself_where_its_connection_broke() {
    let Some(npm) = tools::npm() else { return };
    let gateway = gateway().await;
    let mut command = Command::new("node");
    command.arg(tools::interop("resume.mjs")).arg(npm.join("node_modules"));
    command.args([&*format!("http://{}/mcp/fix", gateway.address), "progress"]);
    // In a thread: it blocks, and so would the gateway's readers here.
    let output = tokio::task::spawn_blocking(|| run(command, Duration::from_secs(60))).await.expect("no panic");
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(seen["cuts"].as_u64().expect("a number") >= 1, "{seen}");
    assert_eq!(seen["progress"], json!([1, 2, 3, 4, 5, 6, 7, 8]), "{seen}");
    assert!(seen["result"]["content"][0]["text"].as_str().expect("a text").starts_with("8 steps"), "{seen}");
}
