//! Stands between `seawall run` and an errand, on Linux: what the errand orphans falls to
//! this process and to nobody above it, so that it ends with the errand even where it has
//! left its group, its session and its environment, and is never taken for the service's.

use std::{
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::Command,
    time::Duration,
};

use signal_hook::{
    consts::{SIGCHLD, SIGTERM},
    iterator::Signals,
};

use super::run::Outcome;
use crate::process::orphans;

/// Runs a program, until SIGTERM at most, and ends all that it leaves; how to end then.
/// `is_all` waits for what it leaves its work to as well.
pub fn escort(argv: &[String], is_all: bool) -> io::Result<Outcome> {
    let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    // Before the start: nothing is left behind by a signal in between.
    let mut signals = Signals::new([SIGCHLD, SIGTERM])?;
    orphans::adopt();
    let mut child = Command::new(program).args(arguments).process_group(0).spawn()?;
    let mut signals = signals.forever();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if signals.next() == Some(SIGTERM) {
            break None;
        }
    };
    while is_all && status.is_some() {
        orphans::bury(|_| false);
        if orphans::below(std::process::id()).is_empty() || signals.next() == Some(SIGTERM) {
            break;
        }
    }
    orphans::end_below(Duration::ZERO, |_| false, |_| {});
    let ended = status.and_then(|status| match (status.code(), status.signal()) {
        (Some(code), _) => Some(Outcome::Code(code)),
        (None, signal) => signal.map(Outcome::Signal),
    });
    Ok(ended.unwrap_or(Outcome::Signal(SIGTERM)))
}
