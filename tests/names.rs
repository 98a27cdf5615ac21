//! Names: prefixed at `/mcp`, untouched at `/mcp/NAME`, and callable however odd.

use std::collections::BTreeSet;

use serde_json::{Value, json};

mod support;

use support::{Client, Gateway, fixture, text_of};

async fn names(client: &Client) -> Vec<String> {
    client.list_tools().await.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
}

fn error_of(reply: &Value) -> (i64, &str) {
    let error = &reply["error"];
    (error["code"].as_i64().unwrap_or_else(|| panic!("no error: {reply}")), error["message"].as_str().unwrap())
}

#[tokio::test]
async fn servers_are_told_apart_at_mcp_and_alone_at_their_own_path() {
    let config = fixture("one", &["--list", "echo,pid"]) + &fixture("two", &["--list", "odd,pid"]);
    let gateway = Gateway::start(&config).await;
    gateway.ready().await;
    let all = gateway.client("/mcp").await;
    // In the order of servers.toml, and of each server's own list.
    assert_eq!(names(&all).await, ["one__echo", "one__pid", "two__odd", "two__pid"]);
    for (server, own) in [("one", ["echo", "pid"]), ("two", ["odd", "pid"])] {
        let alone = gateway.client(&format!("/mcp/{server}")).await;
        assert_eq!(names(&alone).await, own, "{server}");
        let by_own = alone.call_tool("pid", json!({})).await;
        let by_public = all.call_tool(&format!("{server}__pid"), json!({})).await;
        assert_eq!(by_own["result"], by_public["result"], "both lead to one process");
        let info = &alone.welcome["result"]["serverInfo"];
        assert_eq!((&info["name"], &info["x-build"]["share"]), (&json!("fixture"), &json!(0.1)), "its own words");
    }
    assert_eq!(all.welcome["result"]["serverInfo"]["name"], "seawall");
    let instructions = all.welcome["result"]["instructions"].as_str().unwrap();
    assert!(instructions.contains("Instructions of fixture."), "{instructions}");
}

const ODD: [&str; 10] = [
    "a__b",
    // Of the server "fix" the first would be called what the second is called.
    "a/b",
    "a_b_wa2sjqf5",
    "__",
    "with space",
    "dots.and/slashes",
    "größe",
    "UPPER-lower_1",
    // A hundred characters each, the same but for the last.
    "a_name_that_is_longer_than_any_client_would_take_it_for_a_tool_and_goes_on_and_on_and_on_to_the_enda",
    "a_name_that_is_longer_than_any_client_would_take_it_for_a_tool_and_goes_on_and_on_and_on_to_the_endb",
];

#[tokio::test]
async fn odd_and_long_names_are_listed_within_clients_bounds_and_can_be_called() {
    let gateway = Gateway::start(&fixture("fix", &["--list", "echo", "--names", &ODD.join(",")])).await;
    gateway.ready().await;
    let alone = gateway.client("/mcp/fix").await;
    let own: BTreeSet<String> = names(&alone).await.into_iter().collect();
    assert!(ODD.iter().all(|name| own.contains(*name)), "untouched at its own path: {own:?}");
    for name in ODD {
        let reply = alone.call_tool(name, json!({"n": 1})).await;
        assert_eq!(reply["result"]["structuredContent"], json!({"called": name, "arguments": {"n": 1}}));
    }

    let all = gateway.client("/mcp").await;
    let public = names(&all).await;
    assert_eq!(public.iter().collect::<BTreeSet<_>>().len(), ODD.len() + 1, "all different: {public:?}");
    let mut reached = BTreeSet::new();
    for name in &public {
        let fits = name.len() <= 50 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        assert!(fits && name.starts_with("fix__"), "{name:?}");
        let reply = all.call_tool(name, json!({"n": 2})).await;
        reached.extend(reply["result"]["structuredContent"]["called"].as_str().map(str::to_owned));
    }
    assert_eq!(reached, ODD.map(str::to_owned).into(), "each leads to its own tool");
    assert!(public.contains(&"fix__a__b".to_owned()), "a name that fits is not changed: {public:?}");
    assert_eq!(names(&gateway.client("/mcp").await).await, public, "the same for everybody");
}

#[tokio::test]
async fn a_tool_that_is_switched_off_is_neither_listed_nor_called() {
    let config = fixture("fix", &["--list", "echo,pid"]) + "\n[servers.fix.tools.pid]\nenabled = false\n";
    let gateway = Gateway::start(&config).await;
    gateway.ready().await;
    for (path, prefix) in [("/mcp", "fix__"), ("/mcp/fix", "")] {
        let client = gateway.client(path).await;
        assert_eq!(names(&client).await, [format!("{prefix}echo")], "{path}");
        // Which of the two names a server takes, nobody knows.
        let twice = format!(
            r#"{{"jsonrpc":"2.0","id":99,"method":"tools/call","params":{{"name":"{prefix}pid","name":"{prefix}echo"}}}}"#
        );
        let refused: Value = serde_json::from_slice(&client.post(&twice).await.body).unwrap();
        assert_eq!(error_of(&refused), (-32602, "seawall: tools/call needs one string \"name\" in its params"));
        let reply = client.call_tool(&format!("{prefix}pid"), json!({})).await;
        assert_eq!(error_of(&reply).0, -32602, "{reply}");
        assert_eq!(text_of(&client.call_tool(&format!("{prefix}echo"), json!({})).await), "{}");
    }
    let listed = String::from_utf8(gateway.seawall(&["tools"]).stdout).unwrap();
    assert!(listed.contains("fix__echo") && !listed.contains("fix__pid"), "{listed}");
    assert_eq!(gateway.seawall(&["call", "fix__pid"]).status.code(), Some(1));
    assert_eq!(gateway.seawall(&["call", "fix__echo"]).status.code(), Some(0));
}

#[tokio::test]
async fn a_name_that_nobody_has_gets_a_hint_and_leaves_no_trace() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let client = gateway.client("/mcp").await;
    let reply = client.call_tool("fix__ehco", json!({})).await;
    assert_eq!(error_of(&reply), (-32602, "Unknown tool: fix__ehco; did you mean \"fix__echo\"?"));
    for name in ["nobody__nothing", "", "__", "fix__", "echo", "\u{202e}evil"] {
        let reply = client.call_tool(name, json!({})).await;
        let (code, message) = error_of(&reply);
        assert_eq!(code, -32602, "{name}: {reply}");
        assert!(!message.contains('\u{202e}'), "{message}");
    }
    // At its own path the server knows best.
    let alone = gateway.client("/mcp/fix").await;
    assert_eq!(error_of(&alone.call_tool("nothing", json!({})).await), (-32602, "unknown tool: nothing"));
    assert_eq!(gateway.seawall_json(&["status", "--json"])["breakers"], json!([]));
}

#[tokio::test]
async fn lists_of_any_length_are_read_and_come_in_pages() {
    let config =
        fixture("many", &["--list", "echo", "--tools", "2500", "--page", "7"]) + &fixture("few", &["--list", "pid"]);
    let gateway = Gateway::start(&config).await;
    gateway.ready().await;
    for (path, count) in [("/mcp", 2502), ("/mcp/many", 2501), ("/mcp/few", 1)] {
        let client = gateway.client(path).await;
        let names = names(&client).await;
        assert_eq!(names.len(), count, "{path}");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), count, "{path}: each once");
    }
    let client = gateway.client("/mcp").await;
    let first = client.request("tools/list", json!({})).await;
    assert!(first["result"]["nextCursor"].is_string(), "a long list is not sent in one piece");
    assert_eq!(error_of(&client.request("tools/list", json!({"cursor": "nonsense"})).await).0, -32602);
    let last = client.call_tool("many__extra_2499", json!({"n": 1})).await;
    assert_eq!(last["result"]["structuredContent"], json!({"n": 1}));
}

#[tokio::test]
async fn prompts_and_resources_find_their_server_too() {
    let config = fixture("one", &["--resources"]) + &fixture("two", &["--resources"]);
    let gateway = Gateway::start(&config).await;
    gateway.ready().await;
    let all = gateway.client("/mcp").await;
    let prompts = all.list("prompts/list", "prompts").await;
    let of_prompts: Vec<_> = prompts.iter().map(|prompt| prompt["name"].as_str().unwrap()).collect();
    assert_eq!(of_prompts, ["one__greet", "two__greet"]);
    let got = all.request("prompts/get", json!({"name": "two__greet", "arguments": {"who": "Ada"}})).await;
    assert_eq!(got["result"]["messages"][0]["content"]["text"], "Hello, Ada.");
    assert_eq!(error_of(&all.request("prompts/get", json!({"name": "greet"})).await).0, -32602);

    let resources = all.list("resources/list", "resources").await;
    let uris: Vec<_> = resources.iter().map(|resource| resource["uri"].as_str().unwrap()).collect();
    assert_eq!(uris, ["fixture://hello", "fixture://calls"], "shared by two servers, listed once");
    assert_eq!(resources[0]["x-unknown"], 0.1);
    let warned = async || gateway.log.has("fixture://hello is offered by").then_some(());
    support::wait_until(std::time::Duration::from_secs(10), "a warning that names both", warned).await;
    let two = gateway.client("/mcp/two").await;
    two.call_tool("echo", json!({})).await;
    let read = async |client: &Client, uri: &str| client.request("resources/read", json!({"uri": uri})).await;
    let text = |reply: &Value| reply["result"]["contents"][0]["text"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        text(&read(&all, "fixture://calls").await),
        "fixture://calls after 0 calls",
        "the first in the file answers"
    );
    assert_eq!(text(&read(&two, "fixture://calls").await), "fixture://calls after 1 calls");
    assert!(text(&read(&all, "fixture://item/7").await).starts_with("fixture://item/7"), "by its template");
    assert_eq!(error_of(&read(&all, "elsewhere://x").await).0, -32002);
    let completed = all
        .request(
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "one__greet"}, "argument": {"name": "who", "value": "a"}}),
        )
        .await;
    assert_eq!(completed["result"]["completion"]["values"], json!(["ada", "alan"]));
}

#[tokio::test]
async fn a_name_that_a_server_lists_twice_is_listed_once_beside_its_neighbours() {
    let config = fixture("odd", &["--names", "twin,twin"]) + &fixture("few", &["--list", "pid"]);
    let gateway = Gateway::start(&config).await;
    for server in ["odd", "few"] {
        gateway.server_is_ready(server).await;
    }
    let client = gateway.client("/mcp").await;
    let names: Vec<String> =
        client.list_tools().await.iter().map(|tool| tool["name"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(names.iter().filter(|name| *name == "odd__twin").count(), 1, "{names:?}");
    assert!(names.contains(&"few__pid".to_owned()), "{names:?}");
    let alone = gateway.client("/mcp/odd").await.list_tools().await;
    assert_eq!(alone.iter().filter(|tool| tool["name"] == "twin").count(), 2, "as it came");
}

/// Public name, server and own name, as `seawall tools --json` has them.
fn ways_back(gateway: &Gateway) -> Vec<Value> {
    let output = gateway.seawall(&["tools", "--json"]);
    let lines = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let line = |line: &str| serde_json::from_str::<Value>(line).expect("a line of JSON");
    lines.lines().map(line).map(|tool| json!([tool["name"], tool["server"], tool["own_name"]])).collect()
}

#[tokio::test]
async fn names_and_shared_resources_are_the_same_after_a_restart() {
    let folder = std::sync::Arc::new(support::scratch::Scratch::new());
    let flags = ["--list", "echo", "--resources", "--names", &ODD.join(",")];
    // The second one in the file is there first.
    let config = fixture("one", &[&flags[..], &["--slow-start", "300"]].concat()) + &fixture("two", &flags);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut gateway = support::Launch::with_folder(folder.clone(), &config).start().await;
        gateway.ready().await;
        let client = gateway.client("/mcp").await;
        let ways = ways_back(&gateway);
        assert_eq!(ways.len(), 2 * (ODD.len() + 1));
        for way in &ways {
            let [public, server, own] = [0, 1, 2].map(|at| way[at].as_str().expect("a name"));
            if own != "echo" {
                let reply = client.call_tool(public, json!({})).await;
                assert_eq!(reply["result"]["structuredContent"]["called"], own, "{way}");
            }
            assert!(public.starts_with(&format!("{server}__")), "{way}");
        }
        client.call_tool("one__echo", json!({})).await;
        let read = client.request("resources/read", json!({"uri": "fixture://calls"})).await;
        let text = read["result"]["contents"][0]["text"].as_str().unwrap_or_default().to_owned();
        assert_eq!(text, format!("fixture://calls after {} calls", ODD.len() + 1), "the first in the file has it");
        seen.push((names(&client).await, ways, client.list("resources/list", "resources").await));
        drop(client);
        gateway.stop();
    }
    assert_eq!(seen[0], seen[1]);
}
