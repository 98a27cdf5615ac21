//! A gateway to be soaked: the real binary in a folder of its own, its log in a file.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{process::Child, time::timeout};

use crate::{lane::Lane, spawn, wait::wait_until};

pub(crate) const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(45);
const CONFIG: &str = "servers.toml";

pub(crate) struct Gateway {
    child: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

/// How it is started: these words, or by a program that becomes one.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) words: Vec<String>,
}

impl Launch {
    pub(crate) fn serve() -> Launch {
        Launch::of(&["serve", "--listen", "127.0.0.1:0", "--config", CONFIG])
    }

    pub(crate) fn of(words: &[&str]) -> Launch {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Launch { program: spawn::seawall().into(), words }
    }

    pub(crate) async fn start(self, folder: &Path) -> Gateway {
        let log = File::create(folder.join("log")).expect("a log can be made");
        let mut command = Command::new(self.program);
        command.args(self.words).current_dir(folder).env("RUST_LOG", "warn").stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log has two ends")).stderr(log);
        let mut command = tokio::process::Command::from(command);
        let child = command.kill_on_drop(true).spawn().expect("the gateway can be started");
        let mut gateway = Gateway { child, folder: folder.to_owned(), address: ([127, 0, 0, 1], 0).into() };
        gateway.address = wait_until(START, "the gateway to say where it listens", async || {
            let ended = gateway.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "the gateway ended at once: {ended:?}\n{}", gateway.log());
            address_in(&gateway.log())
        })
        .await;
        gateway
    }
}

fn address_in(log: &str) -> Option<SocketAddr> {
    let address = log.split("listening on http://").nth(1)?;
    // The rest of the line may still be on its way.
    let end = address.find(|end: char| !end.is_ascii_digit() && !".:[]".contains(end))?;
    address[..end].parse().ok()
}

/// A servers.toml for [`Launch::start`].
pub(crate) fn write_config(folder: &Path, text: &str) {
    let half = folder.join("servers.half");
    fs::write(&half, text).expect("servers.toml can be written");
    fs::rename(half, folder.join(CONFIG)).expect("servers.toml can be renamed");
}

/// `[servers.NAME]` that runs the fixture server with these flags.
pub(crate) fn fixture(name: &str, flags: &[&str]) -> String {
    let program = spawn::fixture_server().display().to_string();
    let words: Vec<String> =
        [program.as_str()].iter().chain(flags).map(|word| Value::from(*word).to_string()).collect();
    format!("\n[servers.{name}]\ncommand = [{}]\nsandbox = \"off\"\n", words.join(", "))
}

impl Gateway {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub(crate) async fn lane(&self, path: &str) -> Lane {
        Lane::open(self.address, path).await.unwrap_or_else(|error| panic!("no session: {error}\n{}", self.log()))
    }

    /// Runs `seawall WORDS`, as its user would.
    pub(crate) async fn seawall(&self, words: &[&str]) -> std::process::Output {
        let mut command = tokio::process::Command::new(spawn::seawall());
        command.args(words).args(["--config", CONFIG]).current_dir(&self.folder).stdin(Stdio::null());
        timeout(START, command.output()).await.expect("it ends in time").expect("it can be run")
    }

    pub(crate) async fn status(&self) -> Value {
        let output = self.seawall(&["status", "--json"]).await;
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}\n{}", self.log()))
    }

    pub(crate) async fn server_is_ready(&self, name: &str) {
        wait_until(START, "the server to be ready", async || {
            (self.status().await["servers"][name]["state"] == "ready").then_some(())
        })
        .await;
    }

    /// Until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(STOP, self.child.wait()).await.expect("it ends in time").expect("a child can be waited for")
    }

    /// SIGTERM, and its exit status.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        signal(self.pid(), Signal::TERM);
        self.ended().await
    }
}

/// It may have ended in this moment: then there is nothing to signal.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid is a small number");
    let _ = kill_process(pid, signal);
}

/// The one number that a query has; the database may have been left by one who was killed.
pub(crate) fn count(folder: &Path, sql: &str) -> u64 {
    let database = rusqlite::Connection::open(folder.join("seawall.db")).expect("the database opens");
    database.busy_timeout(Duration::from_secs(5)).expect("SQLite waits");
    let number: i64 = database.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    u64::try_from(number).expect("a count is not negative")
}

/// What SQLite itself says of the file.
pub(crate) fn integrity(folder: &Path) -> String {
    let database = rusqlite::Connection::open(folder.join("seawall.db")).expect("the database opens");
    database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap_or_else(|error| error.to_string())
}
