//! The process of a service: started in a group of its own, signalled, and ended with
//! all that it started. Its stderr passes through, and its last words are kept.

use std::{
    collections::VecDeque,
    io::{self, Read},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::run::Job;
use crate::{
    process::{
        HELPER, mark,
        veil::{self, Veil},
    },
    say,
};

const TAIL_BYTES: usize = 4096;
/// What a process wrote is there when it ends; what its children hold open is not waited for.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// The variable that marks a service and all that it starts: `WRAPPER-MARK`, the wrapper
/// by its pid.
const VARIABLE: &str = "SEAWALL_SERVICE";

/// Starts the process of a job, with a mark that no other life has. On Linux through seawall itself, which asks the kernel
/// to end it with this process and then becomes the service.
pub(super) fn start(job: &Job, mark: &str) -> io::Result<(std::process::Child, Tail)> {
    let mut command = if cfg!(target_os = "linux") {
        let mut command = Command::new(&job.seawall);
        command.args([HELPER, "exec", "--parent", &std::process::id().to_string(), "--"]).args(&job.argv);
        command
    } else {
        let (program, arguments) = job.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments);
        command
    };
    let mut child = command
        .envs(job.env.iter().map(|(name, value)| (name, value)))
        .env(VARIABLE, format!("{}-{mark}", std::process::id()))
        .current_dir(&job.cwd)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        // Its own group: it can be ended with its children, and a Ctrl-C of a terminal
        // reaches it once, through us, and not twice.
        .process_group(0)
        .spawn()?;
    let tail = Tail::follow(child.stderr.take(), &job.veil);
    Ok((child, tail))
}

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("its parent died first")]
    Orphaned,
    #[error("{program} cannot be run: {source}")]
    Io { program: String, source: io::Error },
}

/// Becomes the program `argv`, which ends when the process `parent` does. Returns only
/// if that fails.
pub fn exec(argv: &[String], parent: u32) -> ExecError {
    let (program, arguments) = match argv.split_first() {
        Some((program, arguments)) => (program.clone(), arguments),
        None => (String::new(), argv),
    };
    #[cfg(target_os = "linux")]
    {
        let asked = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
        if let Err(error) = asked {
            return ExecError::Io { program, source: error.into() };
        }
    }
    // It may have died before it could be asked about.
    let is_ours = rustix::process::getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent));
    if !is_ours {
        return ExecError::Orphaned;
    }
    let source = Command::new(&program).args(arguments).exec();
    ExecError::Io { program, source }
}

fn pid_of(raw: u32) -> Option<Pid> {
    i32::try_from(raw).ok().and_then(Pid::from_raw)
}

/// Passes a signal on to the process itself.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        // An error means that it is gone, which its end will tell.
        let _ = kill_process(pid, signal);
    }
}

/// Ends the process and all of its group at once.
pub(super) fn kill_group(pid: u32) {
    if let Some(pid) = pid_of(pid) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Whether a process is in the group that a service was started in.
pub(super) fn is_in_group(pid: u32, service: u32) -> bool {
    pid_of(pid).is_some_and(|pid| rustix::process::getpgid(Some(pid)).ok() == pid_of(service))
}

/// All that carries the mark of a life.
pub(super) fn marked(mark: &str) -> Vec<u32> {
    // A damaged state file must not name all that have no mark.
    if mark.is_empty() {
        return Vec::new();
    }
    let (beginning, end) = (format!("{VARIABLE}="), format!("-{mark}"));
    mark::carriers(|variable| variable.starts_with(beginning.as_bytes()) && variable.ends_with(end.as_bytes()))
}

/// Whether this process is a service whose start and end its parent, a `seawall run`,
/// writes down.
pub fn is_recorded() -> bool {
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    let told = std::env::var(VARIABLE).ok();
    parent.is_some() && told.as_deref().and_then(|told| told.split_once('-')).map(|(pid, _)| pid) == parent.as_deref()
}

/// Whether the working directory and the program are such that a start can succeed;
/// said before the start, since a launcher in between would hide it.
pub(super) fn cannot_start(job: &Job) -> Option<String> {
    if !job.cwd.is_dir() {
        return Some(format!("the working directory {} does not exist", job.cwd.display()));
    }
    let program = job.argv.first()?;
    let is_missing = program.contains('/') && !Path::new(program).exists();
    is_missing.then(|| format!("no such file: {program}"))
}

/// Keeps the end of a stderr, and may pass all of it on, both without what was told in confidence.
pub(super) struct Tail {
    kept: Arc<Mutex<VecDeque<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Tail {
    /// Of a service: its words are passed on as they come.
    pub(super) fn follow(stream: Option<impl Read + Send + 'static>, veil: &Veil) -> Self {
        Self::reading(stream, veil, true)
    }

    /// Of somebody whose last words are enough.
    pub(super) fn keep(stream: Option<impl Read + Send + 'static>, veil: &Veil) -> Self {
        Self::reading(stream, veil, false)
    }

    fn reading(stream: Option<impl Read + Send + 'static>, veil: &Veil, is_passed_on: bool) -> Self {
        let kept = Arc::<Mutex<VecDeque<u8>>>::default();
        let (mine, veil) = (kept.clone(), veil.stream());
        let thread = stream.and_then(|stream| {
            thread::Builder::new().name("stderr".to_owned()).spawn(move || copy(stream, veil, &mine, is_passed_on)).ok()
        });
        Tail { kept, thread }
    }

    /// Waits until all of it is copied, for a moment: what the process started may hold it open.
    pub(super) fn ended(&self) {
        let until = Instant::now() + LAST_WORDS;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The last whole lines; `None` if there was nothing.
    pub(super) fn last_words(&self) -> Option<String> {
        self.ended();
        let kept: Vec<u8> = self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let text = String::from_utf8_lossy(&kept);
        let whole = match text.split_once('\n') {
            // Of one long line there is its end.
            Some((_, rest)) if kept.len() == TAIL_BYTES && !rest.trim().is_empty() => rest,
            _ => &text,
        };
        Some(whole.trim_end()).filter(|text| !text.is_empty()).map(str::to_owned)
    }
}

fn copy(mut stream: impl Read, mut veil: veil::Stream, kept: &Mutex<VecDeque<u8>>, is_passed_on: bool) {
    let hear = |text: &[u8]| {
        keep(text, kept);
        if is_passed_on {
            // A full disk under the log must not stop the service, nor one who does not read it.
            say::pass_on(text);
        }
    };
    let mut chunk = [0; 8192];
    loop {
        match stream.read(&mut chunk) {
            Ok(n @ 1..) => hear(&veil.pass(&chunk[..n])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
        }
    }
    hear(&veil.end());
}

fn keep(text: &[u8], tail: &Mutex<VecDeque<u8>>) {
    let mut kept = tail.lock().unwrap_or_else(PoisonError::into_inner);
    kept.extend(text);
    let surplus = kept.len().saturating_sub(TAIL_BYTES);
    kept.drain(..surplus);
}
