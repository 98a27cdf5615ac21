//! `${cmd:…}`: a value that a command says, such as a keyring's. It is run by a shell, as
//! whoever runs seawall, in the folder of servers.toml; what it says is told to nobody.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use crate::process;

/// Long enough to type a password into the keyring's own window.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Whoever waits longer is told what for.
const TELL_AFTER: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const SIGNALS_EVERY: Duration = Duration::from_millis(100);
const VALUE_MAX_BYTES: u64 = 64 << 10;
const STOPPED: &str = "was ended: seawall is stopping";
/// Its complaint is shown; its value never is.
const COMPLAINT_MAX_CHARS: usize = 200;

/// Whether this process is told to stop: no command is waited for any more.
static IS_STOPPING: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// The groups of those that run.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// From now on SIGTERM and SIGINT end what is waited for, and no longer the process: who calls
/// this asks [`is_stopping`] then.
pub fn heed_signals() -> io::Result<()> {
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, IS_STOPPING.clone())?;
    }
    Ok(())
}

pub fn is_stopping() -> bool {
    IS_STOPPING.load(Ordering::Relaxed)
}

/// Ends all that run, with what they have started: this process is about to go.
pub fn end_all() {
    IS_STOPPING.store(true, Ordering::Relaxed);
    running().iter().for_each(|group| kill(*group));
}

fn running() -> std::sync::MutexGuard<'static, BTreeSet<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(group: u32) {
    if let Some(group) = i32::try_from(group).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// What `command` says, without the line break at its end; the error says why it does not.
pub fn value(command: &str, folder: &Path) -> Result<String, String> {
    value_within(command, folder, TIMEOUT)
}

fn value_within(command: &str, folder: &Path, limit: Duration) -> Result<String, String> {
    let shown = crate::text::quote(command, 100);
    let because = |why: &dyn std::fmt::Display| format!("the command `{shown}` {why}");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Its own group: what it started ends with it.
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    process::dies_with_us(&mut shell);
    let mut child = {
        let mut running = running();
        if is_stopping() {
            return Err(because(&STOPPED));
        }
        let child = shell.spawn().map_err(|error| because(&format!("cannot be run: {error}")))?;
        running.insert(child.id());
        child
    };
    let said = heard_out(&mut child, limit, &because);
    // Waited for by now: the number is anybody's.
    running().remove(&child.id());
    said
}

fn heard_out(
    child: &mut Child,
    limit: Duration,
    because: &dyn Fn(&dyn std::fmt::Display) -> String,
) -> Result<String, String> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(because(&"has no output"));
    };
    let output = listen(stdout, stderr);
    let outcome = outcome(child, &output, limit);
    if outcome.is_none() {
        // Not waited for yet, so the number is still its own.
        kill(child.id());
        let _ = child.wait();
    }
    let Some((Output { said, complaint }, status)) = outcome else {
        if is_stopping() {
            return Err(because(&STOPPED));
        }
        return Err(because(&format!("did not end within {}", crate::text::duration(limit))));
    };
    let status = status.map_err(|error| because(&format!("cannot be waited for: {error}")))?;
    let said = said.map_err(|error| because(&format!("cannot be heard: {error}")))?;
    // Before how it ended: whoever is not heard out fails for that.
    if said.len() as u64 > VALUE_MAX_BYTES {
        return Err(because(&"said more than 64 KiB"));
    }
    if !status.success() {
        let complaint = String::from_utf8_lossy(&complaint);
        let last = complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
        return Err(because(&format!("failed: {}", crate::text::quote(last, COMPLAINT_MAX_CHARS))));
    }
    let mut said = String::from_utf8(said).map_err(|_| because(&"said what is not UTF-8"))?;
    if said.contains('\0') {
        return Err(because(&"said a NUL character"));
    }
    said.truncate(said.trim_end_matches(['\r', '\n']).len());
    if said.is_empty() { Err(because(&"said nothing")) } else { Ok(said) }
}

struct Output {
    said: io::Result<Vec<u8>>,
    complaint: Vec<u8>,
}

/// Hears both pipes out side by side: a command that finds one of them full would wait
/// for the other for ever.
fn listen(mut stdout: impl Read + Send + 'static, mut stderr: impl Read + Send + 'static) -> Receiver<Output> {
    let (sender, output) = mpsc::channel();
    std::thread::spawn(move || {
        let complaints = std::thread::spawn(move || {
            let mut complaint = Vec::new();
            let _ = (&mut stderr).take(VALUE_MAX_BYTES).read_to_end(&mut complaint);
            let _ = io::copy(&mut stderr, &mut io::sink());
            complaint
        });
        let mut said = Vec::new();
        let read = (&mut stdout).take(VALUE_MAX_BYTES + 1).read_to_end(&mut said);
        // One that says too much fails to say more.
        drop(stdout);
        let complaint = complaints.join().unwrap_or_default();
        // Whoever asked may have given up.
        let _ = sender.send(Output { said: read.map(|_| said), complaint });
    });
    output
}

/// What it said and how it ended; `None` if it did not within `limit`. It may close both
/// pipes and go on, so the one does not follow from the other.
fn outcome(child: &mut Child, output: &Receiver<Output>, limit: Duration) -> Option<(Output, io::Result<ExitStatus>)> {
    let began = Instant::now();
    let mut is_told = false;
    let mut heard = None;
    loop {
        // Not before the pipes are closed: once it was waited for, its group cannot be
        // named any more.
        if heard.is_some()
            && let Some(status) = child.try_wait().transpose()
        {
            return heard.take().map(|output| (output, status));
        }
        let left = limit.checked_sub(began.elapsed()).filter(|left| !left.is_zero() && !is_stopping())?;
        if !is_told && began.elapsed() >= TELL_AFTER {
            // Without the command, which may hold a secret itself.
            tracing::warn!(limit_s = limit.as_secs(), "waiting for the command of a ${{cmd:…}} in servers.toml");
            is_told = true;
        }
        if heard.is_some() {
            std::thread::sleep(LOOK_EVERY.min(left));
            continue;
        }
        match output.recv_timeout(left.min(SIGNALS_EVERY)) {
            Ok(output) => heard = Some(output),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_closes_its_output_and_goes_on_is_ended_with_all_it_started() {
        let folder = tempfile::tempdir().expect("folder");
        let command = "sleep 977 >&- 2>&- & echo $! > pid; exec >&- 2>&-; sleep 977";
        let late = value_within(command, folder.path(), Duration::from_secs(1)).expect_err("too long");
        assert!(late.contains("did not end within"), "{late}");
        let pid = std::fs::read_to_string(folder.path().join("pid")).expect("it began");
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().expect("a number"));
        let began = Instant::now();
        // A container may have nobody who takes the dead away: a zombie has ended, too.
        let is_running = || {
            let state = Command::new("ps")
                .args(["-o", "stat=", "-p"])
                .arg(format!("{}", pid.expect("one").as_raw_nonzero()))
                .output();
            state.is_ok_and(|state| !state.stdout.trim_ascii().is_empty() && !state.stdout.starts_with(b"Z"))
        };
        while is_running() {
            assert!(began.elapsed() < TIMEOUT, "it outlived the limit");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    #[test]
    fn a_long_complaint_does_not_keep_a_value_from_being_said() {
        let command = "head -c 300000 /dev/zero | tr '\\0' x >&2; echo said";
        assert_eq!(value_within(command, Path::new("/"), TIMEOUT), Ok("said".to_owned()));
    }

    #[test]
    fn a_command_says_a_value_and_its_failure_is_told_without_it() {
        let say = |command: &str| value(command, Path::new("/"));
        assert_eq!(say("printf 'a b\\n'"), Ok("a b".to_owned()));
        assert_eq!(say("pwd"), Ok("/".to_owned()));
        let failed = say("echo s3cret; echo locked >&2; exit 1").expect_err("it failed");
        assert!(failed.ends_with("failed: locked"), "{failed}");
        assert!(say("true").expect_err("nothing").ends_with("said nothing"));
        assert!(say("printf 'a\\0b'").expect_err("NUL").contains("NUL"));
        assert!(say("head -c 100000 /dev/zero | tr '\\0' x").expect_err("much").contains("64 KiB"));
    }
}
