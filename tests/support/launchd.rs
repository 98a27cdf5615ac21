//! A small launchd: reads the same property lists, and starts, restarts and ends jobs by
//! their KeepAlive, RunAtLoad, ThrottleInterval, ExitTimeOut and StartInterval as
//! launchd.plist(5) says, in compressed time. Calendars are fired by the test.

use std::{
    fs::{File, OpenOptions},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use plist::{Dictionary, Value};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One loaded job.
pub struct Job {
    stop: Arc<AtomicBool>,
    fire: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

/// What became of it so far.
#[derive(Clone, Default)]
pub struct Seen {
    pub pid: Option<u32>,
    pub starts: Vec<Instant>,
    pub ends: Vec<ExitStatus>,
    /// It had to be killed when its time to end was over.
    pub killed: bool,
}

impl Job {
    /// Loads a property list; an hour of it takes an hour times `scale`.
    pub fn load(path: &Path, scale: f64) -> Job {
        let list = Value::from_file(path).expect("a property list").into_dictionary().expect("a dictionary");
        let (stop, fire) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let seen = Arc::<Mutex<Seen>>::default();
        let supervisor = Supervisor { list, scale, stop: stop.clone(), fire: fire.clone(), seen: seen.clone() };
        Job { stop, fire, seen, thread: Some(thread::spawn(move || supervisor.run())) }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// Its calendar says that it is time.
    pub fn fire(&self) {
        self.fire.store(true, Ordering::Relaxed);
    }

    /// Unloads it, as `launchctl bootout` does.
    pub fn bootout(mut self) -> Seen {
        self.end();
        self.seen()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.end();
    }
}

struct Supervisor {
    list: Dictionary,
    scale: f64,
    stop: Arc<AtomicBool>,
    fire: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

impl Supervisor {
    fn run(self) {
        let mut wanted = self.list.get("RunAtLoad").and_then(Value::as_boolean) == Some(true) || self.keeps_alive();
        let mut running: Option<Child> = None;
        let mut last_start: Option<Instant> = None;
        while !self.stop.load(Ordering::Relaxed) {
            thread::sleep(LOOK_EVERY);
            if let Some(child) = &mut running {
                let Some(status) = child.try_wait().expect("a child can be asked") else { continue };
                self.ended(status);
                running = None;
                wanted = self.keeps_alive() && !status.success();
            }
            wanted |= self.fire.swap(false, Ordering::Relaxed);
            let interval = self.seconds("StartInterval");
            wanted |= interval.is_some_and(|interval| last_start.is_some_and(|last| last.elapsed() >= interval));
            let throttle = self.seconds("ThrottleInterval").unwrap_or(Duration::from_secs(10).mul_f64(self.scale));
            if wanted && last_start.is_none_or(|last| last.elapsed() >= throttle) {
                let now = Instant::now();
                last_start = Some(now);
                running = Some(self.start(now));
                wanted = false;
            }
        }
        if let Some(child) = running {
            self.unload(child);
        }
    }

    fn keeps_alive(&self) -> bool {
        let conditions = self.list.get("KeepAlive").and_then(Value::as_dictionary);
        conditions.and_then(|conditions| conditions.get("SuccessfulExit")).and_then(Value::as_boolean) == Some(false)
    }

    fn seconds(&self, key: &str) -> Option<Duration> {
        let seconds = self.list.get(key)?.as_unsigned_integer()?;
        Some(Duration::from_secs(seconds).mul_f64(self.scale))
    }

    fn string(&self, key: &str) -> &str {
        self.list.get(key).and_then(Value::as_string).unwrap_or_else(|| panic!("no {key}"))
    }

    /// With nothing but what the list says: no variable of the test, no folder made.
    fn start(&self, now: Instant) -> Child {
        let words = self.list.get("ProgramArguments").and_then(Value::as_array).expect("arguments");
        let mut words = words.iter().map(|word| word.as_string().expect("a string"));
        let mut command = Command::new(words.next().expect("a program"));
        let environment = self.list.get("EnvironmentVariables").and_then(Value::as_dictionary).expect("variables");
        command.args(words).env_clear();
        command.envs(environment.iter().map(|(name, value)| (name, value.as_string().expect("a string"))));
        command.current_dir(self.string("WorkingDirectory")).stdin(Stdio::null()).process_group(0);
        command.stdout(self.log("StandardOutPath")).stderr(self.log("StandardErrorPath"));
        let child = command.spawn().expect("the job can be started");
        let mut seen = self.seen.lock().expect("not poisoned");
        seen.pid = Some(child.id());
        seen.starts.push(now);
        child
    }

    fn log(&self, key: &str) -> File {
        OpenOptions::new().create(true).append(true).open(self.string(key)).expect("launchd makes no folders")
    }

    fn ended(&self, status: ExitStatus) {
        let mut seen = self.seen.lock().expect("not poisoned");
        seen.pid = None;
        seen.ends.push(status);
    }

    fn unload(&self, mut child: Child) {
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("fits")).expect("not zero");
        let _ = kill_process(pid, Signal::TERM);
        let until = Instant::now() + self.seconds("ExitTimeOut").unwrap_or(Duration::from_secs(20).mul_f64(self.scale));
        loop {
            match child.try_wait().expect("a child can be asked") {
                Some(status) => return self.ended(status),
                None if Instant::now() < until => thread::sleep(LOOK_EVERY),
                None => break,
            }
        }
        self.seen.lock().expect("not poisoned").killed = true;
        let _ = kill_process(pid, Signal::KILL);
        // AbandonProcessGroup is not set: what is left of the job's group goes too.
        let _ = kill_process_group(pid, Signal::KILL);
        self.ended(child.wait().expect("a killed child ends"));
    }
}
