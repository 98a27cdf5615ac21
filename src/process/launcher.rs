//! `seawall sandbox-exec`: the process between seawall and a server, the same binary
//! started again. It has one thread and no runtime.
//!
//! It makes the surroundings that its order asks for, starts the program in them and
//! answers what it could enforce. From then on it holds the tree together: however
//! the program, the gateway or the launcher itself ends, nothing of the tree stays.

use std::{
    io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;

#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod held;
#[cfg(target_os = "linux")]
mod init;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
pub(super) mod tree;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use portable as system;

use super::{
    sys,
    talk::{Answer, LaunchError, Order},
};
use crate::say::note;

/// The hidden subcommand.
pub(super) const SUBCOMMAND: &str = "sandbox-exec";
/// The hidden subcommand by which `seawall sandbox check` tries an escape, from inside.
pub const ATTEMPT: &str = "sandbox-attempt";
/// An order is a command line, an environment and a list of paths.
const ORDER_MAX_BYTES: u64 = 4 << 20;
/// Nothing was started; why has been answered.
const EXIT_NOT_STARTED: u8 = 126;

/// Whether this program can be started again as a launcher.
static IS_LAUNCHER: AtomicBool = AtomicBool::new(false);

/// Must be the first thing that `main` does in every program that has `command`
/// servers: they are started through this very program. `Some` where it was started
/// for that; exit with it then.
pub fn enter() -> Option<ExitCode> {
    IS_LAUNCHER.store(true, Ordering::Relaxed);
    let mut words = std::env::args_os().skip(1);
    let subcommand = words.next()?;
    if subcommand == ATTEMPT {
        return Some(attempt(words));
    }
    if subcommand != SUBCOMMAND {
        return None;
    }
    let control = words.next().and_then(|word| word.to_str()?.parse().ok()).map(sys::take_fd);
    match control {
        Some(Ok(control)) => Some(launch(control)),
        _ => {
            note!("seawall: {SUBCOMMAND} is started by seawall itself; to try a sandbox: seawall sandbox run");
            Some(ExitCode::from(2))
        }
    }
}

#[cfg(target_os = "linux")]
fn attempt(words: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    use crate::say::say;

    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let [attempt, arguments @ ..] = &words[..] else { return ExitCode::from(2) };
    let said = match crate::sandbox::attempts::make(attempt, arguments) {
        Ok(found) => say!("got through: {found}"),
        Err(error) => say!("kept out: {error}"),
    };
    if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(target_os = "linux"))]
fn attempt(_: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    note!("seawall: {ATTEMPT} is for Linux");
    ExitCode::from(2)
}

/// The program that takes the part of the launcher.
pub(super) fn program() -> Option<std::path::PathBuf> {
    if !IS_LAUNCHER.load(Ordering::Relaxed) {
        return None;
    }
    if cfg!(target_os = "linux") {
        // Also after an upgrade has replaced the file: gateway and launcher are of one version.
        return Some("/proc/self/exe".into());
    }
    std::env::current_exe().ok()
}

fn launch(control: OwnedFd) -> ExitCode {
    let mut control = UnixStream::from(control);
    let error = match order(&mut control) {
        Ok(order) => system::run(order, &control),
        Err(error) => error,
    };
    let _ = send_line(&control, &Answer::Failed(error), &[]);
    ExitCode::from(EXIT_NOT_STARTED)
}

fn order(control: &mut UnixStream) -> Result<Order, LaunchError> {
    let mut line = Vec::new();
    // Nothing follows the order before it was answered, so that nothing is lost here.
    let mut reader = BufReader::new(control.take(ORDER_MAX_BYTES));
    reader.read_until(b'\n', &mut line).map_err(|error| LaunchError::other("the order cannot be read", error))?;
    serde_json::from_slice(&line).map_err(|error| LaunchError::other("the order cannot be understood", error))
}

/// Sends a line and, along with it, descriptors.
fn send_line(stream: &UnixStream, line: &impl Serialize, fds: &[OwnedFd]) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(line)?;
    line.push(b'\n');
    let borrowed: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
    let message = SendAncillaryMessage::ScmRights(&borrowed);
    let mut space = vec![std::mem::MaybeUninit::uninit(); message.size()];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() {
        ancillary.push(message);
    }
    let sent = sendmsg(stream, &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)?;
    // A stream may take a part of it; the descriptors went with the first byte.
    (&*stream).write_all(&line[sent..])
}

/// Everything to the end of the stream.
#[cfg(target_os = "linux")]
fn receive_all(stream: &UnixStream) -> std::io::Result<(String, Vec<OwnedFd>)> {
    let (mut bytes, mut fds) = (Vec::new(), Vec::new());
    while super::talk::receive(stream, &mut bytes, &mut fds)? > 0 {}
    Ok((String::from_utf8_lossy(&bytes).into_owned(), fds))
}
