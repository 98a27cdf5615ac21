//! Whole trees die: however a server, the gateway or the launcher ends, nothing of
//! what the server started is left.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

mod support;

use support::{Gateway, Launch, census::Census, fixture, machine::Machine, text_of, wait_until};

const SOON: Duration = Duration::from_secs(30);

fn kill(pid: u64, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid fits")).expect("a pid is not zero");
    kill_process(pid, signal).expect("it can be signalled");
}

async fn with_daemons(census: &Census, flags: &[&str]) -> Gateway {
    with_daemons_through(&[], census, flags).await
}

async fn without_namespaces(census: &Census, flags: &[&str]) -> Gateway {
    let machine = Machine { is_root: rustix::process::geteuid().is_root(), has_namespaces: false };
    let wrapper = machine.wrapper();
    let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    with_daemons_through(&words, census, flags).await
}

/// A server that has daemons: new sessions, forked twice, their parents gone.
async fn with_daemons_through(wrapper: &[&str], census: &Census, flags: &[&str]) -> Gateway {
    let mark = census.mark();
    let config = format!("{}env = {{ CENSUS = \"{mark}\" }}\n", fixture("fix", flags));
    let gateway = Launch::new(&config).through(wrapper).start().await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    for _ in 0..3 {
        let daemon = "(setsid sleep 300 </dev/null >/dev/null 2>&1 &) ; setsid -f sleep 300 >/dev/null 2>&1; echo made";
        let reply = client.call_tool("run", json!({"command": ["/bin/sh", "-c", daemon]})).await;
        assert_eq!(text_of(&reply).trim(), "made", "{reply}");
    }
    wait_until(SOON, "the daemons to be there", async || (census.count() >= 7).then_some(())).await;
    gateway
}

#[tokio::test]
async fn daemons_end_with_a_gateway_that_is_stopped() {
    let census = Census::new();
    let mut gateway = with_daemons(&census, &[]).await;
    assert!(gateway.stop().success());
    assert_eq!(census.left(), Vec::<String>::new());
}

#[tokio::test]
async fn daemons_end_with_a_gateway_that_is_killed() {
    let census = Census::new();
    let mut gateway = with_daemons(&census, &["--ignore-sigterm", "--ignore-eof"]).await;
    gateway.kill();
    census.is_over(SOON).await;
}

#[tokio::test]
async fn daemons_end_with_their_server_and_its_exit_status_is_told() {
    let census = Census::new();
    let gateway = with_daemons(&census, &[]).await;
    let client = gateway.client("/mcp/fix").await;
    let before = census.pids();
    let reply = client.call_tool("kill", json!({"signal": "ABRT"})).await;
    assert_eq!(support::failure_of(&reply)["class"], "lost", "{reply}");
    wait_until(SOON, "the daemons to be gone", async || {
        census.pids().iter().all(|pid| !before.contains(pid)).then_some(())
    })
    .await;
    let rows = gateway.rows("the failure", "select exit_status from failures where class = 'lost'").await;
    assert_eq!(rows[0]["exit_status"], "signal 6 (SIGABRT)");

    gateway.ready().await;
    client.call_tool("exit", json!({"code": 3})).await;
    let rows = "select exit_status from failures where class = 'lost' and exit_status like 'exit%'";
    assert_eq!(gateway.rows("the second failure", rows).await[0]["exit_status"], "exit code 3");
}

#[tokio::test]
async fn a_server_that_ignores_every_request_to_end_is_ended() {
    let census = Census::new();
    let mut gateway = with_daemons(&census, &["--ignore-sigterm", "--ignore-eof"]).await;
    assert!(gateway.stop().success());
    assert_eq!(census.left(), Vec::<String>::new());
}

#[tokio::test]
async fn the_pid_in_status_is_the_servers_own_inside_and_outside() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let told: serde_json::Value = serde_json::from_str(text_of(&client.call_tool("pid", json!({})).await)).unwrap();
    assert_eq!(told["pid"], gateway.server("fix")["pid"]);
    let pid = gateway.server("fix")["pid"].as_u64().unwrap();
    assert!(std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("fixture-server"));

    kill(pid, Signal::KILL);
    let rows = gateway.rows("its end", "select metadata from events where event_type = 'server_down'").await;
    assert!(rows[0]["metadata"].as_str().unwrap().contains("signal 9 (SIGKILL)"), "{rows:?}");
}

/// With the launcher and its first process stopped nobody can react: the next seawall
/// finds what is left, by the ledger and by the mark.
#[tokio::test]
async fn what_outlives_gateway_and_launcher_is_swept_at_the_next_start() {
    let census = Census::new();
    let mut gateway = with_daemons(&census, &["--ignore-eof"]).await;
    let server = gateway.server("fix")["pid"].as_u64().unwrap();
    let init = support::census::parent(server);
    let launcher = support::census::parent(init);
    kill(launcher, Signal::STOP);
    gateway.kill();
    assert!(census.count() >= 7, "the stopped launcher cannot have ended them");

    let state = gateway.folder.file(".seawall");
    let again = Launch::new(&format!("[gateway]\nstate = {}\n", json!(state))).start().await;
    census.is_over(SOON).await;
    assert!(again.log.has("left behind"), "{}", again.log.text());
    assert_eq!(std::fs::read_dir(state.join("processes")).map_or(0, Iterator::count), 0);
}

#[tokio::test]
async fn daemons_end_without_namespaces_too() {
    let census = Census::new();
    let mut gateway = without_namespaces(&census, &["--ignore-sigterm", "--ignore-eof"]).await;
    assert!(gateway.stop().success());
    assert_eq!(census.left(), Vec::<String>::new());

    let mut gateway = without_namespaces(&census, &["--ignore-sigterm", "--ignore-eof"]).await;
    gateway.kill();
    census.is_over(SOON).await;
}

/// Gateway and launcher killed at once, no namespace: the daemons are found by their mark.
#[tokio::test]
async fn daemons_that_got_away_are_swept_by_their_mark() {
    let census = Census::new();
    let mut gateway = without_namespaces(&census, &["--ignore-eof"]).await;
    let launcher = support::census::parent(gateway.server("fix")["pid"].as_u64().unwrap());
    kill(launcher, Signal::STOP);
    gateway.kill();
    kill(launcher, Signal::KILL);
    wait_until(SOON, "the server to follow its launcher", async || (census.count() == 6).then_some(())).await;

    let state = gateway.folder.file(".seawall");
    let again = Launch::new(&format!("[gateway]\nstate = {}\n", json!(state))).start().await;
    census.is_over(SOON).await;
    assert!(again.log.has("left behind"), "{}", again.log.text());
}

#[tokio::test]
async fn a_killed_launcher_takes_its_tree_along() {
    let census = Census::new();
    let gateway = with_daemons(&census, &["--ignore-sigterm", "--ignore-eof"]).await;
    let before = census.pids();
    let server = gateway.server("fix")["pid"].as_u64().unwrap();
    kill(support::census::parent(support::census::parent(server)), Signal::KILL);
    wait_until(SOON, "the tree to be gone", async || {
        census.pids().iter().all(|pid| !before.contains(pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_environment_is_built_from_nothing_and_no_descriptor_is_inherited() {
    let gateway =
        Launch::new(&fixture("fix", &[])).env("SECRET_TOKEN", "s3cret").env("LD_DEBUG_OUTPUT", "/x").start().await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let told = text_of(&client.call_tool("environment", json!({})).await).to_owned();
    assert!(!told.contains("s3cret") && !told.contains("LD_DEBUG"), "{told}");
    let list = json!({"command": ["/bin/ls", "/proc/self/fd"]});
    let fds = text_of(&client.call_tool("run", list).await).to_owned();
    assert_eq!(fds.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "3 is the folder being read");
}

#[tokio::test]
async fn no_zombie_stays_below_the_launcher() {
    let census = Census::new();
    let gateway = with_daemons(&census, &[]).await;
    let client = gateway.client("/mcp/fix").await;
    for _ in 0..5 {
        client.call_tool("run", json!({"command": ["/bin/sh", "-c", "(true &)"]})).await;
    }
    let server = gateway.server("fix")["pid"].as_u64().unwrap();
    let init = support::census::parent(server);
    wait_until(SOON, "the zombies to be reaped", async || {
        support::census::children(init).iter().all(|pid| !support::census::is_zombie(*pid)).then_some(())
    })
    .await;
}
