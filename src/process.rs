//! Child processes: [`Command`] is data, [`Child`] a handle to a running tree.
//! Knows nothing of MCP.
//!
//! Every child is started by the [`launcher`], which holds together what the child
//! starts in turn, confines it as its plan says, and ends all of it when the child,
//! the gateway or the launcher itself ends. Its environment is built from nothing.

use std::{
    ffi::OsString,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    process::{ChildStderr, ChildStdin, ChildStdout},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::sandbox::{Around, Plan, Policy, Profile, Report};

mod exit;
mod launch;
pub mod launcher;
pub mod ledger;
pub mod mark;
pub mod memory;
pub mod orphans;
mod private;
#[expect(unsafe_code, reason = "fork, signals and inherited descriptors have no safe form")]
mod sys;
pub mod tail;
mod talk;
pub mod veil;

pub use exit::Exit;
use ledger::Ledger;
pub use sys::dies_with_us;
pub use talk::LaunchError;
use talk::Order;

/// The first word by which seawall starts itself to help `seawall run`; no subcommand.
pub const HELPER: &str = "service-helper";

/// A tree that was told to end at once has so long before its launcher is ended too.
const KILL_WAIT: Duration = Duration::from_secs(3);

/// What a child inherits of seawall's own environment; all else must be asked for.
const INHERITED: [&str; 12] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "TMPDIR", "SYSTEMROOT"];

/// Of these, what says something about the user: not for a server that is confined.
const OF_THE_USER: [&str; 5] = ["HOME", "USER", "LOGNAME", "SHELL", "TMPDIR"];

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// A path, or a name to be looked up on PATH.
    pub program: String,
    pub args: Vec<OsString>,
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
    /// What it is called in messages.
    pub name: String,
    /// What it may touch.
    pub sandbox: Policy,
    /// Seawall's own files and folders, which nothing that is confined may see.
    pub protected: Vec<PathBuf>,
    /// Where it is noted down, for a seawall that finds it without its gateway.
    pub ledger: Option<Ledger>,
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
    /// The sandbox that it shall have cannot be had.
    #[error("the sandbox was refused: {0}")]
    Refused(String),
    #[error("{0}")]
    NotStarted(LaunchError),
    #[error("this program cannot start command servers: its main must begin with seawall::process::launcher::enter()")]
    NoLauncher,
    #[error("starting {} failed: {source}", program.display())]
    Io { program: PathBuf, source: std::io::Error },
}

impl SpawnError {
    /// Whether trying again could help without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, SpawnError::Io { .. } | SpawnError::NotStarted(LaunchError::Other(_)))
    }
}

/// The pipes of a child that has just been started.
#[derive(Debug)]
pub struct Pipes {
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
    pub stderr: ChildStderr,
    /// Sockets that listen in its own network, for seawall to serve.
    pub listeners: Vec<OwnedFd>,
}

/// A running tree. It ends with the last handle, at once; [`Child::stop`] is kinder.
#[derive(Clone, Debug)]
pub struct Child(Arc<launch::Launched>);

impl Command {
    /// Starts the program through the launcher and waits until it runs.
    pub async fn spawn(&self, tasks: &TaskTracker) -> Result<(Child, Pipes), SpawnError> {
        let (child, streams, listeners) = self.start(tasks, None, false).await?;
        match streams {
            Some((stdin, stdout, stderr)) => Ok((child, Pipes { stdin, stdout, stderr, listeners })),
            None => Err(SpawnError::NotStarted(LaunchError::Other("it has no pipes".to_owned()))),
        }
    }

    /// The same under observation: the listener is to be watched at once, as the program
    /// waits for that.
    pub async fn spawn_observed(&self, tasks: &TaskTracker) -> Result<(Child, Pipes, OwnedFd), SpawnError> {
        let none = |what: &str| SpawnError::NotStarted(LaunchError::Other(what.to_owned()));
        let (child, streams, mut listeners) = self.start(tasks, None, true).await?;
        let (stdin, stdout, stderr) = streams.ok_or_else(|| none("it has no pipes"))?;
        // Its own comes after those of its network.
        let observer = listeners.pop().ok_or_else(|| none("it cannot be observed on this system"))?;
        Ok((child, Pipes { stdin, stdout, stderr, listeners }, observer))
    }

    /// The same with a terminal of its own for all of its streams, and the sockets that
    /// listen in its network.
    pub async fn spawn_on(&self, terminal: &OwnedFd, tasks: &TaskTracker) -> Result<(Child, Vec<OwnedFd>), SpawnError> {
        let (child, _, listeners) = self.start(tasks, Some(terminal), false).await?;
        Ok((child, listeners))
    }

    async fn start(
        &self,
        tasks: &TaskTracker,
        terminal: Option<&OwnedFd>,
        observed: bool,
    ) -> Result<launch::Started, SpawnError> {
        let mut plan = Plan { observed, ..self.plan()? };
        let mut env = self.environment();
        let program = self.file(&env)?;
        let mark = mark::unique();
        env.push((ledger::MARK_VARIABLE.to_owned(), mark.clone()));
        if !plan.is_off() {
            plan.private = ledger::private_folder(&mark);
        }
        let has_terminal = terminal.is_some();
        let order = Order { program, args: self.args.clone(), env, cwd: self.cwd.clone(), plan, has_terminal };
        launch::launch(&order, &mark, self.ledger.as_ref(), tasks, terminal).await
    }

    /// What its policy comes to at this moment, on this machine.
    pub fn plan(&self) -> Result<Plan, SpawnError> {
        if !self.cwd.is_dir() {
            return Err(SpawnError::NoSuchDirectory(self.cwd.clone()));
        }
        let env = self.environment();
        let program = self.file(&env)?;
        let homes: Vec<PathBuf> = std::env::home_dir().into_iter().collect();
        let around = Around {
            server: &self.name,
            program: &program,
            args: &self.args,
            cwd: &self.cwd,
            path: &path_of(&env),
            own_path: &std::env::var("PATH").unwrap_or_default(),
            homes: &homes,
            protected: &self.protected,
            uid: rustix::process::geteuid().as_raw(),
            passwd: &std::fs::read_to_string("/etc/passwd").unwrap_or_default(),
        };
        self.sandbox.plan(&around).map_err(|refusal| SpawnError::Refused(refusal.to_string()))
    }

    /// What it was given by name or by value, and what may be a secret therefore.
    pub fn told(&self) -> impl Iterator<Item = (String, String)> {
        let passed = self.sandbox.env.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
        self.env.iter().cloned().chain(passed.collect::<Vec<_>>())
    }

    fn file(&self, env: &[(String, String)]) -> Result<PathBuf, SpawnError> {
        resolve(&self.program, &self.cwd, path_of(env))
    }

    fn environment(&self) -> Vec<(String, String)> {
        let is_off = self.sandbox.profile == Profile::Off;
        let inherited = INHERITED.iter().filter(|name| is_off || !OF_THE_USER.contains(name)).copied();
        let names = inherited.chain(self.sandbox.env.iter().map(String::as_str));
        let inherited = names.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
        inherited.chain(self.env.iter().cloned()).collect()
    }
}

fn path_of(env: &[(String, String)]) -> String {
    env.iter().rfind(|(name, _)| name == "PATH").map(|(_, value)| value.clone()).unwrap_or_default()
}

/// Finds the file to run, as a shell would.
fn resolve(program: &str, cwd: &Path, path: String) -> Result<PathBuf, SpawnError> {
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
    /// Of the program itself, as everybody outside sees it.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// What really holds for it.
    pub fn report(&self) -> &Report {
        &self.0.report
    }

    /// What it was given.
    pub fn plan(&self) -> &Plan {
        &self.0.plan
    }

    /// Resident, of the whole tree without what holds it together.
    pub fn memory_bytes(&self) -> Option<u64> {
        memory::of_children(self.0.launcher, self.0.pid)
    }

    /// Resolves when the program has ended, and with it everything that it started.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.0.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_else(|| Exit::Unknown("it has not ended".to_owned())),
            Err(_) => Exit::Unknown("its watcher was ended first".to_owned()),
        }
    }

    /// Ends the whole tree: its input is taken to be closed already, so it gets half
    /// of `grace` to end by itself, the other half after SIGTERM, then SIGKILL.
    pub async fn stop(&self, grace: Duration) -> Exit {
        if let Ok(exit) = timeout(grace / 2, self.exited()).await {
            return exit;
        }
        self.0.ask_to_end();
        if let Ok(exit) = timeout(grace / 2, self.exited()).await {
            return exit;
        }
        self.kill();
        match timeout(KILL_WAIT, self.exited()).await {
            Ok(exit) => exit,
            Err(_) => {
                self.0.kill_launcher();
                self.exited().await
            }
        }
    }

    /// Ends the tree at once.
    pub fn kill(&self) {
        self.0.demand_end();
    }
}
