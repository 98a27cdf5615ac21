//! Telling people: a command, a webhook, a notification on the desktop. Each is a
//! process of its own with an end in sight, so that nothing that hangs or breaks in it
//! reaches the one who watches.

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Whom to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Program and arguments; what happened is JSON on its stdin.
    Command(Vec<String>),
    /// What happened is posted there as JSON.
    Webhook(String),
    Desktop,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Message {
    pub title: String,
    pub text: String,
    /// The same for programs.
    pub json: Value,
}

/// The supervisor waits for the one who tells, so it does not take long.
const WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Tells all of them side by side; `seawall` is the program that posts to webhooks.
pub fn tell(sinks: &[Sink], message: &Message, seawall: &std::path::Path) {
    let until = Instant::now() + WITHIN;
    let mut running: Vec<(&'static str, Child)> = Vec::new();
    for sink in sinks {
        let (what, started) = match sink {
            Sink::Command(argv) => ("command", command(argv, message)),
            Sink::Webhook(url) => ("webhook", webhook(url, message, seawall)),
            Sink::Desktop => ("desktop", desktop(message)),
        };
        match started {
            Ok(child) => running.push((what, child)),
            Err(error) => say!("the alert could not be told by {what}: {error}"),
        }
    }
    for (what, mut child) in running {
        match end_of(&mut child, until) {
            Some(status) if status.success() => {}
            Some(status) => say!("the alert could not be told by {what}: {status}"),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                say!("the alert could not be told by {what} within {} s", WITHIN.as_secs());
            }
        }
    }
}

fn end_of(child: &mut Child, until: Instant) -> Option<std::process::ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => thread::sleep(LOOK_EVERY),
            Ok(None) | Err(_) => return None,
        }
    }
}

fn command(argv: &[String], message: &Message) -> std::io::Result<Child> {
    let (program, arguments) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    started(Command::new(program).args(arguments), &format!("{}\n", message.json))
}

/// The URL goes by stdin too: arguments can be read by everyone on the machine.
fn webhook(url: &str, message: &Message, seawall: &std::path::Path) -> std::io::Result<Child> {
    started(Command::new(seawall).args(["service-helper", "post"]), &format!("{url}\n{}\n", message.json))
}

#[cfg(target_os = "macos")]
fn desktop(message: &Message) -> std::io::Result<Child> {
    // As arguments of the script: nothing in them is ever read as script.
    const SCRIPT: [&str; 6] = [
        "-e",
        "on run argv",
        "-e",
        "display notification (item 2 of argv) with title (item 1 of argv)",
        "-e",
        "end run",
    ];
    started(Command::new("/usr/bin/osascript").args(SCRIPT).arg("--").args([&message.title, &message.text]), "")
}

#[cfg(not(target_os = "macos"))]
fn desktop(message: &Message) -> std::io::Result<Child> {
    started(Command::new("notify-send").args(["--app-name=seawall", "--", &message.title, &message.text]), "")
}

fn started(command: &mut Command, input: &str) -> std::io::Result<Child> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Shorter than a pipe is deep. One who does not read it does not want it.
        let _ = stdin.write_all(input.as_bytes());
    }
    Ok(child)
}
