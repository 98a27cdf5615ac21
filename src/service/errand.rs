//! What `seawall run` starts beside the service: a probe, someone who is told of an alert.
//! Each has a group of its own and a mark that all of it carries, so that one that takes
//! too long ends with whatever it started; and each is waited for by whoever sent it.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::child;
use crate::process::{mark, orphans};

/// The variable that marks an errand and all that it starts: `LIFE-NUMBER`.
const VARIABLE: &str = "SEAWALL_ERRAND";
const VARIABLE_EQUALS: &str = "SEAWALL_ERRAND=";
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What ends by itself when the service does, as the servers of a gateway do, has so long.
const PATIENCE: Duration = Duration::from_millis(300);

/// Those of one `seawall run`.
#[derive(Clone, Debug)]
pub(super) struct Errands(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of this life of the wrapper.
    mark: String,
    numbers: AtomicU64,
    /// Children whose end somebody waits for.
    awaited: Mutex<BTreeSet<u32>>,
}

/// One that is under way.
#[derive(Debug)]
pub(super) struct Errand {
    child: Child,
    variable: String,
    errands: Errands,
    has_ended: bool,
}

impl Errands {
    pub(super) fn of(mark: &str) -> Self {
        Errands(Arc::new(Inner { mark: mark.to_owned(), numbers: AtomicU64::new(0), awaited: Mutex::default() }))
    }

    /// Sends somebody off; `input` is on their stdin.
    pub(super) fn start(&self, command: &mut Command, input: &str) -> io::Result<Errand> {
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        let value = format!("{}-{number}", self.0.mark);
        let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
        command.env(VARIABLE, &value).stdin(stdin).stdout(Stdio::null()).process_group(0);
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
        Ok(Errand { child, variable, errands: self.clone(), has_ended: false })
    }

    /// Takes away what was orphaned below this process and has ended since: neither the
    /// service nor an errand, whose ends are waited for.
    pub(super) fn bury_orphans(&self, service: u32) {
        let awaited = self.0.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        orphans::bury(|pid| pid == service || awaited.contains(&pid));
    }

    /// Ends what is left below this process of a service that has ended; no errand, and
    /// none may be sent off meanwhile. How many there were.
    pub(super) fn end_orphans(&self) -> usize {
        orphans::end_below(PATIENCE, |pid| self.is_one(pid))
    }

    /// The daemons of a service: what it started, and is no longer below it.
    pub(super) fn daemons(&self, service: u32) -> Vec<u32> {
        let below_it = orphans::below(service);
        let all = orphans::below(std::process::id()).into_iter();
        all.filter(|pid| *pid != service && !below_it.contains(pid) && !self.is_one(*pid)).collect()
    }

    fn is_one(&self, pid: u32) -> bool {
        let is_awaited = self.0.awaited.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid);
        is_awaited || mark::carries(pid, |variable| variable.starts_with(VARIABLE_EQUALS.as_bytes()))
    }
}

/// Those of an earlier `seawall run` that was cut short.
pub(super) fn left_by(mark: &str) -> Vec<u32> {
    let beginning = format!("{VARIABLE_EQUALS}{mark}-");
    mark::carriers(|variable| variable.starts_with(beginning.as_bytes()))
}

impl Errand {
    /// Waits for its end, until a moment or until it is not wanted any more; `None` where
    /// it had to be ended, with all that it started.
    pub(super) fn end_by(mut self, until: Instant, is_unwanted: impl Fn() -> bool) -> Option<ExitStatus> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    self.has_ended = true;
                    return Some(status);
                }
                Ok(None) if Instant::now() < until && !is_unwanted() => thread::sleep(LOOK_EVERY),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    fn end(&mut self) {
        // While it lives they can still be found below it.
        let below = orphans::below(self.child.id());
        child::kill_group(self.child.id());
        below.into_iter().for_each(|pid| mark::signal(pid, Signal::KILL));
        mark::end_all(|| mark::carriers(|variable| variable == self.variable.as_bytes()));
        let _ = self.child.wait();
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
        let errands = Errands::of(&mark::unique());
        let mut command = Command::new("/bin/sh");
        let errand = errands.start(command.args(["-c", script]).current_dir(folder.path()), "").expect("started");
        until(|| pids(folder.path()).len() == 4);
        let there = pids(folder.path());
        assert!(there.iter().all(|pid| super::super::moment::began(*pid).is_some()));
        assert_eq!(errand.end_by(Instant::now(), || false), None);
        until(|| there.iter().all(|pid| super::super::moment::began(*pid).is_none()));
    }

    #[test]
    fn its_end_is_told_and_one_that_is_not_wanted_is_not_waited_for() {
        let errands = Errands::of(&mark::unique());
        let mut command = Command::new("/bin/sh");
        let errand = errands.start(command.args(["-c", "read x; exit $x"]), "3\n").expect("started");
        let status = errand.end_by(Instant::now() + WITHIN, || false).expect("it ended");
        assert_eq!(status.code(), Some(3));
        let errand = errands.start(Command::new("/bin/sleep").arg("600"), "").expect("started");
        assert_eq!(errand.end_by(Instant::now() + WITHIN, || true), None);
        assert!(errands.0.awaited.lock().expect("not poisoned").is_empty());
    }
}
