//! Clients that flood, that say nothing, that say it byte by byte, that read nothing: what
//! they cost the gateway has a bound, and other clients are served as before.

#![cfg(target_os = "linux")]

use std::{fs, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};

mod support;

use support::{Client, Connection, Gateway, Launch, fixture, text_of, wait_until};

const SOON: Duration = Duration::from_secs(30);
/// The soft limit of descriptors that the gateways here have: half of it is for clients.
const DESCRIPTORS: usize = 256;
const PLACES: usize = DESCRIPTORS / 2;
/// What of the gateway's own is open beside them, a process that is being started included.
const OWN_DESCRIPTORS: usize = 100;

async fn gateway() -> Gateway {
    // "$0" is the gateway, "$@" its words.
    let script = format!("ulimit -Sn {DESCRIPTORS}; exec \"$0\" \"$@\"");
    let config = "[defaults]\nrate_limit = \"off\"\n".to_owned() + &fixture("fix", &[]);
    let gateway = Launch::new(&config).through(&["sh", "-c", &script]).start().await;
    gateway.ready().await;
    gateway
}

fn descriptors(gateway: &Gateway) -> usize {
    fs::read_dir(format!("/proc/{}/fd", gateway.pid())).map(Iterator::count).expect("the gateway lives")
}

/// Resident now, and at most so far.
fn memory_kib(gateway: &Gateway) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("the gateway lives");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says so");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// A client that comes now, and one that was there before.
async fn others_are_served(gateway: &Gateway, client: &Client) {
    assert_eq!(text_of(&client.call_tool("echo", json!({})).await), "{}");
    let newcomer = gateway.client("/mcp/fix").await;
    assert_eq!(text_of(&newcomer.call_tool("echo", json!({})).await), "{}");
    newcomer.end().await;
}

/// As many as before, but for pools that have one more or less.
async fn are_given_back(gateway: &Gateway, before: usize) {
    const SLACK: usize = 8;
    wait_until(SOON, "the descriptors to be given back", async || {
        (descriptors(gateway) <= before + SLACK).then_some(())
    })
    .await;
    let ran_out = gateway.log.lines().iter().any(|line| line.contains("accepting a connection failed"));
    assert!(!ran_out, "clients take no more than their share");
}

/// Whether the gateway has closed it.
async fn is_closed(connection: &mut Connection) -> bool {
    matches!(tokio::time::timeout(Duration::from_millis(1), connection.head()).await, Ok(Err(_)))
}

/// Far more connections than there is room for, each with the same beginning of a request.
async fn held_open(gateway: &Gateway, beginning: &str) -> Vec<Connection> {
    let mut held = Vec::new();
    for _ in 0..4 * PLACES {
        let mut connection = gateway.connection().await;
        // One that was closed already to make room is no fault.
        let _ = connection.send(beginning.as_bytes()).await;
        held.push(connection);
    }
    held
}

#[tokio::test]
async fn who_says_nothing_or_says_it_slowly_keeps_nobody_out() {
    let gateway = gateway().await;
    let client = gateway.client("/mcp/fix").await;
    let own = descriptors(&gateway);
    let body = "POST /mcp/fix HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Accept: application/json, text/event-stream\r\nContent-Length: 1000\r\n\r\n{\"jsonrpc\":";
    for beginning in ["", "POST /mcp/fix HTTP/1.1\r\nHost: loc", body] {
        let mut held = held_open(&gateway, beginning).await;
        others_are_served(&gateway, &client).await;
        assert!(descriptors(&gateway) <= PLACES + OWN_DESCRIPTORS, "{beginning:?}: {}", descriptors(&gateway));
        // There is room for what is not a client too: a process takes a dozen descriptors.
        assert_eq!(gateway.seawall(&["restart", "fix"]).status.code(), Some(0));
        gateway.server_is_ready("fix").await;
        others_are_served(&gateway, &client).await;
        let mut closed = 0;
        for connection in &mut held {
            closed += usize::from(is_closed(connection).await);
        }
        assert!(closed >= 3 * PLACES, "{beginning:?}: the oldest made room: {closed}");
    }
    are_given_back(&gateway, own).await;
}

#[tokio::test]
async fn ten_thousand_connections_that_come_and_go_leave_nothing() {
    const ALL: usize = 10_000;
    const AT_ONCE: usize = 100;
    let gateway = gateway().await;
    let client = gateway.client("/mcp/fix").await;
    others_are_served(&gateway, &client).await;
    let own = descriptors(&gateway);
    let (before_kib, _) = memory_kib(&gateway);
    for round in 0..ALL / AT_ONCE {
        let opened = join_all((0..AT_ONCE).map(|_| Connection::open(gateway.address))).await;
        assert!(opened.iter().all(Result::is_ok), "each is taken");
        drop(opened);
        if round % 10 == 0 {
            others_are_served(&gateway, &client).await;
        }
        assert!(descriptors(&gateway) <= PLACES + OWN_DESCRIPTORS);
    }
    are_given_back(&gateway, own).await;
    let (after_kib, peak_kib) = memory_kib(&gateway);
    assert!(peak_kib < before_kib + (64 << 10), "from {before_kib} to {after_kib}, at most {peak_kib} KiB");
}

/// A call each, whose answer of four MiB nobody reads, and many more behind it.
#[tokio::test]
async fn who_reads_no_answer_has_one_held_for_each_connection_and_no_more() {
    const CONNECTIONS: usize = 8;
    const CALLS: usize = 30;
    const ANSWER: usize = 4 << 20;
    let gateway = gateway().await;
    let client = gateway.client("/mcp/fix").await;
    others_are_served(&gateway, &client).await;
    let own = descriptors(&gateway);
    let (before_kib, _) = memory_kib(&gateway);
    let deaf = gateway.client("/mcp/fix").await;
    let session = deaf.session().expect("a session");
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS {
        let mut connection = gateway.connection().await;
        for call in 0..CALLS {
            let request = call_on(session, number * CALLS + call, "size", &json!({"bytes": ANSWER}));
            connection.send(request.as_bytes()).await.expect("it fits into the buffers of the kernel");
        }
        connections.push(connection);
    }
    // The first answers are there and wait; then the others are served.
    wait_until(SOON, "the first answers", async || {
        (gateway.server("fix")["calls"].as_u64()? >= CONNECTIONS as u64 && gateway.server("fix")["in_flight"] == 0)
            .then_some(())
    })
    .await;
    others_are_served(&gateway, &client).await;
    let calls = gateway.server("fix")["calls"].as_u64().expect("a number");
    assert!(calls < (2 * CONNECTIONS + 8) as u64, "what is behind an answer that is not read waits: {calls}");
    let (_, peak_kib) = memory_kib(&gateway);
    // An answer is held once, and once more while it is read from its server.
    let bound_kib = before_kib + ((3 * CONNECTIONS * ANSWER) >> 10) as u64;
    assert!(peak_kib < bound_kib, "at most {peak_kib} KiB, and {bound_kib} were allowed");
    drop(connections);
    are_given_back(&gateway, own).await;
}

/// One client with more calls than it may have under way at once.
#[tokio::test]
async fn who_floods_is_refused_beyond_a_thousand_and_nobody_else_is() {
    const ALLOWED: usize = 1024;
    let config = "[defaults]\nrate_limit = \"off\"\nconcurrency = \"off\"\n".to_owned() + &fixture("fix", &[]);
    let gateway = Gateway::start(&config).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let flooding = gateway.client("/mcp/fix").await;
    let session = flooding.session().expect("a session").to_owned();
    let mut held = Vec::new();
    for number in 0..ALLOWED {
        held.push(begin(&gateway, &session, number).await);
    }
    wait_until(SOON, "all of them to be under way", async || {
        (gateway.server("fix")["in_flight"] == ALLOWED as u64).then_some(())
    })
    .await;
    let mut one_more = begin(&gateway, &session, ALLOWED).await;
    let response = one_more.response().await.expect("it is answered");
    let said: Value = serde_json::from_slice(&response.body).expect("JSON");
    assert!(
        said["error"]["message"].as_str().is_some_and(|said| said.contains("too many requests of this session")),
        "{said}"
    );
    others_are_served(&gateway, &client).await;
    // Its session takes its calls along.
    flooding.end().await;
    wait_until(SOON, "its calls to end", async || (gateway.server("fix")["in_flight"] == 0).then_some(())).await;
    drop(held);
    others_are_served(&gateway, &client).await;
}

async fn begin(gateway: &Gateway, session: &str, id: usize) -> Connection {
    let mut connection = gateway.connection().await;
    let request = call_on(session, id, "hang", &json!({}));
    connection.send(request.as_bytes()).await.expect("it can be sent");
    connection
}

fn call_on(session: &str, id: usize, tool: &str, arguments: &Value) -> String {
    let params = json!({"name": tool, "arguments": arguments});
    let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string();
    format!(
        "POST /mcp/fix HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMcp-Session-Id: {session}\r\n\
         MCP-Protocol-Version: 2025-11-25\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
