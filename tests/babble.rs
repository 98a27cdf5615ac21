//! Servers that say what they should not, or do not listen: every call still ends,
//! and only what is beyond repair costs the server its process.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

mod support;

use support::{Client, Gateway, failure_of, fixture, text_of, wait_until};

const SOON: Duration = Duration::from_secs(30);

fn config() -> String {
    format!("[gateway]\nmax_message = \"64KiB\"\n{}timeout = \"20s\"\nbreaker = \"off\"\n", fixture("fix", &[]))
}

/// A gateway with one server, whose state can be waited for.
struct Rig {
    gateway: Gateway,
    client: Client,
}

impl Rig {
    async fn start(config: &str) -> Rig {
        let gateway = Gateway::start(config).await;
        let client = gateway.client("/mcp/fix").await;
        Rig { gateway, client }
    }

    async fn ready(&self) -> Value {
        wait_until(SOON, "the server to be ready", async || {
            Some(self.gateway.server("fix")).filter(|server| server["state"] == "ready")
        })
        .await
    }

    /// Twenty answers: its next death is replaced at once.
    async fn proven(&self) -> Value {
        let server = self.ready().await;
        for _ in 0..20 {
            assert_eq!(text_of(&self.client.call_tool("echo", json!({})).await), "{}");
        }
        server
    }

    async fn class(&self, tool: &str, arguments: Value) -> (String, Value) {
        let reply = self.client.call_tool(tool, arguments).await;
        (failure_of(&reply)["class"].as_str().unwrap().to_owned(), reply)
    }
}

#[tokio::test]
async fn what_can_be_read_around_costs_nothing() {
    let rig = Rig::start(&config()).await;
    let before = rig.ready().await;
    for (tool, arguments, answer) in [
        ("garbage", json!({"lines": 100}), "after the garbage"),
        ("invalid_utf8", json!({}), "broken: \u{fffd}"),
        ("dribble", json!({"every_ms": 1}), "drop by drop"),
        ("flood_stderr", json!({"bytes": 4 << 20}), "flooded"),
        (
            "raw",
            // Neither an array nor what begins like one is an answer, be the number an id or not.
            json!({"lines": ["[$ID]", "[$ID, null, null, {}]", "[$ID] started", "{\"jsonrpc\":\"2.0\",\"id\":$ID,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"numbered\"}]}}"]}),
            "numbered",
        ),
        ("double", json!({}), "first"),
        (
            "raw",
            json!({"lines": ["\r", "{\"jsonrpc\":\"2.0\",\"id\":$ID,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"with CR\"}]}}\r"]}),
            "with CR",
        ),
        (
            "raw",
            json!({"lines": ["{\"jsonrpc\":\"2.0\",\"id\":\"nobody\",\"result\":{}}", "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/unheard-of\"}", "{\"jsonrpc\":\"2.0\",\"id\":$ID,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"at last\"}]}}"]}),
            "at last",
        ),
    ] {
        let reply = rig.client.call_tool(tool, arguments).await;
        assert_eq!(text_of(&reply), answer, "{tool}");
    }
    let after = rig.gateway.server("fix");
    assert_eq!((&after["pid"], &after["restarts"]), (&before["pid"], &json!(0)), "{after}");
    assert!(after["stray_lines"].as_u64() >= Some(80), "they are counted: {after}");
    assert!(after["last_stray_line"].is_string(), "{after}");
    let text = String::from_utf8(rig.gateway.seawall(&["status"]).stdout).unwrap();
    assert!(text.contains("on its stdout that no client can read"), "{text}");
    assert!(!text.contains('\u{1}') && !text.contains('\u{0}'), "what it wrote is shown harmlessly");
}

#[tokio::test]
async fn a_server_that_logs_to_stdout_works() {
    let rig = Rig::start(&fixture("fix", &["--stdout-logs"])).await;
    rig.ready().await;
    for number in 0..20 {
        let reply = rig.client.call_tool("echo", json!({"n": number})).await;
        assert_eq!(reply["result"]["structuredContent"], json!({"n": number}));
    }
    assert_eq!(rig.gateway.server("fix")["restarts"], 0);
}

#[tokio::test]
async fn what_cannot_be_read_fails_the_call_and_replaces_the_process() {
    let rig = Rig::start(&config()).await;
    for (tool, arguments, said) in [
        ("garbage", json!({"lines": 200}), "100 lines within a minute"),
        ("size", json!({"bytes": 65 << 10}), "64 KiB"),
        ("endless", json!({"bytes": 1 << 20}), "64 KiB"),
        ("raw", json!({"lines": ["{\"jsonrpc\":\"2.0\",\"id\":$ID,\"result\":"]}), ""),
        ("raw", json!({"lines": ["{\"jsonrpc\":\"2.0\",\"id\":$ID}"]}), ""),
        (
            "raw",
            json!({"lines": ["{\"jsonrpc\":\"2.0\",\"id\":$ID,\"result\":{},\"error\":{\"code\":1,\"message\":\"\"}}"]}),
            "",
        ),
    ] {
        let before = rig.proven().await;
        let (class, reply) = rig.class(tool, arguments).await;
        assert_eq!(
            (class.as_str(), &failure_of(&reply)["outcomeUnknown"]),
            ("protocol", &json!(true)),
            "{tool}: {reply}"
        );
        assert!(text_of(&reply).contains(said), "{tool}: {reply}");
        wait_until(SOON, "another process", async || {
            let server = rig.gateway.server("fix");
            (server["state"] == "ready" && server["pid"] != before["pid"]).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn arrays_within_arrays_do_not_hurt_the_gateway() {
    let rig = Rig::start(&fixture("fix", &[])).await;
    rig.ready().await;
    let text = rig.client.request_text("tools/call", json!({"name": "deep", "arguments": {"depth": 5000}})).await;
    // Passed on or refused, but answered.
    assert!(text.contains("[[[[[[") || text.contains("isError"), "{text:.200}");
    assert_eq!(text_of(&rig.client.call_tool("echo", json!({})).await), "{}");
}

/// The one slow test of this file: a write to a server may take ten seconds.
#[tokio::test]
async fn a_server_that_never_reads_its_input_ends_by_the_write_timeout() {
    let rig = Rig::start(&(fixture("fix", &[]) + &fixture("other", &[]))).await;
    let before = rig.proven().await;
    assert_eq!(text_of(&rig.client.call_tool("deaf", json!({})).await), "I hear nothing more");
    let began = Instant::now();
    let long = "x".repeat(1 << 20);
    let ((class, reply), waited) = tokio::join!(
        rig.class("echo", json!({"long": long})),
        // It waits behind the first: no byte of it leaves, so it goes to the next process.
        rig.client.call_tool("size", json!({"long": long})),
    );
    assert!(["lost", "protocol"].contains(&class.as_str()), "{reply}");
    assert!(waited["result"]["isError"] != true, "{waited}");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(9) && took < Duration::from_secs(20), "it took {took:?}");
    wait_until(SOON, "another process", async || {
        let server = rig.gateway.server("fix");
        (server["state"] == "ready" && server["pid"] != before["pid"]).then_some(())
    })
    .await;
    assert_eq!(text_of(&rig.client.call_tool("echo", json!({})).await), "{}");
}

/// A gigabyte is not needed to see that nothing is held.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_line_without_an_end_takes_no_memory() {
    let rig = Rig::start(&fixture("fix", &[])).await;
    rig.ready().await;
    let (class, _) = rig.class("endless", json!({"bytes": 256 << 20})).await;
    assert_eq!(class, "protocol");
    let status = fs::read_to_string(format!("/proc/{}/status", rig.gateway.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").trim().parse().unwrap();
    assert!(peak < 128 << 10, "at its highest it had {peak} KiB");
}

#[tokio::test]
async fn a_frozen_server_costs_its_callers_the_timeout_and_nobody_else_anything() {
    let config = fixture("fix", &[]) + "timeout = \"500ms\"\nbreaker = \"off\"\n" + &fixture("other", &[]);
    let rig = Rig::start(&config).await;
    rig.ready().await;
    let (class, reply) = rig.class("stop", json!({})).await;
    assert_eq!(class, "timeout", "{reply}");
    let other = rig.gateway.client("/mcp/other").await;
    assert_eq!(text_of(&other.call_tool("echo", json!({})).await), "{}");
}
