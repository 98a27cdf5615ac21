//! `seawall sandbox shell`: a shell where a server runs. At a terminal it gets one of its
//! own: what is typed is carried there and what it says is carried back, so that the
//! user's terminal is never in its hands.

use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    os::fd::OwnedFd,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use rustix::{
    fs::{Mode, OFlags},
    pty::OpenptFlags,
    termios::{OptionalActions, Termios},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

use crate::{command::block_on, process::Command, say::note};

/// What it said last is on its way for so long.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(1);

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    let command = super::with_words(command, &[shell()]);
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        block_on(at_terminal(command))
    } else {
        block_on(super::run_here(command))
    }
}

fn shell() -> String {
    let bash = "/bin/bash";
    if std::path::Path::new(bash).exists() { bash } else { "/bin/sh" }.to_owned()
}

async fn at_terminal(command: Command) -> anyhow::Result<ExitCode> {
    let (ours, theirs) = pair().context("no terminal can be made")?;
    fit(&ours);
    let tasks = TaskTracker::new();
    let (child, listeners) = command.spawn_on(&theirs, &tasks).await?;
    drop(theirs);
    note!("seawall: {}", super::in_a_line(child.report()));
    super::let_out(&command, listeners);
    let raw = Raw::begin()?;
    let (mut input, mut output) = (std::fs::File::from(ours.try_clone()?), std::fs::File::from(ours.try_clone()?));
    // Threads: one that waits for a key must not be waited for.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut Unbuffered, &mut input);
    });
    let said = tokio::task::spawn_blocking(move || {
        let mut chunk = [0; 8192];
        while let Ok(read @ 1..) = output.read(&mut chunk) {
            let mut out = std::io::stdout().lock();
            if out.write_all(&chunk[..read]).and_then(|()| out.flush()).is_err() {
                break;
            }
        }
    });
    let mut resized = signal(SignalKind::window_change())?;
    let exit = loop {
        tokio::select! {
            exit = child.exited() => break exit,
            _ = resized.recv() => fit(&ours),
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS_WAIT, said).await;
    drop(raw);
    super::exit_code(exit)
}

/// Ours and theirs of a new terminal.
fn pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    let name = rustix::pty::ptsname(&ours, Vec::new())?;
    let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((ours, theirs))
}

/// As large as the user's.
fn fit(ours: &OwnedFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        let _ = rustix::termios::tcsetwinsize(ours, size);
    }
}

/// The user's terminal hands on each key as it is, until dropped.
struct Raw(Termios);

impl Raw {
    fn begin() -> std::io::Result<Self> {
        let before = rustix::termios::tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Each key when it is there.
struct Unbuffered;

impl std::io::Read for Unbuffered {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        Ok(rustix::io::read(rustix::stdio::stdin(), buffer)?)
    }
}
