//! Scheduled tasks: each step has its time, its attempts and its test of success; what
//! became of them is on record; and one that does not succeed in its period is told.

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{
    database, poll,
    process::run,
    service::{Services, daily_now, ending, lives, on_the_wall},
};

const WITHIN: Duration = Duration::from_secs(60);

/// A task of these steps, as TOML has them, whose time has come, and what stands below it.
fn task(steps: &str, more: &str) -> Services {
    task_at(&daily_now(), steps, more)
}

fn task_at(schedule: &str, steps: &str, more: &str) -> Services {
    let steps = steps.replace("$$", "$$$$");
    Services::new(&format!(
        "[services.one]\nbuiltin = \"tasks\"\nschedule = \"{schedule}\"\noptions = {{ steps = [{steps}] }}\n{more}\n"
    ))
}

fn sh(script: &str) -> String {
    format!("[\"/bin/sh\", \"-c\", {}]", serde_json::to_string(script).expect("a string"))
}

fn tasks(services: &Services, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.arg("tasks").args(words).arg("--config").arg(services.file("servers.toml"));
    command.current_dir(services.folder.path());
    run(command, WITHIN)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Name and outcome of each step of the last event of a type.
fn steps(services: &Services, event_type: &str) -> Vec<(String, String)> {
    let metadata = services.last(event_type);
    let steps = metadata["steps"].as_array().unwrap_or_else(|| panic!("no steps in {metadata}")).clone();
    let text = |step: &Value, key: &str| step[key].as_str().expect("text").to_owned();
    steps.iter().map(|step| (text(step, "name"), text(step, "outcome"))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, outcome)| ((*name).to_owned(), (*outcome).to_owned())).collect()
}

#[test]
fn a_step_that_fails_keeps_no_other_from_running_and_the_task_has_failed() {
    let list = format!(
        "{{ name = \"a\", command = {} }}, {{ name = \"b\", command = {} }}, {{ name = \"c\", command = {} }}",
        sh("echo a >> ran"),
        sh("echo b >> ran; echo 'disk on fire' >&2; exit 3"),
        sh("echo c >> ran")
    );
    let services = task(&list, "");
    assert_eq!(ending(services.to_the_end()), 1);
    assert_eq!(services.text("ran").as_deref(), Some("a\nb\nc"));
    assert_eq!(services.types(), ["service_start", "task_failed"]);
    assert_eq!(steps(&services, "task_failed"), pairs(&[("a", "done"), ("b", "failed"), ("c", "done")]));
    let failed = services.last("task_failed");
    assert_eq!(failed["steps"][1]["why"], "it ended with exit code 3");
    assert!(failed["stderr_tail"].as_str().is_some_and(|tail| tail.contains("disk on fire")), "{failed}");

    // Tried again at the next start; all of it, for nobody knows what a step leans on.
    services.folder.write(
        "servers.toml",
        &fs::read_to_string(services.file("servers.toml")).expect("read").replace("exit 3", "exit 0"),
    );
    assert_eq!(ending(services.to_the_end()), 0);
    assert_eq!(steps(&services, "task_done"), pairs(&[("a", "done"), ("b", "done"), ("c", "done")]));
    assert_eq!(ending(services.to_the_end()), 0);
    assert_eq!(services.text("ran").expect("ran").lines().count(), 6, "not due any more");

    let history = stdout(&tasks(&services, &["history"]));
    let lines: Vec<&str> = history.lines().collect();
    assert!(lines[1].contains("failed") && lines[1].contains("b failed: it ended with exit code 3"), "{history}");
    assert!(lines[2].contains("done") && lines[2].ends_with("a done, b done, c done"), "{history}");
    let json = stdout(&tasks(&services, &["history", "one", "--json"]));
    let runs: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(runs.iter().map(|run| &run["outcome"]).collect::<Vec<_>>(), ["failed", "done"]);
    let list = stdout(&tasks(&services, &["list"]));
    assert!(list.contains("daily ") && list.contains("done") && list.contains("a, b, c"), "{list}");
}

#[test]
fn a_step_that_takes_too_long_ends_with_all_that_it_started_and_is_tried_again() {
    let script = "echo x >> tries; sleep 300 & echo $! >> pids; setsid sleep 300 & echo $! >> pids; \
        test $(wc -l < tries) -ge 3 || sleep 300";
    let step = format!(
        "{{ name = \"slow\", command = {}, timeout = \"1s\", retries = 2, retry_after = \"10ms\" }}",
        sh(script)
    );
    let services = task(&step, "");
    assert_eq!(ending(services.start().end_within(WITHIN)), 0);
    let done = services.last("task_done");
    assert_eq!((&done["steps"][0]["attempts"], &done["steps"][0]["outcome"]), (&json!(3), &json!("done")));
    for pid in services.text("pids").expect("two of each attempt").lines() {
        let pid: u32 = pid.parse().expect("a pid");
        assert!(poll(WITHIN, || (!lives(pid)).then_some(())).is_some(), "{pid} is left over");
    }
    // One attempt fewer, and it has failed.
    fs::remove_file(services.file("tries")).expect("removed");
    let config = fs::read_to_string(services.file("servers.toml")).expect("read").replace("retries = 2", "retries = 1");
    services.folder.write("servers.toml", &config);
    assert_eq!(tasks(&services, &["run", "one"]).status.code(), Some(1));
    assert_eq!(services.last("task_failed")["steps"][0]["why"], "it did not end within 1 s");
}

/// Starts one in its group, one in a session of its own, and one whose parent is gone and that
/// has no environment by which it could be found; each writes its pid down.
const STRAYS: &str = "sleep 300 & echo $! >> pids; setsid sh -c 'echo $$ >> pids; exec sleep 300' & \
    setsid sh -c 'env -i /bin/sh -c \"echo \\$\\$ >> pids; exec /bin/sleep 300\" &' & \
    while test $(wc -l < pids) -lt 3; do sleep 0.02; done";

fn strays(services: &Services) -> Vec<u32> {
    poll(WITHIN, || {
        let pids: Vec<u32> = services.text("pids")?.lines().filter_map(|pid| pid.parse().ok()).collect();
        (pids.len() == 3).then_some(pids)
    })
    .expect("three of them")
}

#[test]
fn whatever_a_step_started_ends_with_it_however_it_ends() {
    for (how, end) in [("it succeeds", "exit 0"), ("it is stopped", "exec sleep 300")] {
        let step = format!("{{ name = \"s\", command = {} }}", sh(&format!("{STRAYS}; touch there; {end}")));
        // A second step runs on, so that it is not the end of the task that ends them.
        let next = format!("{{ name = \"next\", command = {} }}", sh("touch next; exec sleep 300"));
        let services = task(&format!("{step}, {next}"), "");
        let run = services.start();
        let pids = strays(&services);
        if end.contains("sleep") {
            poll(WITHIN, || services.file("there").exists().then_some(())).expect("all are there");
            run.signal(Signal::TERM);
        } else {
            poll(WITHIN, || services.file("next").exists().then_some(())).expect("it has ended");
        }
        for pid in pids {
            assert!(poll(WITHIN, || (!lives(pid)).then_some(())).is_some(), "{pid} is left over: {how}");
        }
        drop(run);
    }
}

#[test]
fn success_is_what_is_expected_and_not_an_exit_code_alone() {
    let step =
        |script: &str, expect: &str| format!("{{ name = \"s\", command = {}, expect = {{ {expect} }} }}", sh(script));
    for (script, expect, why) in [
        ("echo x > out", "file = \"./out\"", None),
        ("true", "file = \"./out\"", Some("is expected")),
        ("exit 3", "exit_code = 3", None),
        ("true", "exit_code = 3", Some("exit code 0, not 3")),
        ("true", "query = \"SELECT count(*) FROM events\"", None),
        ("true", "query = \"SELECT count(*) FROM events WHERE event_type = 'none'\"", Some("says no")),
        ("true", "query = \"DELETE FROM events RETURNING 1\"", Some("readonly")),
    ] {
        let services = task(&step(script, expect), "");
        // The first of all runs may be at its steps before anything is on record.
        services.to_the_end();
        let _ = fs::remove_file(services.file("out"));
        let ran = tasks(&services, &["run", "one"]);
        assert_eq!(ran.status.code(), Some(i32::from(why.is_some())), "{expect}: {ran:?}");
        if let Some(why) = why {
            let failed = services.last("task_failed");
            assert!(failed["steps"][0]["why"].as_str().is_some_and(|said| said.contains(why)), "{failed}");
        }
    }
}

/// A database of the emit server, made by it.
fn emit_db(services: &Services) {
    let place = support::emit::Place { folder: services.folder.again() };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let emit = place.start();
    let answer = runtime.block_on(emit.post(r#"{"event_type":"x"}"#));
    assert_eq!(answer.status(), 200);
}

const EMIT: &str = "[services.emit-server]\nbuiltin = \"emit\"\noptions = { listen = \"127.0.0.1:0\" }";

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn the_databases_are_tidied_checked_and_copied_and_damage_is_found() {
    let services = task("\"retention\", \"check\", { run = \"backup\", keep = 2 }", EMIT);
    emit_db(&services);
    // Makes the database, so that there is something old in it.
    services.to_the_end();
    let database = Connection::open(services.file("seawall.db")).expect("opens");
    database
        .execute("INSERT INTO events VALUES ('old', 1, 'service', 'service_stop', 'two', '{}')", [])
        .expect("written");
    drop(database);
    for old in ["seawall-20200101-000000.db", "emit-20200101-000000.db", "emit-20200102-000000.db", "mine.db"] {
        fs::write(services.file("backups").join(old), "old").expect("written");
    }
    let ran = tasks(&services, &["run", "one"]);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert_eq!(steps(&services, "task_done"), pairs(&[("retention", "done"), ("check", "done"), ("backup", "done")]));
    let old = database::rows(&services.file("seawall.db"), "SELECT 1 FROM events WHERE id = 'old'").expect("reads");
    assert!(old.is_empty(), "too old to stay");

    let copies = names(&services.file("backups"));
    let of = |stem: &str| copies.iter().filter(|name| name.starts_with(stem)).cloned().collect::<Vec<_>>();
    assert_eq!((of("seawall-").len(), of("emit-").len(), of("mine").len()), (2, 2, 1), "{copies:?}");
    assert_eq!(copies.len(), 5, "nothing half-written: {copies:?}");
    for stem in ["seawall-", "emit-"] {
        let copy = services.file("backups").join(of(stem).last().expect("one"));
        let rows = database::rows(&copy, "SELECT count(*) AS n FROM events").expect("it is a database");
        assert!(rows[0]["n"].as_i64().is_some_and(|n| n > 0), "{stem}");
    }

    let path = services.file("emit.db");
    let mut bytes = fs::read(&path).expect("read");
    bytes[4096..].fill(0x55);
    fs::write(&path, bytes).expect("damaged");
    assert_eq!(tasks(&services, &["run", "one"]).status.code(), Some(1));
    let outcomes = steps(&services, "task_failed");
    assert_eq!((outcomes[1].1.as_str(), outcomes[2].1.as_str()), ("failed", "failed"), "{outcomes:?}");
    let failed = services.last("task_failed");
    assert!(failed["stderr_tail"].as_str().is_some_and(|said| said.contains("emit.db is damaged")), "{failed}");
    let copies = names(&services.file("backups"));
    assert!(copies.iter().all(|name| !name.contains("half-written")), "{copies:?}");
}

#[test]
fn a_digest_tells_what_failed() {
    let services = task(
        &format!(
            "{{ name = \"bad\", command = {} }}, {{ run = \"digest\", since = \"1d\" }}",
            sh("echo 'no <disk>' >&2; exit 3")
        ),
        "",
    );
    services.to_the_end();
    services.to_the_end();
    let digests = names(&services.file("digests"));
    let newest = services.file("digests").join(digests.last().expect("one"));
    let page = fs::read_to_string(newest).expect("read");
    for part in ["# What failed from", "No call failed.", "| task_failed | one |"] {
        assert!(page.contains(part), "{part} is missing in\n{page}");
    }
    assert!(!page.contains("<disk>"), "what was said is no markup\n{page}");
}

#[test]
fn never_two_at_once_and_the_second_is_told_who_runs() {
    let services = task(&format!("{{ name = \"long\", command = {} }}", sh("echo $$ > pid; sleep 300")), "");
    let first = services.start();
    poll(WITHIN, || services.text("pid")).expect("it runs");
    let second = tasks(&services, &["run", "one"]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&format!("one is running already: process {}", first.pid())), "{said}");
    first.signal(Signal::TERM);
    first.end();
    assert_eq!(services.types(), ["service_start", "service_stop"]);
    assert_eq!(steps(&services, "service_stop"), pairs(&[("long", "failed")]));
    assert_eq!(services.last("service_stop")["steps"][0]["why"], "it was told to stop");
}

#[test]
fn a_task_that_is_killed_leaves_nothing_over_and_is_told_at_the_next_start() {
    let step = sh("sleep 300 & echo $! > grandchild; echo $$ > pid; sleep 300");
    let services = task(&format!("{{ name = \"long\", command = {step} }}"), "");
    let mut run = services.start();
    let pid = |name: &str| poll(WITHIN, || services.text(name)?.parse::<u32>().ok()).expect("it runs");
    let (child, grandchild) = (pid("pid"), pid("grandchild"));
    services.wait_for("service_start");
    run.kill();
    for pid in [child, grandchild] {
        assert!(poll(WITHIN, || (!lives(pid)).then_some(())).is_some(), "{pid} is left over");
    }
    let config = fs::read_to_string(services.file("servers.toml")).expect("read").replace("sleep 300", "true");
    services.folder.write("servers.toml", &config);
    assert_eq!(ending(services.to_the_end()), 0, "made up for");
    assert_eq!(services.types(), ["service_start", "crash_inferred", "service_restart", "task_done"]);
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let services =
        task(&format!("\"check\", {{ name = \"mine\", command = {}, retries = 1 }}", sh("echo x > ran")), EMIT);
    let said = tasks(&services, &["run", "one", "--dry-run"]);
    assert_eq!(said.status.code(), Some(0));
    let said = stdout(&said);
    for part in [
        "1. check: check that the databases are whole; within 10 min, attempts: 1",
        "2. mine: /bin/sh -c",
        "attempts: 2",
        "emit.db (not there yet)",
    ] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
    assert!(
        services.text("ran").is_none() && !services.file(".seawall").exists() && !services.file("seawall.db").exists()
    );
    let wrong = tasks(&services, &["run", "emit-server"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("runs for good and is no task"));
}

/// A day and a time of the week that passed a while ago: half a week.
fn weekly_half_a_week_ago() -> String {
    let then = on_the_wall(Duration::from_secs(84 * 3600));
    let day = format!("{:?}", then.weekday()).to_lowercase();
    format!("weekly {day} {:02}:{:02}", then.hour(), then.minute())
}

#[test]
fn a_task_that_has_just_been_installed_is_not_due_before_its_first_time_comes() {
    let step = format!("{{ name = \"s\", command = {} }}", sh("echo ran >> runs"));
    let services = task_at(&weekly_half_a_week_ago(), &step, "");
    for _ in 0..2 {
        let run = services.start();
        let log = run.log.clone();
        assert_eq!(ending(run.end()), 0);
        assert!(poll(WITHIN, || log.has("is not due before").then_some(())).is_some(), "{}", log.text());
    }
    assert_eq!((services.text("runs"), services.types()), (None, Vec::new()), "neither run nor missed");
    // Known for a week, its time has passed without a run.
    services.folder.write(".seawall/services/one.json", &json!({ "known_since_ms": days_ago_ms(7) }).to_string());
    assert_eq!(ending(services.to_the_end()), 0);
    assert_eq!(services.text("runs").as_deref(), Some("ran"));
    assert_eq!(services.last("task_missed")["missed"], 1);
    assert_eq!(services.last("task_missed")["action"], "made_up");
}

#[test]
fn one_that_runs_again_and_again_shows_when_it_runs_next() {
    let services = task_at("every 15m", "\"check\"", "");
    let next = || {
        let json = stdout(&tasks(&services, &["list", "--json"]));
        let shown: Value = serde_json::from_str(&json).expect("JSON");
        let listed = shown["next"].as_i64().unwrap_or_else(|| panic!("no time in {shown}"));
        let text = stdout(&tasks(&services, &["list"]));
        let (_, next) = text.split_once("every 15 min").unwrap_or_else(|| panic!("no row in\n{text}"));
        assert!(next.trim_start().starts_with(|c: char| c.is_ascii_digit()), "{text}");
        listed
    };
    let (before, soon) = (days_ago_ms(0), 15 * 60_000);
    let shown = next();
    assert!((before + soon..=days_ago_ms(0) + soon).contains(&shown), "at the latest, as nobody has seen it start");
    assert_eq!(ending(services.to_the_end()), 0);
    let started = services.marker()["life"]["started_ms"].as_i64().expect("a time");
    assert_eq!(next(), started + soon);
}

#[test]
fn a_damaged_database_is_no_empty_history() {
    let services = task("\"retention\"", "");
    assert_eq!(ending(services.to_the_end()), 0);
    fs::write(services.file("seawall.db"), "no database any more".repeat(1000)).expect("damaged");
    for words in [&["history"][..], &["list"]] {
        let output = tasks(&services, words);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("seawall.db cannot be read"), "{output:?}");
    }
    let listed = stdout(&tasks(&services, &["list"]));
    assert!(listed.contains("retention") && listed.contains('?'), "{listed}");
}

fn days_ago_ms(days: i64) -> i64 {
    i64::try_from(seawall::id::unix_ms()).expect("fits") - days * 86_400_000
}

fn alerts(services: &Services) -> Vec<(String, Value)> {
    let events = services.events().into_iter();
    events.filter(|(event_type, _)| event_type.starts_with("alert")).collect()
}

#[test]
fn a_task_that_keeps_failing_is_told_once_and_once_that_it_is_well() {
    let step = format!("{{ name = \"s\", command = {} }}", sh("test -e fine"));
    let services = task(&step, "[[alerts]]\ncommand = [\"/bin/sh\", \"-c\", \"cat >> told\"]");
    services.to_the_end();
    assert!(alerts(&services).is_empty(), "its first day is not over");
    services.folder.write(".seawall/services/one.json", &json!({ "settled_ms": days_ago_ms(3) }).to_string());
    services.to_the_end();
    services.to_the_end();
    let told = alerts(&services);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].0.as_str(), &told[0].1["reason"]), ("alert", &json!("overdue")));
    fs::write(services.file("fine"), "").expect("written");
    assert_eq!(ending(services.to_the_end()), 0);
    assert_eq!(ending(services.start_with(&["one", "--now"]).end()), 0);
    let told = alerts(&services);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((told[1].0.as_str(), &told[1].1["of"]), ("alert_over", &json!("overdue")));
    let lines = services.text("told").expect("told");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0]["message"].as_str().is_some_and(|said| said.starts_with("one has not succeeded for 3 d")),
        "{lines:?}"
    );
}

#[test]
fn a_task_that_is_never_started_is_missed_by_the_gateway() {
    let gateway = "[gateway]\nlisten = \"127.0.0.1:0\"\n[services.gateway]\nbuiltin = \"gateway\"";
    let services = task("\"check\"", gateway);
    services.folder.write(".seawall/services/one.json", &json!({ "settled_ms": days_ago_ms(9) }).to_string());
    let watch = services.start_with(&["gateway", "--sample-every", "20ms"]);
    let alert = services.wait_for("alert");
    assert_eq!((&alert["reason"], &alert["never"]), (&json!("overdue"), &json!(false)));
    // Told once, whoever looks.
    services.to_the_end();
    services.wait_for("alert_over");
    watch.signal(Signal::TERM);
    let mut watch = watch;
    watch.end_within(WITHIN);
    let told: Vec<String> = alerts(&services).into_iter().map(|(event_type, _)| event_type).collect();
    assert_eq!(told, ["alert", "alert_over"]);
}
