//! The gateway's side of a launch: starts the launcher, hands it its order, waits for
//! its answer, and keeps the socket whose end is the end of the tree.

use std::{
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::Interest,
    process::{ChildStderr, ChildStdin, ChildStdout},
    sync::watch,
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{
    Child, Exit, LaunchError, Ledger, SpawnError, launcher, sys,
    talk::{self, Answer, Order, STOP_POLITELY},
};
use crate::sandbox::{Plan, Report};

/// A launcher that has not answered by then will not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer is one line with a short list of words.
const ANSWER_MAX_BYTES: usize = 64 << 10;

/// A program that runs below its launcher.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) launcher: u32,
    pub(super) pid: u32,
    pub(super) report: Report,
    pub(super) plan: Plan,
    pub(super) exit: watch::Receiver<Option<Exit>>,
    control: Control,
}

/// While it is open the tree may live.
#[derive(Debug)]
struct Control(UnixStream);

impl Drop for Control {
    fn drop(&mut self) {
        // Also where another process got hold of a copy for a moment.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

/// Its pipes, unless it has a terminal, and the sockets that listen in its network.
pub(super) type Started = (Child, Option<(ChildStdin, ChildStdout, ChildStderr)>, Vec<OwnedFd>);

pub(super) async fn launch(
    order: &Order,
    mark: &str,
    ledger: Option<&Ledger>,
    tasks: &TaskTracker,
    terminal: Option<&OwnedFd>,
) -> Result<Started, SpawnError> {
    let io = |source| SpawnError::Io { program: order.program.clone(), source };
    let (ours, theirs) = UnixStream::pair().map_err(io)?;
    let control = Control(ours);
    let theirs = OwnedFd::from(theirs);
    let mut child = launcher_command(&theirs, terminal)?.spawn().map_err(io)?;
    drop(theirs);
    let Some(launcher) = child.id() else { return Err(io(std::io::Error::other("the process has no id"))) };
    let streams = match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
        (Some(stdin), Some(stdout), Some(stderr)) => Some((stdin, stdout, stderr)),
        _ => None,
    };
    let entry = ledger.map(|ledger| ledger.note(launcher, mark));
    let (sender, exit) = watch::channel(None);
    tasks.spawn(async move {
        let exit = match child.wait().await {
            Ok(status) => Exit::from(status),
            Err(error) => Exit::Unknown(error.to_string()),
        };
        drop(entry);
        sender.send_replace(Some(exit));
    });
    let (pid, report, listeners) = match timeout(ANSWER_TIMEOUT, converse(&control.0, order)).await {
        Ok(Ok((Answer::Started { pid, report }, listeners))) => (pid, report, listeners),
        Ok(Ok((Answer::Failed(error), _))) => return Err(failure(order, error)),
        Ok(Err(error)) => return Err(io(error)),
        Err(_) => return Err(io(std::io::Error::other("the launcher does not answer"))),
    };
    let plan = order.plan.clone();
    let launched = Launched { launcher, pid, report, plan, exit, control };
    Ok((Child(Arc::new(launched)), streams, listeners))
}

fn launcher_command(control: &OwnedFd, terminal: Option<&OwnedFd>) -> Result<tokio::process::Command, SpawnError> {
    use std::os::fd::AsRawFd as _;
    let mut command = tokio::process::Command::new(launcher::program().ok_or(SpawnError::NoLauncher)?);
    command.arg0("seawall").arg(launcher::SUBCOMMAND).arg(control.as_raw_fd().to_string());
    // Even a variable that changes how programs are loaded must not reach the launcher.
    command.env_clear().current_dir(Path::new("/"));
    let stream = || match terminal {
        Some(terminal) => terminal.try_clone().map_or_else(|_| Stdio::null(), Stdio::from),
        None => Stdio::piped(),
    };
    command.stdin(stream()).stdout(stream()).stderr(stream());
    sys::inherit(&mut command, sys::borrowed(control));
    Ok(command)
}

/// Says what to start and hears how that went.
async fn converse(control: &UnixStream, order: &Order) -> std::io::Result<(Answer, Vec<OwnedFd>)> {
    let stream = control.try_clone()?;
    stream.set_nonblocking(true)?;
    let stream = tokio::net::UnixStream::from_std(stream)?;
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    let mut left = &line[..];
    while !left.is_empty() {
        stream.writable().await?;
        match stream.try_write(left) {
            Ok(written) => left = &left[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let (mut bytes, mut fds) = (Vec::new(), Vec::new());
    while !bytes.ends_with(b"\n") {
        let read = stream.async_io(Interest::READABLE, || talk::receive(stream.as_fd(), &mut bytes, &mut fds)).await?;
        if read == 0 || bytes.len() > ANSWER_MAX_BYTES {
            return Err(std::io::Error::other("the launcher ended without an answer"));
        }
    }
    Ok((serde_json::from_slice(&bytes)?, fds))
}

fn failure(order: &Order, error: LaunchError) -> SpawnError {
    match error {
        LaunchError::NotFound(_) => SpawnError::NoSuchFile(order.program.clone()),
        LaunchError::NotPermitted(_) => SpawnError::NotExecutable(order.program.clone()),
        LaunchError::Refused(why) => SpawnError::Refused(why),
        error @ LaunchError::Other(_) => SpawnError::NotStarted(error),
    }
}

impl Launched {
    /// SIGTERM to every process of the tree.
    pub(super) fn ask_to_end(&self) {
        use std::io::Write as _;
        // An error means that nobody is left, which is what was wanted.
        let _ = (&self.control.0).write(&[STOP_POLITELY]);
    }

    /// The launcher kills the whole tree when it sees this.
    pub(super) fn demand_end(&self) {
        let _ = self.control.0.shutdown(std::net::Shutdown::Both);
    }

    /// For a launcher that does not do its part.
    pub(super) fn kill_launcher(&self) {
        if self.exit.borrow().is_some() {
            // Its number may be somebody else's by now.
            return;
        }
        if let Some(pid) = i32::try_from(self.launcher).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
