//! Every end of a service is on record before the supervisor hears of it, with what is
//! known of it; hangs end, leaks and crash loops are told once, and nothing is left over.

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{
    poll,
    service::{Services, daily_now, ending, lives, send},
};

const WITHIN: Duration = Duration::from_secs(10);

fn pid_in(services: &Services, name: &str) -> u32 {
    poll(WITHIN, || services.text(name)?.parse().ok()).expect("the script wrote its pid")
}

fn gone(pid: u32) -> bool {
    poll(WITHIN, || (!lives(pid)).then_some(())).is_some()
}

#[test]
fn an_exit_code_is_recorded_with_the_last_words_and_passed_on() {
    let services = Services::script("echo out; echo 'last words' >&2; exit 3", "");
    assert_eq!(ending(services.to_the_end()), 3);
    assert_eq!(services.types(), ["service_start", "service_crash"]);
    let crash = services.last("service_crash");
    for (key, expected) in [
        ("exit_code", json!(3)),
        ("signal", json!(null)),
        ("restart_attempt", json!(0)),
        ("stderr_tail", json!("last words")),
        ("planned", json!(false)),
    ] {
        assert_eq!(crash[key], expected, "{key} of {crash}");
    }
    assert!(crash["duration_ms"].as_u64().is_some_and(|ms| ms < 10_000));
    let keys: Vec<&String> = crash.as_object().expect("an object").keys().take(6).collect();
    assert_eq!(keys, ["exit_code", "signal", "restart_attempt", "duration_ms", "stderr_tail", "planned"]);

    assert_eq!(ending(services.to_the_end()), 3);
    assert_eq!(services.last("service_restart")["restart_attempt"], 1);
    assert_eq!(services.last("service_restart")["after"], "crashed");
    assert_eq!(services.last("service_crash")["restart_attempt"], 1);
}

#[test]
fn of_many_last_words_the_last_are_kept() {
    let services = Services::script(
        "seq -f 'at frame number %g of a long trace' 300 >&2; echo 'FATAL: the cause' >&2; exit 1",
        "",
    );
    assert_eq!(ending(services.to_the_end()), 1);
    let crash = services.last("service_crash");
    let words = crash["stderr_tail"].as_str().expect("words");
    assert!(words.ends_with("FATAL: the cause") && words.starts_with('…'), "{words}");
}

#[test]
fn a_signal_is_recorded_and_the_wrapper_ends_by_the_same() {
    for signal in [Signal::SEGV, Signal::KILL, Signal::ABORT, Signal::TERM] {
        let services = Services::script(&format!("kill -{} $$", signal.as_raw()), "");
        assert_eq!(ending(services.to_the_end()), -signal.as_raw());
        let crash = services.last("service_crash");
        assert_eq!((&crash["signal"], &crash["exit_code"]), (&json!(signal.as_raw()), &json!(null)));
    }
}

#[test]
fn a_request_to_stop_reaches_the_service_once_and_its_end_is_a_stop() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let script = "trap 'echo got >> terms; exit 0' TERM INT QUIT; echo $$ > pid; while :; do sleep 0.05; done";
        let services = Services::script(script, "");
        let run = services.start();
        pid_in(&services, "pid");
        run.signal(signal);
        assert_eq!(ending(run.end()), 0);
        assert_eq!(services.text("terms").as_deref(), Some("got"));
        assert_eq!(services.types(), ["service_start", "service_stop"]);
        assert_eq!(services.last("service_stop")["reason"], "requested");
    }
}

#[test]
fn other_signals_pass_through_and_end_nothing() {
    let services = Services::script(
        "trap 'echo usr1 >> got' USR1; trap 'echo hup >> got' HUP; trap 'echo usr2 >> got' USR2; echo $$ > pid; while :; do sleep 0.05; done",
        "",
    );
    let run = services.start();
    let pid = pid_in(&services, "pid");
    for (signal, word) in [(Signal::USR1, "usr1"), (Signal::HUP, "hup"), (Signal::USR2, "usr2")] {
        run.signal(signal);
        assert!(poll(WITHIN, || services.text("got")?.contains(word).then_some(())).is_some(), "{word}");
    }
    run.signal(Signal::TERM);
    // The shell has no trap for it, so it ends by the signal, and so does the wrapper.
    assert_eq!(ending(run.end()), -Signal::TERM.as_raw());
    assert!(gone(pid));
    assert_eq!(services.last("service_stop")["signal"], Signal::TERM.as_raw());
}

#[test]
fn one_that_ignores_sigterm_is_ended_with_all_that_it_started() {
    let services = Services::script(
        "trap '' TERM; sleep 300 & echo $! > grandchild; echo $$ > pid; while :; do sleep 0.05; done",
        "",
    );
    let run = services.start_with(&["one", "--stop-within", "300ms"]);
    let (pid, grandchild) = (pid_in(&services, "pid"), pid_in(&services, "grandchild"));
    run.signal(Signal::TERM);
    assert_eq!(ending(run.end()), -Signal::KILL.as_raw());
    assert!(gone(pid) && gone(grandchild), "nothing is left over");
    assert_eq!(services.last("service_stop")["signal"], Signal::KILL.as_raw());
}

#[test]
fn what_a_crashed_service_started_does_not_outlive_it() {
    let services = Services::script("sleep 300 & echo $! > grandchild; exit 1", "");
    let began = Instant::now();
    assert_eq!(ending(services.to_the_end()), 1);
    assert!(began.elapsed() < Duration::from_secs(200), "an open stderr is not waited for");
    assert!(gone(pid_in(&services, "grandchild")));
}

#[test]
fn a_wrapper_that_is_killed_takes_the_service_along_and_the_next_start_tells() {
    let services = Services::script("echo $$ > pid; sleep 300", "");
    let mut run = services.start();
    let pid = pid_in(&services, "pid");
    services.wait_for("service_start");
    run.kill();
    assert!(gone(pid), "the service ends with the one who watches it");

    fs::remove_file(services.file("pid")).expect("removed");
    let run = services.start();
    let inferred = services.wait_for("crash_inferred");
    assert_eq!((&inferred["reason"], &inferred["pid"]), (&json!("killed"), &json!(pid)));
    assert_eq!(services.wait_for("service_restart")["restart_attempt"], 1);
    pid_in(&services, "pid");
    run.signal(Signal::TERM);
    run.end();
    assert_eq!(services.types(), ["service_start", "crash_inferred", "service_restart", "service_stop"], "told once");
}

#[test]
fn a_loss_of_power_is_told_from_a_kill() {
    let services = Services::script("echo $$ > pid; sleep 300", "");
    let mut run = services.start();
    let pid = pid_in(&services, "pid");
    services.wait_for("service_start");
    run.kill();
    assert!(gone(pid));
    let marker = services.file(".seawall/services/one.json");
    let mut edited = services.marker();
    edited["life"]["boot_id"] = json!("another-boot");
    fs::write(marker, edited.to_string()).expect("written");
    let run = services.start();
    assert_eq!(services.wait_for("crash_inferred")["reason"], "power_or_reboot");
    run.signal(Signal::TERM);
    run.end();
}

#[test]
fn a_stranger_with_the_pid_of_a_service_that_is_gone_is_let_be() {
    let services = Services::script("echo $$ > pid; exec sleep 300", "");
    let mut stranger = std::process::Command::new("sleep").arg("300").spawn().expect("sleeps");
    // Two that begin within one tick of the clock could not be told apart.
    std::thread::sleep(Duration::from_millis(50));
    let mut run = services.start();
    let pid = pid_in(&services, "pid");
    services.wait_for("service_start");
    run.kill();
    assert!(gone(pid));
    let mut edited = services.marker();
    edited["life"]["pid"] = json!(stranger.id());
    fs::write(services.file(".seawall/services/one.json"), edited.to_string()).expect("written");
    let run = services.start();
    assert_eq!(services.wait_for("crash_inferred")["left_running"], false);
    assert!(lives(stranger.id()), "a pid that is used again is somebody else");
    stranger.kill().expect("killed");
    stranger.wait().expect("ended");
    run.signal(Signal::TERM);
    run.end();
}

#[test]
fn a_planned_recycle_is_no_crash_however_often_it_comes() {
    let services = Services::script("exit 75", "");
    for _ in 0..5 {
        assert_eq!(ending(services.to_the_end()), 75, "the supervisor starts it again");
    }
    let types = services.types();
    assert!(!types.iter().any(|known| known == "service_crash" || known == "alert"), "{types:?}");
    assert_eq!(services.last("service_stop")["planned"], true);
    assert_eq!(services.last("service_restart")["planned"], true);
    assert_eq!(services.last("service_restart")["restart_attempt"], 0);
}

#[test]
fn a_clean_end_is_a_stop_that_the_supervisor_lets_be() {
    let services = Services::script("exit 0", "");
    assert_eq!(ending(services.to_the_end()), 0);
    assert_eq!(services.last("service_stop")["reason"], "finished");
}

#[test]
fn a_locked_database_delays_the_end_by_less_than_a_second_and_the_next_start_brings_the_rows() {
    let services = Services::script("exit 7", "");
    services.to_the_end();
    let neighbour = Connection::open(services.file("seawall.db")).expect("opens");
    neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let began = Instant::now();
    assert_eq!(ending(services.to_the_end()), 7);
    assert!(began.elapsed() < Duration::from_secs(9), "two rows and their judgement: {:?}", began.elapsed());
    assert!(fs::metadata(services.file(".seawall/services/crash.jsonl")).is_ok_and(|file| file.len() > 0));
    neighbour.execute_batch("COMMIT").expect("unlocks");
    services.to_the_end();
    assert_eq!(services.types().iter().filter(|known| *known == "service_crash").count(), 3);
    assert!(!services.file(".seawall/services/crash.jsonl").exists());
}

#[test]
fn what_cannot_be_started_is_a_crash_with_a_reason() {
    for (toml, part) in [
        ("[services.one]\ncommand = [\"/no/such/program\"]\n", "no such file: /no/such/program"),
        ("[services.one]\ncommand = [\"true\"]\ncwd = \"./missing\"\n", "does not exist"),
        (
            "[services.one]\ncommand = [\"true\"]\nenv = { A = \"${NO_SUCH_VARIABLE}\" }\n",
            "NO_SUCH_VARIABLE is not set",
        ),
    ] {
        let services = Services::new(toml);
        assert_eq!(ending(services.to_the_end()), 78, "{toml}");
        let crash = services.last("service_crash");
        assert!(crash["stderr_tail"].as_str().is_some_and(|said| said.contains(part)), "{crash}");
    }
    // Looked up on PATH by the launcher itself, which says what is wrong.
    let services = Services::new("[services.one]\ncommand = [\"no-such-program-anywhere\"]\n");
    assert_eq!(ending(services.to_the_end()), 127);
    let said = services.last("service_crash")["stderr_tail"].as_str().expect("words").to_owned();
    assert!(said.contains("no-such-program-anywhere cannot be run"), "{said}");
}

#[test]
fn a_second_wrapper_is_told_who_the_first_is() {
    let services = Services::script("echo $$ > pid; sleep 300", "");
    let run = services.start();
    pid_in(&services, "pid");
    services.wait_for("service_start");
    let second = services.start();
    let log = second.log.clone();
    assert_eq!(ending(second.end()), 1);
    assert!(poll(WITHIN, || log.has(&format!("process {}", run.pid())).then_some(())).is_some(), "{}", log.text());
}

/// Takes one request after another and keeps their bodies.
fn webhook() -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let posted = Arc::<Mutex<Vec<Value>>>::default();
    let kept = posted.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            kept.lock().expect("not poisoned").extend(serde_json::from_slice::<Value>(&body));
            let _ = reader.into_inner().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (url, posted)
}

#[test]
fn a_crash_loop_is_told_once_to_everyone_and_a_storm_once_more() {
    let (url, posted) = webhook();
    let more = format!(
        "[[alerts]]\ncommand = [\"/bin/sh\", \"-c\", \"cat >> told\"]\n[[alerts]]\nwebhook = \"{url}\"\n\
         [[alerts]]\ncommand = [\"/no/such/program\"]\n"
    );
    let services = Services::script("exit 1", &more);
    for _ in 0..7 {
        assert_eq!(ending(services.to_the_end()), 1, "a sink that fails changes nothing");
    }
    let types = services.types();
    let count = |event_type: &str| types.iter().filter(|known| *known == event_type).count();
    assert_eq!((count("service_crash"), count("alert"), count("restart_storm")), (7, 1, 1), "{types:?}");
    assert_eq!(types.iter().position(|known| known == "alert"), Some(6), "right after the third crash: {types:?}");
    assert_eq!(services.last("alert")["crashes"], 3);
    let told: Vec<Value> =
        services.text("told").expect("told").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(told.iter().map(|message| &message["type"]).collect::<Vec<_>>(), ["alert", "restart_storm"]);
    assert_eq!(told[0]["service"], "one");
    assert_eq!(*posted.lock().expect("not poisoned"), told, "the webhook gets the same");
}

/// Events of the past, as an earlier life would have left them.
fn remember(services: &Services, rows: &[(&str, i64, Value)]) {
    let database = Connection::open(services.file("seawall.db")).expect("opens");
    let now = i64::try_from(seawall::id::unix_ms()).expect("fits");
    for (n, (event_type, ago_ms, metadata)) in rows.iter().enumerate() {
        database
            .execute(
                "INSERT INTO events VALUES (?1, ?2, 'service', ?3, 'one', ?4)",
                rusqlite::params![format!("0{n}"), now - ago_ms, event_type, metadata.to_string()],
            )
            .expect("written");
    }
}

#[test]
fn an_alert_is_over_once_when_the_service_has_been_well() {
    let services =
        Services::script("echo $$ > pid; sleep 300", "[[alerts]]\ncommand = [\"/bin/sh\", \"-c\", \"cat >> told\"]");
    let first = services.start();
    pid_in(&services, "pid");
    first.signal(Signal::TERM);
    first.end();
    remember(
        &services,
        &[
            ("service_crash", 420_000, json!({})),
            ("service_crash", 410_000, json!({})),
            ("service_crash", 400_000, json!({})),
            ("alert", 400_000, json!({})),
        ],
    );
    for _ in 0..2 {
        let run = services.start();
        assert_eq!(services.wait_for("alert_over")["of"], "alert");
        run.signal(Signal::TERM);
        run.end();
    }
    assert_eq!(services.types().iter().filter(|known| *known == "alert_over").count(), 1);
    assert!(services.text("told").is_some_and(|told| told.contains("alert_over")));
}

#[test]
fn a_crash_a_day_is_told_as_periodic() {
    const DAY: i64 = 86_400_000;
    let services = Services::script("exit 1", "");
    services.to_the_end();
    remember(&services, &[("service_crash", 2 * DAY, json!({})), ("service_crash", DAY, json!({}))]);
    // The rows are in the order in which they were written; the last crash comes now.
    let database = Connection::open(services.file("seawall.db")).expect("opens");
    database.execute("DELETE FROM events WHERE metadata LIKE '%exit_code%'", []).expect("deleted");
    drop(database);
    services.to_the_end();
    assert!(services.last("periodic_restart")["every_s"].as_u64().is_some_and(|every| every.abs_diff(86_400) < 60));
    assert!(!services.types().iter().any(|known| known == "alert"));
}

#[test]
fn a_service_that_hangs_is_recorded_and_ended() {
    // It takes connections, and never answers.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = deaf.local_addr().expect("an address");
    let health = format!(
        "health = {{ url = \"http://{address}/\", every = \"100ms\", misses = 3, timeout = \"200ms\", starts_within = \"100ms\" }}"
    );
    let services = Services::script("echo $$ > pid; exec sleep 300", &health);
    let run = services.start();
    assert_eq!(ending(run.end()), -Signal::ABORT.as_raw());
    let hang = services.last("service_hang");
    assert_eq!((&hang["seen"], &hang["misses"]), (&json!("no answer in time"), &json!(3)));
    let crash = services.last("service_crash");
    assert_eq!((&crash["reason"], &crash["signal"]), (&json!("hang"), &json!(Signal::ABORT.as_raw())));
    assert!(gone(pid_in(&services, "pid")));
    let _run = services.start();
    assert_eq!(services.wait_for("service_restart")["after"], "hung");
}

#[test]
fn one_that_is_stopped_in_its_tracks_is_killed() {
    let health = "health = { command = [\"/bin/sh\", \"-c\", \"grep -q '^State:.T' /proc/$(cat pid)/status && exit 1; exit 0\"], every = \"100ms\", misses = 2, starts_within = \"100ms\" }";
    let services = Services::script("echo $$ > pid; exec sleep 300", health);
    let run = services.start();
    let pid = pid_in(&services, "pid");
    assert!(poll(WITHIN, || (services.marker()["life"]["health"] == "well").then_some(())).is_some());
    send(pid, Signal::STOP);
    // SIGABRT waits with it; five seconds later SIGKILL does not.
    assert_eq!(ending(run.end()), -Signal::KILL.as_raw());
    assert_eq!(services.last("service_crash")["reason"], "hang");
    assert!(gone(pid));
}

#[test]
fn a_leak_is_told_once_a_life() {
    let leak = "x=; chunk=$(head -c 200000 /dev/zero | tr '\\0' a); while :; do x=$x$chunk; sleep 0.05; done";
    let services = Services::script(leak, "memory = { growth_per_hour = \"10MB\", max = \"1TiB\" }");
    let run = services.start_with(&["one", "--sample-every", "50ms"]);
    let growth = services.wait_for("memory_growth");
    assert!(growth["growth_bytes_per_hour"].as_f64().is_some_and(|rate| rate > 10e6), "{growth}");
    std::thread::sleep(Duration::from_millis(500));
    run.signal(Signal::TERM);
    run.end();
    assert_eq!(services.types().iter().filter(|known| *known == "memory_growth").count(), 1);
}

#[test]
fn too_much_memory_is_told_once_a_life() {
    let services = Services::script("exec sleep 300", "memory = \"100kB\"");
    let run = services.start_with(&["one", "--sample-every", "50ms"]);
    assert_eq!(services.wait_for("memory_growth")["max_bytes"], 100_000);
    run.signal(Signal::TERM);
    run.end();
    assert_eq!(services.types().iter().filter(|known| *known == "memory_growth").count(), 1);
}

#[test]
fn memory_is_that_of_the_whole_tree_and_of_its_daemons() {
    // Nobody reads what `tail` has kept.
    const HOLDS: &str = "head -c 40000000 /dev/zero | tail -c 40000000 | sleep 300";
    for script in [format!("{HOLDS}; true"), format!("(setsid sh -c '{HOLDS}; true' &) ; exec sleep 300")] {
        let services = Services::script(&script, "memory = \"30MB\"");
        let run = services.start_with(&["one", "--sample-every", "50ms"]);
        assert_eq!(services.wait_for("memory_growth")["max_bytes"], 30_000_000);
        run.signal(Signal::TERM);
        run.end();
    }
}

#[test]
fn a_scheduled_one_runs_once_for_its_slot_and_again_when_it_failed() {
    let services = Services::script("echo ran >> runs; test -e fine", &format!("schedule = \"{}\"", daily_now()));
    assert_eq!(ending(services.to_the_end()), 1);
    assert_eq!(services.last("task_failed")["exit_code"], 1);
    // Known since just before its slot, so that it is due for it all day long.
    let known = services.marker()["known_since_ms"].as_i64().expect("a time");
    assert_eq!((known + 1) % 60_000, 0, "{known}");
    fs::write(services.file("fine"), "").expect("written");
    assert_eq!(ending(services.to_the_end()), 0, "tried again, since it did not succeed");
    assert_eq!(services.last("task_done")["exit_code"], 0);
    let run = services.start();
    let log = run.log.clone();
    assert_eq!(ending(run.end()), 0);
    assert!(poll(WITHIN, || log.has("is not due before").then_some(())).is_some());
    assert_eq!(services.text("runs").expect("ran").lines().count(), 2, "not due");
    assert_eq!(ending(services.start_with(&["one", "--now"]).end()), 0);
    assert_eq!(services.text("runs").expect("ran").lines().count(), 3);
}

#[test]
fn missed_days_are_one_run_and_one_event() {
    for (policy, ran) in [("run", true), ("skip", false)] {
        // Twenty minutes ago by the clock on the wall, which is late enough.
        let twenty_minutes_ago = seawall::id::unix_ms() / 60_000 * 60_000 - 20 * 60_000;
        let slot = jiff::Timestamp::from_millisecond(i64::try_from(twenty_minutes_ago).expect("fits")).expect("a time");
        let on_the_wall = jiff::tz::TimeZone::system().to_datetime(slot);
        let schedule = format!(
            "schedule = \"daily {:02}:{:02}\"\nmissed = \"{policy}\"",
            on_the_wall.hour(),
            on_the_wall.minute()
        );
        let services = Services::script("echo ran >> runs", &schedule);
        let four_days_ago = slot.as_millisecond() - 4 * 86_400_000 + 1000;
        services.folder.write(".seawall/services/one.json", &json!({ "settled_ms": four_days_ago }).to_string());
        for _ in 0..3 {
            services.to_the_end();
        }
        let runs = services.text("runs").map_or(0, |runs| runs.lines().count());
        assert_eq!(runs, usize::from(ran), "{policy}");
        let missed: Vec<Value> =
            services.events().into_iter().filter(|(known, _)| known == "task_missed").map(|(_, m)| m).collect();
        assert_eq!(missed.len(), 1, "{missed:?}");
        assert_eq!(missed[0]["missed"], 4);
    }
}

#[cfg(not(feature = "embedding"))]
#[test]
fn a_service_that_was_not_built_in_says_so_and_ends_well() {
    let services = Services::new("[services.one]\nbuiltin = \"embedding\"\n");
    let run = services.start();
    let log = run.log.clone();
    assert_eq!(ending(run.end()), 0);
    assert!(poll(WITHIN, || log.has("built without the embedding server").then_some(())).is_some(), "{}", log.text());
    let config = services.file("servers.toml");
    let refused = support::gateway::run_seawall(&["embedding-server"], &config, WITHIN);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("cargo build --release --features embedding") && said.lines().count() == 1, "{said}");
}

#[test]
fn which_service_is_meant_is_asked_for_in_the_same_words_by_all_of_them() {
    let all = [
        ("emit-server", "emit", "emit servers", ""),
        ("embedding-server", "embedding", "embedding servers", "model = \"./m\""),
        ("file-watcher", "watch", "file watchers", "folders = [\"./in\"]"),
    ];
    for (command, builtin, plural, options) in all {
        if builtin == "embedding" && cfg!(not(feature = "embedding")) {
            continue;
        }
        let service = |name: &str| format!("[services.{name}]\nbuiltin = \"{builtin}\"\noptions = {{ {options} }}\n");
        let none = Services::new("");
        let two = Services::new(&(service("a") + &service("b")));
        let said = |services: &Services, words: &[&str]| {
            let words: Vec<&str> = [command].iter().chain(words).copied().collect();
            let output = support::gateway::run_seawall(&words, &services.file("servers.toml"), WITHIN);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            String::from_utf8(output.stderr).expect("UTF-8")
        };
        let missing = said(&none, &[]);
        assert!(
            missing.contains(&format!("there is no [services.{command}] with builtin = \"{builtin}\" in ")),
            "{missing}"
        );
        assert!(missing.contains(&format!("; write:\n[services.{command}]\nbuiltin = \"{builtin}\"")), "{missing}");
        let several = said(&two, &[]);
        assert!(several.contains(&format!("there are several {plural}; say which one: a or b")), "{several}");
        let wrong = said(&two, &["c"]);
        assert!(wrong.contains("there is no [services.c] with") && wrong.contains("; there are: a, b"), "{wrong}");
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

#[test]
fn the_gateway_is_watched_by_a_call_through_its_whole_stack() {
    let port = free_port();
    let services = Services::new(&format!(
        "[gateway]\nlisten = \"127.0.0.1:{port}\"\ntoken = \"t0ken\"\n[servers.seawall]\nbuiltin = \"seawall\"\n[services.one]\nbuiltin = \"gateway\"\n\
         health = {{ mcp = \"http://127.0.0.1:{port}/mcp\", tool = \"seawall__servers\", every = \"200ms\", misses = 3, timeout = \"1s\", starts_within = \"20s\" }}\n"
    ));
    let run = services.start();
    let is_well = || (services.marker()["life"]["health"] == "well").then_some(());
    services.wait_for("service_start");
    assert!(poll(WITHIN, is_well).is_some(), "{}\n{}", services.marker(), run.log.text());
    let pid = services.marker()["life"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
    send(pid, Signal::STOP);
    let hang = services.wait_for("service_hang");
    assert_eq!(hang["seen"], "no answer in time");
    assert_eq!(ending(run.end()), -Signal::KILL.as_raw());
    // And the next one comes up again, and ends well.
    let run = services.start();
    assert!(poll(WITHIN, is_well).is_some(), "{}", run.log.text());
    run.signal(Signal::TERM);
    assert_eq!(ending(run.end()), 0);
}

#[test]
fn a_handshake_and_a_ping_are_health_too() {
    let port = free_port();
    let services = Services::new(&format!(
        "[gateway]\nlisten = \"127.0.0.1:{port}\"\n[servers.seawall]\nbuiltin = \"seawall\"\n[services.one]\nbuiltin = \"gateway\"\n\
         health = {{ mcp = \"http://127.0.0.1:{port}/mcp\", every = \"100ms\", starts_within = \"20s\" }}\n"
    ));
    let run = services.start();
    let is_well = || (services.marker()["life"]["health"] == "well").then_some(());
    assert!(poll(WITHIN, is_well).is_some(), "{}\n{}", services.marker(), run.log.text());
    run.signal(Signal::TERM);
    assert_eq!(ending(run.end()), 0);
}

#[test]
fn an_error_that_nobody_caught_ends_the_gateway_with_a_code_and_its_words_are_on_record() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let services =
        Services::new(&format!("[gateway]\nlisten = \"{address}\"\n[services.one]\nbuiltin = \"gateway\"\n"));
    assert_eq!(ending(services.to_the_end()), 1);
    let crash = services.last("service_crash");
    let words = crash["stderr_tail"].as_str().expect("words");
    assert!(words.contains(&format!("cannot listen on {address}")), "{crash}");
    assert_eq!(crash["exit_code"], 1);
}

/// Debian's `jeprof` reads it too, where there is one.
#[test]
fn usr2_makes_a_service_of_seawalls_own_write_a_heap_profile() {
    let services = Services::new(&format!(
        "[gateway]\nlisten = \"127.0.0.1:{}\"\n[servers.seawall]\nbuiltin = \"seawall\"\n[services.one]\nbuiltin = \"gateway\"\n",
        free_port()
    ));
    let run = services.start();
    // It hears signals once it says that it listens.
    assert!(poll(WITHIN, || run.log.has("listening on").then_some(())).is_some(), "{}", run.log.text());
    run.signal(Signal::USR2);
    let written = || {
        let mut files = fs::read_dir(services.file(".seawall/heap")).ok()?.flatten().map(|entry| entry.path());
        files.find(|path| fs::metadata(path).is_ok_and(|file| file.len() > 0))
    };
    let profile = poll(WITHIN, written).unwrap_or_else(|| panic!("no profile\n{}", run.log.text()));
    assert!(fs::read(&profile).expect("read").starts_with(b"heap_v2/"), "{}", profile.display());
    match Command::new("jeprof").args(["--text", "--cum"]).arg(env!("CARGO_BIN_EXE_seawall")).arg(&profile).output() {
        Ok(read) => {
            let table = String::from_utf8_lossy(&read.stdout).into_owned();
            assert!(
                read.status.success() && table.contains("Total:"),
                "{table}{}",
                String::from_utf8_lossy(&read.stderr)
            );
        }
        Err(_) => println!("skipped: no jeprof on PATH"),
    }
    run.signal(Signal::TERM);
    assert_eq!(ending(run.end()), 0, "and it goes on until it is told to stop");
}

#[test]
fn whatever_moment_the_wrapper_is_killed_at_every_death_has_its_record() {
    let services = Services::script("sleep 0.0$(( $$ % 7 )); exit 9", "");
    let mut starts = 0;
    for round in 0..30_u32 {
        let mut run = services.start();
        std::thread::sleep(Duration::from_millis(u64::from(round % 10) * 15));
        run.kill();
        starts += 1;
    }
    services.to_the_end();
    starts += 1;
    let types = services.types();
    let count = |event_type: &str| types.iter().filter(|known| *known == event_type).count();
    let lives = count("service_start") + count("service_restart");
    let deaths = count("service_crash") + count("crash_inferred");
    // A wrapper killed before its child began has no life to record; one killed between
    // the child's start and the row of it has a death all the same.
    assert!(deaths >= lives && deaths <= starts, "{lives} lives, {deaths} deaths, {starts} starts: {types:?}");
    let mut dead: Vec<Value> = services
        .events()
        .into_iter()
        .filter(|(known, _)| known == "service_crash" || known == "crash_inferred")
        .map(|(_, metadata)| metadata["pid"].clone())
        .collect();
    let told = dead.len();
    dead.sort_by_key(Value::to_string);
    dead.dedup();
    assert_eq!(dead.len(), told, "no death is told twice");
    let whole: String = Connection::open(services.file("seawall.db"))
        .expect("opens")
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("checked");
    assert_eq!(whole, "ok");
}

#[test]
fn services_are_shown_as_they_are() {
    let services = Services::new(
        "[services.one]\ncommand = [\"/bin/sh\", \"-c\", \"echo boom >&2; exit 3\"]\n\
         [services.two]\ncommand = [\"sleep\", \"300\"]\n\
         [services.nightly]\ncommand = [\"true\"]\nschedule = \"daily 00:00\"\n\
         [services.never]\ncommand = [\"true\"]\n[services.later]\nbuiltin = \"embedding\"\n",
    );
    services.to_the_end();
    services.to_the_end();
    assert_eq!(ending(services.start_with(&["nightly"]).end()), 0);
    let _two = services.start_with(&["two", "--sample-every", "100ms"]);
    let config = services.file("servers.toml");
    let show = |words: &[&str]| support::gateway::run_seawall(words, &config, WITHIN);
    let shown = poll(WITHIN, || {
        let shown: Value = serde_json::from_slice(&show(&["services", "--json"]).stdout).ok()?;
        shown["services"]["two"]["memory_bytes"].is_u64().then_some(shown)
    })
    .expect("two has memory");
    let state = |name: &str| shown["services"][name]["state"].as_str().expect("a state").to_owned();
    let later = if cfg!(feature = "embedding") { "never started" } else { "not built in" };
    assert_eq!(
        ["one", "two", "nightly", "never", "later"].map(state),
        ["down", "running", "waiting", "never started", later]
    );
    assert_eq!(shown["services"]["one"]["last_crash"]["why"], "exit code 3: boom");
    assert_eq!(
        (&shown["services"]["one"]["restarts_7d"], &shown["services"]["one"]["crashes_7d"]),
        (&json!(1), &json!(2))
    );
    assert!(shown["services"]["two"]["uptime_ms"].is_u64(), "{shown}");
    assert!(shown["services"]["nightly"]["next_run"].is_i64() && shown["services"]["nightly"]["well"] == true);
    let text = show(&["services"]);
    assert_eq!(text.status.code(), Some(1), "one is down");
    assert!(String::from_utf8_lossy(&text.stdout).contains("exit code 3: boom"));
}

#[test]
fn a_mistyped_word_is_never_answered_with_one_that_is_for_seawall_itself() {
    let said = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_seawall")).args(words).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    let services = said(&["service-help"]);
    assert!(services.contains("'services'") && !services.contains("service-helper"), "{services}");
    let tasks = said(&["tasks", "stps"]);
    assert!(tasks.contains("unrecognized subcommand") && !tasks.contains("step"), "{tasks}");
    let run = said(&["run", "one", "--stop-with", "1s"]);
    assert!(run.contains("unexpected argument") && !run.contains("--stop-within"), "{run}");
    let shown = said(&["check", "--jsn"]);
    assert!(shown.contains("--json"), "{shown}");
}
