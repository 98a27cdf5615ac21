//! Whatever comes and goes leaves nothing behind: descriptors, threads, sessions,
//! calls under way, processes.

#![cfg(target_os = "linux")]

use std::{fs, sync::Arc, time::Duration};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

mod support;

use support::{Gateway, fixture, text_of, tree, wait_until};

const SOON: Duration = Duration::from_secs(30);
/// Of descriptors and threads: pools may have one more or less.
const SLACK: usize = 3;

#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    children: usize,
}

fn held(gateway: &Gateway) -> Held {
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", gateway.pid())).map(Iterator::count).unwrap_or(0);
    Held { descriptors: count("fd"), threads: count("task"), children: tree::descendants(gateway.pid()).len() }
}

async fn back_to(gateway: &Gateway, before: &Held) {
    wait_until(SOON, &format!("the gateway to hold no more than {before:?}"), async || {
        let now = held(gateway);
        let is_back = now.descriptors <= before.descriptors + SLACK
            && now.threads <= before.threads + 2 * SLACK
            && now.children == before.children;
        is_back.then_some(())
    })
    .await;
}

/// As much as it will hold when it is at ease.
async fn warmed_up() -> Gateway {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    for _ in 0..20 {
        assert_eq!(text_of(&client.call_tool("echo", json!({})).await), "{}");
    }
    client.end().await;
    gateway
}

#[tokio::test]
async fn twenty_deaths_of_a_server_leave_nothing_behind() {
    let gateway = warmed_up().await;
    let before = held(&gateway);
    assert!(before.children >= 1, "the server and what holds its tree together");
    for turn in 0..20 {
        let server = wait_until(SOON, "the server", async || {
            Some(gateway.server("fix")).filter(|server| server["state"] == "ready")
        })
        .await;
        if turn % 2 == 0 {
            assert_eq!(gateway.seawall(&["restart", "fix"]).status.code(), Some(0));
        } else {
            // Proven, so that its death costs no backoff.
            let client = gateway.client("/mcp/fix").await;
            for _ in 0..20 {
                assert_eq!(text_of(&client.call_tool("echo", json!({})).await), "{}");
            }
            client.end().await;
            let pid = i32::try_from(server["pid"].as_i64().unwrap()).unwrap();
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
        wait_until(SOON, "the next one", async || {
            let next = gateway.server("fix");
            (next["state"] == "ready" && next["pid"] != server["pid"]).then_some(())
        })
        .await;
    }
    back_to(&gateway, &before).await;
    assert_eq!(gateway.server("fix")["restarts"], 10, "those that were asked for are no trouble");
}

#[tokio::test]
async fn clients_that_vanish_in_mid_call_leave_nothing_behind() {
    let gateway = Arc::new(warmed_up().await);
    let before = held(&gateway);
    for _ in 0..10 {
        join_all((0..20).map(|number| {
            let gateway = gateway.clone();
            async move {
                let client = gateway.client("/mcp/fix").await;
                let stream = client.listen().await;
                let meta = if number % 2 == 0 { json!({"progressToken": number}) } else { json!({}) };
                let arguments = json!({"ms": 200, "progress_every_ms": 20});
                let call = client.start("tools/call", json!({"name": "slow", "arguments": arguments, "_meta": meta}));
                // Some are cut off before the first word, some after it.
                let _ = tokio::time::timeout(Duration::from_millis(100), call).await;
                drop(stream);
                // The session itself is ended, as a client that restarts would not.
                if number % 4 != 0 {
                    client.end().await;
                }
            }
        }))
        .await;
    }
    wait_until(SOON, "the calls to end", async || (gateway.server("fix")["in_flight"] == 0).then_some(())).await;
    back_to(&gateway, &before).await;
    assert_eq!(gateway.seawall_json(&["status", "--json"])["gateway"]["sessions"], 50, "those that were never ended");
    assert_eq!(gateway.server("fix")["restarts"], 0);
}

#[tokio::test]
async fn a_flood_of_progress_ends_with_its_answer() {
    let gateway = warmed_up().await;
    let client = gateway.client("/mcp/fix").await;
    let params = json!({"name": "progress", "arguments": {"steps": 5000}, "_meta": {"progressToken": 1}});
    let mut exchange = client.start("tools/call", params).await;
    exchange.next().await.expect("the first word");
    // The client does not read for a while: what does not fit is dropped, but for the answer.
    wait_until(SOON, "the call to end", async || (gateway.server("fix")["in_flight"] == 0).then_some(())).await;
    assert!(text_of(&exchange.reply().await).starts_with("5000 steps"));
    let steps: Vec<_> = client.seen().iter().filter_map(|message| message["params"]["progress"].as_u64()).collect();
    assert!(steps.is_sorted(), "what is left is in order");
}
