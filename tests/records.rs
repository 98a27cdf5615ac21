//! What is kept of what went wrong, and that its user can read it.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

mod support;

use support::{
    Gateway, Journal, Launch, failure_of, fixture,
    gateway::run_seawall,
    process::{Log, run},
    scratch::Scratch,
    text_of, wait_until,
};

const SOON: Duration = Duration::from_secs(30);

async fn ready(gateway: &Gateway, name: &str) {
    wait_until(SOON, "the server to be ready", async || (gateway.server(name)["state"] == "ready").then_some(())).await;
}

/// One call for each class that a server over stdio can cause, by the arguments' tag.
const ENDS: [(&str, &str, &str); 7] = [
    ("fail", "tool_error", "it failed, as asked"),
    ("rejected", "rejected", "-32602: an error, as asked"),
    ("rpc_error", "server_error", "-32603"),
    ("hang", "timeout", "silent for 300 ms"),
    ("raw", "protocol", "its answer was"),
    ("exit", "lost", "exit code 3"),
    ("away", "unavailable", "no-such-program"),
];

#[tokio::test]
async fn each_class_of_failure_is_a_row_with_all_that_is_known() {
    let config = fixture("fix", &["--hostile"])
        + "[servers.fix.tools.hang]\ntimeout = \"300ms\"\n\n[servers.away]\ncommand = [\"no-such-program\"]\nsandbox = \"off\"\n";
    let mut gateway = Gateway::start(&config).await;
    ready(&gateway, "fix").await;
    let client = gateway.client("/mcp").await;
    let mut ids = BTreeMap::new();
    for (number, (what, class, _)) in (1..).zip(ENDS) {
        ready(&gateway, "fix").await;
        let (tool, arguments) = match what {
            "rejected" => ("fix__rpc_error".to_owned(), json!({"code": -32602, "secret": "hunter2"})),
            "raw" => ("fix__raw".to_owned(), json!({"lines": [r#"{"jsonrpc":"2.0","id":$ID}"#], "secret": "hunter2"})),
            "away" => ("away__anything".to_owned(), json!({"secret": "hunter2"})),
            tool => {
                (format!("fix__{tool}"), json!({"code": if tool == "exit" { 3 } else { -32603 }, "secret": "hunter2"}))
            }
        };
        let reply = client.call_tool(&tool, arguments).await;
        assert_eq!(reply["id"], number);
        if let Some(id) = reply["result"]["_meta"]["seawall/failure"]["id"].as_str() {
            ids.insert(class, id.to_owned());
        }
    }
    assert_eq!(gateway.stop().code(), Some(0), "and nothing is lost by the end");

    let rows = gateway.sqlite("SELECT * FROM failures ORDER BY timestamp, id");
    for (number, (what, class, message)) in (1..).zip(ENDS) {
        let row = rows.iter().find(|row| row["class"] == class).unwrap_or_else(|| panic!("no {class} in {rows:?}"));
        assert!(row["message"].as_str().is_some_and(|said| said.contains(message)), "{row}");
        assert_eq!((&row["client"], &row["protocol"]), (&json!("harness 1.0.0"), &json!("2025-11-25")), "{row}");
        assert_eq!(row["request_id"], number.to_string(), "{row}");
        assert_eq!(row["server"], if what == "away" { "away" } else { "fix" }, "{row}");
        // What comes in floods is merged into one row, of many calls and of no one's arguments.
        let arguments = row["arguments"].as_str().unwrap_or_default();
        assert_eq!(arguments.contains("secret"), what != "away", "{row}");
        assert!(!arguments.contains("hunter2"), "names, not values: {row}");
        assert!(row["timestamp"].as_i64() > Some(1_700_000_000_000) && row["duration_ms"].is_u64(), "{row}");
        assert_eq!(row["instance"].is_u64(), what != "away", "{row}");
        if let Some(id) = ids.get(class) {
            assert_eq!(row["id"], **id, "the answer named this row");
        }
    }
    let of = |class: &str| rows.iter().find(|row| row["class"] == class).unwrap();
    assert_eq!(of("lost")["exit_status"], "exit code 3");
    assert!(of("lost")["stderr_tail"].as_str().is_some_and(|tail| tail.contains("stderr with")), "{}", of("lost"));
    assert!(of("timeout")["duration_ms"].as_u64() >= Some(300));

    // Plain sqlite3 reads the same, where there is one.
    let mut sqlite = Command::new("sqlite3");
    sqlite.arg(gateway.folder.file("seawall.db")).arg("SELECT count(*) FROM failures WHERE client = 'harness 1.0.0'");
    match Command::new("sqlite3").arg("-version").stdout(Stdio::null()).status() {
        Ok(_) => assert_eq!(String::from_utf8_lossy(&run(sqlite, SOON).stdout).trim(), ENDS.len().to_string()),
        Err(_) => println!("skipped: no sqlite3 on PATH"),
    }

    // And so do the commands, although no gateway is running.
    let config = gateway.config();
    let say = |words: &[&str]| {
        let output = run_seawall(words, &config, SOON);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = say(&["failures"]);
    assert_eq!(table.lines().count(), ENDS.len() + 1, "{table}");
    assert!(!table.contains('\u{1b}'), "no escape sequence of anybody's: {table:?}");
    let lines = |text: String| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let of_class = lines(say(&["failures", "--json", "--class", "timeout", "--server", "fix", "--since", "1h"]));
    assert_eq!(of_class.len(), 1);
    assert_eq!((&of_class[0]["id"], &of_class[0]["tool"]), (&of("timeout")["id"], &json!("hang")));
    assert_eq!(lines(say(&["failures", "--json", "--tool", "exit"]))[0]["exit_status"], "exit code 3");
    assert_eq!(lines(say(&["failures", "--json", "--limit", "2"])).len(), 2);
    assert_eq!(lines(say(&["failures", "--json", "--server", "nobody"])), Vec::<Value>::new());
    let id = of("lost")["id"].as_str().unwrap();
    let story = say(&["why", id]);
    for part in ["fix", "exit", "lost", "exit code 3", "stderr with"] {
        assert!(story.contains(part), "no {part:?} in {story}");
    }
    assert!(!story.contains('\u{1b}') && !story.contains('\u{202e}'), "{story:?}");
    assert_eq!(run_seawall(&["why", "zzzzzzzz"], &config, SOON).status.code(), Some(1));
    let events = lines(say(&["events", "--json", "--server", "fix"]));
    let types: Vec<_> = events.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    assert!(types.contains(&"server_ready") && types.contains(&"server_down"), "{types:?}");
    let down = events.iter().find(|event| event["metadata"]["exit_status"] == "exit code 3");
    assert!(say(&["why", down.expect("the death")["id"].as_str().unwrap()]).contains("exit code 3"));
}

#[tokio::test]
async fn following_prints_what_comes() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    ready(&gateway, "fix").await;
    let client = gateway.client("/mcp/fix").await;
    client.call_tool("fail", json!({"text": "the first"})).await;
    gateway.rows("the first", "SELECT id FROM failures").await;
    let mut follow = Command::new(env!("CARGO_BIN_EXE_seawall"));
    follow.args(["failures", "--follow", "--json", "--config"]).arg(gateway.config()).stdout(Stdio::piped());
    let mut follow = follow.spawn().unwrap();
    let log = Log::default();
    log.follow(follow.stdout.take().unwrap());
    let seen = wait_until(SOON, "the first", async || log.has("the first").then_some(())).await;
    client.call_tool("fail", json!({"text": "the second"})).await;
    wait_until(SOON, "the second", async || log.has("the second").then_some(seen)).await;
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert_eq!(log.lines().len(), 2, "each once: {}", log.text());
}

#[tokio::test]
async fn the_breaker_opens_after_exactly_five_and_the_sixth_is_not_sent() {
    let folder = Scratch::new();
    let journal = Journal(folder.file("journal"));
    let config = fixture("fix", &["--journal", journal.0.to_str().unwrap()]) + "breaker = { open_for = \"3s\" }\n";
    let gateway = Launch::with_folder(folder, &config).start().await;
    ready(&gateway, "fix").await;
    let client = gateway.client("/mcp").await;
    // What is no fault of the server does not count, and resets nothing that does.
    for _ in 0..4 {
        client.call_tool("fix__rpc_error", json!({"n": "counts"})).await;
    }
    client.call_tool("fix__rpc_error", json!({"n": "a success of the server", "code": -32602})).await;
    for _ in 0..10 {
        assert_eq!(client.call_tool("fix__fail", json!({})).await["result"]["isError"], true);
    }
    for number in 1..=5 {
        let reply = client.call_tool("fix__rpc_error", json!({"n": number})).await;
        assert_eq!(failure_of(&reply)["class"], "server_error", "{number}: {reply}");
    }
    let reply = client.call_tool("fix__rpc_error", json!({"n": 6})).await;
    assert_eq!(failure_of(&reply)["class"], "breaker_open", "{reply}");
    let wait = failure_of(&reply)["retryAfterMs"].as_u64().unwrap();
    assert!((1..=3300).contains(&wait), "{reply}");
    assert!(failure_of(&reply).get("id").is_none(), "a refusal is only counted");
    assert_eq!(journal.calls_by("n").get("6"), None, "it was not sent");
    assert_eq!(text_of(&client.call_tool("fix__echo", json!({})).await), "{}", "another tool is not touched");
    let breakers = gateway.seawall_json(&["status", "--json"])["breakers"].clone();
    assert_eq!((&breakers[0]["tool"], &breakers[0]["state"]), (&json!("rpc_error"), &json!("open")), "{breakers}");

    let opened = gateway.rows("the trip", "SELECT * FROM events WHERE event_type = 'breaker_opened'").await;
    assert_eq!(opened.len(), 1);
    assert!(opened[0]["metadata"].as_str().unwrap().contains("rpc_error"), "{opened:?}");
    // After the time one probe goes through, and its success closes it.
    let closed = wait_until(SOON, "a probe", async || {
        let reply = client.call_tool("fix__rpc_error", json!({"code": -32602})).await;
        reply.get("error").is_some().then_some(())
    });
    closed.await;
    gateway.rows("the closing", "SELECT * FROM events WHERE event_type = 'breaker_closed'").await;
    assert_eq!(gateway.seawall_json(&["status", "--json"])["breakers"], json!([]));
}

#[tokio::test]
async fn a_thousand_calls_in_a_row_succeed_with_the_defaults() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    ready(&gateway, "fix").await;
    let client = gateway.client("/mcp").await;
    for number in 0..1000 {
        let reply = client.call_tool("fix__echo", json!({"n": number})).await;
        assert_eq!(reply["result"]["structuredContent"]["n"], number, "{reply}");
    }
    let server = gateway.server("fix");
    assert_eq!((&server["calls"], &server["failures"], &server["restarts"]), (&json!(1000), &json!(0), &json!(0)));
}

#[tokio::test]
async fn a_runaway_loop_and_a_crowd_are_refused_and_counted() {
    let config = fixture("fix", &[])
        + "\n[servers.fix.tools.echo]\nrate_limit = { per_minute = 1, burst = 3 }\n\n[servers.fix.tools.hang]\nconcurrency = 1\n";
    let gateway = Gateway::start(&config).await;
    ready(&gateway, "fix").await;
    let client = std::sync::Arc::new(gateway.client("/mcp/fix").await);
    for _ in 0..3 {
        assert_eq!(text_of(&client.call_tool("echo", json!({})).await), "{}");
    }
    let reply = client.call_tool("echo", json!({})).await;
    assert_eq!(failure_of(&reply)["class"], "rate_limited", "{reply}");
    assert!(failure_of(&reply)["retryAfterMs"].as_u64().is_some_and(|ms| ms > 30_000), "{reply}");
    let first = {
        let client = client.clone();
        tokio::spawn(async move { client.call_tool("hang", json!({})).await })
    };
    wait_until(SOON, "the first", async || (gateway.server("fix")["in_flight"] == 1).then_some(())).await;
    let reply = client.call_tool("hang", json!({})).await;
    assert_eq!(failure_of(&reply)["class"], "overloaded", "{reply}");
    first.abort();
}
