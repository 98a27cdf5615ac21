//! Lives of real processes: replaced under load, stopped when idle, killed where they
//! hang, one for each session. The real binary with real children.

mod support;

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::{Gateway, Journal, Launch, failure_of, fixture, scratch::Scratch, wait_until};

const SOON: Duration = Duration::from_secs(20);

fn pid_of(reply: &Value) -> u64 {
    reply["result"]["structuredContent"]["pid"].as_u64().unwrap_or_else(|| panic!("no pid in {reply}"))
}

fn is_alive(pid: u64) -> bool {
    // A zombie is nothing that runs, but nothing that was cleared up either.
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

async fn ended(pids: &BTreeSet<u64>) {
    wait_until(SOON, "every process to be gone", async || pids.iter().all(|pid| !is_alive(*pid)).then_some(())).await;
}

#[tokio::test]
async fn recycling_under_load_costs_not_one_call() {
    let folder = Scratch::new();
    let journal = Journal(folder.file("journal"));
    let flags = ["--journal", journal.0.to_str().expect("UTF-8")];
    let config = format!("{}recycle = {{ calls = 20 }}\n", fixture("fix", &flags));
    let mut gateway = Launch::with_folder(folder, &config).start().await;
    gateway.ready().await;
    let client = &gateway.client("/mcp/fix").await;
    let caller = async |caller: u64| {
        let mut pids = BTreeSet::new();
        for n in 0..60 {
            // Some take a while, so that they are under way when their process is replaced.
            let (tool, ms) = if n % 5 == 0 { ("slow", 40) } else { ("pid", 0) };
            let reply = client.call_tool(tool, json!({"ms": ms, "nth": caller * 1000 + n})).await;
            assert!(reply["result"]["isError"] != true && reply.get("error").is_none(), "{reply}");
            if tool == "pid" {
                pids.insert(pid_of(&reply));
            }
        }
        pids
    };
    let pids: BTreeSet<u64> = join_all((0..8).map(caller)).await.into_iter().flatten().collect();
    assert!(pids.len() >= 3, "one after the other: {pids:?}");

    let calls = journal.calls_by("nth");
    assert_eq!((calls.len(), calls.values().max()), (480, Some(&1)), "each arrived, and once");
    let status = gateway.server("fix");
    assert_eq!((&status["restarts"], &status["failures"]), (&json!(0), &json!(0)), "{status}");
    assert!(status["recycled"].as_u64() >= Some(2), "{status}");
    let recycled = gateway.rows("recycling", "SELECT metadata FROM events WHERE event_type = 'server_recycled'").await;
    assert!(recycled[0]["metadata"].as_str().expect("text").contains(r#""cause":"calls""#), "{recycled:?}");
    assert!(gateway.sqlite("SELECT * FROM events WHERE event_type = 'server_down'").is_empty());

    let last = status["pid"].as_u64().expect("a pid");
    ended(&pids.iter().copied().filter(|pid| *pid != last).collect()).await;
    assert!(gateway.stop().success());
    assert!(journal.events("start").iter().all(|start| !is_alive(start["pid"].as_u64().expect("a pid"))));
}

#[tokio::test]
async fn a_server_that_is_not_used_is_stopped_until_it_is() {
    let config = format!("{}idle_stop = \"300ms\"\n", fixture("fix", &[]));
    let gateway = Gateway::start(&config).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let first = pid_of(&client.call_tool("pid", json!({})).await);
    let idle = async || {
        wait_until(SOON, "it to be idle, and its process to be let go", async || {
            let status = gateway.server("fix");
            (status["state"] == "idle" && status["instances"] == 0).then_some(())
        })
        .await;
    };
    idle().await;
    ended(&[first].into()).await;
    assert!(!client.list_tools().await.is_empty());
    let second = pid_of(&client.call_tool("pid", json!({})).await);
    assert_ne!(first, second);
    idle().await;
    assert_eq!(gateway.server("fix")["restarts"], 0);
    assert_eq!(gateway.get("/readyz").await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_stopped_process_is_replaced_after_timeouts_and_a_ping_in_vain() {
    let config = format!("{}timeout = \"200ms\"\nbreaker = \"off\"\n", fixture("fix", &[]));
    let gateway = Gateway::start(&config).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let before = pid_of(&client.call_tool("pid", json!({})).await);
    assert_eq!(failure_of(&client.call_tool("stop", json!({})).await)["class"], "timeout");
    for _ in 0..2 {
        assert_eq!(failure_of(&client.call_tool("pid", json!({})).await)["class"], "timeout");
    }
    let down = gateway.rows("its end", "SELECT metadata FROM events WHERE event_type = 'server_down'").await;
    assert!(down[0]["metadata"].as_str().expect("text").contains(r#""reason":"hung""#), "{down:?}");
    let after = wait_until(SOON, "a new process", async || {
        let reply = client.call_tool("pid", json!({})).await;
        reply["result"]["structuredContent"]["pid"].as_u64()
    })
    .await;
    assert_ne!(before, after);
    ended(&[before].into()).await;
}

#[tokio::test]
async fn a_server_that_answers_some_calls_and_no_ping_is_left_alone() {
    let flags = ["--ignore-ping"];
    let policy = "timeout = \"100ms\"\nbreaker = \"off\"\nrate_limit = \"off\"\n";
    let config = format!("{}{policy}", fixture("fix", &flags));
    let gateway = Gateway::start(&config).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let before = pid_of(&client.call_tool("pid", json!({})).await);
    for _ in 0..4 {
        assert_eq!(failure_of(&client.call_tool("hang", json!({})).await)["class"], "timeout");
    }
    // Longer than the ping waits, and somebody is served all the while.
    let until = tokio::time::Instant::now() + Duration::from_secs(6);
    while tokio::time::Instant::now() < until {
        assert_eq!(pid_of(&client.call_tool("pid", json!({})).await), before);
    }
    assert_eq!(gateway.server("fix")["restarts"], 0);
}

#[tokio::test]
async fn each_session_has_its_own_process() {
    let config = format!("{}instances = {{ per_session = 2 }}\n", fixture("fix", &["--resources"]));
    let mut gateway = Gateway::start(&config).await;
    gateway.ready().await;
    let one = gateway.client("/mcp").await;
    let two = gateway.client("/mcp/fix").await;
    let three = gateway.client("/mcp").await;
    assert!(!one.list_tools().await.is_empty());

    let (pid_of_one, pid_of_two) =
        (pid_of(&one.call_tool("fix__pid", json!({})).await), pid_of(&two.call_tool("pid", json!({})).await));
    assert_ne!(pid_of_one, pid_of_two);
    // What one does to its process, the other does not see.
    for calls in 2..=4 {
        let counted = one.call_tool("fix__counter", json!({})).await;
        assert_eq!(counted["result"]["structuredContent"]["calls"], calls);
    }
    assert_eq!(two.call_tool("counter", json!({})).await["result"]["structuredContent"]["calls"], 2);
    let refused = three.call_tool("fix__pid", json!({})).await;
    assert_eq!(failure_of(&refused)["class"], "overloaded");
    let status = gateway.server("fix");
    assert_eq!((&status["state"], &status["instances"]), (&json!("ready"), &json!(2)), "{status}");
    assert_eq!(status["pids"].as_array().map(Vec::len), Some(2));

    // Both hear of a resource that both have subscribed to, each from its own.
    for client in [&one, &two] {
        let reply = client.request("resources/subscribe", json!({"uri": "fixture://calls"})).await;
        assert!(reply.get("result").is_some(), "{reply}");
    }

    assert!(one.end().await < 300);
    ended(&[pid_of_one].into()).await;
    wait_until(SOON, "its place to be free", async || (gateway.server("fix")["instances"] == 1).then_some(())).await;
    assert_ne!(pid_of(&three.call_tool("fix__pid", json!({})).await), pid_of_two);
    assert_eq!(pid_of(&two.call_tool("pid", json!({})).await), pid_of_two);
    assert!(gateway.stop().success());
    ended(&[pid_of_two].into()).await;
}

#[tokio::test]
async fn a_limit_that_is_written_while_it_runs_holds_without_a_restart() {
    let config = fixture("fix", &[]);
    let gateway = Gateway::start(&config).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let before = pid_of(&client.call_tool("pid", json!({})).await);
    gateway.edit(&format!("{config}recycle = {{ memory = \"1MiB\" }}\n"));
    wait_until(SOON, "a process with more than 1 MiB to be replaced", async || {
        (pid_of(&client.call_tool("pid", json!({})).await) != before).then_some(())
    })
    .await;
    let recycled = gateway.rows("recycling", "SELECT metadata FROM events WHERE event_type = 'server_recycled'").await;
    assert!(recycled[0]["metadata"].as_str().expect("text").contains(r#""cause":"memory""#), "{recycled:?}");
    assert_eq!(gateway.server("fix")["restarts"], 0);
}
