//! A server that works is replaced for each reason that there is, under load, and not
//! one of its calls fails. The real binary with real children.

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::{Client, Gateway, Journal, Launch, fixture, scratch::Scratch, wait_until};

/// The memory of a server is looked at every five seconds, on a busy machine later.
const SOON: Duration = Duration::from_secs(60);
const CALLERS: u64 = 4;

fn assert_fine(reply: &Value) {
    assert!(reply["result"]["isError"] != true && reply.get("error").is_none(), "{reply}");
}

/// Calls until it is told to stop; how many. Some take a while, so that one is under
/// way whenever its process is replaced.
async fn call(client: &Client, server: &str, caller: u64, go_on: &AtomicBool) -> u64 {
    let mut calls = 0;
    while go_on.load(Ordering::Relaxed) {
        let nth = caller * 1_000_000 + calls;
        let (tool, arguments) = match calls % 4 {
            0 => ("slow", json!({"nth": nth, "ms": 30})),
            // Another MiB that is never given back.
            1 if server == "grown" => ("hoard", json!({"nth": nth})),
            _ => ("echo", json!({"nth": nth})),
        };
        let reply = client.call_tool(&format!("{server}__{tool}"), arguments.clone()).await;
        assert_fine(&reply);
        if tool == "echo" {
            assert_eq!(reply["result"]["structuredContent"], arguments);
        }
        calls += 1;
    }
    calls
}

async fn recycled(gateway: &Gateway, server: &str, times: u64) {
    wait_until(SOON, &format!("{server} to be replaced"), async || {
        (gateway.server(server)["recycled"].as_u64() >= Some(times)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn whatever_the_reason_not_one_call_fails() {
    let folder = Scratch::new();
    let servers = [
        ("counted", "recycle = { calls = 30 }\n"),
        ("old", "recycle = { age = \"500ms\" }\n"),
        ("grown", "recycle = { memory = \"24MiB\" }\n"),
        ("asked", ""),
    ];
    let journal = |server: &str| Journal(folder.file(server));
    let table = |(server, keys): &(&str, &str)| {
        format!("{}{keys}", fixture(server, &["--journal", journal(server).0.to_str().expect("UTF-8")]))
    };
    let config = format!("[defaults]\nrate_limit = \"off\"\n{}", servers.iter().map(table).collect::<String>());
    let mut gateway = Launch::with_folder(folder.again(), &config).start().await;
    gateway.ready().await;
    let client = Arc::new(gateway.client("/mcp").await);
    let go_on = Arc::new(AtomicBool::new(true));
    let mut callers = Vec::new();
    for (server, _) in servers {
        for caller in 0..CALLERS {
            let (client, go_on) = (client.clone(), go_on.clone());
            callers.push((server, tokio::spawn(async move { call(&client, server, caller, &go_on).await })));
        }
    }
    for turn in 1..=2 {
        assert_eq!(gateway.seawall(&["restart", "asked"]).status.code(), Some(0));
        recycled(&gateway, "asked", turn).await;
    }
    for server in ["counted", "old"] {
        recycled(&gateway, server, 2).await;
    }
    recycled(&gateway, "grown", 1).await;
    go_on.store(false, Ordering::Relaxed);

    let (names, tasks): (Vec<_>, Vec<_>) = callers.into_iter().unzip();
    let mut made = BTreeMap::<&str, usize>::new();
    for (server, calls) in names.into_iter().zip(join_all(tasks).await) {
        *made.entry(server).or_default() += usize::try_from(calls.expect("every call is fine")).expect("few");
    }
    for (server, _) in servers {
        let status = gateway.server(server);
        assert_eq!((&status["restarts"], &status["failures"]), (&json!(0), &json!(0)), "{server}: {status}");
    }
    assert!(gateway.stop().success());
    for (server, cause) in [("counted", "calls"), ("old", "age"), ("grown", "memory"), ("asked", "asked")] {
        let received = journal(server).calls_by("nth");
        assert_eq!((received.len(), received.values().max()), (made[server], Some(&1)), "{server}: each, and once");
        let sql = format!(
            "SELECT DISTINCT json_extract(metadata, '$.cause') AS cause FROM events \
             WHERE event_type = 'server_recycled' AND service_name = '{server}'"
        );
        let causes: Vec<Value> = gateway.sqlite(&sql).into_iter().map(|row| row["cause"].clone()).collect();
        assert_eq!(causes, [json!(cause)], "{server}");
    }
}
