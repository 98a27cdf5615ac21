//! The last steps of the process that becomes the program: its rights are taken away,
//! the last of them by the rules that it cannot take back, then it is the program.

use std::{
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::Command,
};

use rustix::{
    fs::{Mode, OFlags},
    process::Signal,
};
use serde::{Deserialize, Serialize};

use super::super::talk::{LaunchError, Order};
use crate::sandbox::{Tier, linux as sandbox};

/// What the processes of a start tell the launcher; the end of their stream says that
/// the program runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Note {
    /// The namespaces are made; the descriptors that come along listen in there.
    Inside {
        missing: Vec<String>,
    },
    /// The next thing is the program, under this number.
    Program(i32),
    Failed(LaunchError),
}

pub(super) struct Notes(UnixStream);

impl Notes {
    /// The writing and the reading end.
    pub(super) fn pair() -> std::io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Notes(ours), theirs))
    }

    pub(super) fn send(&self, note: &Note, fds: &[OwnedFd]) {
        // The launcher is gone where this fails, and then nobody waits for it.
        let _ = super::send_line(&self.0, note, fds);
    }
}

/// Becomes the program, or says why not and ends.
pub(super) fn become_it(order: &Order, tier: Tier, notes: &Notes, number: i32) -> ! {
    let error = match prepare(order, tier) {
        Ok((mut command, observers)) => {
            notes.send(&Note::Program(number), &observers);
            drop(observers);
            // Also gives signals back what they do by default.
            explain(order, &command.exec())
        }
        Err(error) => error,
    };
    notes.send(&Note::Failed(error), &[]);
    std::process::exit(1);
}

/// The program, and what whoever observes it needs.
fn prepare(order: &Order, tier: Tier) -> Result<(Command, Vec<OwnedFd>), LaunchError> {
    let parent = rustix::process::getppid();
    let _ = rustix::process::setsid();
    if order.has_terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
            .map_err(|error| LaunchError::other("the terminal cannot be its own", error))?;
    }
    let mut command = Command::new(&order.program);
    command.args(&order.args).env_clear();
    let variables = sandbox::variables(&order.plan, tier);
    // What servers.toml sets itself comes last.
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command.envs(order.env.iter().map(|(name, value)| (name, value)));
    let home = variables.iter().find(|(name, _)| name == "HOME").map(|(_, home)| home.clone());
    let cwd = home.filter(|_| !order.plan.keeps_cwd).unwrap_or_else(|| order.cwd.clone());
    std::env::set_current_dir(&cwd)
        .map_err(|error| LaunchError::other(&format!("the working directory {}", cwd.display()), error))?;
    sandbox::confine(&order.plan, tier).map_err(LaunchError::from)?;
    // After the change of the user, which clears it.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if rustix::process::getppid() != parent {
        return Err(LaunchError::Other("the launcher has ended".to_owned()));
    }
    // Last, for from here on its calls wait for a look.
    let observer = order.plan.observed.then(sandbox::observe::begin).transpose()?;
    Ok((command, observer.into_iter().collect()))
}

fn explain(order: &Order, error: &std::io::Error) -> LaunchError {
    let program = order.program.display();
    match error.kind() {
        // The file is there: what is missing is the interpreter in its first line.
        std::io::ErrorKind::NotFound => LaunchError::NotFound(format!(
            "{program} cannot be run: it, or the interpreter in its first line, is not there"
        )),
        std::io::ErrorKind::PermissionDenied => {
            LaunchError::NotPermitted(format!("{program} cannot be run: permission denied"))
        }
        _ => LaunchError::other(&format!("starting {program} failed"), error),
    }
}

/// The server's streams are the server's alone: their ends must be seen when it closes them.
pub(super) fn forget_streams() {
    forget_input_and_output();
    if let Some(null) = null() {
        let _ = rustix::stdio::dup2_stderr(null.as_fd());
    }
}

/// Stderr stays, for last words about the tree.
pub(super) fn forget_input_and_output() {
    if let Some(null) = null() {
        let _ = rustix::stdio::dup2_stdin(null.as_fd());
        let _ = rustix::stdio::dup2_stdout(null.as_fd());
    }
}

fn null() -> Option<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()
}
