//! `seawall serve` as its user meets it: what it says, how it ends, and that nothing
//! is left of it.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::json;

mod support;

use support::{
    Gateway, Launch, StdioClient, failure_of, fixture, gateway::run_seawall, poll, process::run, scratch::Scratch,
    text_of, tree, wait_until,
};

const SOON: Duration = Duration::from_secs(30);

/// The repository's own servers.toml, with the folder that it gives away.
fn own_example() -> Scratch {
    let folder = Scratch::new();
    folder.write("docs/note.txt", "what the tide brought");
    folder
}

fn example_text() -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/servers.toml")).expect("it is checked in");
    text.replace("127.0.0.1:8420", "127.0.0.1:0")
}

#[tokio::test]
async fn the_example_serves_without_a_subcommand_and_says_what_to_paste() {
    let mut gateway = Launch::with_folder(own_example(), &example_text()).bare().start().await;
    let client = gateway.client("/mcp").await;
    let names: Vec<String> =
        client.list_tools().await.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect();
    for expected in ["seawall__servers", "events__append", "files__read_file"] {
        assert!(names.iter().any(|name| name == expected), "{expected} is not in {names:?}");
    }
    let read = client.call_tool("files__read_file", json!({"path": "note.txt"})).await;
    assert!(read.to_string().contains("what the tide brought"), "{read}");

    let banner = wait_until(SOON, "the whole banner", async || {
        let text = gateway.log.text();
        text.contains("claude mcp add").then_some(text)
    })
    .await;
    let address = gateway.address;
    for expected in [
        format!("listening on http://{address}/mcp"),
        format!("claude mcp add --transport http seawall http://{address}/mcp"),
        format!(r#""url": "http://{address}/mcp""#),
    ] {
        assert!(banner.contains(&expected), "no {expected:?} in:\n{banner}");
    }
    for server in ["seawall", "events", "files"] {
        let line = banner
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{server} ")) && line.contains("ready after"));
        assert!(line.is_some_and(|line| line.contains(" tools: ")), "no line about {server} in:\n{banner}");
    }
    let state = gateway.seawall_json(&["status", "--json"]);
    for server in ["seawall", "events", "files"] {
        assert_eq!(state["servers"][server]["state"], "ready", "{state}");
    }
    assert_eq!(state["gateway"]["pid"], gateway.pid());
    assert_eq!(gateway.stop().code(), Some(0));
}

#[tokio::test]
async fn a_second_gateway_of_the_same_folder_is_refused_and_told_who_the_first_is() {
    let gateway = Gateway::start("").await;
    let second = run_seawall(&["serve", "--listen", "127.0.0.1:0"], &gateway.config(), SOON);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&format!("process {}", gateway.pid())), "{said}");
    assert_eq!(gateway.get("/healthz").await.unwrap().status(), 200, "the first one is not disturbed");
}

#[tokio::test]
async fn a_gateway_that_was_killed_does_not_keep_the_next_one_away() {
    let folder = Scratch::new();
    let journal = folder.file("journal");
    let config = fixture("fix", &["--journal", journal.to_str().unwrap()]);
    let mut first = Launch::with_folder(folder, &config).start().await;
    first.ready().await;
    first.kill();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_seawall"));
    serve.args(["status", "--json", "--config"]).arg(first.config());
    assert_eq!(run(serve, SOON).status.code(), Some(3), "nobody answers where the socket was left");
    let second = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(first.config())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut second = second.expect("seawall can be started");
    let answered = poll(SOON, || {
        let status = run_seawall(&["status", "--json"], &first.config(), SOON);
        status.status.success().then_some(())
    });
    let stopped = rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(second.id()).unwrap()).unwrap(),
        Signal::TERM,
    );
    let status = second.wait().expect("it ends");
    assert!(answered.is_some(), "the second gateway never answered");
    assert!(stopped.is_ok() && status.success(), "{status}");
}

#[test]
fn exit_codes_tell_scripts_what_happened() {
    let folder = Scratch::new();
    let good = folder.write("good.toml", "");
    let bad = folder.write("bad.toml", "[gateway]\nlisten = 7\n");
    let missing = folder.file("missing.toml");
    let code = |words: &[&str], config| run_seawall(words, config, SOON).status.code();
    assert_eq!(code(&["check"], &good), Some(0));
    assert_eq!(code(&["check"], &bad), Some(78));
    assert_eq!(code(&["serve"], &bad), Some(78));
    assert_eq!(code(&["serve"], &missing), Some(78));
    assert_eq!(code(&["stdio"], &bad), Some(78));
    assert_eq!(code(&["no-such-command"], &good), Some(2));
    assert_eq!(code(&["serve", "--listen", "nowhere"], &good), Some(2));
    for words in [&["status"][..], &["reload"], &["restart", "x"], &["breaker", "reset", "x__y"]] {
        assert_eq!(code(words, &good), Some(3), "{words:?}");
        let said = String::from_utf8(run_seawall(words, &good, SOON).stderr).unwrap();
        assert!(said.contains("seawall serve"), "{words:?} does not say how to start one: {said}");
    }
    assert_eq!(code(&["call", "nobody__nothing"], &good), Some(1));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_eq!(code(&["serve", "--listen", &address], &good), Some(1), "the port is taken");
}

#[tokio::test]
async fn a_call_under_way_is_finished_before_the_end() {
    let mut gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let children = tree::descendants(gateway.pid());
    let client = gateway.client("/mcp/fix").await;
    let slow =
        client.start("tools/call", json!({"name": "slow", "arguments": {"ms": 3000}, "_meta": {"progressToken": 1}}));
    let (slow, ()) = tokio::join!(async { slow.await.reply().await }, async {
        wait_until(SOON, "the call to be under way", async || (gateway.server("fix")["in_flight"] == 1).then_some(()))
            .await;
        gateway.signal(Signal::TERM);
    });
    assert!(text_of(&slow).starts_with("waited"), "{slow}");
    assert_eq!(gateway.exited(SOON).code(), Some(0), "{}", gateway.log.text());
    assert!(!children.is_empty() && children.into_iter().all(|pid| !tree::is_alive(pid)), "a child has survived");
    assert!(!gateway.folder.file(".seawall/control.sock").exists(), "the control socket is left");
}

#[tokio::test]
async fn a_call_that_does_not_end_gets_the_drain_time_and_then_an_answer() {
    let config = format!("[gateway]\ndrain = \"1s\"\n{}", fixture("fix", &["--ignore-eof", "--ignore-sigterm"]));
    let mut gateway = Gateway::start(&config).await;
    gateway.ready().await;
    let children = tree::descendants(gateway.pid());
    let client = gateway.client("/mcp/fix").await;
    let (reply, ()) = tokio::join!(client.call_tool("hang", json!({})), async {
        wait_until(SOON, "the call to be under way", async || (gateway.server("fix")["in_flight"] == 1).then_some(()))
            .await;
        gateway.signal(Signal::TERM);
    });
    let failure = failure_of(&reply);
    assert_eq!((&failure["class"], &failure["outcomeUnknown"]), (&json!("draining"), &json!(true)), "{reply}");
    assert_eq!(gateway.exited(Duration::from_secs(15)).code(), Some(0), "{}", gateway.log.text());
    assert!(
        !children.is_empty() && children.into_iter().all(|pid| !tree::is_alive(pid)),
        "a server that ignores every request to end has survived"
    );
}

#[tokio::test]
async fn clients_that_stay_connected_do_not_keep_the_gateway() {
    let mut gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let http = gateway.client("/mcp").await;
    let stream = http.listen().await;
    assert_eq!(stream.head.status, 200);
    // Half a request: its head never ends.
    let mut half = gateway.connection().await;
    half.send(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    let mut joined = StdioClient::connect(&gateway.config(), &["--join"]);
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.log.text());
    assert!(joined.says("the gateway has ended"), "{}", joined.log.text());
    joined.close_input();
    assert_eq!(joined.exited(SOON).code(), Some(0), "it waits for another gateway no longer than its client does");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_takes_the_servers_along() {
    let mut gateway = Gateway::start(&fixture("fix", &["--ignore-eof", "--ignore-sigterm"])).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let hanging = tokio::spawn(async move { client.start("tools/call", json!({"name": "hang"})).await.next().await });
    wait_until(SOON, "the call to be under way", async || (gateway.server("fix")["in_flight"] == 1).then_some(()))
        .await;
    let children = tree::descendants(gateway.pid());
    assert!(!children.is_empty());
    gateway.signal(Signal::TERM);
    wait_until(SOON, "the gateway to say that it stops", async || gateway.log.has("stopping").then_some(())).await;
    gateway.signal(Signal::TERM);
    // Long before the drain time.
    assert_eq!(gateway.exited(SOON).code(), Some(1));
    hanging.abort();
    let left = poll(SOON, || children.iter().all(|pid| !tree::is_alive(*pid)).then_some(()));
    assert!(left.is_some(), "a child has survived");
    assert!(!gateway.folder.file(".seawall/control.sock").exists(), "the control socket is left");
}

#[tokio::test]
async fn a_control_socket_that_was_removed_comes_back() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    std::fs::remove_file(gateway.folder.file(".seawall/control.sock")).unwrap();
    assert_eq!(gateway.seawall(&["status"]).status.code(), Some(3), "nobody can be asked for a moment");
    wait_until(SOON, "the socket to be there again", async || {
        (gateway.seawall(&["status"]).status.code() == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_hangup_reads_servers_toml_again_and_ends_nothing() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.server_is_ready("fix").await;
    let client = gateway.client("/mcp/fix").await;
    gateway.signal(Signal::HUP);
    let taken = poll(Duration::from_secs(15), || gateway.log.has("servers.toml was taken").then_some(()));
    assert!(taken.is_some(), "servers.toml was not read again");
    let reply = client.call_tool("echo", json!({})).await;
    assert_eq!(reply["result"]["content"][0]["text"], "{}");
}
