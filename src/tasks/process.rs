//! The process of one step: in a group of its own, and all that is orphaned below it is left
//! to this process, so that a step ends with all that it started, in whatever session it is.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::process::{HELPER, mark, orphans};

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// From SIGTERM to SIGKILL; the one who waits for us has more patience.
const GRACE: Duration = Duration::from_secs(5);

/// Why a step did not end by itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum Why {
    #[error("it cannot be started: {0}")]
    NotStarted(#[source] std::io::Error),
    #[error("it took too long")]
    Late,
    #[error("it was told to stop")]
    Stopped,
}

/// Runs `argv` until it ends, until a moment at most. Nothing else is a child of this process
/// meanwhile.
pub(super) fn to_its_end(
    seawall: &Path,
    argv: &[String],
    until: Instant,
    stop: &AtomicBool,
) -> Result<ExitStatus, Why> {
    orphans::adopt();
    let mut child = start(seawall, argv).map_err(Why::NotStarted)?;
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if stop.load(Ordering::Relaxed) => break Err(Why::Stopped),
            Ok(None) if until <= Instant::now() => break Err(Why::Late),
            Ok(None) => thread::sleep(LOOK_EVERY),
            Err(error) => break Err(Why::NotStarted(error)),
        }
    };
    if ended.is_err() {
        end(&mut child);
    }
    // What it started does not outlive it.
    signal_group(&child, Signal::KILL);
    orphans::end_below(Duration::ZERO, |_| false, |_| {});
    ended
}

/// On Linux through seawall itself, which asks the kernel to end it with this process.
fn start(seawall: &Path, argv: &[String]) -> std::io::Result<Child> {
    let mut command = if cfg!(target_os = "linux") {
        let mut command = Command::new(seawall);
        command.args([HELPER, "exec", "--parent", &std::process::id().to_string(), "--"]).args(argv);
        command
    } else {
        let (program, arguments) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments);
        command
    };
    command.stdin(Stdio::null()).process_group(0).spawn()
}

fn end(child: &mut Child) {
    signal_group(child, Signal::TERM);
    // Also to those that left the group: none gets it twice.
    let others = orphans::below(std::process::id()).into_iter().filter(|pid| group_of(*pid) != Some(child.id()));
    others.for_each(|pid| mark::signal(pid, Signal::TERM));
    let until = Instant::now() + GRACE;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
        thread::sleep(LOOK_EVERY);
    }
    signal_group(child, Signal::KILL);
    let _ = child.wait();
}

fn group_of(pid: u32) -> Option<u32> {
    let group = rustix::process::getpgid(i32::try_from(pid).ok().and_then(Pid::from_raw)).ok()?;
    u32::try_from(group.as_raw_nonzero().get()).ok()
}

fn signal_group(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // An error means that nobody is left.
        let _ = kill_process_group(pid, signal);
    }
}

/// Waits, unless it is told to stop.
pub(super) fn pause(time: Duration, stop: &AtomicBool) {
    let until = Instant::now() + time;
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now())));
    }
}
