//! Servers fail in every way there is, all of them at once behind one gateway: each
//! caller sees what the table says, SQLite has what the table says, the other tools of
//! the same server go on, and nobody else notices.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};

mod support;
#[path = "faults/table.rs"]
mod table;

use support::{Client, Gateway, Hello, failure_of, fixture, text_of, wait_until};
use table::{Caller, FAULTS, Fault, Recorded, Server};

/// Forty servers start beside each other; a frozen one is found out after three
/// timeouts and five seconds of silence to a ping.
const SOON: Duration = Duration::from_secs(60);

fn servers_toml() -> String {
    let mut toml = "[defaults]\nbreaker = \"off\"\nrate_limit = \"off\"\n".to_owned() + &fixture("neighbour", &[]);
    for fault in FAULTS {
        toml += &fixture(fault.name, fault.flags);
        if fault.name == "leaks-memory" {
            toml += "recycle = { memory = \"48MiB\" }\n";
        }
        if fault.is_cut_short() {
            // Its caller's time; the other tools have the usual one, but of one that is frozen.
            for tool in BTreeSet::from([fault.tool, fault.probe()]) {
                toml += &format!("\n[servers.{}.tools.{tool}]\n", fault.name);
                // Whether a question comes before the silence is too long is a matter of luck.
                toml += if tool == "pester" { "max_duration = \"2s\"\n" } else { "timeout = \"300ms\"\n" };
            }
        }
    }
    toml
}

/// The neighbour's caller: it never sees anything but its own answers.
async fn neighbour(client: &Client, over: &AtomicBool, answers: &AtomicU64) {
    while !over.load(Ordering::Relaxed) {
        let number = answers.fetch_add(1, Ordering::Relaxed);
        let reply = client.call_tool("echo", json!({"number": number})).await;
        assert_eq!(reply["result"]["structuredContent"], json!({"number": number}), "the neighbour: {reply}");
        // The machine is for the faults.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One fault from its call to the recovery of its server. The ids of the rows it was told of.
async fn play(gateway: &Gateway, fault: &'static Fault, answers: &AtomicU64) -> Vec<String> {
    // It says that it knows roots and answers no question.
    let hello = Hello::default().capabilities(json!({"roots": {}}));
    let (path, tool) = fault.address();
    let client = gateway.client_as(&path, hello).await;
    let sibling = gateway.client(&path).await;
    let before = if fault.server == Server::IsAway {
        String::new()
    } else {
        gateway.server_is_ready(fault.name).await;
        pid(&sibling).await
    };
    if let Some(tool) = fault.before {
        assert!(client.call_tool(tool, json!({})).await["result"]["isError"] != true, "{}", fault.name);
    }
    let arguments: Value = serde_json::from_str(fault.arguments).expect("arguments are JSON");
    let seen_by_neighbour = answers.load(Ordering::Relaxed);
    let calls = join_all((0..fault.copies).map(|_| client.call_tool(&tool, arguments.clone())));
    let meanwhile = async {
        if fault.server == Server::Stays {
            echoes(&sibling, fault.name).await;
        }
    };
    let (replies, ()) = tokio::join!(calls, meanwhile);
    for reply in &replies {
        is_seen(fault, reply);
    }
    if fault.copies > 1 {
        let texts: BTreeSet<&str> = replies.iter().map(text_of).collect();
        assert_eq!(texts.len(), fault.copies, "{}: each has its own answer: {replies:?}", fault.name);
    }
    recovers(gateway, fault, &sibling, &before).await;
    wait_until(SOON, "the neighbour to be served", async || {
        (answers.load(Ordering::Relaxed) > seen_by_neighbour + 1).then_some(())
    })
    .await;
    let ids = replies.iter().filter_map(|reply| reply["result"]["_meta"]["seawall/failure"]["id"].as_str());
    ids.map(str::to_owned).collect()
}

async fn echoes(client: &Client, name: &str) {
    for number in 0..3 {
        let reply = client.call_tool("echo", json!({"sibling": number})).await;
        assert_eq!(reply["result"]["structuredContent"], json!({"sibling": number}), "a sibling in {name}: {reply}");
    }
}

/// Of the process that answers; what it says where it does not.
async fn pid(client: &Client) -> String {
    text_of(&client.call_tool("pid", json!({})).await).to_owned()
}

fn is_seen(fault: &Fault, reply: &Value) {
    let name = fault.name;
    match fault.caller {
        Caller::Gets(text) => {
            assert!(reply["result"]["isError"] != true && text_of(reply).starts_with(text), "{name}: {reply}");
        }
        Caller::ToolError => {
            let is_own = reply["result"]["isError"] == true && reply["result"].get("_meta").is_none();
            assert!(is_own, "{name}: untouched: {reply}");
        }
        Caller::Rpc(code) => assert_eq!(reply["error"]["code"], code, "{name}: untouched: {reply}"),
        Caller::Fails(class, said) => {
            assert_eq!(reply["result"]["isError"], true, "{name}: {reply}");
            assert_eq!(failure_of(reply)["class"], class, "{name}: {reply}");
            let text = text_of(reply);
            assert!(says(text, class, said) && text.contains(name), "{name}: no {said:?} in {text:?}");
            assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{name}: {text:?}");
            let may_have_run = matches!(class, "lost" | "timeout" | "protocol");
            assert_eq!(failure_of(reply)["outcomeUnknown"] == true, may_have_run, "{name}: {reply}");
            let is_away = class == "unavailable";
            assert_eq!(failure_of(reply)["retryAfterMs"].is_u64(), is_away, "{name}: {reply}");
        }
    }
}

/// A call that is lost is answered at once: where the end of the output is seen before
/// the exit, and the machine is busy, it is answered by what is known.
fn says(text: &str, class: &str, said: &str) -> bool {
    text.contains(said) || class == "lost" && text.contains("closed its output")
}

/// The other tools of the same server, once the call has ended.
async fn recovers(gateway: &Gateway, fault: &Fault, sibling: &Client, before: &str) {
    match fault.server {
        Server::Stays => {
            echoes(sibling, fault.name).await;
            assert_eq!(pid(sibling).await, before, "{}: the same process", fault.name);
        }
        Server::IsReplaced => {
            wait_until(SOON, &format!("another process of {}", fault.name), async || {
                // Calls that are not answered are what a frozen one is found out by.
                let reply = sibling.call_tool(fault.probe(), json!({})).await;
                let is_answered = reply["result"]["isError"] != true;
                (is_answered && pid(sibling).await != before).then_some(())
            })
            .await;
            echoes(sibling, fault.name).await;
        }
        Server::IsAway => {
            let ready = gateway.get("/readyz").await.expect("it answers");
            let states: Value = serde_json::from_slice(&ready.body).expect("JSON");
            assert_ne!(states["servers"][fault.name], "ready", "{}: {states}", fault.name);
        }
    }
}

fn is_recorded(gateway: &Gateway, fault: &Fault, ids: &[String]) {
    let name = fault.name;
    let failures =
        gateway.sqlite(&format!("SELECT * FROM failures WHERE server = '{name}' AND tool = '{}'", fault.tool));
    match fault.recorded {
        Recorded::Nothing => assert!(failures.is_empty(), "{name}: {failures:?}"),
        Recorded::Failure(class, said) => {
            let is_it = |row: &&Value| {
                row["class"] == class && row["message"].as_str().is_some_and(|message| says(message, class, said))
            };
            let row = failures.iter().find(is_it).unwrap_or_else(|| panic!("{name}: no {said:?} in {failures:?}"));
            for id in ids {
                assert!(failures.iter().any(|row| row["id"] == **id), "{name}: the answer named a row: {failures:?}");
            }
            if let Some(exit_status) = row["exit_status"].as_str() {
                assert!(class == "lost" && exit_status.contains(said), "{name}: {row}");
            }
        }
        Recorded::Event(event) => {
            let of = format!("SELECT metadata FROM events WHERE event_type = '{event}' AND service_name = '{name}'");
            let events = gateway.sqlite(&of);
            assert!(!events.is_empty(), "{name}: no {event}");
            if event == "tool_changed" {
                let metadata: Value = serde_json::from_str(events[0]["metadata"].as_str().unwrap()).unwrap();
                assert_eq!(metadata["tool"], "echo");
                assert!(metadata["old"].is_string() && metadata["new"].is_string(), "both digests: {metadata}");
                assert_ne!(metadata["old"], metadata["new"]);
            }
        }
    }
    if fault.server == Server::IsReplaced && fault.recorded != Recorded::Event("server_recycled") {
        let down = gateway
            .sqlite(&format!("SELECT id FROM events WHERE event_type = 'server_down' AND service_name = '{name}'"));
        assert!(!down.is_empty(), "{name}: its end is no event");
    }
}

/// What a person is shown of all that.
fn is_shown_harmlessly(gateway: &Gateway) {
    for words in [&["status"][..], &["tools", "escapes-in-names"], &["failures"], &["events"]] {
        let output = gateway.seawall(words);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(!text.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        let unsafe_at = text.find(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}');
        assert_eq!(unsafe_at, None, "{words:?}: {:?}", unsafe_at.map(|at| &text[at.saturating_sub(40)..]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_is_answered_recorded_and_nobody_elses_trouble() {
    let mut gateway = Gateway::start(&servers_toml()).await;
    gateway.server_is_ready("neighbour").await;
    let client = gateway.client("/mcp/neighbour").await;
    let (over, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let faults = async {
        let ids = join_all(FAULTS.iter().map(|fault| play(&gateway, fault, &answers))).await;
        over.store(true, Ordering::Relaxed);
        ids
    };
    let (ids, ()) = tokio::join!(faults, neighbour(&client, &over, &answers));
    lists_are_whole(&gateway).await;
    is_shown_harmlessly(&gateway);
    let healthy = gateway.server("neighbour");
    assert_eq!((&healthy["failures"], &healthy["restarts"]), (&json!(0), &json!(0)), "{healthy}");
    assert_eq!(healthy["calls"], answers.load(Ordering::Relaxed), "each of its calls came there once");
    assert_eq!(gateway.stop().code(), Some(0), "and all of them end");
    for (fault, ids) in FAULTS.iter().zip(&ids) {
        is_recorded(&gateway, fault, ids);
    }
    assert!(gateway.sqlite("SELECT * FROM failures WHERE server = 'neighbour' OR class = 'internal'").is_empty());
}

async fn lists_are_whole(gateway: &Gateway) {
    let many = gateway.client("/mcp/lists-10000-tools").await.list_tools().await;
    assert!(many.len() > 10_000, "{}", many.len());
    let vast = gateway.client("/mcp/schema-of-5-mib").await.list_tools().await;
    let vast = vast.iter().find(|tool| tool["name"] == "vast").expect("the tool with the large schema");
    assert_eq!(vast["inputSchema"]["description"].as_str().map(str::len), Some(5 << 20));
    assert!(!gateway.client("/mcp/changes-tools-all-the-time").await.list_tools().await.is_empty());
}
