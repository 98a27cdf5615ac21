//! `seawall stdio`: whose servers it uses, and that it ends cleanly.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

mod support;

use support::{
    Gateway, Journal, StdioClient, failure_of, fixture, gateway::run_seawall, poll, scratch::Scratch, text_of, tree,
};

const SOON: Duration = Duration::from_secs(30);

fn pid_of(reply: &Value) -> u64 {
    reply["result"]["structuredContent"]["pid"].as_u64().unwrap_or_else(|| panic!("no pid in {reply}"))
}

fn names(reply: &Value) -> Vec<&str> {
    let tools = reply["result"]["tools"].as_array().unwrap_or_else(|| panic!("no tools in {reply}"));
    tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn it_joins_the_running_gateway_and_shares_its_instance() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    let over_http = gateway.client("/mcp/fix").await.call_tool("pid", json!({})).await;
    for words in [&[][..], &["--join"]] {
        let mut client = StdioClient::connect(&gateway.config(), words);
        assert_eq!(pid_of(&client.call_tool("fix__pid", json!({}))), pid_of(&over_http), "{words:?}");
        assert!(client.says("joined the running gateway"), "{}", client.log.text());
        client.close_input();
        assert_eq!(client.exited(SOON).code(), Some(0));
    }
    let mut alone = StdioClient::connect(&gateway.config(), &["fix"]);
    assert_eq!(pid_of(&alone.call_tool("pid", json!({}))), pid_of(&over_http), "one server, its names untouched");
    let mut own = StdioClient::connect(&gateway.config(), &["--own"]);
    assert_ne!(pid_of(&own.call_tool("fix__pid", json!({}))), pid_of(&over_http), "--own runs its own");
    assert!(own.says("the servers run in this process"), "{}", own.log.text());
    assert_eq!(gateway.server("fix")["state"], "ready", "the gateway is not disturbed");
}

#[test]
fn without_a_gateway_it_runs_the_servers_itself_and_takes_them_along() {
    let folder = Scratch::new();
    let config = folder.write("servers.toml", &fixture("fix", &[]));
    let refused = run_seawall(&["stdio", "--join"], &config, SOON);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let mut client = StdioClient::connect(&config, &[]);
    assert!(client.says("the servers run in this process"), "{}", client.log.text());
    let list = client.request("tools/list", json!({}));
    assert!(names(&list).contains(&"fix__echo"), "{list}");
    let server = u32::try_from(pid_of(&client.call_tool("fix__pid", json!({})))).unwrap();
    assert!(tree::descendants(client.pid()).contains(&server));
    client.close_input();
    assert_eq!(client.exited(SOON).code(), Some(0));
    assert!(!tree::is_alive(server), "its server has survived");
}

#[tokio::test]
async fn the_end_of_the_input_waits_for_a_call_under_way() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    for words in ["--join", "--own"] {
        let mut client = StdioClient::connect(&gateway.config(), &[words]);
        let id = client.begin("tools/call", json!({"name": "fix__slow", "arguments": {"ms": 700}}));
        client.close_input();
        assert!(text_of(&client.reply(id)).starts_with("waited"), "{words}");
        assert_eq!(client.exited(SOON).code(), Some(0), "{words}: {}", client.log.text());
        assert_eq!(client.line(SOON), None, "nothing comes after the answer");
    }
}

#[test]
fn sigterm_ends_it_with_its_servers_although_the_input_stays_open() {
    let folder = Scratch::new();
    let journal = Journal(folder.file("journal"));
    let config = folder.write("servers.toml", &fixture("fix", &["--journal", journal.0.to_str().unwrap()]));
    let mut client = StdioClient::connect(&config, &["--own"]);
    assert_eq!(text_of(&client.call_tool("fix__echo", json!({}))), "{}");
    let id = client.begin("tools/call", json!({"name": "fix__slow", "arguments": {"ms": 1000}}));
    let children = poll(SOON, || Some(tree::descendants(client.pid())).filter(|found| !found.is_empty())).unwrap();
    let pid = Pid::from_raw(i32::try_from(client.pid()).unwrap()).unwrap();
    assert!(
        poll(SOON, || (journal.received("tools/call").len() == 2).then_some(())).is_some(),
        "the call is under way"
    );
    kill_process(pid, Signal::TERM).unwrap();
    assert!(text_of(&client.reply(id)).starts_with("waited"), "a call under way is finished");
    assert_eq!(client.exited(SOON).code(), Some(0), "{}", client.log.text());
    assert!(children.into_iter().all(|pid| !tree::is_alive(pid)), "its server has survived");
}

#[tokio::test]
async fn lines_that_come_all_at_once_are_answered_each() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    for words in [&["--join"][..], &["--own"], &["--own", "fix"]] {
        let mut client = StdioClient::start(&gateway.config(), words);
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "pipe", "version": "1"}});
        let first = client.begin("initialize", hello);
        client.notify("notifications/initialized", json!({}));
        let second = client.begin("tools/list", json!({}));
        client.close_input();
        assert_eq!(client.reply(first)["result"]["protocolVersion"], "2025-06-18");
        let list = client.reply(second);
        assert!(names(&list).iter().any(|name| name.ends_with("echo")), "{words:?}: {list}");
        assert_eq!(client.exited(SOON).code(), Some(0));
    }
}

#[test]
fn a_client_that_is_cut_off_for_what_it_sent_hears_why() {
    let folder = Scratch::new();
    let config = folder.write("servers.toml", &fixture("fix", &[]));
    let mut client = StdioClient::connect(&config, &["--own"]);
    // A hundred a minute are answered one by one.
    for _ in 0..101 {
        client.send("this is no JSON");
    }
    let mut said = Vec::new();
    while let Some(line) = client.line(SOON) {
        said.push(line);
    }
    let last: Value = serde_json::from_str(said.last().expect("something is said")).unwrap();
    let message = last["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("closed") && message.contains("more than 100 lines within a minute"), "{last}");
}

#[tokio::test]
async fn what_is_no_request_gets_an_error_and_does_not_end_the_session() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    let mut client = StdioClient::connect(&gateway.config(), &[]);
    for (line, code) in [("{\"jsonrpc\":", -32700), ("[1,2]", -32600), (r#"{"jsonrpc":"2.0","id":7}"#, -32600)] {
        client.send(line);
        let answer = loop {
            let answer = client.line(SOON).unwrap_or_else(|| panic!("no answer to {line}"));
            let answer: Value = serde_json::from_str(&answer).unwrap();
            // The gateway may just have learned of the server's tools.
            if answer.get("method").is_none() {
                break answer;
            }
        };
        assert_eq!(answer["error"]["code"], code, "{line}: {answer}");
    }
    assert_eq!(text_of(&client.call_tool("fix__echo", json!({"a": 1}))), r#"{"a":1}"#);
}

#[tokio::test]
async fn a_client_that_cancels_is_heard_by_the_server() {
    let folder = Scratch::new();
    let journal = Journal(folder.file("journal"));
    let config = fixture("fix", &["--journal", journal.0.to_str().unwrap()]);
    let gateway = support::Launch::with_folder(folder, &config).start().await;
    let mut client = StdioClient::connect(&gateway.config(), &[]);
    let id = client.begin("tools/call", json!({"name": "fix__hang", "arguments": {}}));
    assert!(poll(SOON, || (journal.received("tools/call").len() == 1).then_some(())).is_some());
    client.notify("notifications/cancelled", json!({"requestId": id}));
    let told = poll(SOON, || journal.received("notifications/cancelled").pop());
    assert_eq!(told.expect("the server hears of it")["params"]["requestId"], journal.received("tools/call")[0]["id"]);
    // Nothing is owed to it, and the session goes on.
    assert_eq!(text_of(&client.call_tool("fix__echo", json!({"a": 2}))), r#"{"a":2}"#);
}

#[tokio::test]
async fn an_unknown_server_is_refused_by_name() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    for words in [["stdio", "nobody", "--join"], ["stdio", "nobody", "--own"]] {
        let refused = run_seawall(&words, &gateway.config(), SOON);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("nobody"), "{said}");
    }
    assert_eq!(run_seawall(&["stdio", "--own", "--join"], &gateway.config(), SOON).status.code(), Some(2));
}

#[tokio::test]
async fn a_server_that_dies_fails_its_calls_here_too() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    let mut client = StdioClient::connect(&gateway.config(), &[]);
    let reply = client.call_tool("fix__kill", json!({}));
    assert_eq!(failure_of(&reply)["class"], "lost", "{reply}");
}
