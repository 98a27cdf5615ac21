//! `seawall stdio` in a running gateway outlives it: what was open is answered, and the client
//! of the next gateway is the one that the last one knew.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

mod support;

use support::{Gateway, StdioClient, failure_of, fixture, gateway::Launch, poll, text_of};

const SOON: Duration = Duration::from_secs(30);

/// Another gateway for the same servers.toml.
async fn again(gateway: &Gateway, servers_toml: &str) -> Gateway {
    let next = Launch::with_folder(Arc::clone(&gateway.folder), servers_toml).start().await;
    next.ready().await;
    next
}

/// Reads lines until one is a notification of this method.
fn told(client: &mut StdioClient, method: &str) -> Value {
    poll(SOON, || {
        if let Some(at) = client.seen.iter().position(|message| message["method"] == method) {
            return Some(client.seen.remove(at));
        }
        let line = client.line(Duration::from_millis(100))?;
        client.seen.push(serde_json::from_str(&line).expect("JSON"));
        None
    })
    .unwrap_or_else(|| panic!("no {method} among {:?}\n{}", client.seen, client.log.text()))
}

#[tokio::test]
async fn open_calls_are_answered_when_the_gateway_dies_and_the_next_one_serves() {
    let config = fixture("fix", &[]);
    let mut gateway = Gateway::start(&config).await;
    gateway.ready().await;
    let mut client = StdioClient::connect(&gateway.config(), &[]);
    let marker = gateway.folder.path().join("hangs");
    let write = json!({"path": marker, "text": "x"});
    client.call_tool("fix__write", write);
    let hang = client.begin("tools/call", json!({"name": "fix__hang", "arguments": {}}));
    let read = client.begin("resources/read", json!({"uri": "seawall://none"}));
    // What comes after it on the wire is answered, so it was sent.
    let refused = client.reply(read);
    assert!(refused["error"].is_object(), "{refused}");

    gateway.kill();
    let lost = client.reply(hang);
    let failure = failure_of(&lost);
    assert_eq!((&failure["class"], &failure["outcomeUnknown"]), (&json!("lost"), &json!(true)), "{lost}");
    assert!(text_of(&lost).contains("the gateway ended while it was open"), "{lost}");
    assert!(client.says("joined again once it is back"));

    let mut next = again(&gateway, &config).await;
    let echo = client.call_tool("fix__echo", json!({"text": "again"}));
    assert_eq!(echo["result"]["structuredContent"]["text"], "again", "{echo}");
    assert!(client.says("joined the gateway again"));
    told(&mut client, "notifications/tools/list_changed");

    // And once more, this time in peace.
    next.stop();
    let _third = again(&gateway, &config).await;
    assert_eq!(text_of(&client.call_tool("fix__size", json!({"bytes": 3}))).len(), 3);
    client.close_input();
    assert_eq!(client.exited(SOON).code(), Some(0));
}

#[tokio::test]
async fn the_next_gateway_knows_the_log_level_and_the_subscriptions() {
    let config = fixture("fix", &["--resources"]);
    let mut gateway = Gateway::start(&config).await;
    gateway.ready().await;
    let mut client = StdioClient::connect(&gateway.config(), &["fix"]);
    let subscribed = client.request("resources/subscribe", json!({"uri": "fixture://calls"}));
    assert!(subscribed["result"].is_object(), "{subscribed}");
    let levelled = client.request("logging/setLevel", json!({"level": "debug"}));
    assert!(levelled["result"].is_object(), "{levelled}");
    gateway.kill();

    let _next = again(&gateway, &config).await;
    client.call_tool("echo", json!({}));
    let updated = told(&mut client, "notifications/resources/updated");
    assert_eq!(updated["params"]["uri"], "fixture://calls", "it may have changed meanwhile: {updated}");
    client.seen.clear();
    client.call_tool("touch", json!({"uri": "fixture://calls"}));
    told(&mut client, "notifications/resources/updated");
    let message = json!({"method": "notifications/message", "params": {"level": "debug", "data": "deep"}});
    client.call_tool("notify", message);
    assert_eq!(told(&mut client, "notifications/message")["params"]["data"], "deep");
}

/// Both gateways count their questions from the start.
#[tokio::test]
async fn an_answer_to_a_question_of_the_dead_gateway_reaches_no_other() {
    let config = fixture("fix", &[]);
    let mut gateway = Gateway::start(&config).await;
    gateway.ready().await;
    let mut client = StdioClient::start(&gateway.config(), &["fix"]);
    let capabilities = json!({"sampling": {}});
    let info = json!({"name": "harness", "version": "1"});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": info});
    client.request("initialize", hello);
    client.notify("notifications/initialized", json!({}));
    let ask = json!({"name": "ask", "arguments": {
        "method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}});
    let lost = client.begin("tools/call", ask.clone());
    let stale = told(&mut client, "sampling/createMessage")["id"].clone();
    gateway.kill();
    assert_eq!(failure_of(&client.reply(lost))["class"], "lost");
    assert_eq!(told(&mut client, "notifications/cancelled")["params"]["requestId"], stale);

    let _next = again(&gateway, &config).await;
    let call = client.begin("tools/call", ask);
    let fresh = told(&mut client, "sampling/createMessage")["id"].clone();
    assert_ne!(fresh, stale, "or the late answer is taken for the new one");
    let answer = |id: &Value, text: &str| {
        let content = json!({"type": "text", "text": text});
        json!({"jsonrpc": "2.0", "id": id, "result": {"role": "user", "model": "m", "content": content}}).to_string()
    };
    client.send(&answer(&stale, "late"));
    client.send(&answer(&fresh, "right"));
    let reply = client.reply(call).to_string();
    assert!(reply.contains("right") && !reply.contains("late"), "{reply}");
}
