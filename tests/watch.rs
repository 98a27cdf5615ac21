//! The file watcher misses nothing: whatever happens to it, to the folder or to the
//! file, each file is recorded once and handled at least once.
//!
//! `SEAWALL_WATCH_FILES=20000 cargo test --test watch burst` is the long form.

#[path = "watch/rig.rs"]
mod rig;
mod support;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::PathBuf,
    thread,
    time::Duration,
};

use rig::{WITHIN, Watch};
use rustix::process::Signal;
use serde_json::Value;
use support::{poll, service::lives};

const QUICK: &str = "settle = \"100ms\"";

/// Leaves a file for each path that it is handed.
fn marking() -> String {
    command(r#"for f; do : > "handled/${f##*/}"; done"#, "")
}

/// A shell script that gets the path as an argument.
fn command(script: &str, more: &str) -> String {
    // In a servers.toml two dollar signs are one.
    format!("command = [\"/bin/sh\", \"-c\", '''{}''', \"x\"{more}]", script.replace('$', "$$"))
}

fn names_in(folder: PathBuf) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_burst_is_recorded_once_and_handled_although_the_watcher_is_killed_again_and_again() {
    let files: usize = std::env::var("SEAWALL_WATCH_FILES").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    let lives = files.div_ceil(400).max(8);
    let watch = Watch::new(&format!("{QUICK}, batch = 100, {}", marking()));
    fs::create_dir(watch.path("handled")).expect("a folder");
    let (folder, elsewhere) = (watch.path("in"), watch.path("elsewhere"));
    // It knows the folder before the burst, however soon it is killed.
    watch.start().kill();
    let writer = thread::spawn(move || {
        for n in 0..files {
            let folder = folder.join(format!("d{}", n % 10));
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(&elsewhere, n.to_string()).expect("a file");
            fs::rename(&elsewhere, folder.join(format!("{n}.txt"))).expect("moved");
        }
    });
    for life in 1..lives {
        let watcher = watch.launch();
        // Some lives end in their first steps, some in the midst of recording and handling.
        let enough = if life % 3 == 0 { 0 } else { files * life / lives };
        let recorded = poll(WITHIN, || (watch.count("events") >= enough).then_some(()));
        assert!(recorded.is_some(), "{} of {enough} are recorded\n{}", watch.count("events"), watcher.log.text());
        watcher.kill();
    }
    writer.join().expect("all is written");
    let watcher = watch.start();
    watch.wait_for_count("events WHERE state = 'done'", files);
    assert!(watcher.stop().success());
    let others: Vec<String> = watch.events().into_iter().filter(|event| !event.starts_with("created")).collect();
    assert_eq!(others, [""; 0], "nothing but the files");
    assert_eq!(watch.count("events"), files);
    assert_eq!(watch.count("(SELECT DISTINCT path_bytes FROM events)"), files, "each once");
    let expected: BTreeSet<String> = (0..files).map(|n| format!("{n}.txt")).collect();
    assert!(names_in(watch.path("handled")) == expected, "each was handled");
}

#[test]
fn more_than_the_kernel_can_tell_is_found_by_looking() {
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap_or_default();
    let Some(queue) = queue.trim().parse::<usize>().ok().filter(|queue| *queue <= 50_000) else {
        eprintln!("skipped: the queue of the kernel cannot be filled here");
        return;
    };
    let watch = Watch::new(QUICK);
    let watcher = watch.start();
    watcher.signal(Signal::STOP);
    // Each is created, opened, written and closed: four things to tell.
    let files = queue / 4 + 500;
    for n in 0..files {
        fs::write(watch.path("in").join(n.to_string()), "x").expect("a file");
    }
    watcher.signal(Signal::CONT);
    watch.wait_for_count("events WHERE event = 'created'", files);
    // A machine so slow that this took long says instead that it slept.
    assert!(watcher.log.has("more happened than the kernel could tell") || watcher.log.has("slept"));
}

#[test]
fn what_was_there_before_is_known_and_what_came_while_nobody_watched_is_found() {
    let watch = Watch::new(QUICK);
    let old = watch.write("in/old", "x");
    // The clock of files is behind by up to a tick.
    thread::sleep(Duration::from_millis(50));
    watch.start().kill();
    watch.write("in/new", "x");
    fs::write(old, "changed").expect("written");
    let _watcher = watch.start();
    watch.wait_for_count("events", 2);
    let events: BTreeSet<String> = watch.events().into_iter().collect();
    assert_eq!(events, ["changed in/old noted", "created in/new noted"].map(str::to_owned).into());

    let eager = Watch::new(&format!("{QUICK}, existing = true"));
    eager.write("in/old", "x");
    let _watcher = eager.start();
    eager.wait_for_event("created in/old noted");
}

#[test]
fn a_folder_that_is_missing_is_waited_for_and_one_that_goes_is_missed_until_it_is_back() {
    let watch = Watch::without_folder(&format!("folders = [\"sub/in\"], {QUICK}"));
    let watcher = watch.start();
    watch.wait_for_folder("missing");
    fs::create_dir_all(watch.path("sub/in/deep")).expect("a folder");
    watch.write("sub/in/deep/1", "x");
    watch.wait_for_event("created sub/in/deep/1 noted");

    // A disk that is plugged out takes nothing along, and brings nothing new back.
    fs::rename(watch.path("sub"), watch.path("away")).expect("moved");
    watch.wait_for_folder("missing");
    watch.write("away/in/2", "x");
    fs::rename(watch.path("away"), watch.path("sub")).expect("moved");
    watch.wait_for_event("created sub/in/2 noted");
    watch.write("sub/in/deep/3", "x");
    watch.wait_for_event("created sub/in/deep/3 noted");
    assert_eq!(watch.events().len(), 3, "{:?}", watch.events());

    // Removed and made again at once, between two looks.
    fs::remove_dir_all(watch.path("sub/in")).expect("removed");
    fs::create_dir(watch.path("sub/in")).expect("a folder");
    watch.write("sub/in/4", "x");
    watch.wait_for_event("created sub/in/4 noted");
    for gone in ["deep/1", "2", "deep/3"] {
        watch.wait_for_event(&format!("removed sub/in/{gone} noted"));
    }
    assert!(watcher.stop().success());
    assert_eq!(watch.events().len(), 7, "{:?}", watch.events());
}

#[test]
fn a_rename_is_seen_into_within_and_out_of_the_folder() {
    let watch = Watch::new(&format!("{QUICK}, {}", marking()));
    fs::create_dir(watch.path("handled")).expect("a folder");
    let _watcher = watch.start();
    watch.write("outside", "x");
    fs::rename(watch.path("outside"), watch.path("in/a")).expect("moved");
    watch.wait_for_event("created in/a done");
    fs::rename(watch.path("in/a"), watch.path("in/b")).expect("moved");
    watch.wait_for_event("moved in/b done");
    let from = watch.rows("SELECT moved_from FROM events WHERE event = 'moved'");
    assert!(from[0]["moved_from"].as_str().is_some_and(|from| from.ends_with("/in/a")), "{from:?}");
    fs::rename(watch.path("in/b"), watch.path("outside")).expect("moved");
    watch.wait_for_event("removed in/b noted");
    // Back as it was: it was handled already.
    fs::rename(watch.path("outside"), watch.path("in/b")).expect("moved");
    watch.wait_for_event("returned in/b noted");

    // A whole folder, which is watched under its new name.
    fs::create_dir(watch.path("in/d")).expect("a folder");
    watch.write("in/d/1", "x");
    watch.wait_for_event("created in/d/1 done");
    fs::rename(watch.path("in/d"), watch.path("in/e")).expect("moved");
    watch.wait_for_event("moved in/e/1 done");
    watch.write("in/e/2", "x");
    watch.wait_for_event("created in/e/2 done");
    assert_eq!(names_in(watch.path("handled")), ["1", "2", "a", "b"].map(str::to_owned).into());
}

#[test]
fn links_lead_nowhere_unless_they_are_followed_and_loops_end() {
    for follow in [false, true] {
        let watch = Watch::new(&format!("{QUICK}, follow_links = {follow}"));
        fs::create_dir_all(watch.path("outside/deep")).expect("a folder");
        watch.write("outside/deep/far", "x");
        watch.write("secret", "x");
        symlink(watch.path("outside"), watch.path("in/out")).expect("a link");
        symlink(watch.path("in"), watch.path("in/loop")).expect("a link");
        symlink(watch.path("secret"), watch.path("in/link")).expect("a link");
        symlink(watch.folder.path(), watch.path("in/up")).expect("a link");
        symlink(watch.path("outside"), watch.path("outside/round")).expect("a link");
        symlink(watch.path("nowhere"), watch.path("in/dangling")).expect("a link");
        // Known from the start, and so only what comes later is news. What is younger than a
        // tick of the kernel's clock for files would be taken for later.
        let age = || fs::metadata(watch.path("secret")).ok()?.modified().ok()?.elapsed().ok();
        poll(WITHIN, || age().filter(|age| *age > Duration::from_millis(100))).expect("time passes");
        let watcher = watch.start();
        watch.wait_for_folder("watched");
        // Also one that appears while it watches.
        symlink(watch.path("in"), watch.path("in/again")).expect("a link");
        watch.write("in/near", "x");
        watch.write("outside/deep/later", "x");
        watch.wait_for_event("created in/near noted");
        if follow {
            watch.wait_for_event("created in/out/deep/later noted");
        }
        assert!(watcher.stop().success());
        let expected: &[&str] = if follow {
            &["created in/near noted", "created in/out/deep/later noted"]
        } else {
            &["created in/near noted"]
        };
        let events: BTreeSet<String> = watch.events().into_iter().collect();
        assert_eq!(events, expected.iter().map(|event| (*event).to_owned()).collect(), "follow = {follow}");
    }
}

#[test]
fn what_cannot_be_read_is_told_once_and_found_when_it_can() {
    let watch = Watch::new(QUICK).by_nobody();
    let locked = watch.path("in/locked");
    let watcher = watch.start();
    fs::create_dir(&locked).expect("a folder");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).expect("locked");
    let words = "in/locked cannot be read";
    let is_told = || watcher.log.has(words).then_some(());
    assert!(poll(WITHIN, is_told).is_some(), "nobody says it\n{}", watcher.log.text());
    watch.write("in/free", "x");
    watch.wait_for_event("created in/free noted");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).expect("free");
    watch.write("in/locked/1", "x");
    watch.wait_for_event("created in/locked/1 noted");
    // And locked again it takes nothing along.
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).expect("locked");
    watch.write("in/last", "x");
    watch.wait_for_event("created in/last noted");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).expect("free");
    assert_eq!(watch.events().len(), 3, "{:?}", watch.events());
    drop(watcher);
}

#[test]
fn a_file_that_is_still_written_waits_until_it_rests() {
    const SETTLE_MS: i64 = 600;
    let watch = Watch::new(&format!("settle = \"{SETTLE_MS}ms\""));
    let _watcher = watch.start();
    let mut file = fs::File::create(watch.path("in/growing")).expect("a file");
    for _ in 0..60 {
        file.write_all(b"0123456789").expect("written");
        thread::sleep(Duration::from_millis(10));
    }
    watch.wait_for_count("events WHERE size = 600", 1);
    // However often the writer was held up: nothing was taken before it had rested. The
    // clock of files is behind by up to a tick.
    let early = watch.count(&format!("events WHERE timestamp - mtime_ns / 1000000 < {SETTLE_MS} - 20"));
    assert_eq!(early, 0, "{:?}", watch.rows("SELECT timestamp, mtime_ns, size FROM events"));
}

#[test]
fn a_name_reaches_its_command_byte_by_byte_and_can_do_no_harm() {
    let script = r#"printf "%s\0" "$@" >> got"#;
    let watch = Watch::new(&format!("{QUICK}, {}", command(script, ", \"in={path}\"")));
    let _watcher = watch.start();
    let names: [&[u8]; 5] =
        [b"-rf", b"caf\xe9 \xff.png", b"$(touch harm); `x`", b"two\nlines", "\u{202e}gnp.exe".as_bytes()];
    for name in names {
        fs::rename(watch.write("whole", "x"), watch.path("in").join(OsStr::from_bytes(name))).expect("moved");
    }
    watch.wait_for_count("events WHERE state = 'done'", names.len());
    let got = fs::read(watch.path("got")).expect("what was handed over");
    let got: BTreeSet<&[u8]> = got.split(|byte| *byte == 0).filter(|part| !part.is_empty()).collect();
    let expected: Vec<Vec<u8>> =
        names.iter().map(|name| [b"in=", watch.path("in").as_os_str().as_bytes(), b"/", *name].concat()).collect();
    assert_eq!(got, expected.iter().map(Vec::as_slice).collect());
    assert!(!watch.path("harm").exists());

    // As JSON nothing of a name is lost, and on a terminal nothing of it has an effect.
    let json = watch.ask(&["--list", "--json"]);
    let lines = String::from_utf8(json.stdout).expect("UTF-8");
    let strange: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|event: &Value| event["path_base64"].is_string())
        .collect();
    let [event] = &strange[..] else { panic!("one has no text: {strange:?}") };
    assert!(event["path"].as_str().is_some_and(|path| path.ends_with("/in/caf\\xe9 \\xff.png")), "{event}");
    let table = String::from_utf8(watch.ask(&["--list"]).stdout).expect("UTF-8");
    assert!(table.contains("\\u{202e}") && !table.contains('\u{202e}') && table.contains("two\\nlines"), "{table}");
}

#[test]
fn a_command_that_fails_is_tried_again_and_given_up_and_one_that_hangs_is_ended_with_its_tree() {
    let script = r#"case "$1" in
        *bad) echo "cannot read it" >&2; exit 3 ;;
        *slow) sleep 300 & echo $! > pid; wait ;;
        *twice) test -e seen || { : > seen; exit 1; } ;;
    esac"#;
    let command = command(script, "");
    let watch = Watch::new(&format!("{QUICK}, {command}, timeout = \"500ms\", retries = 1"));
    let _watcher = watch.start();
    for name in ["bad", "slow", "twice", "good"] {
        watch.write(&format!("in/{name}"), "x");
    }
    watch.wait_for_count("events WHERE state IN ('done', 'given_up')", 4);
    let rows = watch.rows("SELECT path, state, attempts, coalesce(message, '') AS message FROM events ORDER BY path");
    let facts: Vec<(String, u64)> = rows
        .iter()
        .map(|row| (row["state"].as_str().expect("text").to_owned(), row["attempts"].as_u64().expect("a number")))
        .collect();
    let expected = [("given_up", 2), ("done", 1), ("given_up", 2), ("done", 2)];
    assert_eq!(facts, expected.map(|(state, attempts)| (state.to_owned(), attempts)), "{rows:#?}");
    assert_eq!(rows[0]["message"], "exit code 3: cannot read it");
    assert_eq!(rows[2]["message"], "it ran for more than 500 ms and was ended");
    let pid: u32 = fs::read_to_string(watch.path("pid")).expect("a pid").trim().parse().expect("a number");
    assert!(poll(WITHIN, || (!lives(pid)).then_some(())).is_some(), "what it started has ended with it");
    let given_up = watch.ask(&["--list", "--state", "given_up", "--json"]);
    assert_eq!(String::from_utf8_lossy(&given_up.stdout).lines().count(), 2);
}

#[test]
fn told_to_stop_it_lets_what_is_under_way_end_and_begins_nothing_new() {
    let script = r#": > begun; while ! test -e go; do sleep 0.05; done; : > "handled-${1##*/}""#;
    let command = command(script, "");
    let watch = Watch::new(&format!("{QUICK}, {command}, concurrency = 1"));
    let watcher = watch.launch_service();
    let is_well = || watch.ask(&["--check"]).status.success().then_some(());
    assert!(poll(WITHIN, is_well).is_some(), "{}", watcher.log.text());
    watch.write("in/1", "x");
    assert!(poll(WITHIN, || watch.path("begun").exists().then_some(())).is_some(), "{:?}", watch.events());
    watch.write("in/2", "x");
    watch.wait_for_event("created in/2 pending");
    watcher.signal(Signal::TERM);
    let is_stopping = || watcher.log.has("stopping; commands under way: 1").then_some(());
    assert!(poll(WITHIN, is_stopping).is_some(), "{}", watcher.log.text());
    watch.write("go", "");
    assert_eq!(watcher.end().code(), Some(0));
    assert_eq!(watch.events(), ["created in/1 done", "created in/2 pending"]);
    assert_eq!(watch.ask(&["--check"]).status.code(), Some(1), "nobody watches now");

    let watcher = watch.start();
    watch.wait_for_event("created in/2 done");
    let second = watch.ask(&[]);
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(words.contains("another file-watcher uses"), "{words}");
    watcher.kill();
    let check = watch.ask(&["--check"]);
    let words = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.code() == Some(1) && words.contains("its process is gone"), "{words}");
}

#[test]
fn a_locked_database_costs_nothing() {
    let watch = Watch::new(QUICK);
    let watcher = watch.start();
    let neighbour = rusqlite::Connection::open(watch.path("watch.db")).expect("opens");
    neighbour.busy_timeout(WITHIN).expect("patient");
    neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
    for n in 0..20 {
        watch.write(&format!("in/{n}"), "x");
    }
    assert!(poll(WITHIN, || watcher.log.has("trying again").then_some(())).is_some(), "{}", watcher.log.text());
    neighbour.execute_batch("COMMIT").expect("unlocks");
    watch.wait_for_count("events", 20);
    assert!(watcher.stop().success());
}

#[test]
fn more_files_than_may_be_known_are_left_out_until_some_go() {
    let watch = Watch::new(&format!("{QUICK}, max_files = 4"));
    let watcher = watch.start();
    for n in 0..4 {
        watch.write(&format!("in/{n}"), "x");
    }
    watch.wait_for_count("events", 4);
    watch.write("in/beyond", "x");
    let is_told = || watcher.log.has("more than 4 files are known").then_some(());
    assert!(poll(WITHIN, is_told).is_some(), "nobody says it\n{}", watcher.log.text());
    fs::remove_file(watch.path("in/0")).expect("removed");
    watch.wait_for_event("created in/beyond noted");
    assert_eq!(watch.count("events WHERE event = 'created'"), 5);
}
