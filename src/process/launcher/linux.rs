//! The launcher on Linux: in namespaces where they can be had, and else as the reaper
//! of everything that the program leaves behind.

use std::{
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt as _},
    },
    path::PathBuf,
    process::ExitStatus,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process},
};

use super::{
    super::{
        private,
        sys::{self, Fork},
        talk::{Answer, LaunchError, Order, STOP_POLITELY},
    },
    disk::DiskWatch,
    held, init, program,
    program::{Note, Notes},
    tree,
};
use crate::{
    sandbox::{Tier, linux as sandbox},
    say::note,
};

/// Told to stop by somebody else than the gateway: then the program has so long.
const OWN_STOP_GRACE: Duration = Duration::from_secs(3);
/// So often the tree's memory and disk are looked at, where they have a limit.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// A program that runs.
struct Started {
    /// What the launcher has forked: the program, or the first process of its namespace.
    child: Pid,
    /// Where the first process of a namespace says how the program ended.
    outcome: Option<OwnedFd>,
    number: i32,
    tier: Tier,
    missing: Vec<String>,
    listeners: Vec<OwnedFd>,
}

/// Returns only where nothing was started.
pub(super) fn run(order: Order, control: &UnixStream) -> LaunchError {
    let prepared = sys::close_others(control.as_fd()).and_then(|()| sys::block_signals());
    let signals = match prepared {
        Ok(signals) => signals,
        Err(error) => return LaunchError::other("the launcher cannot prepare itself", error),
    };
    let _ = rustix::process::setsid();
    // What is orphaned below is left to the launcher and not to somebody far away.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let _ = rustix::thread::set_name(c"seawall-launch");
    let started = match start(&order) {
        Ok(started) => started,
        Err(error) => {
            private::remove(&order.plan.private);
            return error;
        }
    };
    program::forget_input_and_output();
    let report = sandbox::report(&order.plan, started.tier, started.missing);
    let answer = Answer::Started { pid: started.number.unsigned_abs(), report };
    if super::send_line(control, &answer, &started.listeners).is_err() {
        // The gateway has thought better of it, or is gone.
        tree::end_all();
        private::remove(&order.plan.private);
        std::process::exit(1);
    }
    drop(started.listeners);
    let memory_max = order.plan.limits.memory_bytes;
    let private = order.plan.private;
    // Its home and temporary files are on the machine's disk where it has no file system of its own.
    let mut folders = order.plan.write;
    folders.extend(Some(private.clone()).filter(|_| started.tier == Tier::Core && !private.as_os_str().is_empty()));
    let disk = DiskWatch::new(folders, order.plan.limits.disk_bytes);
    Supervisor { child: started.child, outcome: started.outcome, memory_max, disk, private, kill_at: None }
        .run(control, &signals)
}

fn start(order: &Order) -> Result<Started, LaunchError> {
    match start_inside(order, sandbox::namespaces(&order.plan)) {
        Ok(started) => Ok(started),
        Err(Inside::Program(error)) => Err(error),
        Err(Inside::Namespaces(error)) => match sandbox::without_namespaces(&order.plan, &error.to_string()) {
            Ok(missing) => {
                sandbox::make_private(&order.plan)?;
                start_here(order, missing)
            }
            Err(refusal) => Err(refusal.into()),
        },
    }
}

/// What went wrong in there: the namespaces themselves, or what came after them.
enum Inside {
    Namespaces(LaunchError),
    Program(LaunchError),
}

fn start_inside(order: &Order, namespaces: sandbox::Namespaces) -> Result<Started, Inside> {
    let failed = |what: &str, error: std::io::Error| Inside::Namespaces(LaunchError::other(what, error));
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(std::io::Error::from);
    let (go, may_go) = pipe().map_err(|error| failed("no pipe", error))?;
    let (outcome, say_outcome) = pipe().map_err(|error| failed("no pipe", error))?;
    let (notes, read_notes) = Notes::pair().map_err(|error| failed("no socket", error))?;
    let child = match sys::fork_into(namespaces.bits()) {
        Err(error) => return Err(failed("they cannot be made", sandbox::explain_namespaces(error))),
        Ok(Fork::Child) => {
            drop((may_go, outcome, read_notes));
            init::run(order, init::Ends { go, notes, outcome: say_outcome })
        }
        Ok(Fork::Parent(child)) => child,
    };
    drop((notes, say_outcome, go));
    let mapped = sandbox::map_users(namespaces, child)
        .and_then(|()| rustix::io::write(&may_go, b"g").map(drop).map_err(std::io::Error::from));
    let heard = mapped.map_err(|error| failed("no user namespace", error)).and_then(|()| hear(&read_notes));
    match heard {
        Ok(heard) => Ok(Started {
            child,
            outcome: Some(outcome),
            number: heard.number,
            tier: Tier::Full,
            missing: heard.missing,
            listeners: heard.listeners,
        }),
        Err(error) => {
            let _ = kill_process(child, Signal::KILL);
            let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
            Err(error)
        }
    }
}

/// Without namespaces: the program is a child of the launcher itself.
fn start_here(order: &Order, missing: Vec<String>) -> Result<Started, LaunchError> {
    let (notes, read_notes) = Notes::pair().map_err(|error| LaunchError::other("no socket", error))?;
    let forked = sys::fork_into(0).map_err(|error| LaunchError::other("no process can be started", error))?;
    let child = match forked {
        Fork::Parent(child) => child,
        Fork::Child => {
            drop(read_notes);
            program::become_it(order, Tier::Core, &notes, rustix::process::getpid().as_raw_nonzero().get())
        }
    };
    drop(notes);
    match hear(&read_notes) {
        Ok(heard) => {
            Ok(Started { child, outcome: None, number: heard.number, tier: Tier::Core, missing, listeners: Vec::new() })
        }
        Err(Inside::Namespaces(error) | Inside::Program(error)) => {
            let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
            Err(error)
        }
    }
}

struct Heard {
    number: i32,
    missing: Vec<String>,
    listeners: Vec<OwnedFd>,
}

/// Reads the notes of a start to their end: then the program runs, or it never will.
fn hear(notes: &UnixStream) -> Result<Heard, Inside> {
    let broken = |error: std::io::Error| Inside::Program(LaunchError::other("the start cannot be followed", error));
    let (text, fds) = super::receive_all(notes).map_err(broken)?;
    let mut heard = Heard { number: 0, missing: Vec::new(), listeners: fds };
    let mut is_inside = false;
    for line in text.lines() {
        match serde_json::from_str(line).map_err(|error| broken(error.into()))? {
            Note::Inside { missing } => (heard.missing, is_inside) = (missing, true),
            Note::Program(number) => heard.number = number,
            Note::Failed(error) if is_inside || heard.number != 0 => return Err(Inside::Program(error)),
            Note::Failed(error) => return Err(Inside::Namespaces(error)),
        }
    }
    if heard.number == 0 {
        return Err(Inside::Program(LaunchError::Other("its first process ended before the program began".to_owned())));
    }
    Ok(heard)
}

/// Holds the tree together until its end, which is this process's end too.
struct Supervisor {
    child: Pid,
    outcome: Option<OwnedFd>,
    memory_max: Option<u64>,
    disk: Option<DiskWatch>,
    /// Gone with the tree.
    private: PathBuf,
    kill_at: Option<Instant>,
}

impl Supervisor {
    fn run(mut self, control: &UnixStream, signals: &OwnedFd) -> ! {
        loop {
            let mut fds = [PollFd::new(control, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            let _ = poll(&mut fds, self.patience().as_ref());
            let (asked, signalled) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if signalled {
                self.on_signals(signals);
            }
            if asked {
                let mut byte = [0];
                match rustix::io::read(control, &mut byte) {
                    Ok(1) if byte[0] == STOP_POLITELY => self.ask_to_end(),
                    Ok(1) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    // The gateway wants no more of it, or is gone.
                    _ => self.end(None),
                }
            }
            if self.kill_at.is_some_and(|at| at <= Instant::now()) {
                self.end(None);
            }
            self.watch_memory();
            self.watch_disk();
        }
    }

    fn patience(&self) -> Option<Timespec> {
        let until_kill = self.kill_at.map(|at| at.saturating_duration_since(Instant::now()));
        let watch = (self.memory_max.is_some() || self.disk.is_some()).then_some(WATCH_EVERY);
        let wait = until_kill.into_iter().chain(watch).min()?;
        Timespec::try_from(wait).ok()
    }

    fn on_signals(&mut self, signals: &OwnedFd) {
        while let Some(signal) = sys::next_signal(signals) {
            if Signal::from_named_raw(signal) != Some(Signal::CHILD) {
                self.ask_to_end();
                self.kill_at.get_or_insert(Instant::now() + OWN_STOP_GRACE);
            }
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == self.child {
                self.end(Some(status));
            }
        }
    }

    /// SIGTERM to every process of the tree: a shell in between passes nothing on.
    fn ask_to_end(&self) {
        let all = tree::descendants(rustix::process::getpid());
        // The first process of a namespace has nothing to end for.
        let asked: Vec<Pid> = all.into_iter().filter(|pid| self.outcome.is_none() || *pid != self.child).collect();
        tree::signal_all(&asked, Signal::TERM);
    }

    fn watch_memory(&self) {
        let Some(max) = self.memory_max else { return };
        let Some(held) = held::by_tree(self.child) else { return };
        let shown = crate::text::bytes;
        // Among the server's last words, where whoever asks why will look.
        if held.bytes > max {
            let (used, max) = (shown(held.bytes), shown(max));
            note!("seawall: ended by the sandbox: its processes use {used} of memory, limits.memory is {max}");
            self.end(None);
        }
        if held.bytes + held.buffers_max_bytes > max && held::is_machine_short() {
            let (used, buffers, max) = (shown(held.bytes), shown(held.buffers_max_bytes), shown(max));
            note!(
                "seawall: ended by the sandbox: less than a tenth of this machine's memory is left; its processes use \
                 {used}, and their sockets and pipes may hold {buffers}; limits.memory is {max}"
            );
            self.end(None);
        }
    }

    fn watch_disk(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        let child = self.child;
        let nameless = |devices: &[u64]| held::removed_bytes(child, devices);
        let Some(added) = disk.look(nameless) else { return };
        let (added, max) = (crate::text::bytes(added), crate::text::bytes(disk.max()));
        note!("seawall: ended by the sandbox: it has added {added} to its folders, limits.disk is {max}");
        self.end(None);
    }

    /// Ends the tree, and this process the way that the program ended.
    fn end(&self, status: Option<WaitStatus>) -> ! {
        let status = status.or_else(|| {
            let _ = kill_process(self.child, Signal::KILL);
            rustix::process::waitpid(Some(self.child), WaitOptions::empty()).ok().flatten().map(|(_, status)| status)
        });
        tree::end_all();
        private::remove(&self.private);
        let told = self.outcome.as_ref().and_then(|outcome| {
            let mut raw = [0; 4];
            matches!(rustix::io::read(outcome.as_fd(), &mut raw), Ok(4)).then(|| i32::from_ne_bytes(raw))
        });
        end_like(ExitStatus::from_raw(told.or(status.map(WaitStatus::as_raw)).unwrap_or(1 << 8)))
    }
}

/// The exit status of this process is the program's: whoever waits for the launcher
/// learns the truth.
fn end_like(status: ExitStatus) -> ! {
    let Some(signal) = status.signal() else { std::process::exit(status.code().unwrap_or(1)) };
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
    );
    sys::unblock_signals();
    // Twice: the handler that Rust's runtime has for SIGSEGV takes itself away first.
    for _ in 0..2 {
        if let Some(signal) = Signal::from_named_raw(signal) {
            let _ = kill_process(rustix::process::getpid(), signal);
        }
    }
    std::process::exit(128 + signal);
}
