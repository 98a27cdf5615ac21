//! Child processes: [`Command`] is data, [`Child`] a handle to a running tree.
//! Knows nothing of MCP.
//!
//! A child is the leader of a process group of its own, so that it ends together
//! with what it started. Its environment is built from nothing.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::{ChildStderr, ChildStdin, ChildStdout},
    sync::watch,
    time::timeout,
};
use tokio_util::task::TaskTracker;

mod exit;
pub mod memory;
pub mod tail;

pub use exit::Exit;

/// What a child inherits of seawall's own environment; all else must be asked for.
const INHERITED: [&str; 12] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "TMPDIR", "SYSTEMROOT"];

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// A path, or a name to be looked up on PATH.
    pub program: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("no such command: {0:?} is not on PATH")]
    NotOnPath(String),
    #[error("no such file: {}", .0.display())]
    NoSuchFile(PathBuf),
    #[error("the working directory {} does not exist", .0.display())]
    NoSuchDirectory(PathBuf),
    #[error("{} cannot be run: permission denied", .0.display())]
    NotExecutable(PathBuf),
    #[error("starting {} failed: {source}", program.display())]
    Io { program: PathBuf, source: std::io::Error },
}

impl SpawnError {
    /// Whether trying again could help without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, SpawnError::Io { .. })
    }
}

/// The pipes of a child that has just been started.
#[derive(Debug)]
pub struct Pipes {
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
    pub stderr: ChildStderr,
}

/// A running process group. Dropping every handle does not end it; [`Child::stop`] does.
#[derive(Clone, Debug)]
pub struct Child {
    pid: u32,
    exit: watch::Receiver<Option<Exit>>,
}

impl Command {
    pub fn spawn(&self, tasks: &TaskTracker) -> Result<(Child, Pipes), SpawnError> {
        if !self.cwd.is_dir() {
            return Err(SpawnError::NoSuchDirectory(self.cwd.clone()));
        }
        let env = self.environment();
        let path = env.iter().rfind(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        let program = resolve(&self.program, &self.cwd, path.unwrap_or_default())?;
        let mut child = tokio::process::Command::new(&program)
            .args(&self.args)
            .env_clear()
            .envs(env)
            .current_dir(&self.cwd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::PermissionDenied => SpawnError::NotExecutable(program.clone()),
                // The file is there: what is missing is the interpreter in its first line.
                std::io::ErrorKind::NotFound => SpawnError::NoSuchFile(program.clone()),
                _ => SpawnError::Io { program: program.clone(), source },
            })?;
        let (Some(pid), Some(stdin), Some(stdout), Some(stderr)) =
            (child.id(), child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            let source = std::io::Error::other("the process has no id or no pipes");
            return Err(SpawnError::Io { program, source });
        };
        let (sender, exit) = watch::channel(None);
        tasks.spawn(async move {
            let exit = match child.wait().await {
                Ok(status) => Exit::from(status),
                Err(error) => Exit::Unknown(error.to_string()),
            };
            sender.send_replace(Some(exit));
        });
        Ok((Child { pid, exit }, Pipes { stdin, stdout, stderr }))
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let inherited = INHERITED.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
        let given = self.env.iter().map(|(name, value)| (name.into(), value.into()));
        inherited.chain(given).collect()
    }
}

/// Finds the file to run, as a shell would.
fn resolve(program: &str, cwd: &Path, path: OsString) -> Result<PathBuf, SpawnError> {
    if program.contains('/') {
        let file = cwd.join(program);
        return if file.exists() { Ok(file) } else { Err(SpawnError::NoSuchFile(file)) };
    }
    std::env::split_paths(&path)
        .map(|folder| cwd.join(folder).join(program))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
        .ok_or_else(|| SpawnError::NotOnPath(program.to_owned()))
}

impl Child {
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Resolves when the process itself has ended, whatever its children do.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_else(|| Exit::Unknown("it has not ended".to_owned())),
            Err(_) => Exit::Unknown("its watcher was ended first".to_owned()),
        }
    }

    /// Ends the whole group: its input is taken to be closed already, so it gets half
    /// of `grace` to end by itself, the other half after SIGTERM, then SIGKILL.
    pub async fn stop(&self, grace: Duration) -> Exit {
        if let Ok(exit) = timeout(grace / 2, self.exited()).await {
            self.signal_group(Signal::KILL);
            return exit;
        }
        self.signal_group(Signal::TERM);
        let exit = timeout(grace / 2, self.exited()).await;
        // Also after a polite end: what it started does not outlive it.
        self.signal_group(Signal::KILL);
        match exit {
            Ok(exit) => exit,
            Err(_) => self.exited().await,
        }
    }

    /// Ends what is left of the group at once.
    pub fn kill(&self) {
        self.signal_group(Signal::KILL);
    }

    fn signal_group(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // An error means that nobody is left, which is what was wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}
