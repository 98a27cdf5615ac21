//! Servers that listen elsewhere: what they are sent, and each way that they fail.
//! The server runs in this process, on threads beside the one that waits for a command.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

#[path = "upstream_url/shore.rs"]
mod shore;
mod support;

use shore::{Refusal, Shore};
use support::{Gateway, Launch, failure_of, text_of, wait_until};

const SOON: Duration = Duration::from_secs(30);
const CALL: Option<&str> = Some("tools/call");

fn table(shore: &Shore) -> String {
    format!("\n[servers.sea]\nurl = \"{}\"\n", shore.url())
}

async fn state(gateway: &Gateway, wanted: &str) -> Value {
    wait_until(SOON, wanted, async || Some(gateway.server("sea")).filter(|server| server["state"] == wanted)).await
}

fn class_of(reply: &Value) -> &str {
    failure_of(reply)["class"].as_str().expect("a class")
}

fn refusal(status: u16, method: Option<&'static str>) -> Option<Refusal> {
    Some(Refusal { status, headers: Vec::new(), method })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_and_the_session_are_sent_with_every_request() {
    let shore = Shore::open(false).await;
    let config = table(&shore) + "headers = { Authorization = \"Bearer ${SEA_TOKEN}\", X-Own = \"kept\" }\n";
    let mut gateway = Launch::new(&config).env("SEA_TOKEN", "s3cret").start().await;
    state(&gateway, "ready").await;
    let client = gateway.client("/mcp").await;
    assert_eq!(text_of(&client.call_tool("sea__echo", json!({"a": 1})).await), r#"{"a":1}"#);
    let (first, later) = (&shore.visits("initialize")[0], &shore.visits("tools/call")[0]);
    for visit in [first, later] {
        assert_eq!(visit.headers["authorization"], "Bearer s3cret");
        assert_eq!(visit.headers["x-own"], "kept");
        assert_eq!(visit.headers["accept"], "application/json, text/event-stream");
    }
    assert!(first.headers.get("mcp-session-id").is_none());
    assert!(later.headers.get("mcp-session-id").is_some(), "the session that initialize began");
    assert!(later.headers.get("mcp-protocol-version").is_some());
    let said = gateway.seawall(&["status", "--json"]);
    assert!(!String::from_utf8_lossy(&said.stdout).contains("s3cret") && !gateway.log.has("s3cret"));
    assert_eq!(gateway.stop().code(), Some(0));
    assert_eq!(shore.verbs("DELETE"), 1, "the session is ended with the gateway");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_as_streams_or_as_json_and_progress_before_them() {
    for json in [false, true] {
        let shore = Shore::open(json).await;
        let gateway = Gateway::start(&table(&shore)).await;
        state(&gateway, "ready").await;
        let client = gateway.client("/mcp/sea").await;
        let echo = client.call_tool("echo", json!({"n": 0.1})).await;
        assert_eq!(text_of(&echo), r#"{"n":0.1}"#, "json: {json}");
        let params = json!({"name": "steps", "arguments": {}, "_meta": {"progressToken": "mine"}});
        assert_eq!(text_of(&client.request("tools/call", params).await), "{}");
        let seen = client.seen();
        let steps: Vec<_> = seen.iter().filter(|message| message["method"] == "notifications/progress").collect();
        assert_eq!(steps.len(), 10, "json: {json}: {seen:?}");
        assert!(steps.iter().all(|step| step["params"]["progressToken"] == "mine"), "{steps:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_says_of_its_own_accord_reaches_clients() {
    let shore = Shore::open(false).await;
    let gateway = Gateway::start(&table(&shore)).await;
    state(&gateway, "ready").await;
    wait_until(SOON, "the standing stream", async || (shore.verbs("GET") > 0).then_some(())).await;
    let client = gateway.client("/mcp").await;
    let mut stream = client.listen().await;
    client.call_tool("sea__grow", json!({})).await;
    let told = timeout(SOON, async {
        loop {
            let message = stream.next().await.expect("the stream stays open");
            let grown = async || client.list_tools().await.iter().any(|tool| tool["name"] == "sea__extra_0");
            if message["method"] == "notifications/tools/list_changed" && grown().await {
                return;
            }
        }
    });
    told.await.expect("the client hears of the new tool");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_session_is_begun_anew_and_the_call_goes_there() {
    let shore = Shore::open(false).await;
    let gateway = Gateway::start(&table(&shore)).await;
    state(&gateway, "ready").await;
    let client = gateway.client("/mcp").await;
    assert_eq!(text_of(&client.call_tool("sea__echo", json!({"n": 1})).await), r#"{"n":1}"#);
    let before = shore.visits("initialize").len();
    shore.forget_sessions().await;
    assert_eq!(
        text_of(&client.call_tool("sea__echo", json!({"n": 2})).await),
        r#"{"n":2}"#,
        "the caller notices nothing"
    );
    assert_eq!(shore.visits("initialize").len(), before + 1, "begun anew, once");
    let sent = shore.visits("tools/call").iter().filter(|visit| visit.body["params"]["arguments"]["n"] == 2).count();
    assert_eq!(sent, 2, "once refused, once taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_park_it_until_they_are_right() {
    let shore = Shore::open(false).await;
    shore.refuse(refusal(401, None));
    let gateway = Gateway::start(&table(&shore)).await;
    let server = state(&gateway, "parked").await;
    assert!(server["reason"].as_str().is_some_and(|reason| reason.contains("401")), "{server}");
    let tries = shore.visits("initialize").len();
    assert_eq!(tries, 1, "it is not asked again and again");
    shore.refuse(None);
    assert_eq!(gateway.seawall(&["restart", "sea"]).status.code(), Some(0));
    state(&gateway, "ready").await;
    let client = gateway.client("/mcp").await;
    assert_eq!(text_of(&client.call_tool("sea__echo", json!({})).await), "{}");
    // And in the middle of its life.
    shore.refuse(refusal(403, CALL));
    let reply = client.call_tool("sea__echo", json!({})).await;
    assert_eq!(class_of(&reply), "auth", "{reply}");
    assert!(text_of(&reply).contains("servers.toml"), "it says where to mend it: {reply}");
    assert!(state(&gateway, "parked").await["reason"].as_str().unwrap().contains("403"));
    assert_eq!(gateway.rows("the failure", "SELECT class FROM failures").await, [json!({"class": "auth"})]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_is_said_to_be_busy_with_its_own_time_and_no_breaker() {
    let shore = Shore::open(false).await;
    let gateway = Gateway::start(&table(&shore)).await;
    state(&gateway, "ready").await;
    let client = gateway.client("/mcp").await;
    shore.refuse(Some(Refusal { status: 429, headers: vec![("Retry-After", "7")], method: CALL }));
    for _ in 0..8 {
        let reply = client.call_tool("sea__echo", json!({})).await;
        assert_eq!((class_of(&reply), &failure_of(&reply)["retryAfterMs"]), ("http_busy", &json!(7000)), "{reply}");
    }
    shore.refuse(None);
    assert_eq!(text_of(&client.call_tool("sea__echo", json!({})).await), "{}", "the breaker has not counted them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_times_503_open_the_breaker_and_the_sixth_is_not_sent() {
    let shore = Shore::open(false).await;
    let gateway = Gateway::start(&table(&shore)).await;
    state(&gateway, "ready").await;
    let client = gateway.client("/mcp").await;
    shore.refuse(refusal(503, CALL));
    for _ in 0..5 {
        let reply = client.call_tool("sea__echo", json!({})).await;
        assert_eq!(class_of(&reply), "http", "{reply}");
    }
    let reply = client.call_tool("sea__echo", json!({})).await;
    assert_eq!(class_of(&reply), "breaker_open", "{reply}");
    assert_eq!(shore.visits("tools/call").len(), 5);
    shore.refuse(None);
    assert_eq!(text_of(&client.call_tool("sea__steps", json!({})).await), "{}", "another tool is not touched");
    assert_eq!(gateway.seawall(&["breaker", "reset", "sea__echo"]).status.code(), Some(0));
    assert_eq!(text_of(&client.call_tool("sea__echo", json!({})).await), "{}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_yet_is_tried_again_until_it_is() {
    let shore = Shore::open(false).await;
    let (address, config) = (shore.address, table(&shore));
    shore.close().await;
    let gateway = Gateway::start(&config).await;
    let server = state(&gateway, "backoff").await;
    assert!(server["reason"].is_string() && server["retry_in_ms"].is_u64(), "{server}");
    let client = gateway.client("/mcp").await;
    let shore = Shore::open_at(address, false).await;
    state(&gateway, "ready").await;
    assert_eq!(text_of(&client.call_tool("sea__echo", json!({})).await), "{}");
    // It goes away again, with a call in hand.
    let (reply, ()) = tokio::join!(client.call_tool("sea__wait", json!({})), async {
        wait_until(SOON, "the call", async || {
            (!shore.visits("tools/call").is_empty() && gateway.server("sea")["in_flight"] == 1).then_some(())
        })
        .await;
        shore.close().await;
    });
    assert!(["lost", "http"].contains(&class_of(&reply)), "{reply}");
    assert_eq!(failure_of(&reply)["outcomeUnknown"], true, "{reply}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_given_up_is_cancelled_there() {
    let shore = Shore::open(false).await;
    let gateway = Gateway::start(&(table(&shore) + "timeout = \"300ms\"\n")).await;
    state(&gateway, "ready").await;
    let client = gateway.client("/mcp").await;
    let reply = client.call_tool("sea__wait", json!({})).await;
    assert_eq!(class_of(&reply), "timeout", "{reply}");
    let told = wait_until(SOON, "the cancellation", async || shore.visits("notifications/cancelled").pop()).await;
    let call = shore.visits("tools/call").pop().unwrap();
    assert_eq!(told.body["params"]["requestId"], call.body["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_mcp_is_a_protocol_failure() {
    let shore = Shore::open(false).await;
    let gateway = Gateway::start(&table(&shore)).await;
    state(&gateway, "ready").await;
    let client = gateway.client("/mcp").await;
    shore.refuse(Some(Refusal { status: 200, headers: vec![("Content-Type", "text/html")], method: CALL }));
    let reply = client.call_tool("sea__echo", json!({})).await;
    assert_eq!(class_of(&reply), "protocol", "{reply}");
    shore.refuse(Some(Refusal { status: 302, headers: vec![("Location", "http://127.0.0.1:1/")], method: CALL }));
    let reply = client.call_tool("sea__echo", json!({})).await;
    assert!(text_of(&reply).contains("302"), "redirects are not followed: {reply}");
}
