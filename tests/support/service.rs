//! One service under `seawall run`, as a supervisor would start it: a real child, a
//! database of its own, and the wrapper ended by its pid when the value goes.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{database, process::Log, scratch::Scratch, wait::poll};

const WITHIN: Duration = Duration::from_secs(10);

/// The folder of a servers.toml, and what runs from it.
pub struct Services {
    pub folder: Scratch,
}

impl Services {
    pub fn new(servers_toml: &str) -> Self {
        let folder = Scratch::new();
        folder.write("servers.toml", servers_toml);
        Services { folder }
    }

    /// `[services.one]` with a shell script as its command, and more keys below it.
    pub fn script(script: &str, more: &str) -> Self {
        // In a servers.toml two dollar signs are one.
        let script = serde_json::to_string(&script.replace("$$", "$$$$")).expect("a string");
        Self::new(&format!("[services.one]\ncommand = [\"/bin/sh\", \"-c\", {script}]\n{more}\n"))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    /// What a script left in a file of the folder.
    pub fn text(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.file(name)).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    pub fn start(&self) -> Run {
        self.start_with(&["one"])
    }

    pub fn start_with(&self, words: &[&str]) -> Run {
        self.start_with_env(words, &[])
    }

    pub fn start_with_env(&self, words: &[&str], env: &[(&str, &str)]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.arg("run").args(words).arg("--config").arg(self.file("servers.toml")).current_dir(self.folder.path());
        command.envs(env.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("seawall can be started");
        let log = Log::default();
        log.follow(child.stdout.take().expect("stdout is piped"));
        log.follow(child.stderr.take().expect("stderr is piped"));
        Run { child, log }
    }

    /// Runs it to its end.
    pub fn to_the_end(&self) -> ExitStatus {
        self.start().end()
    }

    /// Types and metadata of what was recorded, in order.
    pub fn events(&self) -> Vec<(String, Value)> {
        let rows = database::rows(
            &self.file("seawall.db"),
            "SELECT event_type, metadata FROM events WHERE service_name = 'one' ORDER BY rowid",
        );
        let rows = rows.unwrap_or_default().into_iter();
        rows.map(|row| {
            let metadata = row["metadata"].as_str().expect("text");
            (row["event_type"].as_str().expect("text").to_owned(), serde_json::from_str(metadata).expect("JSON"))
        })
        .collect()
    }

    pub fn types(&self) -> Vec<String> {
        self.events().into_iter().map(|(event_type, _)| event_type).collect()
    }

    /// The metadata of the last event of a type.
    pub fn last(&self, event_type: &str) -> Value {
        let events = self.events();
        let found = events.iter().rev().find(|(known, _)| known == event_type);
        found.unwrap_or_else(|| panic!("no {event_type} among {events:#?}")).1.clone()
    }

    pub fn wait_for(&self, event_type: &str) -> Value {
        poll(WITHIN, || self.events().into_iter().find(|(known, _)| known == event_type))
            .unwrap_or_else(|| panic!("no {event_type} among {:#?}", self.events()))
            .1
    }

    /// The file in which `seawall run` keeps what it knows; null where there is none yet.
    pub fn marker(&self) -> Value {
        let text = std::fs::read(self.file(".seawall/services/one.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// One `seawall run` under way.
pub struct Run {
    child: Child,
    pub log: Log,
}

impl Run {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    pub fn end(mut self) -> ExitStatus {
        self.end_within(WITHIN)
    }

    pub fn end_within(&mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        poll(within, || child.try_wait().expect("a child can be asked"))
            .unwrap_or_else(|| panic!("it still runs after {within:?}\n{}", self.log.text()))
    }

    /// SIGKILL for the wrapper alone.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let child = &mut self.child;
            if poll(Duration::from_secs(20), || child.try_wait().ok().flatten()).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if std::thread::panicking() {
            eprintln!("---- what seawall run said\n{}\n----", self.log.text());
        }
    }
}

/// A schedule whose time has come within this minute.
pub fn daily_now() -> String {
    let now = on_the_wall(Duration::ZERO);
    format!("daily {:02}:{:02}", now.hour(), now.minute())
}

/// So long ago by the clock of this machine.
pub fn on_the_wall(ago: Duration) -> jiff::civil::DateTime {
    let then = jiff::Timestamp::now().checked_sub(ago).expect("in range");
    jiff::tz::TimeZone::system().to_datetime(then)
}

pub fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid fits")).expect("a pid is not zero");
    kill_process(pid, signal).expect("the process is there");
}

/// Whether a process is there, and no zombie.
pub fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

/// Exit code, or minus the signal.
pub fn ending(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().expect("one or the other"))
}
