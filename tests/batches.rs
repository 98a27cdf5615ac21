//! Arrays of messages, which 2025-03-26 has and no other version: from clients, over HTTP
//! and over stdio, and from servers.

use std::{future::IntoFuture as _, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::post as post_to,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

mod support;

use support::{Client, Gateway, Hello, Response as Reply, StdioClient, fixture, wait_until};

const SOON: Duration = Duration::from_secs(15);
const BATCHED: &str = "2025-03-26";

async fn gateway() -> Gateway {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    gateway
}

fn call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

fn ping(id: impl Into<Value>) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "ping"})
}

fn cancelled(id: impl Into<Value>) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id.into()}})
}

async fn post(client: &Client, batch: &[Value]) -> Reply {
    client.post(&json!(batch).to_string()).await
}

/// The elements of a reply that is an array.
fn array(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn by_id<'a>(replies: &'a [Value], id: &Value) -> &'a Value {
    replies.iter().find(|reply| reply["id"] == *id).unwrap_or_else(|| panic!("nothing answers {id}: {replies:?}"))
}

#[tokio::test]
async fn what_is_mixed_is_taken_apart_and_the_answers_come_together() {
    let gateway = gateway().await;
    let client = gateway.client_as("/mcp/fix", Hello::version(BATCHED)).await;
    let initialize = json!({"jsonrpc": "2.0", "id": "again", "method": "initialize", "params": {}});
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    let answer = json!({"jsonrpc": "2.0", "id": 999, "result": {}});
    let batch =
        [ping(1), notification.clone(), call("a", "echo", json!({"n": 1})), json!(7), answer.clone(), initialize];
    let reply = post(&client, &batch).await;
    assert_eq!((reply.status(), reply.header("content-type")), (200, Some("application/json")));
    let replies = array(&reply.text());
    assert_eq!(replies.len(), 4, "{replies:?}");
    assert_eq!(by_id(&replies, &json!(1))["result"], json!({}));
    assert_eq!(by_id(&replies, &json!("a"))["result"]["structuredContent"], json!({"n": 1}));
    assert_eq!(by_id(&replies, &json!("again"))["error"]["code"], -32600);
    assert_eq!(by_id(&replies, &Value::Null)["error"]["code"], -32600, "a number is no message");

    assert_eq!(post(&client, &[notification.clone(), answer]).await.status(), 202, "nothing is owed");
    let wrong = post(&client, &[notification, json!(7)]).await;
    assert_eq!((wrong.status(), array(&wrong.text())[0]["error"]["code"].clone()), (400, json!(-32600)));
    for (text, reason) in [("[]".to_owned(), "an empty array"), (json!(vec![ping(1); 101]).to_string(), "100 messages")]
    {
        let refused = client.post(&text).await;
        let error: Value = serde_json::from_slice(&refused.body).expect("one error");
        assert_eq!((refused.status(), &error["error"]["code"]), (400, &json!(-32600)), "{error}");
        assert!(error["error"]["message"].as_str().expect("a reason").contains(reason), "{error}");
    }
    assert_eq!(array(&post(&client, &vec![ping(1); 100]).await.text()).len(), 100);
}

#[tokio::test]
async fn other_versions_have_no_batches() {
    let gateway = gateway().await;
    for version in ["2024-11-05", "2025-06-18", "2025-11-25", "2026-07-28"] {
        let hello = Hello { version: version.to_owned(), ..Hello::default() };
        let refused = post(&gateway.client_as("/mcp/fix", hello).await, &[ping(1)]).await;
        let error: Value = serde_json::from_slice(&refused.body).expect("one error");
        assert_eq!((refused.status(), &error["error"]["code"]), (400, &json!(-32600)), "{version}: {error}");
        assert!(error["error"]["message"].as_str().expect("a reason").contains(BATCHED), "{version}: {error}");
    }
}

#[tokio::test]
async fn a_batch_with_something_to_say_is_one_stream_that_can_be_resumed() {
    let gateway = gateway().await;
    let client = gateway.client_as("/mcp/fix", Hello::version(BATCHED)).await;
    let mut slow = call("slow", "progress", json!({"steps": 5, "every_ms": 20}));
    slow["params"]["_meta"] = json!({"progressToken": "mine"});
    let reply = post(&client, &[slow, ping("quick")]).await;
    assert!(reply.head.is_event_stream());
    let messages = reply.messages();
    let steps: Vec<_> = messages.iter().filter_map(|message| message["params"]["progress"].as_u64()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5], "{messages:?}");
    assert_eq!(messages.len(), 7, "{messages:?}");
    assert_eq!(messages.last().expect("an answer")["id"], "slow", "{messages:?}");
    assert_eq!(by_id(&messages, &json!("quick"))["result"], json!({}));
    let mut resumed = client.resume("1-0").await;
    for message in messages {
        assert_eq!(resumed.next().await, Some(message));
    }
    assert_eq!(resumed.next().await, None);
}

#[tokio::test]
async fn one_request_of_a_batch_can_be_cancelled_and_a_question_of_it_answered_in_another() {
    let gateway = gateway().await;
    let hello = Hello::version(BATCHED).capabilities(json!({"roots": {}}));
    let client = Arc::new(gateway.client_as("/mcp/fix", hello).await);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { post(&client, &[call(1, "hang", json!({})), call(2, "echo", json!({"b": 2}))]).await }
    });
    wait_until(SOON, "the call that hangs", async || (gateway.server("fix")["in_flight"] == 1).then_some(())).await;
    assert_eq!(post(&client, &[cancelled(1)]).await.status(), 202);
    let replies = array(&waiting.await.expect("no panic").text());
    assert_eq!(replies.len(), 1, "nothing is owed to the other: {replies:?}");
    assert_eq!(by_id(&replies, &json!(2))["result"]["structuredContent"], json!({"b": 2}));
    let none = post(&client, &[call(3, "hang", json!({})), cancelled(3)]).await;
    assert_eq!((none.status(), none.messages()), (200, vec![]), "nothing is owed to anyone");

    let mut asking = client.start("tools/call", json!({"name": "ask", "arguments": {"method": "roots/list"}})).await;
    let question = asking.next().await.expect("a question");
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}});
    assert_eq!(post(&client, &[answer]).await.status(), 202);
    assert_eq!(asking.reply().await["result"]["structuredContent"]["result"], json!({"roots": []}));
}

#[tokio::test]
async fn a_question_of_a_batch_for_json_alone_goes_to_the_standing_stream_or_is_refused() {
    let gateway = gateway().await;
    let hello = Hello::version(BATCHED).capabilities(json!({"roots": {}}));
    let plain = Arc::new(gateway.client_as("/mcp/fix", hello.accept("application/json")).await);
    let ask = call(1, "ask", json!({"method": "roots/list"}));
    let refused = tokio::time::timeout(SOON, post(&plain, std::slice::from_ref(&ask))).await.expect("refused at once");
    let refused = array(&refused.text());
    assert!(by_id(&refused, &json!(1)).to_string().contains("reads no stream"), "{refused:?}");

    let mut standing = plain.listen().await;
    let asking = tokio::spawn({
        let plain = plain.clone();
        async move { post(&plain, &[ask]).await }
    });
    let question = question(&mut standing).await;
    assert_eq!(plain.respond(&question["id"], json!({"roots": []})).await, 202);
    let replies = array(&asking.await.expect("no panic").text());
    assert_eq!(by_id(&replies, &json!(1))["result"]["structuredContent"]["result"], json!({"roots": []}));
}

/// The next message on a standing stream that wants an answer.
async fn question(stream: &mut support::Exchange<'_>) -> Value {
    let next = async {
        loop {
            let message = stream.next().await.expect("the stream stays open");
            if message.get("id").is_some() {
                return message;
            }
        }
    };
    tokio::time::timeout(SOON, next).await.expect("a question")
}

/// The next line that is not of the lists, which may have changed a moment ago.
fn answer(client: &mut StdioClient) -> String {
    loop {
        let line = client.line(SOON).expect("an answer");
        if !line.contains("/list_changed") {
            return line;
        }
    }
}

#[tokio::test]
async fn over_stdio_a_batch_is_answered_by_one() {
    let gateway = gateway().await;
    for (version, takes) in [(BATCHED, true), ("2025-06-18", false)] {
        let mut client = StdioClient::start(&gateway.config(), &["--join", "fix"]);
        let hello =
            json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "pipe", "version": "1"}});
        assert_eq!(client.request("initialize", hello)["result"]["protocolVersion"], version);
        let batch =
            [call("a", "echo", json!({"n": 1})), call("c", "hang", json!({})), cancelled("c"), json!(7), ping("b")];
        client.send(&json!(batch).to_string());
        let line = answer(&mut client);
        let reply: Value = serde_json::from_str(&line).expect("JSON");
        if !takes {
            assert_eq!(reply["error"]["code"], -32600, "{version}: {reply}");
            continue;
        }
        let replies = array(&line);
        assert_eq!(replies.len(), 3, "{replies:?}");
        assert_eq!(by_id(&replies, &json!("a"))["result"]["structuredContent"], json!({"n": 1}));
        assert_eq!(by_id(&replies, &json!("b"))["result"], json!({}));
        assert_eq!(by_id(&replies, &Value::Null)["error"]["code"], -32600);
        client.send("[]");
        let error: Value = serde_json::from_str(&answer(&mut client)).expect("JSON");
        assert_eq!(error["error"]["code"], -32600, "{error}");
        assert_eq!(client.request("ping", json!({}))["result"], json!({}), "all that has not hurt the session");
    }
}

#[tokio::test]
async fn over_stdio_a_batch_right_behind_initialize_waits_for_it() {
    let gateway = gateway().await;
    for (version, takes) in [(BATCHED, true), ("2025-06-18", false)] {
        let mut client = StdioClient::start(&gateway.config(), &["--join", "fix"]);
        let hello =
            json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "pipe", "version": "1"}});
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello});
        let batch = json!([call(1, "echo", json!({"n": 1})), ping(2)]);
        // In one write, so that the handshake cannot be over in between.
        client.send(&format!("{initialize}\n{batch}\n{}", json!([call(3, "hang", json!({})), ping(4), cancelled(3)])));
        let welcome: Value = serde_json::from_str(&answer(&mut client)).expect("JSON");
        assert_eq!(welcome["result"]["protocolVersion"], version, "{welcome}");
        let lines = [answer(&mut client), answer(&mut client)];
        if !takes {
            for line in lines {
                let error: Value = serde_json::from_str(&line).expect("JSON");
                assert_eq!((&error["id"], &error["error"]["code"]), (&Value::Null, &json!(-32600)), "{error}");
            }
            assert_eq!(gateway.server("fix")["calls"], 1, "what is refused is not called");
            continue;
        }
        let replies: Vec<Value> = lines.iter().flat_map(|line| array(line)).collect();
        assert_eq!(replies.len(), 3, "nothing is owed to what was cancelled: {replies:?}");
        assert_eq!(by_id(&replies, &json!(1))["result"]["structuredContent"], json!({"n": 1}));
        for id in [2, 4] {
            assert_eq!(by_id(&replies, &json!(id))["result"], json!({}));
        }
    }
}

#[tokio::test]
async fn an_array_of_a_server_on_a_pipe_is_taken_apart() {
    let gateway = gateway().await;
    let client = gateway.client("/mcp/fix").await;
    let log = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"beside"}}"#;
    let answer = r#"{"jsonrpc":"2.0","id":$ID,"result":{"content":[],"n":1e400}}"#;
    let params = json!({"name": "raw", "arguments": {"lines": [format!("[{log},{answer}]")]}});
    let text = client.request_text("tools/call", params).await;
    assert!(text.contains(r#""n":1e400"#), "{text}");
    assert!(client.seen().iter().any(|message| message["params"]["data"] == "beside"));
    assert_eq!(gateway.server("fix")["stray_lines"], 0, "{}", gateway.server("fix"));
}

/// A server of 2025-03-26 that answers every request with an array, a notification first.
async fn respond(body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match request["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": BATCHED,
            "capabilities": {"tools": {}, "logging": {}},
            "serverInfo": {"name": "batching", "version": "1"},
        }),
        Some("tools/list") => json!({"tools": [{"name": "it", "inputSchema": {"type": "object"}}]}),
        Some("tools/call") => json!({"content": [{"type": "text", "text": "in an array"}]}),
        _ if request["id"].is_null() => return StatusCode::ACCEPTED.into_response(),
        _ => return StatusCode::BAD_REQUEST.into_response(),
    };
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}});
    let answer = json!([log, {"jsonrpc": "2.0", "id": request["id"], "result": result}]).to_string();
    ([(CONTENT_TYPE, "application/json")], answer).into_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_array_of_a_server_over_http_is_taken_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
    let server = tokio::spawn(axum::serve(listener, Router::new().route("/mcp", post_to(respond))).into_future());
    let gateway = Gateway::start(&format!("[servers.far]\nurl = \"{url}\"\n")).await;
    gateway.server_is_ready("far").await;
    let client = gateway.client("/mcp/far").await;
    let reply = client.call_tool("it", json!({})).await;
    assert_eq!(support::text_of(&reply), "in an array");
    assert!(client.seen().iter().any(|message| message["params"]["data"] == 1));
    server.abort();
}
