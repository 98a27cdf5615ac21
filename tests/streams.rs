//! What comes besides answers: progress, list changes, cancellation, and what a
//! client that goes away does and does not mean.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::time::timeout;

mod support;

use support::{Gateway, Hello, Journal, Launch, fixture, scratch::Scratch, text_of, wait_until};

const SOON: Duration = Duration::from_secs(30);
const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

async fn with_journal(flags: &[&str]) -> (Gateway, Journal) {
    let folder = Scratch::new();
    let journal = Journal(folder.file("journal"));
    let flags = [flags, &["--journal", journal.0.to_str().unwrap()]].concat();
    let gateway = Launch::with_folder(folder, &fixture("fix", &flags)).start().await;
    gateway.ready().await;
    (gateway, journal)
}

async fn in_flight(gateway: &Gateway, count: u64) {
    wait_until(SOON, "the number of calls under way", async || {
        (gateway.server("fix")["in_flight"] == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn progress_comes_as_events_before_the_answer_and_in_order() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    for version in LEGACY {
        let client = gateway.client_as("/mcp", Hello::version(version)).await;
        let params = json!({"name": "fix__progress", "arguments": {"steps": 20}, "_meta": {"progressToken": "mine"}});
        let exchange = client.start("tools/call", params).await;
        assert!(exchange.head.is_event_stream(), "{version}");
        assert!(text_of(&exchange.reply().await).starts_with("20 steps"), "{version}");
        let seen = client.seen();
        let progress: Vec<_> = seen.iter().filter(|message| message["method"] == "notifications/progress").collect();
        let steps: Vec<_> = progress.iter().map(|message| message["params"]["progress"].as_u64().unwrap()).collect();
        assert_eq!(steps, (1..=20).collect::<Vec<_>>(), "{version}");
        assert!(progress.iter().all(|message| message["params"]["progressToken"] == "mine"), "{seen:?}");
        assert!(progress.iter().all(|message| message["params"]["message"].is_string()), "{seen:?}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_first_is_plain_json() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let client = gateway.client("/mcp").await;
    let plain = client.start("tools/call", json!({"name": "fix__echo", "arguments": {}})).await;
    assert_eq!(plain.head.header("content-type"), Some("application/json"));
    plain.reply().await;
    // Progress that nobody asked for makes no stream either.
    let silent = client.start("tools/call", json!({"name": "fix__progress", "arguments": {"steps": 3}})).await;
    assert_eq!(silent.head.header("content-type"), Some("application/json"));
    silent.reply().await;
}

#[tokio::test]
async fn a_server_that_changes_its_tools_is_heard_on_the_standing_stream() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    for (path, prefix) in [("/mcp", "fix__"), ("/mcp/fix", "")] {
        let client = gateway.client(path).await;
        let mut stream = client.listen().await;
        assert!(stream.head.is_event_stream());
        let count = if path == "/mcp" { 1 } else { 2 };
        client.call_tool(&format!("{prefix}change_tools"), json!({"count": count})).await;
        let newest = json!(format!("{prefix}extra_{}", count - 1));
        let told = timeout(SOON, async {
            loop {
                let message = stream.next().await.expect("the stream stays open");
                // The first one may still be of the server's start.
                if message["method"] == "notifications/tools/list_changed"
                    && client.list_tools().await.iter().any(|tool| tool["name"] == newest)
                {
                    return;
                }
            }
        });
        told.await.unwrap_or_else(|_| panic!("{path} never heard of the change"));
    }
}

#[tokio::test]
async fn a_client_that_cancels_is_heard_by_the_server_and_frees_the_call() {
    let (gateway, journal) = with_journal(&[]).await;
    let client = Arc::new(gateway.client("/mcp").await);
    let call = json!({"name": "fix__hang", "arguments": {"tag": "a"}});
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.start("tools/call", call).await.next().await })
    };
    in_flight(&gateway, 1).await;
    // The harness numbers its requests from 1.
    assert_eq!(client.cancel(1).await, 202);
    let told =
        wait_until(SOON, "the server to hear of it", async || journal.received("notifications/cancelled").pop()).await;
    assert_eq!(told["params"]["requestId"], journal.received("tools/call")[0]["id"]);
    assert_eq!(waiting.await.unwrap(), None, "nothing is owed to it");
    in_flight(&gateway, 0).await;
    assert_eq!(gateway.server("fix")["failures"], 0, "a cancellation is no failure");
}

#[tokio::test]
async fn a_client_that_disconnects_has_not_cancelled() {
    let (gateway, journal) = with_journal(&[]).await;
    let mut sent = 0;
    for version in LEGACY {
        let client = gateway.client_as("/mcp/fix", Hello::version(version)).await;
        // One that was answered with a stream already, one that was not.
        for meta in [json!({"progressToken": 1}), json!({})] {
            sent += 1;
            let call = json!({"name": "slow", "arguments": {"ms": 500, "progress_every_ms": 20}, "_meta": meta});
            tokio::select! {
                _ = async { client.start("tools/call", call).await.reply().await } => panic!("it was answered too early"),
                () = wait_until(SOON, "the server to have it", async || {
                    (journal.received("tools/call").len() == sent).then_some(())
                }) => {}
            }
        }
    }
    in_flight(&gateway, 0).await;
    let status = gateway.server("fix");
    assert_eq!((status["calls"].as_u64(), status["failures"].as_u64()), (Some(8), Some(0)), "{status}");
    assert_eq!(journal.received("notifications/cancelled"), Vec::<Value>::new());
    assert_eq!(gateway.server("fix")["pid"], status["pid"]);
}

#[tokio::test]
async fn a_second_standing_stream_takes_over_from_the_first() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let mut first = client.listen().await;
    let mut second = client.listen().await;
    // It may still have heard of the server's start.
    while let Some(message) = timeout(SOON, first.next()).await.expect("the first one ends") {
        assert_eq!(message["method"], "notifications/tools/list_changed");
    }
    client.call_tool("change_tools", json!({"count": 3})).await;
    let told = timeout(SOON, second.next()).await.expect("the second one is told").expect("a message");
    assert_eq!(told["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn a_question_of_the_server_reaches_the_client_that_called() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let other = gateway.client("/mcp").await;
    let mut others_stream = other.listen().await;
    let client = gateway.client_as("/mcp", Hello::default().capabilities(json!({"roots": {}}))).await;
    let mut exchange =
        client.start("tools/call", json!({"name": "fix__ask", "arguments": {"method": "roots/list"}})).await;
    let question = exchange.next().await.expect("a question");
    assert_eq!(question["method"], "roots/list", "{question}");
    let roots = json!({"roots": [{"uri": "file:///x", "x-unknown": 0.1}]});
    assert_eq!(client.respond(&question["id"], roots.clone()).await, 202);
    let reply = exchange.reply().await;
    assert_eq!(reply["result"]["structuredContent"]["result"], roots, "{reply}");
    while let Ok(message) = timeout(Duration::from_millis(100), others_stream.next()).await {
        let message = message.expect("the stream stays open");
        assert!(message.get("id").is_none(), "the question went to another client too: {message}");
    }
}

#[tokio::test]
async fn a_question_of_a_call_for_json_alone_goes_to_the_standing_stream_or_is_refused() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let hello = Hello::default().capabilities(json!({"sampling": {}})).accept("application/json");
    let client = Arc::new(gateway.client_as("/mcp", hello).await);
    let params = json!({"messages": [], "maxTokens": 1});
    let ask = json!({"method": "sampling/createMessage", "params": params});
    let refused = timeout(SOON, client.call_tool("fix__ask", ask.clone())).await.expect("refused at once");
    assert!(refused.to_string().contains("reads no stream"), "{refused}");

    let mut standing = client.listen().await;
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.call_tool("fix__ask", ask).await }
    });
    let question = timeout(SOON, async {
        loop {
            // List changes of the server's start may come before.
            let message = standing.next().await.expect("the stream stays open");
            if message["method"] == "sampling/createMessage" {
                return message;
            }
        }
    });
    let question = question.await.expect("a question");
    let answer = json!({"role": "assistant", "content": {"type": "text", "text": "hm"}, "model": "m"});
    assert_eq!(client.respond(&question["id"], answer.clone()).await, 202);
    let reply = calling.await.expect("no panic");
    assert_eq!(reply["result"]["structuredContent"]["result"], answer, "{reply}");
}
