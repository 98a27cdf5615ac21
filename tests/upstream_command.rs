//! Servers over stdio that die, hang, babble or cannot start: what the caller is
//! told, what is recorded, and that the server comes back by itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

mod support;

use support::{Gateway, Journal, Launch, failure_of, fixture, scratch::Scratch, text_of, tree, wait_until};

const SOON: Duration = Duration::from_secs(30);

async fn state(gateway: &Gateway, name: &str, wanted: &str) -> Value {
    wait_until(SOON, &format!("{name} to be {wanted}"), async || {
        Some(gateway.server(name)).filter(|server| server["state"] == wanted)
    })
    .await
}

fn pid_of(server: &Value) -> Pid {
    let pid = server["pid"].as_i64().unwrap_or_else(|| panic!("no pid in {server}"));
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

fn class_of(reply: &Value) -> &str {
    failure_of(reply)["class"].as_str().expect("a class")
}

#[tokio::test]
async fn a_server_killed_in_mid_call_costs_the_calls_and_nothing_more() {
    let folder = Scratch::new();
    let journal = Journal(folder.file("journal"));
    let config = fixture("fix", &["--journal", journal.0.to_str().unwrap(), "--hostile"]) + &fixture("other", &[]);
    let gateway = Launch::with_folder(folder, &config).start().await;
    let before = state(&gateway, "fix", "ready").await;
    let client = Arc::new(gateway.client("/mcp").await);
    let waiting: Vec<_> = (0..50)
        .map(|n| {
            let client = client.clone();
            // Two tools: one of them alone would meet its concurrency limit.
            let tool = ["fix__hang", "fix__late"][n % 2];
            tokio::spawn(async move { client.call_tool(tool, json!({"tag": n})).await })
        })
        .collect();
    wait_until(SOON, "all calls to be there", async || (journal.calls_by("tag").len() == 50).then_some(())).await;
    kill_process(pid_of(&before), Signal::KILL).unwrap();
    for reply in join_all(waiting).await {
        let reply = reply.unwrap();
        assert_eq!((class_of(&reply), &failure_of(&reply)["outcomeUnknown"]), ("lost", &json!(true)), "{reply}");
        assert!(text_of(&reply).contains("signal 9") || text_of(&reply).contains("SIGKILL"), "{reply}");
    }
    assert_eq!(text_of(&client.call_tool("other__echo", json!({})).await), "{}", "the neighbour is not touched");
    let after = state(&gateway, "fix", "ready").await;
    assert_ne!(after["pid"], before["pid"]);
    assert_eq!(after["restarts"], 1, "one death, one start: {after}");
    // An escape sequence: the server's text shows only that it cannot harm.
    let reply = client.call_tool("fix__echo", json!({"tag": "after"})).await;
    assert_eq!(text_of(&reply), r#"{"tag":"after"}"#);
    assert!(journal.calls_by("tag").values().all(|times| *times == 1), "a call was sent twice");

    let rows = gateway.rows("the lost calls", "SELECT * FROM failures WHERE class = 'lost'").await;
    let rows = match rows.len() {
        50 => rows,
        _ => {
            wait_until(SOON, "all 50 rows", async || {
                Some(gateway.sqlite("SELECT * FROM failures WHERE class = 'lost'")).filter(|rows| rows.len() == 50)
            })
            .await
        }
    };
    for row in &rows {
        assert!(row["exit_status"].as_str().is_some_and(|status| status.contains('9')), "{row}");
        assert!(row["stderr_tail"].as_str().is_some_and(|tail| tail.contains("stderr with")), "{row}");
        assert!(row["instance"].is_u64(), "{row}");
    }
    let down = gateway.rows("the death", "SELECT * FROM events WHERE event_type = 'server_down'").await;
    assert_eq!((down.len(), &down[0]["service_name"]), (1, &json!("fix")));
}

#[tokio::test]
async fn every_way_to_die_in_mid_call_is_noticed_at_once_and_mended() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    state(&gateway, "fix", "ready").await;
    // The server and what holds its tree together.
    let tree_size = tree::descendants(gateway.pid()).len();
    for (tool, arguments, said) in [
        ("exit", json!({"code": 3}), "3"),
        ("kill", json!({"signal": "SEGV"}), "11"),
        ("kill", json!({"signal": "ABRT"}), "6"),
        ("half", json!({}), "0"),
        ("close_stdout", json!({}), "closed its output"),
        // Its grandchild holds stdout: only the exit tells.
        ("orphan", json!({"seconds": 30}), "9"),
    ] {
        let server = pid_of(&state(&gateway, "fix", "ready").await);
        let reply = client.call_tool(tool, arguments).await;
        assert_eq!(class_of(&reply), "lost", "{tool}: {reply}");
        assert!(text_of(&reply).contains(said), "{tool}: {reply}");
        let pid = u32::try_from(server.as_raw_nonzero().get()).unwrap();
        wait_until(SOON, "the process to be gone", async || (!tree::is_alive(pid)).then_some(())).await;
        // Proven, so that its next death costs no backoff.
        for _ in 0..20 {
            assert_eq!(text_of(&call_when_ready(&gateway, &client, "echo").await), "{}");
        }
    }
    wait_until(SOON, "no grandchild to be left", async || {
        (tree::descendants(gateway.pid()).len() == tree_size).then_some(())
    })
    .await;
    assert_eq!(gateway.server("fix")["restarts"], 6);
}

async fn call_when_ready(gateway: &Gateway, client: &support::Client, tool: &str) -> Value {
    state(gateway, "fix", "ready").await;
    client.call_tool(tool, json!({})).await
}

#[tokio::test]
async fn what_cannot_start_is_parked_with_the_reason_and_the_rest_is_served() {
    let program = support::fixture_server();
    let program = program.display();
    let config = fixture("good", &[])
        + "\n[servers.no-program]\ncommand = [\"no-such-program-anywhere\"]\nsandbox = \"off\"\n"
        + "\n[servers.no-file]\ncommand = [\"./bin/nothing\"]\nsandbox = \"off\"\n"
        + "\n[servers.no-variable]\ncommand = [\"cat\"]\nsandbox = \"off\"\nenv = { KEY = \"${SEAWALL_TEST_UNSET}\" }\n"
        + &format!("\n[servers.no-folder]\ncommand = [\"{program}\"]\nsandbox = \"off\"\ncwd = \"./nowhere\"\n")
        + "\n[servers.no-builtin]\nbuiltin = \"events\"\nenabled = false\n";
    let gateway = Gateway::start(&config).await;
    for (name, reason) in [
        ("no-program", "no-such-program-anywhere"),
        ("no-file", "bin/nothing"),
        ("no-variable", "SEAWALL_TEST_UNSET"),
        ("no-folder", "nowhere"),
    ] {
        let server = state(&gateway, name, "parked").await;
        assert!(server["reason"].as_str().is_some_and(|said| said.contains(reason)), "{name}: {server}");
    }
    let text = gateway.seawall(&["status"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("no-such-program-anywhere") && text.contains("tried again when it is used"), "{text}");
    assert!(!text.contains("no-builtin"), "what is not enabled is not there: {text}");

    let client = gateway.client("/mcp").await;
    assert!(client.list_tools().await.iter().all(|tool| tool["name"].as_str().unwrap().starts_with("good__")));
    assert_eq!(text_of(&client.call_tool("good__echo", json!({})).await), "{}");
    let refused = client.call_tool("no-program__anything", json!({})).await;
    assert_eq!(class_of(&refused), "unavailable", "{refused}");
    assert!(text_of(&refused).contains("no-such-program-anywhere"), "{refused}");
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}).to_string();
    let alone = gateway.post("/mcp/no-program", &[("Content-Type", "application/json")], &hello).await.text();
    assert!(alone.contains("error") && alone.contains("no-such-program-anywhere"), "at its own path: {alone}");
    let parked =
        gateway.rows("the parked ones", "SELECT service_name FROM events WHERE event_type = 'server_parked'").await;
    assert!(parked.len() >= 4, "{parked:?}");
}

#[tokio::test]
async fn a_server_that_exits_at_once_backs_off_and_is_back_when_it_is_mended() {
    let folder = Scratch::new();
    let medicine = folder.file("medicine");
    let config = fixture("fix", &["--only-if", medicine.to_str().unwrap()]);
    let gateway = Launch::with_folder(folder, &config).start().await;
    let server = wait_until(SOON, "the third try", async || {
        let server = gateway.server("fix");
        (server["state"] == "backoff" && server["restarts"].as_u64() >= Some(2)).then_some(server)
    })
    .await;
    assert!(server["retry_in_ms"].as_u64().is_some_and(|ms| ms <= 4000), "{server}");
    assert!(
        server["reason"].as_str().is_some_and(|reason| reason.contains("without its file")),
        "its last words: {server}"
    );
    let text = String::from_utf8(gateway.seawall(&["status"]).stdout).unwrap();
    assert!(text.contains("next try in") || text.contains("spawning"), "{text}");
    let client = gateway.client("/mcp/fix");
    std::fs::write(medicine, "").unwrap();
    let client = client.await;
    assert_eq!(text_of(&client.call_tool("echo", json!({})).await), "{}");
    assert_eq!(gateway.server("fix")["state"], "ready");
}

#[tokio::test]
async fn a_silent_server_is_told_that_its_call_was_given_up_and_lives_on() {
    let folder = Scratch::new();
    let journal = Journal(folder.file("journal"));
    let config =
        fixture("fix", &["--journal", journal.0.to_str().unwrap()]) + "timeout = \"600ms\"\nbreaker = \"off\"\n";
    let gateway = Launch::with_folder(folder, &config).start().await;
    let pid = state(&gateway, "fix", "ready").await["pid"].clone();
    let client = gateway.client("/mcp/fix").await;
    for tool in ["hang", "late"] {
        let reply = client.call_tool(tool, json!({})).await;
        assert_eq!((class_of(&reply), &failure_of(&reply)["outcomeUnknown"]), ("timeout", &json!(true)), "{reply}");
    }
    let ids = |method: &str| -> Vec<Value> {
        journal
            .received(method)
            .iter()
            .map(|line| if method == "tools/call" { line["id"].clone() } else { line["params"]["requestId"].clone() })
            .collect()
    };
    wait_until(SOON, "the server to hear of both", async || {
        (ids("notifications/cancelled") == ids("tools/call")).then_some(())
    })
    .await;
    // The late answer to the second is ignored, and nothing was restarted.
    assert_eq!(text_of(&client.call_tool("echo", json!({"a": 1})).await), r#"{"a":1}"#);
    assert_eq!(gateway.server("fix")["pid"], pid);
    // Progress that comes often enough keeps a call alive beyond the timeout.
    let params =
        json!({"name": "slow", "arguments": {"ms": 1500, "progress_every_ms": 50}, "_meta": {"progressToken": 1}});
    assert!(text_of(&client.request("tools/call", params).await).starts_with("waited"));
}

#[tokio::test]
async fn a_slow_start_delays_neither_the_others_nor_the_list_for_long() {
    let gateway = Gateway::start(&(fixture("fix", &[]) + &fixture("slow", &["--slow-start", "60000"]))).await;
    state(&gateway, "fix", "ready").await;
    let began = Instant::now();
    let client = gateway.client("/mcp").await;
    assert_eq!(text_of(&client.call_tool("fix__echo", json!({})).await), "{}");
    assert!(began.elapsed() < Duration::from_secs(30), "a call to another server waits for nobody");
    let tools = client.list_tools().await;
    assert!(tools.iter().all(|tool| tool["name"].as_str().unwrap().starts_with("fix__")) && !tools.is_empty());
    assert!(began.elapsed() < Duration::from_secs(30), "the list waits at most 5 s from its start");
    let again = Instant::now();
    client.list_tools().await;
    assert!(again.elapsed() < Duration::from_secs(5), "and only once");
    let reply = client.call_tool("slow__echo", json!({})).await;
    assert_eq!(class_of(&reply), "unavailable", "a tool of a server in its first start is not unknown: {reply}");
    assert!(failure_of(&reply)["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{reply}");
}

#[tokio::test]
async fn the_catalog_is_kept_across_restarts_of_the_gateway() {
    let folder = Scratch::new();
    let ill = folder.file("well");
    std::fs::write(&ill, "").unwrap();
    let config = fixture("fix", &["--only-if", ill.to_str().unwrap()]);
    let mut gateway = Launch::with_folder(folder, &config).start().await;
    gateway.ready().await;
    state(&gateway, "fix", "ready").await;
    let client = gateway.client("/mcp").await;
    let before = client.list_tools().await;
    assert!(!before.is_empty());
    assert_eq!(gateway.stop().code(), Some(0));
    std::fs::remove_file(&ill).unwrap();
    let gateway = Launch::with_folder(gateway.folder.clone(), &config).start().await;
    let began = Instant::now();
    let client = gateway.client("/mcp").await;
    assert_eq!(client.list_tools().await, before, "as it was, to the last member");
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for a list that is known");
    assert_eq!(class_of(&client.call_tool("fix__echo", json!({})).await), "unavailable");
    std::fs::write(&ill, "").unwrap();
    state(&gateway, "fix", "ready").await;
    assert_eq!(text_of(&client.call_tool("fix__echo", json!({})).await), "{}");
}
