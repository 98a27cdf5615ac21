//! A command whose reader has gone, as in `seawall … | head`, ends as it would have ended,
//! without a word.

mod support;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use support::{
    Gateway, fixture, poll,
    process::run,
    scratch::Scratch,
    units::{Recorder, TWO},
};

const WITHIN: Duration = Duration::from_secs(60);

/// A stream that nobody reads, from the beginning.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn seawall(words: &[&str], config: &Path, home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(words).arg("--config").arg(config).current_dir(home).env("HOME", home).env("USER", "you");
    command
}

/// The exit code where all is read, and where nobody reads stdout, and then stderr neither.
fn codes(words: &[&str], config: &Path, home: &Path) -> (Output, Option<i32>, Option<i32>, String) {
    let read = run(seawall(words, config, home), WITHIN);
    let ends = |command: &mut Command| {
        let mut child = command.stdin(Stdio::null()).spawn().expect("it starts");
        let status = poll(WITHIN, || child.try_wait().expect("a child can be asked"));
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        status.unwrap_or_else(|| panic!("{words:?} does not end")).code()
    };
    let log = Scratch::new();
    let file = std::fs::File::create(log.file("stderr")).expect("a file");
    let deaf = ends(seawall(words, config, home).stdout(unread()).stderr(file));
    let alone = ends(seawall(words, config, home).stdout(unread()).stderr(unread()));
    (read, deaf, alone, std::fs::read_to_string(log.file("stderr")).expect("UTF-8"))
}

fn ends_the_same(words: &[&str], config: &Path, home: &Path) {
    let (read, deaf, alone, said) = codes(words, config, home);
    assert_eq!(deaf, read.status.code(), "{words:?} without a reader: {said}");
    assert_eq!(alone, read.status.code(), "{words:?} without anybody");
    assert!(!said.contains("panicked") && !said.to_lowercase().contains("broken pipe"), "{words:?}: {said}");
    assert!(!String::from_utf8_lossy(&read.stderr).contains("panicked"), "{words:?}: {read:?}");
}

#[test]
fn commands_about_units_end_quietly() {
    let home = Scratch::new();
    let config = home.write("servers.toml", TWO);
    let recorder = Recorder::new();
    let program = recorder.program();
    let launchd = ["launchd", "--launchctl", &program];
    let systemd = ["systemd", "--systemctl", &program, "--loginctl", &program];
    let bad = home.write("com.example.job.plist", "<plist><dict><key>Nice</key><integer>99</integer></dict></plist>");
    for supervisor in [&launchd[..], &systemd] {
        // In this order: what is installed by one is shown by the next.
        for action in [&["render"][..], &["lint"], &["diff"], &["install", "--dry-run"], &["status"]] {
            ends_the_same(&[supervisor, action].concat(), &config, home.path());
        }
    }
    ends_the_same(&["launchd", "lint", bad.to_str().expect("UTF-8")], &config, home.path());

    // What acts does all of it, heard or not.
    let mut install = seawall(&[&launchd[..], &["install"]].concat(), &config, home.path());
    let status = install.stdout(unread()).stderr(Stdio::null()).status().expect("it runs");
    assert!(status.success());
    for name in ["one", "nightly"] {
        assert!(home.file(&format!("Library/LaunchAgents/dev.seawall.{name}.plist")).exists(), "{name}");
    }
    let told = recorder.told();
    assert_eq!(told.iter().filter(|line| line.starts_with("bootstrap ")).count(), 2, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_about_a_gateway_end_quietly() {
    let gateway = Gateway::start(&format!(
        "{}[services.one]\ncommand = [\"sleep\", \"9\"]\n[services.nightly]\nbuiltin = \"tasks\"\n\
         options = {{ steps = [\"check\"] }}\nschedule = \"daily 03:30\"\n",
        fixture("fix", &[])
    ))
    .await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    // A failure to be listed.
    let _ = client.call_tool("error", serde_json::json!({})).await;
    let (config, home) = (gateway.folder.file("servers.toml"), Scratch::new());
    let config = config.as_path();
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["tools"],
        &["tools", "--json"],
        &["failures"],
        &["failures", "--json"],
        &["events"],
        &["events", "--json"],
        &["services"],
        &["services", "--json"],
        &["check"],
        &["check", "--json"],
        &["call", "fix__echo", "{}"],
        &["reload"],
        &["breaker", "reset", "fix__echo"],
        &["restart", "fix"],
        &["sandbox", "show", "fix"],
        &["tasks", "list"],
        &["tasks", "history"],
        &["tasks", "run", "nightly", "--dry-run"],
        &["why", "no-such-id"],
    ] {
        let (words, home) = (words.to_vec(), home.again());
        let config = config.to_owned();
        tokio::task::spawn_blocking(move || ends_the_same(&words, &config, home.path())).await.expect("no panic");
    }
    // They end without a gateway, too, and say so to nobody.
    drop(gateway);
}

#[test]
fn what_there_is_no_gateway_for_ends_quietly() {
    let home = Scratch::new();
    let config = home.write("servers.toml", "");
    for words in [&["status"][..], &["doctor"], &["failures"], &["launchd", "install"], &["tools"]] {
        ends_the_same(words, &config, home.path());
    }
}

#[test]
fn a_gateway_whose_log_nobody_reads_serves_on() {
    let home = Scratch::new();
    let config =
        home.write("servers.toml", "[gateway]\nlisten = \"127.0.0.1:0\"\n[servers.seawall]\nbuiltin = \"seawall\"\n");
    let mut command = seawall(&["serve"], &config, home.path());
    let mut child = command
        .env("RUST_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(unread())
        .spawn()
        .expect("it starts");
    let mut said = BufReader::new(child.stdout.take().expect("piped")).lines();
    let address = said.find_map(|line| {
        let line = line.expect("UTF-8");
        let rest = line.split("listening on http://").nth(1)?;
        Some(rest.split(|c: char| c == '/' || c.is_whitespace()).next()?.to_owned())
    });
    let answer = address.as_ref().map(|address| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(WITHIN)).expect("a timeout");
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    });
    let ended = child.try_wait().expect("a child can be asked");
    let _ = child.kill();
    let _ = child.wait();
    assert!(answer.as_ref().is_some_and(|answer| answer.starts_with("HTTP/1.1 200")), "{answer:?}, {ended:?}");
}
