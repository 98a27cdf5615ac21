//! What `seawall run` starts beside the service: a probe, someone who is told of an alert.
//! Each has a group of its own and a mark that all of it carries, so that whatever it started
//! ends with it; and each is waited for by whoever sent it.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::PathBuf,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Access, access},
    process::{Pid, Signal, WaitId, WaitIdOptions, waitid},
};

use super::child;
use crate::process::{HELPER, mark, orphans};

/// The variable that marks an errand and all that it starts: `LIFE-NUMBER`.
const VARIABLE: &str = "SEAWALL_ERRAND";
const VARIABLE_EQUALS: &str = "SEAWALL_ERRAND=";
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// All processes are looked at for it.
const LOOK_FOR_THE_REST_EVERY: Duration = Duration::from_millis(200);
/// What ends by itself when the service does, as the servers of a gateway do, has so long.
const PATIENCE: Duration = Duration::from_millis(300);

/// An escort that was told to end its errand has so long: it takes milliseconds.
const ESCORT_WITHIN: Duration = Duration::from_millis(300);

/// When an errand is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    OnExit,
    /// It may leave its work to what it has started.
    WhenAllAreGone,
}

/// Those of one `seawall run`.
#[derive(Clone, Debug)]
pub(super) struct Errands(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of this life of the wrapper.
    mark: String,
    /// The program that is the escort of each, where there is one.
    escort: Option<PathBuf>,
    numbers: AtomicU64,
    /// Children whose end somebody waits for.
    awaited: Mutex<BTreeSet<u32>>,
}

/// One that is under way.
#[derive(Debug)]
pub(super) struct Errand {
    child: Child,
    variable: String,
    over: Over,
    errands: Errands,
    has_ended: bool,
}

impl Errands {
    /// Elsewhere than on Linux an escort has no power, and there is none.
    pub(super) fn of(mark: &str, escort: Option<PathBuf>) -> Self {
        let escort = escort.filter(|_| cfg!(target_os = "linux"));
        let (numbers, awaited) = (AtomicU64::new(0), Mutex::default());
        Errands(Arc::new(Inner { mark: mark.to_owned(), escort, numbers, awaited }))
    }

    /// Sends somebody off; `input` is on their stdin.
    pub(super) fn start(&self, command: Command, stderr: Stdio, input: &str, over: Over) -> io::Result<Errand> {
        let mut command = self.escorted(command, over)?;
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        let value = format!("{}-{number}", self.0.mark);
        let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
        command.env(VARIABLE, &value).stdin(stdin).stdout(Stdio::null()).stderr(stderr).process_group(0);
        let mut child = {
            // Until it is known, its end could be taken for an orphan's.
            let mut awaited = self.0.awaited.lock().unwrap_or_else(PoisonError::into_inner);
            let child = command.spawn()?;
            awaited.insert(child.id());
            child
        };
        if let Some(mut stdin) = child.stdin.take() {
            // Shorter than a pipe is deep. One who does not read it does not want it.
            let _ = stdin.write_all(input.as_bytes());
        }
        let variable = format!("{VARIABLE_EQUALS}{value}");
        Ok(Errand { child, variable, over, errands: self.clone(), has_ended: false })
    }

    fn escorted(&self, command: Command, over: Over) -> io::Result<Command> {
        let Some(escort) = &self.0.escort else { return Ok(command) };
        // An escort would hide it.
        can_be_run(&command)?;
        let mut escorted = Command::new(escort);
        escorted.args([HELPER, "errand"]).args((over == Over::WhenAllAreGone).then_some("--all"));
        escorted.arg("--").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => escorted.env(name, value),
                None => escorted.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            escorted.current_dir(folder);
        }
        Ok(escorted)
    }

    /// Takes away what was orphaned below this process and has ended since: neither the
    /// service nor an errand, whose ends are waited for.
    pub(super) fn bury_orphans(&self, service: u32) {
        let awaited = self.0.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        orphans::bury(|pid| pid == service || awaited.contains(&pid));
    }

    /// Ends what is left below this process of a service that has ended; no errand, and
    /// none may be sent off meanwhile. `before` sees those that do not end by themselves.
    pub(super) fn end_orphans(&self, before: impl FnMut(&[u32])) {
        orphans::end_below(PATIENCE, |pid| self.is_one(pid), before);
    }

    /// The daemons of a service: what it started, and is no longer below it.
    pub(super) fn daemons(&self, service: u32) -> Vec<u32> {
        let below_it = orphans::below(service);
        let all = orphans::below(std::process::id()).into_iter();
        all.filter(|pid| *pid != service && !below_it.contains(pid) && !self.is_one(*pid)).collect()
    }

    fn is_one(&self, pid: u32) -> bool {
        let awaited = self.0.awaited.lock().unwrap_or_else(PoisonError::into_inner).clone();
        awaited.contains(&pid)
            || mark::carries(pid, |variable| variable.starts_with(VARIABLE_EQUALS.as_bytes()))
            // Whatever has emptied its environment is still below its escort.
            || awaited.iter().any(|errand| orphans::below(*errand).contains(&pid))
    }
}

/// Why it cannot be, where that is so.
fn can_be_run(command: &Command) -> io::Result<()> {
    let program = command.get_program();
    if program.as_bytes().contains(&b'/') {
        return Ok(access(program, Access::EXEC_OK)?);
    }
    let told = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value);
    let path = told.map(OsStr::to_owned).or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| access(folder.join(program), Access::EXEC_OK).is_ok());
    if found { Ok(()) } else { Err(rustix::io::Errno::NOENT.into()) }
}

/// Those of an earlier `seawall run` that was cut short.
pub(super) fn left_by(mark: &str) -> Vec<u32> {
    let beginning = format!("{VARIABLE_EQUALS}{mark}-");
    mark::carriers(|variable| variable.starts_with(beginning.as_bytes()))
}

impl Errand {
    /// Where that is a pipe; once.
    pub(super) fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits until it is over, until a moment or until it is not wanted any more; `None` where
    /// it had to be ended. All that it started ends with it.
    pub(super) fn end_by(mut self, until: Instant, is_unwanted: impl Fn() -> bool) -> Option<ExitStatus> {
        if !self.wait(until, &is_unwanted) {
            return self.end();
        }
        let is_waited_for = || self.over == Over::WhenAllAreGone && Instant::now() < until && !is_unwanted();
        while is_waited_for() && !self.marked().is_empty() {
            thread::sleep(LOOK_FOR_THE_REST_EVERY);
        }
        self.bury()
    }

    /// Whether it has exited by then.
    fn wait(&self, until: Instant, is_unwanted: &impl Fn() -> bool) -> bool {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return false };
        // Not taken away yet: as long as it lies there, its group's number is nobody else's.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        loop {
            match waitid(WaitId::Pid(pid), look) {
                Ok(Some(_)) => return true,
                Ok(None) | Err(rustix::io::Errno::INTR) if Instant::now() < until && !is_unwanted() => {
                    thread::sleep(LOOK_EVERY);
                }
                Ok(None) | Err(_) => return false,
            }
        }
    }

    /// Of one that has exited: how, and an end to what it left.
    fn bury(&mut self) -> Option<ExitStatus> {
        child::kill_group(self.child.id());
        mark::end_all(|| self.marked());
        let status = self.child.wait().ok();
        self.has_ended = status.is_some();
        status
    }

    fn marked(&self) -> Vec<u32> {
        mark::carriers(|variable| variable == self.variable.as_bytes())
    }

    /// How it ended all the same: it may just have, or have left only others.
    fn end(&mut self) -> Option<ExitStatus> {
        if self.errands.0.escort.is_some() {
            mark::signal(self.child.id(), Signal::TERM);
            self.wait(Instant::now() + ESCORT_WITHIN, &|| false);
        }
        // While it lives they can still be found below it.
        let below = orphans::below(self.child.id());
        child::kill_group(self.child.id());
        below.into_iter().for_each(|pid| mark::signal(pid, Signal::KILL));
        mark::end_all(|| self.marked());
        let status = self.child.wait().ok();
        self.has_ended = true;
        status.filter(|status| status.signal().is_none())
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end();
        }
        self.errands.0.awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.child.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends in time or never: a bound for a machine that is busy.
    const WITHIN: Duration = Duration::from_secs(60);

    fn pids(folder: &std::path::Path) -> Vec<u32> {
        let text = std::fs::read_to_string(folder.join("pids")).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    fn until(what: impl Fn() -> bool) {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < WITHIN);
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Elsewhere there is no setsid(1), and nobody finds the one without an environment.
    #[cfg(target_os = "linux")]
    #[test]
    fn one_that_takes_too_long_ends_with_all_that_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        // A child, one in a session of its own, and one without an environment.
        let script = "echo $$ >> pids; sleep 600 & echo $! >> pids; setsid sh -c 'echo $$ >> pids; exec sleep 600' & \
                      setsid env -i /bin/sh -c 'echo $$ >> pids; exec /bin/sleep 600' & wait";
        let errands = Errands::of(&mark::unique(), None);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(folder.path());
        let errand = errands.start(command, Stdio::inherit(), "", Over::OnExit).expect("started");
        until(|| pids(folder.path()).len() == 4);
        let there = pids(folder.path());
        assert!(there.iter().all(|pid| super::super::moment::began(*pid).is_some()));
        assert_eq!(errand.end_by(Instant::now(), || false), None);
        until(|| there.iter().all(|pid| super::super::moment::began(*pid).is_none()));
    }

    #[test]
    fn one_that_ends_well_leaves_nothing_and_may_leave_its_work_to_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let errands = Errands::of(&mark::unique(), None);
        let start = |script: &str, over| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).current_dir(folder.path());
            errands.start(command, Stdio::inherit(), "", over).expect("started")
        };
        // One in its group, and one in a session of its own where there is setsid(1).
        let away = if cfg!(target_os = "linux") { "setsid " } else { "" };
        let errand = start(&format!("sleep 600 & echo $! >> pids; {away}sleep 600 & echo $! >> pids"), Over::OnExit);
        let status = errand.end_by(Instant::now() + WITHIN, || false).expect("it ended");
        assert!(status.success());
        assert_eq!(pids(folder.path()).len(), 2);
        until(|| pids(folder.path()).iter().all(|pid| super::super::moment::began(*pid).is_none()));

        let errand = start("{ sleep 0.3; echo 1 > told; } & exit 0", Over::WhenAllAreGone);
        assert!(errand.end_by(Instant::now() + WITHIN, || false).is_some_and(|s| s.success()));
        assert!(folder.path().join("told").exists(), "what it left its work to was not waited for");
    }

    #[test]
    fn its_end_is_told_and_one_that_is_not_wanted_is_not_waited_for() {
        let errands = Errands::of(&mark::unique(), None);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read x; exit $x"]);
        let errand = errands.start(command, Stdio::inherit(), "3\n", Over::OnExit).expect("started");
        let status = errand.end_by(Instant::now() + WITHIN, || false).expect("it ended");
        assert_eq!(status.code(), Some(3));
        let mut command = Command::new("/bin/sleep");
        command.arg("600");
        let errand = errands.start(command, Stdio::inherit(), "", Over::OnExit).expect("started");
        assert_eq!(errand.end_by(Instant::now() + WITHIN, || true), None);
        assert!(errands.0.awaited.lock().expect("not poisoned").is_empty());
    }
}
