//! Clients that share one server: what it says because of one of them reaches that one,
//! and what cannot be told apart reaches nobody.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::IntoFuture as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::post,
};
use futures_util::{StreamExt as _, future::join_all, stream};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Barrier, oneshot},
    time::timeout,
};

mod support;

use support::{Client, Gateway, Hello, fixture, text_of, wait_until};

const SOON: Duration = Duration::from_secs(20);

async fn gateway(flags: &[&str]) -> Gateway {
    let gateway = Gateway::start(&fixture("fix", flags)).await;
    gateway.ready().await;
    gateway
}

async fn in_flight(gateway: &Gateway, count: u64) {
    wait_until(SOON, "the number of calls under way", async || {
        (gateway.server("fix")["in_flight"] == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn ids_and_progress_tokens_that_collide_stay_apart() {
    let gateway = gateway(&[]).await;
    let clients = join_all((0..6).map(|_| gateway.client("/mcp/fix"))).await;
    // All of them number their requests from 1.
    join_all(clients.iter().zip(3_u64..).map(async |(client, steps)| {
        let arguments = json!({"steps": steps, "every_ms": 10});
        let params = json!({"name": "progress", "arguments": arguments, "_meta": {"progressToken": 1}});
        let exchange = client.start("tools/call", params).await;
        assert_eq!(exchange.id, 1);
        let reply = exchange.reply().await;
        assert!(text_of(&reply).starts_with(&format!("{steps} steps")), "{reply}");
        let told: Vec<_> = client.seen().iter().map(|message| message["params"]["progress"].clone()).collect();
        assert_eq!(told, (1..=steps).map(Value::from).collect::<Vec<_>>(), "its own, and no other");
    }))
    .await;
}

#[tokio::test]
async fn logs_and_updates_reach_those_whose_they_are() {
    let gateway = gateway(&["--resources"]).await;
    let (one, two) = (gateway.client("/mcp/fix").await, Arc::new(gateway.client("/mcp/fix").await));
    let (mut hears_one, mut hears_two) = (one.listen().await, two.listen().await);
    let subscribed = one.request("resources/subscribe", json!({"uri": "fixture://calls"})).await;
    assert!(subscribed.get("result").is_some(), "{subscribed}");

    // Alone: what the server logs is of this call.
    one.call_tool("log", json!({"count": 2})).await;
    assert_eq!(one.seen().iter().filter(|message| message["method"] == "notifications/message").count(), 2);
    // With another's call in hand it may be of either.
    let hanging = tokio::spawn({
        let two = two.clone();
        async move { two.start("tools/call", json!({"name": "hang"})).await.next().await }
    });
    in_flight(&gateway, 1).await;
    one.call_tool("log", json!({"count": 2})).await;
    assert_eq!(one.seen(), Vec::<Value>::new());
    // Whoever has subscribed hears of it, and nobody else.
    one.call_tool("notify", json!({"method": "notifications/resources/updated", "params": {"uri": "fixture://calls"}}))
        .await;
    let updated = |message: &Value| message["method"] == "notifications/resources/updated";
    let heard = timeout(SOON, async { while !updated(&hears_one.next().await.expect("the stream stays open")) {} });
    heard.await.expect("it has subscribed");
    two.cancel(1).await;
    hanging.await.expect("no panic");
    while let Ok(Some(message)) = timeout(Duration::from_millis(200), hears_two.next()).await {
        // What is everybody's may still be on its way.
        let method = message["method"].as_str().unwrap_or_default();
        assert!(method.ends_with("/list_changed"), "not its own: {message}");
    }
}

/// A client of 2026-07-28 that can be asked.
async fn modern(gateway: &Gateway, path: &str) -> Client {
    gateway.client_as(path, Hello::stateless().capabilities(json!({"elicitation": {}, "roots": {}}))).await
}

#[tokio::test]
async fn a_question_on_a_pipe_is_refused_while_it_may_be_of_several_and_asked_when_it_is_of_one() {
    let gateway = gateway(&[]).await;
    let (one, two) = (modern(&gateway, "/mcp/fix").await, modern(&gateway, "/mcp/fix").await);
    let ask = json!({"name": "ask", "arguments": {"method": "roots/list"}});
    let answer = {
        let hanging = one.start("tools/call", json!({"name": "hang"}));
        let asking = async {
            in_flight(&gateway, 1).await;
            two.request("tools/call", ask.clone()).await
        };
        tokio::select! {
            _ = hanging => panic!("it never answers"),
            answer = asking => answer,
        }
    };
    let refused = answer["result"]["structuredContent"]["error"]["message"].as_str();
    assert!(refused.is_some_and(|why| why.contains("cannot tell which client")), "{answer}");
    // The one that hung was cancelled by its disconnect, as this version says.
    in_flight(&gateway, 0).await;
    let answer = two.request("tools/call", ask).await;
    assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
}

/// A server with sessions that asks on the stream of each call. It asks when two calls
/// are in hand, and not before.
struct Asking {
    both: Barrier,
    open: Mutex<HashMap<String, oneshot::Sender<Value>>>,
}

async fn respond(State(server): State<Arc<Asking>>, body: Bytes) -> Response {
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = message["id"].clone();
    let plain = |result: Value| {
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
        ([(CONTENT_TYPE, "application/json")], answer).into_response()
    };
    match message["method"].as_str() {
        Some("initialize") => plain(json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "asking", "version": "1"},
        })),
        Some("tools/list") => plain(json!({"tools": [{"name": "ask", "inputSchema": {"type": "object"}}]})),
        Some("tools/call") => {
            server.both.wait().await;
            let tag = message["params"]["arguments"]["tag"].clone();
            let (answer, answered) = oneshot::channel();
            let question = json!({"jsonrpc": "2.0", "id": tag, "method": "elicitation/create", "params": {
                "message": tag, "requestedSchema": {"type": "object", "properties": {}},
            }});
            server.open.lock().unwrap().insert(tag.as_str().expect("a tag").to_owned(), answer);
            let last = async move {
                let given = answered.await.unwrap_or_default();
                json!({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": given.to_string()}]}})
            };
            let events = stream::iter([question]).chain(stream::once(last));
            let events = events.map(|event| Ok::<_, Infallible>(format!("event: message\ndata: {event}\n\n")));
            ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
        }
        Some(_) if !id.is_null() => StatusCode::BAD_REQUEST.into_response(),
        Some(_) => StatusCode::ACCEPTED.into_response(),
        None => {
            let asker = id.as_str().and_then(|id| server.open.lock().unwrap().remove(id));
            asker.map(|asker| asker.send(message["result"]["content"].clone()));
            StatusCode::ACCEPTED.into_response()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_on_the_stream_of_a_call_is_of_that_call_whoever_else_calls() {
    let server = Arc::new(Asking { both: Barrier::new(2), open: Mutex::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
    let router = Router::new().route("/mcp", post(respond)).with_state(server);
    let serving = tokio::spawn(axum::serve(listener, router).into_future());
    let gateway = Gateway::start(&format!("[servers.far]\nurl = \"{url}\"\n")).await;
    gateway.server_is_ready("far").await;

    // One client with two calls at once, which look like those of two.
    let client = modern(&gateway, "/mcp/far").await;
    join_all(["left", "right"].map(async |tag| {
        let params = json!({"name": "ask", "arguments": {"tag": tag}});
        let asked = client.request("tools/call", params.clone()).await["result"].clone();
        assert_eq!(asked["resultType"], "input_required", "{asked}");
        let questions = asked["inputRequests"].as_object().expect("questions");
        let (key, question) = questions.iter().next().expect("one");
        assert_eq!((questions.len(), &question["params"]["message"]), (1, &json!(tag)), "{asked}");
        let mut again = params;
        again["requestState"] = asked["requestState"].clone();
        again["inputResponses"] = json!({key: {"action": "accept", "content": {"for": tag}}});
        let answer = client.request("tools/call", again).await;
        assert_eq!(text_of(&answer), json!({"for": tag}).to_string());
    }))
    .await;

    // And within sessions: each client is asked for its own call.
    let hello = Hello::default().capabilities(json!({"elicitation": {}}));
    join_all(["one", "two"].map(async |tag| {
        let client = gateway.client_as("/mcp/far", hello.clone()).await;
        let mut call = client.start("tools/call", json!({"name": "ask", "arguments": {"tag": tag}})).await;
        let question = call.next().await.expect("a question");
        assert_eq!(question["params"]["message"], tag);
        client.respond(&question["id"], json!({"action": "accept", "content": {"for": tag}})).await;
        assert_eq!(text_of(&call.reply().await), json!({"for": tag}).to_string());
    }))
    .await;
    serving.abort();
}
