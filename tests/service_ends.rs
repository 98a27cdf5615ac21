//! Nothing is left over of a service, whoever is killed: what it started, the probes of its
//! health, and those who are told of alerts; and none of them holds up its end.

mod support;

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{
    database,
    disk::Disk,
    poll,
    service::{Services, daily_now, ending, lives, send},
};

const WITHIN: Duration = Duration::from_secs(30);

/// Daemons of all kinds: in the group, in a session of its own, and one that was forked twice.
const DAEMONS: &str = "sleep 300 & echo $! >> pids; setsid sleep 300 & echo $! >> pids; \
    (setsid sh -c 'echo $$ >> pids; exec sleep 300' &) ; \
    while test $(wc -l < pids) -lt 3; do sleep 0.02; done; ";

fn pids(services: &Services, file: &str, count: usize) -> Vec<u32> {
    let read = || {
        let pids: Vec<u32> = services.text(file)?.lines().filter_map(|pid| pid.parse().ok()).collect();
        (pids.len() >= count).then_some(pids)
    };
    poll(WITHIN, read).unwrap_or_else(|| panic!("{count} pids in {file}: {:?}", services.text(file)))
}

fn are_gone(pids: &[u32]) {
    for pid in pids {
        assert!(poll(WITHIN, || (!lives(*pid)).then_some(())).is_some(), "{pid} is left over");
    }
}

#[test]
fn what_a_killed_wrapper_left_is_ended_by_the_next_start_which_tells_and_nobody_elses() {
    let services = Services::script(&format!("{DAEMONS} echo $$ > pid; exec sleep 300"), "");
    // Another service of the same folder, and one of another folder with the same name.
    let others =
        "\n[services.two]\ncommand = [\"/bin/sh\", \"-c\", \"setsid sleep 300 & echo $! > two; exec sleep 300\"]\n";
    let config = fs::read_to_string(services.file("servers.toml")).expect("read") + others;
    services.folder.write("servers.toml", &config);
    let elsewhere = Services::script("setsid sleep 300 & echo $! > one; exec sleep 300", "");
    let (_two, _elsewhere) = (services.start_with(&["two"]), elsewhere.start());
    let strangers = [pids(&services, "two", 1)[0], pids(&elsewhere, "one", 1)[0]];

    let mut run = services.start();
    pids(&services, "pid", 1);
    services.wait_for("service_start");
    let left = pids(&services, "pids", 3);
    run.kill();
    assert!(left.iter().all(|pid| lives(*pid)), "nobody is there who could end them");

    fs::remove_file(services.file("pids")).expect("removed");
    let again = services.start();
    let inferred = services.wait_for("crash_inferred");
    are_gone(&left);
    assert_eq!(inferred["left_running"], true, "{inferred}");
    let told = inferred["ended_leftovers"]["processes"].as_array().expect("processes");
    for pid in &left {
        let found = told.iter().find(|process| process["pid"] == *pid);
        assert_eq!(found.expect("told")["command"], "sleep 300", "{inferred}");
    }
    assert!(inferred["ended_leftovers"]["count"].as_u64().is_some_and(|count| count >= 3), "{inferred}");
    let said = || again.log.has("ended what an earlier run of one had left running").then_some(());
    assert!(poll(WITHIN, said).is_some(), "{}", again.log.text());
    assert!(strangers.iter().all(|pid| lives(*pid)), "another service's are let be");

    // And nothing of the new one was taken for the old one's.
    let new = pids(&services, "pids", 3);
    assert!(new.iter().all(|pid| lives(*pid)));
    again.signal(Signal::TERM);
    again.end();
    are_gone(&new);
}

#[test]
fn a_wrapper_that_is_killed_before_it_could_write_the_start_down_leaves_a_mark_all_the_same() {
    let services = Services::script(&format!("{DAEMONS} echo $$ > pid; exec sleep 300"), "");
    let mut run = services.start();
    pids(&services, "pid", 1);
    let left = pids(&services, "pids", 3);
    services.wait_for("service_start");
    run.kill();
    // As if it had been killed between the child's start and the row of it.
    let mut marker = services.marker();
    marker["life"] = json!(null);
    services.folder.write(".seawall/services/one.json", &marker.to_string());
    fs::remove_file(services.file("pids")).expect("removed");
    let again = services.start();
    pids(&services, "pids", 3);
    are_gone(&left);
    let second = || {
        let mut starts = services.events().into_iter().filter(|(known, _)| known == "service_start");
        starts.nth(1).map(|(_, metadata)| metadata)
    };
    let start = poll(WITHIN, second).expect("a second start");
    assert!(start["ended_leftovers"]["count"].as_u64() >= Some(3), "{start}");
    again.signal(Signal::TERM);
    again.end();
}

#[test]
fn daemons_end_with_their_service_also_those_without_an_environment() {
    let naked = "setsid sh -c 'env -i /bin/sh -c \"echo \\$\\$ >> pids; exec /bin/sleep 300\" &' & \
        while test $(wc -l < pids) -lt 4; do sleep 0.02; done; ";
    let services = Services::script(&format!("{DAEMONS} {naked} exit 1"), "");
    assert_eq!(ending(services.to_the_end()), 1);
    are_gone(&pids(&services, "pids", 4));
}

#[test]
fn a_service_that_ends_well_and_leaves_others_running_is_told_of() {
    let services = Services::script(&format!("{DAEMONS} exit 0"), "");
    let mut run = services.start();
    assert_eq!(ending(run.end_within(WITHIN)), 0);
    let left = pids(&services, "pids", 3);
    are_gone(&left);
    assert_eq!(services.types(), ["service_start", "service_stop", "leftovers_ended"]);
    let told = &services.last("leftovers_ended")["ended_leftovers"];
    assert_eq!(told["count"], 3, "{told}");
    for pid in left {
        let mut processes = told["processes"].as_array().expect("processes").iter();
        let found = processes.find(|process| process["pid"] == pid).expect("told");
        // Or the shell that was about to become it.
        assert!(found["command"].as_str().is_some_and(|command| command.contains("sleep 300")), "{found}");
        assert_eq!(found["not_ended"], json!(null));
    }
    assert!(run.log.has("ended what one had left running: "), "{}", run.log.text());
}

/// One that has become another user's, of a `seawall run` that may not signal those: root
/// without that capability.
#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_signalled_is_said_and_waited_for_with_a_bound() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can be somebody else");
        return;
    }
    let services = Services::script("echo $$ >> pids; exec setpriv --reuid 65534 --clear-groups sleep 300", "");
    let config = services.file("servers.toml");
    let start = || {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-kill", env!("CARGO_BIN_EXE_seawall"), "run", "one", "--stop-within", "1s"]);
        command.arg("--config").arg(&config).current_dir(services.folder.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started")
    };
    let end = |mut run: std::process::Child| {
        send(run.id(), Signal::TERM);
        if poll(WITHIN, || run.try_wait().expect("asked")).is_none() {
            run.kill().expect("killed");
        }
        run.wait_with_output().expect("waited for")
    };
    let is_another = |pid: u32| {
        let status = || fs::read_to_string(format!("/proc/{pid}/status")).ok();
        poll(WITHIN, || status()?.contains("Uid:\t65534").then_some(())).is_some()
    };

    let run = start();
    let first = pids(&services, "pids", 1)[0];
    assert!(is_another(first));
    let output = end(run);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(lives(first) && said.contains("one cannot be told to stop, since it is another user's"), "{said}");
    let stop = services.last("service_stop");
    assert!(stop["problem"].as_str().is_some_and(|why| why.contains("cannot be ended")), "{stop}");
    assert_eq!(services.last("leftovers_ended")["ended_leftovers"]["not_ended"], 1);

    // The next one finds it, says so, and runs all the same.
    let run = start();
    let second = pids(&services, "pids", 2)[1];
    assert!(is_another(second));
    let found = || services.events().into_iter().filter(|(known, _)| known == "service_start").nth(1);
    let (_, started) = poll(WITHIN, found).expect("a second start");
    assert_eq!(started["ended_leftovers"]["not_ended"], 1, "{started}");
    let said = String::from_utf8_lossy(&end(run).stderr).into_owned();
    let told = format!("an earlier run of one has left running {first} (sleep 300), which cannot be ended from here");
    assert!(said.contains(&told), "{said}");
    [first, second].into_iter().for_each(|pid| send(pid, Signal::KILL));
    are_gone(&[first, second]);
}

#[test]
fn what_a_service_orphans_while_it_runs_is_buried() {
    let script = "for i in 1 2 3 4 5; do (sleep 0.01 &) ; done; echo $$ > pid; exec sleep 300";
    let services = Services::script(script, "");
    let run = services.start();
    let service = pids(&services, "pid", 1)[0];
    let children = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", run.pid())).expect("it runs").flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let only = poll(WITHIN, || (children() == [service.to_string()]).then_some(()));
    assert!(only.is_some(), "{:?}", children());
    run.signal(Signal::TERM);
    run.end();
}

#[test]
fn a_probe_that_takes_too_long_ends_with_all_that_it_started() {
    let probe = "setsid sleep 300 & echo $! >> pids; sleep 300 & echo $! >> pids; wait";
    let health = format!(
        "health = {{ command = [\"/bin/sh\", \"-c\", {}], every = \"100ms\", misses = 2, timeout = \"1s\", starts_within = \"100ms\" }}",
        json!(probe)
    );
    let services = Services::script("exec sleep 300", &health);
    assert_eq!(ending(services.start().end_within(WITHIN)), -Signal::ABORT.as_raw());
    assert_eq!(services.last("service_hang")["seen"], "the probe did not end in time");
    are_gone(&pids(&services, "pids", 2));
}

#[test]
fn a_probe_that_ends_well_leaves_nothing_either() {
    let probe = "setsid sleep 300 & echo $! >> pids; sleep 300 & echo $! >> pids";
    let health = format!("health = {{ command = [\"/bin/sh\", \"-c\", {}], every = \"100ms\" }}", json!(probe));
    let services = Services::script("exec sleep 300", &health);
    let run = services.start();
    are_gone(&pids(&services, "pids", 4)[..4]);
    run.signal(Signal::TERM);
    run.end();
}

/// It carries no mark, and is in no group of anybody's.
#[cfg(target_os = "linux")]
const NAKED: &str = "setsid env -i /bin/sh -c 'echo $$ >> pids; exec /bin/sleep 300' & \
    until test -s pids; do sleep 0.02; done; ";

#[cfg(target_os = "linux")]
#[test]
fn what_a_probe_leaves_without_an_environment_ends_with_the_probe_and_is_not_the_services() {
    let probe = json!(NAKED.replace("$$", "$$$$"));
    let health = format!("health = {{ command = [\"/bin/sh\", \"-c\", {probe}], every = \"100ms\" }}");
    let services = Services::script("exec sleep 300", &health);
    let run = services.start();
    are_gone(&pids(&services, "pids", 1)[..1]);
    run.signal(Signal::TERM);
    run.end();
    are_gone(&pids(&services, "pids", 1));
    assert_eq!(services.types(), ["service_start", "service_stop"]);
}

#[cfg(target_os = "linux")]
#[test]
fn what_those_who_are_told_leave_without_an_environment_ends_with_them() {
    let sink = format!("[[alerts]]\ncommand = [\"/bin/sh\", \"-c\", {}]\n", json!(NAKED.replace("$$", "$$$$")));
    let services = Services::script("exit 1", &sink);
    let ends = || (0..3).for_each(|_| assert_eq!(ending(services.start().end_within(WITHIN)), 1));
    ends();
    are_gone(&pids(&services, "pids", 1));
    assert!(!services.types().contains(&"leftovers_ended".to_owned()), "{:?}", services.types());
}

#[test]
fn of_those_who_are_told_only_the_last_words_are_in_the_log() {
    let flood = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo cannot tell >&2; exit 1";
    let sink = format!("[[alerts]]\ncommand = [\"/bin/sh\", \"-c\", {}]\n", json!(flood));
    let services = Services::script("exit 1", &sink);
    let logs: Vec<_> = (0..3)
        .map(|_| {
            let mut run = services.start();
            assert_eq!(ending(run.end_within(WITHIN)), 1);
            run.log.clone()
        })
        .collect();
    let said = poll(WITHIN, || logs.iter().find(|log| log.has("could not be told by command"))).expect("it is said");
    assert!(said.has("cannot tell") && said.text().len() < 10_000, "{}", said.text());
}

/// A container has one process that all orphans fall to and that no signal ends by default.
#[cfg(target_os = "linux")]
#[test]
fn as_the_first_process_of_a_container_it_buries_orphans_and_ends_with_a_code_of_a_signal() {
    let container = ["-Urpf", "--mount-proc"];
    let unshared = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(container).args(words).stdin(Stdio::null());
        command
    };
    if !unshared(&["true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("no container can be had here");
        return;
    }
    let script = "(setsid sh -c 'echo $$ > orphan' &); while ! test -s orphan; do sleep 0.02; done; \
        orphan=$(cat orphan); while test -e /proc/$orphan; do sleep 0.02; done; echo buried > buried; \
        cat /proc/1/comm > first; kill -TERM $$; sleep 300";
    let services = Services::script(script, "");
    let config = services.file("servers.toml");
    let seawall = [env!("CARGO_BIN_EXE_seawall"), "run", "one", "--config", config.to_str().expect("UTF-8")];
    let mut child = unshared(&seawall).current_dir(services.folder.path()).spawn().expect("started");
    let ended = poll(WITHIN, || child.try_wait().expect("asked"));
    if ended.is_none() {
        child.kill().expect("killed");
    }
    assert_eq!(services.text("buried").as_deref(), Some("buried"));
    assert_eq!(services.text("first").as_deref(), Some("seawall"));
    assert_eq!(ending(ended.expect("it ends")), 128 + Signal::TERM.as_raw());
    assert_eq!(services.last("service_crash")["signal"], Signal::TERM.as_raw());
}

#[test]
fn a_probe_under_way_does_not_hold_up_the_end() {
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("url = \"http://{}/\"", deaf.local_addr().expect("an address"));
    let command = "command = [\"/bin/sh\", \"-c\", \"touch asked; echo $$$$ >> pids; exec sleep 3000\"]";
    for probe in [url.as_str(), command] {
        let health = format!("health = {{ {probe}, every = \"100ms\", timeout = \"1h\" }}");
        let services = Services::script("while ! test -e go; do sleep 0.02; done; exit 3", &health);
        let run = services.start();
        if probe == url {
            deaf.accept().expect("it asks");
        } else {
            poll(WITHIN, || services.file("asked").exists().then_some(())).expect("it asks");
        }
        fs::write(services.file("go"), "").expect("written");
        let mut run = run;
        assert_eq!(ending(run.end_within(WITHIN)), 3, "the probe had an hour");
    }
}

#[test]
fn those_who_are_told_of_an_alert_hold_up_the_end_for_three_seconds_in_all() {
    let sink = "cat >> told; setsid sleep 300 & echo $! >> pids; exec sleep 300";
    let sink = format!("[[alerts]]\ncommand = [\"/bin/sh\", \"-c\", {}]\n", json!(sink));
    let services = Services::script("exit 1", &sink.repeat(3));
    let mut logs = Vec::new();
    for _ in 0..3 {
        let run = services.start();
        logs.push(run.log.clone());
        let mut run = run;
        assert_eq!(ending(run.end_within(WITHIN)), 1);
    }
    let last = logs.last().expect("three");
    let given_up = || last.lines().iter().filter(|line| line.contains("it had not ended 3 s after")).count();
    assert!(poll(WITHIN, || (given_up() == 3).then_some(())).is_some(), "{}", last.text());
    assert_eq!(services.text("told").expect("told").lines().count(), 3, "each was told");
    are_gone(&pids(&services, "pids", 3));
}

#[test]
fn a_desktop_gets_a_title_and_a_text_and_nothing_that_could_be_an_option() {
    let services = Services::script("exit 1", "[[alerts]]\ndesktop = true\n");
    let fake = services.folder.write("bin/notify-send", "#!/bin/sh\nprintf '%s\\n' \"$@\" >> shown\n");
    make_runnable(&fake);
    let path = format!("{}:{}", services.file("bin").display(), std::env::var("PATH").expect("a PATH"));
    for _ in 0..3 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.args(["run", "one", "--config"]).arg(services.file("servers.toml")).env("PATH", &path);
        command.current_dir(services.folder.path()).stderr(Stdio::null());
        assert_eq!(ending(command.status().expect("it runs")), 1);
    }
    assert_eq!(
        services.text("shown").as_deref(),
        Some("--app-name=seawall\n--\none keeps crashing\none crashed 3 times within 5 min")
    );
}

fn make_runnable(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("changed");
}

#[test]
fn a_state_folder_that_takes_nothing_stops_no_service_and_is_said_aloud() {
    let script = "echo ran >> runs; exit 3";
    // A file in the place of a folder: not even root can write below it.
    for (database, is_recorded) in [("seawall.db", true), ("blocked/seawall.db", false)] {
        let services = Services::script(script, "");
        services.folder.write("blocked", "");
        let gateway = format!("[gateway]\nstate = \"./blocked/state\"\ndatabase = \"./{database}\"\n");
        let config = fs::read_to_string(services.file("servers.toml")).expect("read") + &gateway;
        services.folder.write("servers.toml", &config);
        let run = services.start();
        let log = run.log.clone();
        assert_eq!(ending(run.end()), 3, "{}", log.text());
        assert_eq!(services.text("runs").as_deref(), Some("ran"));
        let said = |part: &str| assert!(poll(WITHIN, || log.has(part).then_some(())).is_some(), "{}", log.text());
        said("the state of one cannot be kept in");
        if is_recorded {
            assert_eq!(services.types(), ["service_start", "service_crash"]);
            let problem = services.last("service_start")["state_problem"].clone();
            assert!(problem.as_str().is_some_and(|said| said.contains("cannot be kept")), "{problem}");
        } else {
            said("service_crash of one could not be recorded: {");
            said("\"exit_code\":3");
        }
    }
}

/// Its stderr is a pipe that stays open and that nobody reads.
fn unheard(services: &Services) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(["run", "one", "--config"]).arg(services.file("servers.toml")).current_dir(services.folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("seawall can be started")
}

/// More than any pipe or queue takes.
const FLOOD: &str = "head -c 2000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo last words >&2; ";

fn end_unheard(run: &mut std::process::Child) -> i32 {
    let ended = poll(WITHIN, || run.try_wait().expect("a child can be asked"));
    if ended.is_none() {
        run.kill().expect("a child can be killed");
    }
    ending(ended.expect("it waits for one who does not read its stderr"))
}

#[test]
fn nobody_who_reads_its_stderr_is_needed_for_an_end() {
    let services = Services::script(&format!("{FLOOD} setsid sleep 300 & echo $! >> pids; exit 3"), "");
    assert_eq!(end_unheard(&mut unheard(&services)), 3);
    are_gone(&pids(&services, "pids", 1));
    assert_eq!(services.types(), ["service_start", "service_crash", "leftovers_ended"]);
    let tail = services.last("service_crash")["stderr_tail"].clone();
    assert!(tail.as_str().is_some_and(|tail| tail.ends_with("last words")), "{tail}");
}

#[test]
fn nobody_who_reads_its_stderr_is_needed_for_a_hang_or_a_stop() {
    let probe = "command = [\"/bin/sh\", \"-c\", \"! test -e said\"]";
    let health = format!("health = {{ {probe}, every = \"100ms\", misses = 2, starts_within = \"100ms\" }}");
    let script = format!("{FLOOD} touch said; exec sleep 300");
    let services = Services::script(&script, &health);
    assert_eq!(end_unheard(&mut unheard(&services)), -Signal::ABORT.as_raw());
    assert_eq!(services.last("service_hang")["misses"], 2);
    assert_eq!(services.types().last().map(String::as_str), Some("service_crash"));

    let services = Services::script(&script, "");
    let mut run = unheard(&services);
    poll(WITHIN, || services.file("said").exists().then_some(())).expect("the service does not wait either");
    send(run.id(), Signal::TERM);
    assert_eq!(end_unheard(&mut run), -Signal::TERM.as_raw());
    assert_eq!(services.last("service_stop")["reason"], "requested");
}

/// What a log on a full disk is.
fn full() -> Stdio {
    Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it"))
}

fn seawall_on_a_full_disk(services: &Services, words: &[&str]) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(words).arg("--config").arg(services.file("servers.toml")).current_dir(services.folder.path());
    command.env("RUST_LOG", "debug").stdin(Stdio::null()).stdout(full()).stderr(full());
    command.spawn().expect("seawall can be started")
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_under_the_log_stops_nobody() {
    let services = Services::script("exit 7", "");
    services.to_the_end();
    let neighbour = rusqlite::Connection::open(services.file("seawall.db")).expect("opens");
    neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
    // The wrapper has something to say: its rows go elsewhere.
    let mut run = seawall_on_a_full_disk(&services, &["run", "one"]);
    assert_eq!(ending(run.wait().expect("ends")), 7);
    drop(neighbour);

    let services = Services::new(&format!(
        "[services.one]\nbuiltin = \"tasks\"\nschedule = \"{}\"\noptions = {{ steps = [\"check\", \"digest\"] }}\n",
        daily_now()
    ));
    let mut run = seawall_on_a_full_disk(&services, &["run", "one"]);
    assert_eq!(ending(run.wait().expect("ends")), 0);
    assert_eq!(services.types(), ["service_start", "task_done"]);

    let services = Services::new("[gateway]\nlisten = \"127.0.0.1:0\"\n[servers.seawall]\nbuiltin = \"seawall\"\n");
    let mut gateway = seawall_on_a_full_disk(&services, &["serve"]);
    let config = services.file("servers.toml");
    let ready = || {
        let status = support::gateway::run_seawall(&["status", "--json"], &config, WITHIN);
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        (status["servers"]["seawall"]["state"] == "ready").then_some(())
    };
    assert!(poll(WITHIN, ready).is_some(), "{:?}", gateway.try_wait());
    send(gateway.id(), Signal::TERM);
    assert_eq!(ending(gateway.wait().expect("ends")), 0);
}

/// All of its state is on the disk that is full: what ends then ends for the same reasons.
#[test]
fn every_end_on_a_full_disk_is_on_record_once_there_is_room() {
    let Some(disk) = Disk::of("size=4m") else { return };
    let services = Services::script("echo $$ > pid; test -e stay && exec sleep 300; exit 3", "");
    let etc = disk.path().display();
    let gateway = format!("[gateway]\nstate = \"{etc}/state\"\ndatabase = \"{etc}/seawall.db\"\n");
    let config = fs::read_to_string(services.file("servers.toml")).expect("read") + &gateway;
    services.folder.write("servers.toml", &config);
    assert_eq!(ending(services.to_the_end()), 3);

    // A reader leaves it, and SQLite could give of its room back.
    let _ = fs::remove_file(disk.path().join("seawall.db-shm"));
    let ballast = disk.fill();
    assert_eq!(ending(services.to_the_end()), 3);
    services.folder.write("stay", "");
    let before = services.text("pid");
    let run = services.start();
    let marker = disk.path().join("state/services/one.json");
    let known = || serde_json::from_slice::<Value>(&fs::read(&marker).ok()?).ok().map(|marker| marker["life"].clone());
    let is_known = |life: &Value| life["end"].is_null() && Some(life["pid"].to_string()) != before;
    let pid = poll(WITHIN, || known().filter(is_known)).expect("its start is written down")["pid"].clone();
    // Written down after that, and both of the starts on the full disk are in the room that is held.
    let held = disk.path().join("state/services/crash.jsonl.reserve");
    let starts = || fs::read_to_string(&held).unwrap_or_default().matches("service_restart").count();
    poll(WITHIN, || (starts() == 2).then_some(())).expect("its start is on record");
    run.signal(Signal::KILL);
    run.end();
    fs::remove_file(services.file("stay")).expect("it was there");

    fs::remove_file(ballast).expect("it was there");
    assert_eq!(ending(services.to_the_end()), 3);
    let sql = "SELECT event_type, metadata FROM events WHERE category = 'service' ORDER BY rowid";
    let rows = database::rows(&disk.path().join("seawall.db"), sql).expect("reads");
    let types: Vec<&str> = rows.iter().map(|row| row["event_type"].as_str().expect("text")).collect();
    let lives = types.iter().filter(|known| !["alert", "restart_storm"].contains(known)).copied();
    let expected = ["service_start", "service_crash", "service_restart", "service_crash", "service_restart"];
    let expected = expected.iter().chain(&["crash_inferred", "service_restart", "service_crash"]).copied();
    assert_eq!(lives.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{rows:#?}");
    let inferred = rows.iter().find(|row| row["event_type"] == "crash_inferred").expect("it is there");
    let inferred: Value = serde_json::from_str(inferred["metadata"].as_str().expect("text")).expect("JSON");
    assert_eq!(inferred["pid"], pid, "{inferred}");
}

#[test]
fn the_start_and_the_end_of_a_gateway_are_recorded_once() {
    let services = Services::new(
        "[gateway]\nlisten = \"127.0.0.1:0\"\n[servers.seawall]\nbuiltin = \"seawall\"\n[services.one]\nbuiltin = \"gateway\"\n",
    );
    let run = services.start();
    assert!(poll(WITHIN, || run.log.has("listening on").then_some(())).is_some(), "{}", run.log.text());
    run.signal(Signal::TERM);
    assert_eq!(ending(run.end()), 0);
    let sql = "SELECT service_name, event_type FROM events WHERE event_type LIKE 'service_%' ORDER BY rowid";
    let rows = database::rows(&services.file("seawall.db"), sql).expect("reads");
    let told: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row["service_name"].as_str().expect("text"), row["event_type"].as_str().expect("text")))
        .collect();
    assert_eq!(told, [("one", "service_start"), ("one", "service_stop")]);
}

#[test]
fn a_damaged_database_is_said_and_what_is_known_without_it_is_shown() {
    let services = Services::script("echo boom >&2; exit 3", "");
    services.to_the_end();
    let config = services.file("servers.toml");
    let show = |words: &[&str]| support::gateway::run_seawall(words, &config, WITHIN);
    let json = |words: &[&str]| -> Value { serde_json::from_slice(&show(words).stdout).expect("JSON") };
    assert_eq!(json(&["services", "--json"])["database_problem"], Value::Null);

    fs::write(services.file("seawall.db"), "no database any more".repeat(1000)).expect("damaged");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(services.file(&format!("seawall.db{suffix}")));
    }
    // Not yet in any database: it lies in the file beside.
    assert_eq!(ending(services.to_the_end()), 3);
    let shown = show(&["services"]);
    assert_eq!(shown.status.code(), Some(1));
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("seawall.db cannot be read") && text.contains("exit code 3: boom"), "{text}");
    let shown = json(&["services", "--json"]);
    assert!(shown["database_problem"].as_str().is_some_and(|said| said.contains("cannot be read")), "{shown}");
    let one = &shown["services"]["one"];
    assert_eq!(
        (&one["state"], &one["crashes_7d"], &one["record_is_whole"]),
        (&json!("down"), &json!(1), &json!(false))
    );
}

#[test]
fn crashes_that_wait_beside_the_database_are_counted() {
    let services = Services::script("exit 3", "");
    services.to_the_end();
    let neighbour = rusqlite::Connection::open(services.file("seawall.db")).expect("opens");
    neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
    services.to_the_end();
    // One line of it lies in the file that a gateway would have written.
    let aside = services.file(".seawall/services/crash.jsonl");
    fs::rename(&aside, services.file("seawall.db.spill.jsonl")).expect("moved");
    services.to_the_end();
    let config = services.file("servers.toml");
    let shown = support::gateway::run_seawall(&["services", "--json"], &config, WITHIN);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(shown["services"]["one"]["crashes_7d"], 3, "{shown}");
    assert_eq!(shown["services"]["one"]["restarts_7d"], 2, "{shown}");
}

/// As `cp -a` of a project does: both are run, and neither is the other's business.
#[test]
fn a_copy_of_the_folder_of_a_running_service_ends_nothing_of_it() {
    let first = Services::script("echo $$ > up; exec sleep 300", "");
    let run = first.start();
    let pid: u32 = poll(WITHIN, || first.text("up")?.parse().ok()).expect("it is up");
    first.wait_for("service_start");
    let second = Services::script("echo $$ > up; exec sleep 300", "");
    std::fs::create_dir_all(second.file(".seawall/services")).expect("a folder");
    std::fs::copy(first.file(".seawall/services/one.json"), second.file(".seawall/services/one.json")).expect("copied");
    let other = second.start();
    poll(WITHIN, || second.text("up")).expect("the second is up as well");
    assert!(lives(pid), "the first was ended: {}", other.log.text());
    assert!(other.log.has("of another folder"), "{}", other.log.text());
    // Of the same folder, a lock that was removed lets nobody in.
    std::fs::remove_file(first.file(".seawall/services/one.lock")).expect("there is a lock");
    let refused = first.start();
    assert!(poll(WITHIN, || refused.log.has("running already").then_some(())).is_some(), "{}", refused.log.text());
    assert!(lives(pid), "{}", refused.log.text());
    drop((run, other, refused));
}
