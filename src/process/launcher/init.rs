//! The first process of a pid namespace: starts the program, reaps whatever is left
//! to it, and ends with the program. The kernel then ends all others of the namespace.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{Mode, OFlags},
    pipe::PipeFlags,
    process::{Pid, Signal, WaitOptions, WaitStatus},
};

use super::{
    super::{
        sys::{self, Fork},
        talk::{LaunchError, Order},
    },
    program::{self, Note, Notes},
};
use crate::sandbox::{Tier, linux as sandbox};

/// So often a fork is tried again for the sake of a number.
const SAME_PID_TRIES_MAX: usize = 16;

/// What the launcher and its first process share.
pub(super) struct Ends {
    /// The launcher has written the maps of the user namespace.
    pub(super) go: OwnedFd,
    pub(super) notes: Notes,
    /// The program's end goes here.
    pub(super) outcome: OwnedFd,
}

/// Never returns: the process ends here.
pub(super) fn run(order: &Order, ends: Ends) -> ! {
    let Ends { go, notes, outcome } = ends;
    // Its one thread is the launcher itself.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let mut byte = [0];
    if !matches!(rustix::io::read(&go, &mut byte), Ok(1)) {
        // The launcher is gone, or gave up.
        std::process::exit(1);
    }
    match start(order, &notes) {
        Ok(program) => {
            drop(notes);
            let status = reap_until(program);
            let _ = rustix::io::write(&outcome, &status.as_raw().to_ne_bytes());
            std::process::exit(0);
        }
        Err(error) => {
            notes.send(&Note::Failed(error), &[]);
            std::process::exit(1);
        }
    }
}

fn start(order: &Order, notes: &Notes) -> Result<Pid, LaunchError> {
    let old_proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| LaunchError::other("/proc cannot be opened", error))?;
    let inside = sandbox::surround(&order.plan).map_err(LaunchError::from)?;
    notes.send(&Note::Inside { missing: inside.missing }, &inside.listeners);
    let program = fork_with_the_same_number(order, notes, &old_proc)?;
    // What is left of this process's rights is not needed any more.
    program::forget_streams();
    sandbox::drop_rights(&order.plan).map_err(LaunchError::from)?;
    // The change of the user has cleared it.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    Ok(program)
}

/// Starts the program so that its number inside is the one outside wherever that can
/// be had: a pid that a server writes into its log is then one that a person can look at.
fn fork_with_the_same_number(order: &Order, notes: &Notes, old_proc: &OwnedFd) -> Result<Pid, LaunchError> {
    let failed = |error: std::io::Error| LaunchError::other("no process can be started", error);
    let mut last_outside = number_of_this(old_proc);
    for attempt in 1..=SAME_PID_TRIES_MAX {
        if let Some(last) = last_outside {
            // Not permitted: any number will do.
            let _ = std::fs::write("/proc/sys/kernel/ns_last_pid", last.to_string());
        }
        let (wait, keep) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        match sys::fork_into(0).map_err(failed)? {
            Fork::Child => {
                drop(keep);
                let mut outside = [0; 4];
                if !matches!(rustix::io::read(&wait, &mut outside), Ok(4)) {
                    std::process::exit(1);
                }
                program::become_it(order, Tier::Full, notes, i32::from_ne_bytes(outside))
            }
            Fork::Parent(child) => {
                let inside = child.as_raw_nonzero().get();
                last_outside = number_of_child(old_proc);
                if last_outside.is_none_or(|outside| outside == inside) || attempt == SAME_PID_TRIES_MAX {
                    let outside = last_outside.unwrap_or(inside).to_ne_bytes();
                    rustix::io::write(&keep, &outside).map_err(|error| failed(error.into()))?;
                    return Ok(child);
                }
                drop(keep);
                let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
            }
        }
    }
    Err(LaunchError::Other("no process can be started".to_owned()))
}

/// What this process is called outside.
fn number_of_this(old_proc: &OwnedFd) -> Option<i32> {
    rustix::fs::readlinkat(old_proc, "self", Vec::new()).ok()?.to_str().ok()?.parse().ok()
}

/// What its only child is called outside.
fn number_of_child(old_proc: &OwnedFd) -> Option<i32> {
    let file = rustix::fs::openat(old_proc, "thread-self/children", OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut line = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(file), &mut line).ok()?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn reap_until(program: Pid) -> WaitStatus {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => return status,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // It has a child for as long as the program lives.
            Err(_) => std::process::exit(1),
        }
    }
}
