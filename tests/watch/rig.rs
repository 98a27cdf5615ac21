//! One `seawall file-watcher` on a folder of its own, and what it wrote down.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    database, poll,
    process::{Log, run},
    scratch::Scratch,
    service::send,
};

/// Nothing here takes this long; it is there so that a hang becomes a failure.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);
/// Somebody who may not read everything.
const NOBODY: u32 = 65_534;

pub(crate) struct Watch {
    pub(crate) folder: Scratch,
    is_nobody: bool,
}

impl Watch {
    /// With these options besides `folders = ["in"]`, which is there.
    pub(crate) fn new(options: &str) -> Self {
        let watch = Self::without_folder(&format!("folders = [\"in\"], {options}"));
        fs::create_dir(watch.path("in")).expect("a folder");
        watch
    }

    pub(crate) fn without_folder(options: &str) -> Self {
        let folder = Scratch::new();
        folder.write("servers.toml", &format!("[services.w]\nbuiltin = \"watch\"\noptions = {{ {options} }}\n"));
        Watch { folder, is_nobody: false }
    }

    /// Run by an ordinary user also where the tests are root's.
    pub(crate) fn by_nobody(mut self) -> Self {
        if rustix::process::geteuid().is_root() {
            self.is_nobody = true;
            for path in [self.folder.path().to_owned(), self.path("in")] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("it is root's to give");
            }
            // Where the tests are built, nobody may look.
            let built = env!("CARGO_BIN_EXE_seawall");
            let here = self.path("seawall");
            fs::hard_link(built, &here).or_else(|_| fs::copy(built, &here).map(drop)).expect("a program");
        }
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    /// A file that is there with all its content at once: on a busy machine one that is
    /// made first and written then may well rest in between.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let (path, elsewhere) = (self.path(name), self.path("elsewhere"));
        fs::write(&elsewhere, content).expect("a file");
        fs::rename(elsewhere, &path).expect("moved");
        path
    }

    fn command(&self) -> Command {
        let mut command = match self.is_nobody {
            true => Command::new(self.path("seawall")),
            false => Command::new(env!("CARGO_BIN_EXE_seawall")),
        };
        if self.is_nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.current_dir(self.folder.path()).env("RUST_LOG", "info");
        command
    }

    /// Starts it, and goes on at once.
    pub(crate) fn launch(&self) -> Watcher {
        let mut command = self.command();
        command.args(["file-watcher", "--config", "servers.toml"]);
        Watcher::of(command)
    }

    /// The same under `seawall run`.
    pub(crate) fn launch_service(&self) -> Watcher {
        let mut command = self.command();
        command.args(["run", "w", "--config", "servers.toml"]);
        Watcher::of(command)
    }

    /// Starts it, and waits until it watches.
    pub(crate) fn start(&self) -> Watcher {
        let watcher = self.launch();
        let pid = watcher.child.id();
        // Not sooner: one who reads a database while somebody else makes it is in the way.
        let is_begun = || (watcher.log.has("watching ") || watcher.log.has("does not exist")).then_some(());
        assert!(poll(WITHIN, is_begun).is_some(), "it does not begin\n{}", watcher.log.text());
        let is_up = || self.status().is_some_and(|status| status["pid"] == pid);
        assert!(poll(WITHIN, || is_up().then_some(())).is_some(), "it does not watch\n{}", watcher.log.text());
        watcher
    }

    pub(crate) fn status(&self) -> Option<Value> {
        let rows = database::rows(&self.path("watch.db"), "SELECT status FROM status").ok()?;
        serde_json::from_str(rows.first()?["status"].as_str()?).ok()
    }

    pub(crate) fn wait_for_folder(&self, state: &str) {
        let is_it = || self.status().is_some_and(|status| status["folders"][0]["state"] == state);
        assert!(poll(WITHIN, || is_it().then_some(())).is_some(), "never {state}: {:?}", self.status());
    }

    /// The rows of a query; none where there is no table yet.
    pub(crate) fn rows(&self, sql: &str) -> Vec<Value> {
        database::rows(&self.path("watch.db"), sql).unwrap_or_default()
    }

    pub(crate) fn count(&self, sql: &str) -> usize {
        let rows = self.rows(&format!("SELECT count(*) AS n FROM {sql}"));
        rows.first().and_then(|row| row["n"].as_u64()).and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
    }

    pub(crate) fn wait_for_count(&self, sql: &str, expected: usize) {
        let is_it = || (self.count(sql) == expected).then_some(());
        assert!(
            poll(WITHIN, is_it).is_some(),
            "{} in place of {expected}: {sql}\n{:#?}",
            self.count(sql),
            self.events().iter().take(50).collect::<Vec<_>>()
        );
    }

    /// `created NAME done` of each event, names from the folder on, in order.
    pub(crate) fn events(&self) -> Vec<String> {
        let prefix = format!("{}/", self.folder.path().display());
        let rows = self.rows("SELECT event, path, state FROM events ORDER BY id");
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        rows.iter()
            .map(|row| {
                format!("{} {} {}", text(row, "event"), text(row, "path").replace(&prefix, ""), text(row, "state"))
            })
            .collect()
    }

    pub(crate) fn wait_for_event(&self, event: &str) {
        let has = || self.events().iter().any(|known| known == event).then_some(());
        assert!(poll(WITHIN, has).is_some(), "no {event:?} among {:#?}", self.events());
    }

    /// Runs `seawall file-watcher` with these words to its end.
    pub(crate) fn ask(&self, words: &[&str]) -> Output {
        let mut command = self.command();
        command.arg("file-watcher").args(words).args(["--config", "servers.toml"]);
        run(command, WITHIN)
    }
}

/// One life of it.
pub(crate) struct Watcher {
    child: Child,
    pub(crate) log: Log,
}

impl Watcher {
    fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("seawall can be started");
        let log = Log::default();
        log.follow(child.stderr.take().expect("stderr is piped"));
        Watcher { child, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    pub(crate) fn end(mut self) -> ExitStatus {
        let child = &mut self.child;
        let ended = poll(WITHIN, || child.try_wait().expect("a child can be asked"));
        ended.unwrap_or_else(|| panic!("it still runs\n{}", self.log.text()))
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.end()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- what the watcher said\n{}\n----", self.log.text());
        }
    }
}
