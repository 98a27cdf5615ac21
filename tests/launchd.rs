//! End to end: what `seawall launchd install` writes, started by a launchd in compressed
//! time, with nothing but what the property lists say.

mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use support::{
    database,
    launchd::Job,
    poll,
    process::run,
    scratch::Scratch,
    service::{daily_now, ending, lives, on_the_wall},
};

const WITHIN: Duration = Duration::from_secs(20);
/// Ten seconds of throttling become a fifth of one.
const SCALE: f64 = 0.02;

struct Mac {
    home: Scratch,
}

impl Mac {
    /// A home with a servers.toml, and its services installed.
    fn new(servers_toml: &str) -> Mac {
        let home = Scratch::new();
        let config = home.write("etc/servers.toml", servers_toml);
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        // The lists are what matters here; nobody is told of them.
        command.args(["launchd", "install", "--launchctl", "true", "--config"]).arg(config).env("HOME", home.path());
        let output = run(command, WITHIN);
        assert!(output.status.success(), "{output:?}");
        Mac { home }
    }

    fn load(&self, name: &str) -> Job {
        Job::load(&self.plist(name), SCALE)
    }

    fn plist(&self, name: &str) -> PathBuf {
        self.home.file(&format!("Library/LaunchAgents/dev.seawall.{name}.plist"))
    }

    fn events(&self, name: &str) -> Vec<(String, Value)> {
        let sql = format!("SELECT event_type, metadata FROM events WHERE service_name = '{name}' ORDER BY rowid");
        let rows = database::rows(&self.home.file("etc/seawall.db"), &sql).unwrap_or_default();
        let of = |row: &Value, key: &str| row[key].as_str().expect("text").to_owned();
        rows.iter()
            .map(|row| (of(row, "event_type"), serde_json::from_str(&of(row, "metadata")).expect("JSON")))
            .collect()
    }

    fn types(&self, name: &str) -> Vec<String> {
        self.events(name).into_iter().map(|(event_type, _)| event_type).collect()
    }

    fn wait_for(&self, name: &str, event_type: &str, times: usize) {
        let count = || self.types(name).iter().filter(|known| *known == event_type).count();
        let found = poll(WITHIN, || (count() >= times).then_some(()));
        assert!(found.is_some(), "{times} times {event_type}: {:?}\n{}", self.types(name), self.log(name));
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.file(&format!("Library/Logs/seawall/{name}.log"))).unwrap_or_default()
    }

    fn write(&self, name: &str) {
        self.home.write(&format!("etc/{name}"), "");
    }
}

/// A shell script of a service, in its folder.
fn script(text: &str) -> String {
    format!(
        "command = [\"/bin/sh\", \"-c\", {}]\n",
        serde_json::to_string(&text.replace("$$", "$$$$")).expect("a string")
    )
}

#[test]
fn launchd_restarts_what_crashes_and_lets_be_what_ended_well() {
    let mac = Mac::new(&format!(
        "[services.shaky]\n{}[services.brief]\n{}[services.steady]\n{}[[alerts]]\ncommand = [\"/bin/sh\", \"-c\", \"cat >> told\"]\n",
        script("test -e mended || { echo broken >&2; exit 3; }; echo $$ > up; exec sleep 300"),
        script("exit 0"),
        script("exec sleep 300"),
    ));
    let jobs = ["shaky", "brief", "steady"].map(|name| mac.load(name));
    mac.wait_for("shaky", "service_crash", 6);
    mac.write("mended");
    let up = poll(WITHIN, || std::fs::read_to_string(mac.home.file("etc/up")).ok().filter(|pid| !pid.is_empty()));
    let pid: u32 = up.expect("mended").trim().parse().expect("a pid");

    let shaky = jobs[0].seen();
    assert!(shaky.ends.iter().all(|end| ending(*end) == 3), "launchd saw what the service did");
    let throttle = Duration::from_secs(10).mul_f64(SCALE);
    assert!(shaky.starts.windows(2).all(|pair| pair[1] - pair[0] >= throttle));
    let types = mac.types("shaky");
    assert_eq!(types.iter().filter(|known| *known == "alert").count(), 1, "{types:?}");
    assert_eq!(types.iter().filter(|known| *known == "restart_storm").count(), 1, "{types:?}");
    let attempts: Vec<u64> = mac
        .events("shaky")
        .iter()
        .filter(|(known, _)| known == "service_crash")
        .filter_map(|(_, m)| m["restart_attempt"].as_u64())
        .collect();
    assert_eq!(attempts[..6], [0, 1, 2, 3, 4, 5]);
    assert!(mac.log("shaky").contains("broken"), "its words are in its log");
    assert!(mac.home.file("etc/told").exists());

    assert_eq!(jobs[1].seen().starts.len(), 1, "what ended with 0 is let be");
    let [shaky, _, steady] = jobs;
    assert_eq!(steady.seen().starts.len(), 1);
    assert!(!steady.bootout().killed && !shaky.bootout().killed);
    assert_eq!(mac.types("steady"), ["service_start", "service_stop"]);
    assert!(poll(WITHIN, || (!lives(pid)).then_some(())).is_some(), "nothing is left over");
}

#[test]
fn a_wrapper_that_launchd_itself_kills_is_told_of_at_the_next_start() {
    let mac =
        Mac::new(&format!("[services.deaf]\n{}", script("trap '' TERM; echo $$ > up; while :; do sleep 0.05; done")));
    let job = mac.load("deaf");
    let up = poll(WITHIN, || std::fs::read_to_string(mac.home.file("etc/up")).ok().filter(|pid| !pid.is_empty()));
    let first: u32 = up.expect("it runs").trim().parse().expect("a pid");
    mac.wait_for("deaf", "service_start", 1);
    assert!(job.bootout().killed, "its time is compressed, that of seawall is not");
    let job = mac.load("deaf");
    mac.wait_for("deaf", "crash_inferred", 1);
    mac.wait_for("deaf", "service_restart", 1);
    assert!(!lives(first), "deaf to SIGTERM, and gone before its successor began");
    let pid: u32 = {
        let restarted =
            mac.events("deaf").into_iter().find(|(known, _)| known == "service_restart").expect("restarted");
        u32::try_from(restarted.1["pid"].as_u64().expect("a pid")).expect("fits")
    };
    job.bootout();
    // Deaf to the signal that the kernel sends it with the wrapper's death: the start
    // after this one would end it, and here the test does.
    if lives(pid) {
        support::service::send(pid, rustix::process::Signal::KILL);
    }
}

#[test]
fn a_calendar_runs_a_task_once_for_its_slot_and_again_only_after_a_failure() {
    let task = format!(
        "[services.nightly]\n{}schedule = \"{}\"\nrun_at_load = true\n",
        script("echo ran >> runs; test -e fine"),
        daily_now()
    );
    let mac = Mac::new(&task);
    let job = mac.load("nightly");
    mac.wait_for("nightly", "task_failed", 1);
    mac.write("fine");
    job.fire();
    mac.wait_for("nightly", "task_done", 1);
    for n in 3..6 {
        job.fire();
        assert!(poll(WITHIN, || (job.seen().ends.len() >= n).then_some(())).is_some());
    }
    assert!(job.seen().ends.iter().skip(1).all(|end| end.success()));
    let runs = std::fs::read_to_string(mac.home.file("etc/runs")).expect("ran");
    assert_eq!(runs.lines().count(), 2, "{}", mac.log("nightly"));
}

#[test]
fn a_task_waits_for_its_first_time_from_when_it_was_installed() {
    // Yesterday's time of day: whoever has been there for a day has missed it.
    let then = on_the_wall(Duration::from_secs(12 * 3600));
    let schedule = format!("schedule = \"daily {:02}:{:02}\"\nrun_at_load = true\n", then.hour(), then.minute());
    let mac = Mac::new(&format!("[services.nightly]\n{}{schedule}", script("echo ran >> runs")));
    let marker = mac.home.file("etc/.seawall/services/nightly.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(&marker).expect("noted")).expect("JSON");
    let known = kept["known_since_ms"].as_i64().expect("a time");
    let job = mac.load("nightly");
    assert!(poll(WITHIN, || (!job.seen().ends.is_empty()).then_some(())).is_some());
    assert!(!mac.home.file("etc/runs").exists(), "not due: {}", mac.log("nightly"));
    // Had it been installed a day before, it would be.
    mac.home.write(
        "etc/.seawall/services/nightly.json",
        &serde_json::json!({ "known_since_ms": known - 86_400_000 }).to_string(),
    );
    job.fire();
    mac.wait_for("nightly", "task_done", 1);
}

#[test]
fn a_machine_that_goes_down_again_and_again_leaves_no_death_without_a_record() {
    let mac = Mac::new(&format!("[services.victim]\n{}", script("exec sleep 300")));
    let job = mac.load("victim");
    let lives =
        || mac.types("victim").iter().filter(|known| matches!(&***known, "service_start" | "service_restart")).count();
    for n in 1..=8 {
        let pid = poll(WITHIN, || job.seen().pid.filter(|_| lives() >= n)).expect("it runs");
        support::service::send(pid, rustix::process::Signal::KILL);
        assert!(poll(WITHIN, || (job.seen().ends.len() >= n).then_some(())).is_some());
    }
    mac.wait_for("victim", "service_restart", 8);
    drop(job);
    let inferred = mac.types("victim").iter().filter(|known| *known == "crash_inferred").count();
    assert_eq!(inferred, 8, "{:?}", mac.types("victim"));
    assert!(is_whole(&mac.home.file("etc/seawall.db")));
}

fn is_whole(database: &Path) -> bool {
    database::rows(database, "PRAGMA integrity_check").is_ok_and(|rows| rows[0]["integrity_check"] == "ok")
}
