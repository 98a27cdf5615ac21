//! `seawall sandbox check` and `shell`: a server's sandbox is tried by everything that a
//! hostile server would try, and looked at from inside.

#![cfg(target_os = "linux")]

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

mod support;

use support::{confined, machine::Machine, process, scratch::Scratch};

const WITHIN: Duration = Duration::from_secs(120);

fn here() -> Machine {
    Machine { is_root: rustix::process::geteuid().is_root(), has_namespaces: true }
}

fn seawall(machine: Machine, config: &Path, words: &[&str]) -> Command {
    let mut all = machine.wrapper();
    all.push(env!("CARGO_BIN_EXE_seawall").to_owned());
    let mut command = Command::new(&all[0]);
    command.args(&all[1..]).arg("--config").arg(config).args(words).current_dir("/");
    command
}

fn check(machine: Machine, sandbox: &str) -> (Output, Vec<Value>) {
    let folder = Scratch::new();
    machine.settle(folder.path());
    let config = folder.write("servers.toml", &confined("fix", sandbox));
    let mut command = seawall(machine, &config, &["sandbox", "check", "fix", "--json"]);
    command.stdin(Stdio::null());
    let output = process::run(command, WITHIN);
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output, found)
}

fn of<'a>(found: &'a [Value], attempt: &str) -> &'a Value {
    let mut with = found.iter().filter(|finding| finding["attempt"].as_str().unwrap().starts_with(attempt));
    &with.next().unwrap_or_else(|| panic!("no {attempt}"))["verdict"]
}

#[test]
fn every_attempt_is_made_from_inside_and_told() {
    // Both users, with and without: two of the four are enough to see who is who.
    for machine in Machine::all().into_iter().filter(|machine| machine.is_root == machine.has_namespaces) {
        let (output, found) = check(machine, "\"standard\"");
        assert!(output.status.success(), "{machine:?}: {found:?}");
        assert!(found.len() > 50, "{found:?}");
        // Each of these succeeds for the same user without a sandbox.
        for attempt in [
            "read /tmp",
            "write",
            "connect",
            "unix",
            "ptrace",
            "signal",
            "io-uring",
            "by-handle",
            "change-mode",
            "change-times",
            "shared-memory",
            "renice-all",
        ] {
            assert_eq!(of(&found, attempt), "kept_out", "{machine:?} {attempt}: {found:?}");
        }
        let without = if machine.has_namespaces { "kept_out" } else { "not_enforced" };
        assert_eq!((of(&found, "stat"), of(&found, "room")), (&without.into(), &without.into()), "{machine:?}");
    }
}

#[test]
fn what_the_policy_gives_is_no_escape() {
    let (output, found) = check(here(), "{ network = \"open\" }");
    assert!(output.status.success(), "{found:?}");
    assert_eq!((of(&found, "connect"), of(&found, "udp")), (&"given".into(), &"given".into()), "{found:?}");
    assert_eq!(of(&found, "unix"), "kept_out");
}

#[test]
fn there_is_nothing_to_check_where_there_is_no_sandbox() {
    let folder = Scratch::new();
    let config = folder.write("servers.toml", &confined("fix", "\"off\""));
    let output = process::run(seawall(here(), &config, &["sandbox", "check", "fix"]), WITHIN);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("nothing to escape from"), "{said}");
}

/// Whoever starts it: what it asks for is proposed, and with that it works.
#[test]
fn what_a_server_asks_for_is_proposed_as_toml_and_is_enough() {
    let fixture = support::fixture_server().display().to_string();
    for machine in Machine::all().into_iter().filter(|machine| machine.has_namespaces) {
        let folder = Scratch::new();
        folder.write("kept/file", "x");
        folder.write("kept/other", "x");
        folder.write("out/there", "x");
        machine.settle(folder.path());
        machine.give(&folder.file("out"));
        let at = |name: &str| folder.file(name).display().to_string();
        let script = format!("cat {0}/kept/file && touch {0}/out/new; exec \"$0\"", folder.path().display());
        let server = |sandbox: &str| {
            let words = serde_json::json!(["/bin/sh", "-c", script.replace("cat ", "/bin/cat >&2 "), fixture]);
            format!("[servers.fix]\ncommand = {words}\n{sandbox}\n")
        };
        let config = folder.write("servers.toml", &server("sandbox = { read = [\"./kept\"] }"));
        let output = process::run(seawall(machine, &config, &["sandbox", "explain", "fix"]), WITHIN);
        let proposed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && proposed.contains("it offers ") && !proposed.contains("offers 0 tools"),
            "{machine:?}: {output:?}"
        );
        for (key, path) in [("read", at("kept/file")), ("read", fixture.clone()), ("write", at("out"))] {
            let line = proposed.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap_or_default();
            assert!(line.contains(&format!("\"{path}\"")), "{machine:?} {key} {path}:\n{proposed}");
        }
        assert!(!proposed.contains("kept/other") && !folder.file("out/new").exists(), "{proposed}");
        assert!(proposed.contains("network = \"none\""), "{proposed}");

        folder.write("servers.toml", &server(&proposed));
        let script = format!("cat {0}/kept/file && touch {0}/out/new", folder.path().display());
        let run = seawall(machine, &config, &["sandbox", "run", "fix", "--", "/bin/sh", "-c", &script]);
        let output = process::run(run, WITHIN);
        assert!(output.status.success() && folder.file("out/new").exists(), "{machine:?}: {output:?}\n{proposed}");
    }
}

/// It may read everything then, so it must be able to tell nobody.
#[test]
fn a_server_that_is_observed_reaches_no_socket_of_the_users() {
    if !support::tools::python3() {
        return;
    }
    let folder = Scratch::new();
    let agent = std::os::unix::net::UnixListener::bind(folder.file("agent")).expect("bound");
    agent.set_nonblocking(true).expect("set");
    let path = folder.file("agent").display().to_string();
    let program = format!("import socket\nsocket.socket(socket.AF_UNIX).connect({path:?})\nprint('reached')");
    let server = serde_json::json!(["python3", "-c", program]);
    let config = folder.write("servers.toml", &format!("[servers.fix]\ncommand = {server}\n"));
    let output = process::run(seawall(here(), &config, &["sandbox", "explain", "fix"]), WITHIN);
    assert!(agent.accept().is_err(), "{output:?}");
    let run = ["sandbox", "run", "fix", "--", "python3", "-c", "print('it runs')"];
    let output = process::run(seawall(here(), &config, &run), WITHIN);
    assert!(String::from_utf8_lossy(&output.stdout).contains("it runs"), "{output:?}");
    // The control: it is there, and answers who is not confined.
    let reached = process::run(
        {
            let mut bare = Command::new("python3");
            bare.args(["-c", &program]);
            bare
        },
        WITHIN,
    );
    assert!(reached.status.success() && agent.accept().is_ok(), "{reached:?}");
}

#[test]
fn a_shell_runs_where_the_server_does() {
    let folder = Scratch::new();
    folder.write("given/file", "hello");
    folder.write("kept/file", "SECRET");
    here().settle(folder.path());
    let config = folder.write("servers.toml", &confined("fix", "{ read = [\"./given\"] }"));
    let mut command = seawall(here(), &config, &["sandbox", "shell", "fix"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut shell = command.spawn().expect("seawall can be run");
    let script = format!("cat {0}/given/file; cat {0}/kept/file; echo \" $HOME\"; exit 7\n", folder.path().display());
    shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    assert_eq!(
        (String::from_utf8_lossy(&output.stdout).as_ref(), output.status.code()),
        ("hello /home/server\n", Some(7))
    );
}

#[test]
fn at_a_terminal_the_shell_has_one_of_its_own() {
    use rustix::{fs::OFlags, pty};
    let folder = Scratch::new();
    here().settle(folder.path());
    let config = folder.write("servers.toml", &confined("fix", "\"standard\""));
    let ours = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&ours).and_then(|()| pty::unlockpt(&ours)).unwrap();
    let name = pty::ptsname(&ours, Vec::new()).unwrap();
    let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, rustix::fs::Mode::empty()).unwrap();
    let stream = || Stdio::from(theirs.try_clone().unwrap());
    let mut command = seawall(here(), &config, &["sandbox", "shell", "fix"]);
    let mut shell = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("seawall can be run");
    drop((command, theirs));
    let mut terminal = std::fs::File::from(ours);
    // Sent at once: a terminal keeps what is typed ahead. Only with job control is it "monitor on".
    terminal.write_all(b"test -t 0 && echo \"it is a $((40 + 2)) terminal\"; set -o | grep monitor; exit 5\n").unwrap();
    let (mut said, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = terminal.read(&mut chunk) {
        said.extend_from_slice(&chunk[..read]);
    }
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("it is a 42 terminal"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("monitor") && line.trim_end().ends_with("on")), "{said}");
    assert_eq!(shell.wait().unwrap().code(), Some(5), "{said}");
}
