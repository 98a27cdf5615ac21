//! What passes through a call: to the last digit, both ways, on every front.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use serde_json::{Value, json};

mod support;

use support::{Gateway, Hello, StdioClient, fixture, text_of};

/// As fixtures/README.md promises it: what typed libraries lose.
const ODD: &str = concat!(
    r#"{"content":[{"type":"text","text":"wave \ud83d\ude00 😀 half \ud83d","x-unknown":true},"#,
    r#"{"type":"hologram","data":{"depth":3}}],"structuredContent":{"big":9007199254740993,"longer":"#,
    r#"12345678901234567890123,"tenth":0.1,"huge":1e400,"exact":1.0,"order":{"z":1,"a":2}},"x-unknown":"#,
    r#"[null,{"deep":[0.10000000000000000001]}],"_meta":{"vendor/key":"kept"}}"#,
);

#[tokio::test]
async fn an_odd_result_arrives_as_the_bytes_it_came_as() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let expected = format!("\"result\":{ODD}}}");
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        for (path, tool) in [("/mcp", "fix__odd"), ("/mcp/fix", "odd")] {
            let client = gateway.client_as(path, Hello::version(version)).await;
            let text = client.request_text("tools/call", json!({"name": tool})).await;
            assert!(text.ends_with(&expected), "{version} {path}: {text}");
        }
    }
    for (words, tool) in [(&["--join"][..], "fix__odd"), (&["--join", "fix"], "odd"), (&["--own"], "fix__odd")] {
        let mut client = StdioClient::connect(&gateway.config(), words);
        let id = client.begin("tools/call", json!({"name": tool}));
        let text = client.reply_text(id);
        assert!(text.ends_with(&expected), "{words:?}: {text}");
    }
}

#[tokio::test]
async fn arguments_arrive_as_they_were_sent() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let arguments = r#"{"z":9007199254740993,"a":12345678901234567890123,"f":1.0,"t":0.10000000000000000001,"e":1e400,"u":"\u00e4\ud83d","n":null,"o":{}}"#;
    let headers = |session: &str| {
        [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into_iter()
            .chain([("Mcp-Session-Id".to_owned(), session.to_owned())])
            .collect::<Vec<_>>()
    };
    for (path, tool) in [("/mcp", "fix__echo"), ("/mcp/fix", "echo")] {
        let client = gateway.client(path).await;
        // Members in another order than ours, white space, an id of text.
        let body = format!(
            "{{ \"params\" : {{\"arguments\":{arguments} , \"name\":\"{tool}\"}},\r\n \"id\":\"an \\\"id\\\"\", \"method\":\"tools/call\",\"jsonrpc\":\"2.0\"}}"
        );
        let headers = headers(client.session().unwrap());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let text = gateway.post(path, &headers, &body).await.text();
        assert!(text.contains(&format!("\"structuredContent\":{arguments}")), "{text}");
        assert!(text.contains(r#""id":"an \"id\"""#), "{text}");
    }
    let listed = gateway.client("/mcp/fix").await.request_text("tools/list", json!({})).await;
    assert!(
        listed.contains(
            r#""execution":{"taskSupport":"optional"},"x-unknown":{"deep":[1,9007199254740993,0.1,1.0,null]}"#
        ),
        "{listed}"
    );
}

#[tokio::test]
async fn a_servers_own_errors_leave_untouched() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let client = gateway.client("/mcp").await;
    for code in [-32600, -32601, -32602] {
        let arguments = json!({"code": code, "message": "as I say", "data": {"n": 0.1}});
        let reply = client.call_tool("fix__rpc_error", arguments.clone()).await;
        assert_eq!(reply["error"], arguments, "{reply}");
    }
    let reply = client.call_tool("fix__fail", json!({"text": "no such file"})).await;
    assert_eq!(reply["result"], json!({"content": [{"type": "text", "text": "no such file"}], "isError": true}));
    // Any other error is a failure of the server: the facts carry it verbatim.
    let error = json!({"code": -32050, "message": "disk gone", "data": {"n": 0.1}});
    let reply = client.call_tool("fix__rpc_error", error.clone()).await;
    assert_eq!(support::failure_of(&reply)["error"], error);
    assert_eq!(support::failure_of(&reply)["class"], "server_error");
    assert!(text_of(&reply).contains("disk gone"), "{reply}");
}

#[tokio::test]
async fn methods_that_seawall_does_not_know_pass_at_a_servers_own_path() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let alone = gateway.client("/mcp/fix").await;
    let text = alone.request_text("x/echo", json!({"n": 0.1, "z": [1.0]})).await;
    assert!(text.ends_with(r#""result":{"n":0.1,"z":[1.0]}}"#), "{text}");
    assert_eq!(alone.request("x/unheard-of", json!({})).await["error"]["code"], -32601);
    let all = gateway.client("/mcp").await;
    assert_eq!(all.request("x/echo", json!({})).await["error"]["code"], -32601, "whose would it be?");
    assert_eq!(gateway.seawall_json(&["status", "--json"])["breakers"], json!([]));
}

#[tokio::test]
async fn answers_out_of_order_go_to_the_right_callers() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    // The same ids from several clients at once.
    let clients = join_all((0..4).map(|_| gateway.client("/mcp/fix"))).await;
    let clients: Vec<_> = clients.into_iter().map(Arc::new).collect();
    let calls = (0..32).map(|n| {
        let client = clients[n % clients.len()].clone();
        async move {
            let echo = client.call_tool("echo", json!({"n": n})).await;
            assert_eq!(echo["result"]["structuredContent"]["n"], n);
            client.call_tool("reorder", json!({"hold": 32})).await["result"]["structuredContent"]["arrived"].as_u64()
        }
    });
    let mut places: BTreeMap<u64, usize> = BTreeMap::new();
    for place in join_all(calls).await {
        *places.entry(place.expect("an answer of its own")).or_default() += 1;
    }
    assert_eq!(places, (0..32).map(|place| (place, 1)).collect(), "each answer went to one caller");
}

#[tokio::test]
async fn progress_of_clients_with_the_same_token_stays_apart() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let clients = join_all((0..8).map(|_| gateway.client("/mcp"))).await;
    join_all(clients.iter().zip(1..).map(|(client, number): (_, u64)| async move {
        let params = json!({"name": "fix__progress", "arguments": {"steps": number, "every_ms": 5}, "_meta": {"progressToken": 1}});
        assert!(text_of(&client.request("tools/call", params).await).starts_with(&format!("{number} steps")));
        let seen = client.seen();
        let totals: Vec<&Value> = seen.iter().map(|message| &message["params"]["total"]).collect();
        assert_eq!(totals, vec![&json!(number); usize::try_from(number).unwrap()], "only its own");
    }))
    .await;
}

#[tokio::test]
async fn a_megabyte_passes_both_ways() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let client = gateway.client("/mcp").await;
    let long = "ä€".repeat(200_000);
    let reply = client.call_tool("fix__echo", json!({"long": long})).await;
    assert_eq!(reply["result"]["structuredContent"]["long"], long);
}
