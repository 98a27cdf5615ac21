//! servers.toml is edited while the gateway runs: what changed restarts, all else
//! goes on, and a bad edit changes nothing.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

mod support;

use support::{Gateway, Launch, failure_of, fixture, scratch::Scratch, text_of, wait_until};

const SOON: Duration = Duration::from_secs(30);

async fn servers(gateway: &Gateway, wanted: &[(&str, &str)]) -> Value {
    wait_until(SOON, &format!("servers to be {wanted:?}"), async || {
        let servers = gateway.seawall_json(&["status", "--json"])["servers"].clone();
        let states = servers.as_object()?;
        let as_wanted = states.len() == wanted.len()
            && wanted.iter().all(|(name, state)| states.get(*name).is_some_and(|server| server["state"] == *state));
        as_wanted.then(|| servers.clone())
    })
    .await
}

async fn problem(gateway: &Gateway, has: bool) -> Value {
    wait_until(SOON, "the verdict on the edit", async || {
        let problem = gateway.seawall_json(&["status", "--json"])["gateway"]["config_problem"].clone();
        (problem.is_string() == has).then_some(problem)
    })
    .await
}

async fn count(gateway: &Gateway, event_type: &str) -> usize {
    gateway.sqlite(&format!("SELECT id FROM events WHERE event_type = '{event_type}'")).len()
}

#[tokio::test]
async fn servers_come_and_go_and_the_others_are_not_disturbed() {
    let (one, two) = (fixture("one", &[]), fixture("two", &[]));
    let gateway = Gateway::start(&one).await;
    let before = servers(&gateway, &[("one", "ready")]).await;
    let client = gateway.client("/mcp").await;
    let mut stream = client.listen().await;

    gateway.edit(&(one.clone() + &two));
    let both = servers(&gateway, &[("one", "ready"), ("two", "ready")]).await;
    assert_eq!(both["one"]["pid"], before["one"]["pid"], "it is not started anew");
    assert_eq!(
        text_of(&client.call_tool("two__echo", json!({})).await),
        "{}",
        "for clients that are connected already"
    );
    let told = tokio::time::timeout(SOON, async {
        while stream.next().await.expect("the stream stays open")["method"] != "notifications/tools/list_changed" {}
    });
    told.await.expect("they are told");

    // Another command line is another server.
    gateway.edit(&(one.clone() + &fixture("two", &["--name", "renewed"])));
    let changed = wait_until(SOON, "two to be another one", async || {
        let servers = gateway.seawall_json(&["status", "--json"])["servers"].clone();
        (servers["two"]["server"] == "renewed 1.0.0" && servers["two"]["state"] == "ready").then_some(servers)
    })
    .await;
    assert_ne!(changed["two"]["pid"], both["two"]["pid"]);
    assert_eq!(changed["one"]["pid"], before["one"]["pid"]);

    gateway.edit(&one);
    servers(&gateway, &[("one", "ready")]).await;
    let gone = client.call_tool("two__echo", json!({})).await;
    assert_eq!(gone["error"]["code"], -32602, "{gone}");
    assert_eq!(
        gateway
            .client("/mcp")
            .await
            .list_tools()
            .await
            .iter()
            .filter(|tool| tool["name"].as_str().unwrap().starts_with("two__"))
            .count(),
        0
    );
    assert_eq!(gateway.post("/mcp/two", &[("Content-Type", "application/json")], "{}").await.status(), 404);
    gateway.rows("the edits", "SELECT id FROM events WHERE event_type = 'config_reloaded'").await;
    assert_eq!(text_of(&client.call_tool("one__echo", json!({})).await), "{}");
}

#[tokio::test]
async fn a_call_under_way_is_finished_by_the_server_that_is_removed() {
    let config = fixture("one", &[]) + &fixture("two", &[]);
    let gateway = Gateway::start(&config).await;
    let before = servers(&gateway, &[("one", "ready"), ("two", "ready")]).await;
    let client = Arc::new(gateway.client("/mcp").await);
    let slow = {
        let client = client.clone();
        tokio::spawn(async move { client.call_tool("two__slow", json!({"ms": 3000})).await })
    };
    wait_until(SOON, "the call", async || (gateway.server("two")["in_flight"] == 1).then_some(())).await;
    gateway.edit(&fixture("one", &[]));
    servers(&gateway, &[("one", "ready")]).await;
    assert!(!slow.is_finished(), "this machine was too slow for the test to mean anything");
    assert!(text_of(&slow.await.unwrap()).starts_with("waited"));
    let pid = u32::try_from(before["two"]["pid"].as_u64().unwrap()).unwrap();
    wait_until(SOON, "the removed server to end", async || (!support::tree::is_alive(pid)).then_some(())).await;
}

#[tokio::test]
async fn new_limits_hold_at_once_and_breakers_of_other_tools_keep_their_state() {
    let fix = fixture("fix", &[]);
    let gateway = Gateway::start(&fix).await;
    let before = servers(&gateway, &[("fix", "ready")]).await;
    let client = gateway.client("/mcp/fix").await;
    for _ in 0..5 {
        client.call_tool("rpc_error", json!({})).await;
    }
    assert_eq!(failure_of(&client.call_tool("rpc_error", json!({})).await)["class"], "breaker_open");

    gateway.edit(&(fix.clone() + "\n[servers.fix.tools.hang]\ntimeout = \"200ms\"\n"));
    let out = String::from_utf8(gateway.seawall(&["reload"]).stdout).unwrap();
    assert!(out.contains("fix: limits changed") || out.contains("nothing has changed"), "{out}");
    let reply = client.call_tool("hang", json!({})).await;
    assert_eq!(failure_of(&reply)["class"], "timeout", "{reply}");
    assert!(text_of(&reply).contains("200 ms"), "{reply}");
    let still = client.call_tool("rpc_error", json!({})).await;
    assert_eq!(failure_of(&still)["class"], "breaker_open", "the open one stays open: {still}");
    assert_eq!(gateway.server("fix")["pid"], before["fix"]["pid"], "limits need no new process");

    // A breaker with other settings is another breaker.
    gateway.edit(&(fix.clone() + "\n[servers.fix.tools.rpc_error]\nbreaker = { failures = 2 }\n"));
    let reply = wait_until(SOON, "the new breaker", async || {
        let reply = client.call_tool("rpc_error", json!({})).await;
        (failure_of(&reply)["class"] == "server_error").then_some(reply)
    });
    reply.await;
    client.call_tool("rpc_error", json!({})).await;
    assert_eq!(failure_of(&client.call_tool("rpc_error", json!({})).await)["class"], "breaker_open");
}

#[tokio::test]
async fn a_bad_edit_changes_nothing_and_status_says_why() {
    // A state folder of its own, which has to be found in a file that is bad.
    let good = format!("[gateway]\nstate = \"own\" # here\n{}", fixture("fix", &[]));
    let gateway = Gateway::start(&good).await;
    let before = servers(&gateway, &[("fix", "ready")]).await;
    for (bad, said) in [
        (good.clone() + "timout = \"3s\"\n", "timeout"),
        ("[gateway]\nstate = \"own\"\n[servers.fix".to_owned(), "servers.toml:3"),
        (good.replace("sandbox", "sandbocks"), "sandbox"),
    ] {
        gateway.edit(&bad);
        let problem = wait_until(SOON, "the complaint", async || {
            let problem = gateway.seawall_json(&["status", "--json"])["gateway"]["config_problem"].clone();
            problem.as_str().is_some_and(|problem| problem.contains(said)).then_some(problem)
        })
        .await;
        let text = String::from_utf8(gateway.seawall(&["status"]).stdout).unwrap();
        assert!(text.contains("was not taken") && text.contains(said), "{problem}: {text}");
        let refused = gateway.seawall(&["reload"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains(said), "{refused:?}");
        let client = gateway.client("/mcp/fix").await;
        assert_eq!(text_of(&client.call_tool("echo", json!({})).await), "{}", "the last good one stays");
        assert_eq!(gateway.server("fix")["pid"], before["fix"]["pid"]);
    }
    gateway.rows("the rejections", "SELECT id FROM events WHERE event_type = 'config_rejected'").await;
    gateway.edit(&good);
    problem(&gateway, false).await;
    assert_eq!(gateway.server("fix")["pid"], before["fix"]["pid"], "the same text again is no change");
}

#[tokio::test]
async fn however_an_editor_writes_it_is_read_once_it_is_whole() {
    let (one, two) = (fixture("one", &[]), fixture("two", &[]));
    let gateway = Gateway::start(&one).await;
    servers(&gateway, &[("one", "ready")]).await;
    let path = gateway.config();
    // Truncated, then written bit by bit, as a careless program does.
    let text = one.clone() + &two;
    fs::write(&path, "").unwrap();
    let mut so_far = String::new();
    let mut written = Instant::now();
    let mut longest_pause = Duration::ZERO;
    for piece in text.as_bytes().chunks(40) {
        so_far.push_str(std::str::from_utf8(piece).unwrap());
        fs::write(&path, &so_far).unwrap();
        longest_pause = longest_pause.max(written.elapsed());
        written = Instant::now();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    servers(&gateway, &[("one", "ready"), ("two", "ready")]).await;
    // Whoever stops writing for longer than that cannot be told from one who is done.
    let was_quiet = longest_pause > Duration::from_millis(250);
    let rejected = count(&gateway, "config_rejected").await;
    assert!(rejected == 0 || was_quiet, "half a file was taken for one: {}", gateway.log.text());

    // Renamed away and written anew, as vim does with backups.
    fs::rename(&path, path.with_extension("toml~")).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    fs::write(&path, &one).unwrap();
    servers(&gateway, &[("one", "ready")]).await;
    // Empty for a moment longer than the gateway waits.
    fs::write(&path, "").unwrap();
    let emptied = Instant::now();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(
        gateway.seawall_json(&["status", "--json"])["servers"]["one"].is_object(),
        "an empty file is an editor's doing"
    );
    fs::write(&path, &text).unwrap();
    let was_away = emptied.elapsed() > Duration::from_secs(2);
    servers(&gateway, &[("one", "ready"), ("two", "ready")]).await;
    let now = count(&gateway, "config_rejected").await;
    assert!(now == rejected || was_away, "{}", gateway.log.text());
}

#[tokio::test]
async fn a_file_that_stays_away_or_empty_is_told_and_its_servers_go_on() {
    let one = fixture("one", &[]);
    let gateway = Gateway::start(&one).await;
    let before = servers(&gateway, &[("one", "ready")]).await;
    for (away, said) in [(true, "cannot be read: No such file"), (false, "is empty")] {
        match away {
            true => fs::remove_file(gateway.config()).unwrap(),
            false => fs::write(gateway.config(), "\n").unwrap(),
        }
        let told = problem(&gateway, true).await;
        assert!(told.as_str().unwrap().contains(said), "{told}");
        gateway.edit(&one);
        problem(&gateway, false).await;
    }
    assert_eq!(gateway.server("one")["pid"], before["one"]["pid"], "it was never stopped");
    assert_eq!(count(&gateway, "config_rejected").await, 2, "each is told once");
}

#[tokio::test]
async fn who_asks_for_a_reload_while_the_file_is_empty_stops_no_server() {
    let one = fixture("one", &[]);
    let gateway = Gateway::start(&one).await;
    let before = servers(&gateway, &[("one", "ready")]).await;
    fs::write(gateway.config(), "\n").unwrap();
    let refused = gateway.seawall(&["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is empty"), "{refused:?}");
    gateway.signal(rustix::process::Signal::HUP);
    wait_until(SOON, "both to be refused", async || (count(&gateway, "config_rejected").await == 2).then_some(()))
        .await;
    assert!(problem(&gateway, true).await.as_str().unwrap().contains("is empty"));
    assert_eq!(servers(&gateway, &[("one", "ready")]).await["one"]["pid"], before["one"]["pid"]);
    // The same text again is good news, and a comment is a way to say that it is meant.
    fs::write(gateway.config(), &one).unwrap();
    assert_eq!(gateway.seawall(&["reload"]).status.code(), Some(0));
    problem(&gateway, false).await;
    fs::write(gateway.config(), "# none\n").unwrap();
    servers(&gateway, &[]).await;
}

/// A pipe without a writer would be waited for, and with it everybody.
#[tokio::test]
async fn a_file_that_cannot_be_read_without_waiting_stops_nobody() {
    let one = fixture("one", &[]);
    let gateway = Gateway::start(&one).await;
    servers(&gateway, &[("one", "ready")]).await;
    let path = gateway.config();
    fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let state = gateway.folder.file(".seawall");
    // The commands would read the pipe, too: they are told of a file beside it.
    let beside = gateway.folder.write("beside.toml", &one);
    let ask = |words: &[&str]| support::gateway::run_seawall(words, &beside, SOON);
    assert!(state.exists());
    for _ in 0..3 {
        let refused = ask(&["reload"]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("is no plain file"), "{refused:?}");
    }
    let client = gateway.client("/mcp/one").await;
    assert_eq!(text_of(&client.call_tool("echo", json!({})).await), "{}");
    fs::remove_file(&path).unwrap();
    gateway.edit(&(one.clone() + &fixture("two", &[])));
    servers(&gateway, &[("one", "ready"), ("two", "ready")]).await;
}

/// What a keyring asks may take long to be answered.
#[tokio::test]
async fn a_value_that_is_waited_for_keeps_no_call_waiting() {
    let folder = Scratch::new();
    let go = folder.write("go", "");
    let slow = format!("env = {{ A = \"${{cmd:test -e {0} || sleep 4; echo x}}\" }}\n", go.display());
    let config = fixture("one", &[]) + "rate_limit = \"off\"\n" + &fixture("two", &[]) + &slow;
    let gateway = Launch::with_folder(folder, &config).start().await;
    servers(&gateway, &[("one", "ready"), ("two", "ready")]).await;
    let client = gateway.client("/mcp/one").await;
    fs::remove_file(&go).unwrap();
    let config = gateway.config();
    let reloads: Vec<_> = (0..3)
        .map(|_| {
            let config = config.clone();
            std::thread::spawn(move || support::gateway::run_seawall(&["reload"], &config, SOON))
        })
        .collect();
    let mut answered = 0;
    while !reloads.iter().any(std::thread::JoinHandle::is_finished) {
        assert_eq!(text_of(&client.call_tool("echo", json!({})).await), "{}");
        answered += 1;
    }
    assert!(answered > 10, "{answered} calls while the reload waited");
    for reload in reloads {
        assert!(reload.join().expect("no panic").status.success());
    }
}

#[tokio::test]
async fn a_link_that_is_swapped_is_a_new_file() {
    let folder = Scratch::new();
    folder.write("v1/servers.toml", &fixture("one", &[]));
    folder.write("v2/servers.toml", &(fixture("one", &[]) + &fixture("two", &[])));
    let place = folder.file("place");
    fs::create_dir(&place).unwrap();
    let link = place.join("servers.toml");
    symlink("../v1/servers.toml", &link).unwrap();
    let gateway = Launch::with_folder(folder, "").config_at(&link).start().await;
    servers(&gateway, &[("one", "ready")]).await;
    let new = place.join("new");
    symlink("../v2/servers.toml", &new).unwrap();
    fs::rename(&new, &link).unwrap();
    servers(&gateway, &[("one", "ready"), ("two", "ready")]).await;
    // What it links to now is watched as well, or looked at now and then.
    gateway.folder.write("v2/servers.toml", &fixture("two", &[]));
    servers(&gateway, &[("two", "ready")]).await;
}

#[tokio::test]
async fn reload_tells_what_changed() {
    let gateway = Gateway::start(&fixture("one", &[])).await;
    servers(&gateway, &[("one", "ready")]).await;
    let out = |gateway: &Gateway| {
        let output = gateway.seawall(&["reload"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(out(&gateway), "nothing has changed\n");
    gateway.edit(&("[gateway]\nlisten = \"127.0.0.1:1\"\nmax_message = \"1MiB\"\n".to_owned() + &fixture("two", &[])));
    let said = out(&gateway);
    if said != "nothing has changed\n" {
        for part in ["two: started", "one: stopped", "gateway.max_message: takes effect when"] {
            assert!(said.contains(part), "no {part:?} in {said}");
        }
        // The command line says otherwise, and is what counts.
        assert!(!said.contains("gateway.listen"), "{said}");
    }
    servers(&gateway, &[("two", "ready")]).await;
    // A secret in a file is read anew, although servers.toml is the same.
    let folder = gateway.folder.path();
    fs::write(folder.join("token"), "first").unwrap();
    gateway.edit(&(fixture("two", &[]) + "env = { KEY = \"${file:token}\" }\n"));
    let key = async |client: &support::Client| {
        client.call_tool("two__environment", json!({})).await["result"]["structuredContent"]["env"]["KEY"].clone()
    };
    let client = gateway.client("/mcp").await;
    wait_until(SOON, "the first token", async || (key(&client).await == "first").then_some(())).await;
    fs::write(folder.join("token"), "second").unwrap();
    assert!(out(&gateway).contains("two: started"));
    wait_until(SOON, "the second token", async || (key(&client).await == "second").then_some(())).await;
}
