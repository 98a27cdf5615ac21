//! `seawall sandbox explain`: what a server asks for when it starts and says what it
//! offers, and the smallest policy that gives it.
//!
//! It runs where it can do no harm: it may read what its user may, so that nothing stops
//! it early, but it can write nothing outside and reach nobody: no Unix socket either, unless
//! its policy gives them already, for the user's agents and daemons are there.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{
    command::block_on,
    egress::{Egress, Rule},
    process::Command,
    sandbox::{
        Network, Plan, Policy,
        denial::{Reach, Wanted},
        egress::PROXY,
        observe::{self, Asked},
    },
    say::say,
    text,
};

/// To its first answer, and then to all of its lists.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// What it still does when it has answered.
const QUIET_WAIT: Duration = Duration::from_secs(1);
const ASKED_MAX: usize = 10_000;
const STDERR_MAX_BYTES: u64 = 256 << 10;
/// Entries of a folder that are given one by one.
const ENTRIES_MAX: usize = 512;

/// What it asked for, as far as its present policy does not give it.
#[derive(Debug, Default)]
struct Needs {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
    hosts: BTreeSet<String>,
    /// Addresses whose names nobody knows.
    addresses: BTreeSet<String>,
    unix_sockets: BTreeSet<String>,
}

#[derive(Default)]
struct Seen {
    asked: Mutex<BTreeSet<String>>,
    calls: Mutex<Vec<Asked>>,
    hosts: Mutex<BTreeSet<String>>,
    is_over: AtomicBool,
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    // What every server of its kind is given: only what goes beyond is to be written.
    let bare = Command {
        sandbox: Policy { read: Vec::new(), write: Vec::new(), network: Network::None, ..command.sandbox.clone() },
        ..command.clone()
    };
    let base = bare.plan()?;
    let observed = Command {
        sandbox: Policy {
            read: everything(&command),
            write: Vec::new(),
            network: Network::Allow(Vec::new()),
            ..command.sandbox.clone()
        },
        ..command.clone()
    };
    let seen = Arc::new(Seen::default());
    let (answered, stderr, reach) = block_on(observe(&observed, &seen))?;
    let needs = needs(&seen, &base, &command, &stderr, &reach);
    say!("{}", in_toml(&command.name, &needs, &answered))?;
    Ok(ExitCode::SUCCESS)
}

/// All that is below the root, but for what a sandbox has of its own; of /tmp, where files
/// come and go, what it was told of.
fn everything(command: &Command) -> Vec<PathBuf> {
    let entries = |folder: &str| -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        entries.flatten().map(|entry| entry.path()).filter(|path| path.exists()).take(ENTRIES_MAX).collect()
    };
    let own = ["/proc", "/sys", "/dev", "/tmp", "/home"].map(Path::new);
    let top = entries("/").into_iter().filter(|path| !own.contains(&path.as_path()));
    let named = command.args.iter().map(|arg| command.cwd.join(arg)).chain([command.cwd.clone()]);
    let named = named.chain(command.sandbox.read.iter().chain(&command.sandbox.write).cloned());
    let named =
        named.filter(|path| path.exists() && path.canonicalize().is_ok_and(|path| !own.contains(&path.as_path())));
    top.chain(entries("/home")).chain(named).collect()
}

/// Runs it until it has said what it offers; whether it did, and its stderr.
async fn observe(command: &Command, seen: &Arc<Seen>) -> anyhow::Result<(String, String, Reach)> {
    let tasks = TaskTracker::new();
    let (child, mut pipes, listener) = command
        .spawn_observed(&tasks)
        .await
        .context("it is observed under a policy of its own, which needs the full tier")?;
    let reach = Reach::new(child.plan().clone(), &child.report().tier, &command.protected);
    let watcher = {
        let seen = seen.clone();
        std::thread::spawn(move || {
            observe::watch(&listener, || seen.is_over.load(Ordering::Relaxed), |asked| seen.note(asked));
        })
    };
    let hosts = seen.clone();
    let on_denied = move |denial: &crate::egress::Denial| {
        let mut hosts = hosts.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.insert(format!("{}:{}", denial.host, denial.port));
    };
    let egress = Egress::new(Rule::new(&command.name, &[], Arc::default()), Arc::new(on_denied));
    tokio::spawn(egress.serve(std::mem::take(&mut pipes.listeners)));
    let mut stderr = pipes.stderr;
    let said = tokio::spawn(async move {
        let mut text = Vec::new();
        let _ = (&mut stderr).take(STDERR_MAX_BYTES).read_to_end(&mut text).await;
        let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        String::from_utf8_lossy(&text).into_owned()
    });
    let spoken = speak(pipes.stdin, pipes.stdout);
    let mut answered = tokio::select! {
        answered = spoken => answered,
        exit = child.exited() => format!("it ended with {exit} before it said what it offers"),
    };
    let _ = timeout(QUIET_WAIT, child.exited()).await;
    child.kill();
    child.exited().await;
    seen.is_over.store(true, Ordering::Relaxed);
    let _ = watcher.join();
    let stderr = timeout(QUIET_WAIT, said).await.map(Result::unwrap_or_default).unwrap_or_default();
    if !answered.starts_with("it offers")
        && let Some(last) = stderr.lines().rfind(|line| !line.trim().is_empty())
    {
        answered = format!("{answered}; its last line was: {}", text::quote(last, 200));
    }
    Ok((answered, stderr, reach))
}

/// Shakes hands and asks for its tools; what came of it.
async fn speak(mut stdin: tokio::process::ChildStdin, stdout: tokio::process::ChildStdout) -> String {
    let hello = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "seawall", "version": env!("CARGO_PKG_VERSION")}}});
    let known = serde_json::json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let list = serde_json::json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let mut lines = BufReader::new(stdout).lines();
    let asked = async {
        stdin.write_all(format!("{hello}\n").as_bytes()).await.ok()?;
        answer(&mut lines, 1).await?;
        stdin.write_all(format!("{known}\n{list}\n").as_bytes()).await.ok()?;
        answer(&mut lines, 2).await
    };
    match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Some(answer)) => {
            let count = answer["result"]["tools"].as_array().map_or(0, Vec::len);
            // Kept open for what it does afterwards.
            tokio::spawn(async move {
                let _stdin = stdin;
                while let Ok(Some(_)) = lines.next_line().await {}
            });
            format!("it offers {count} tools")
        }
        Ok(None) => std::future::pending().await,
        Err(_) => format!("it did not say what it offers within {}", text::duration(ANSWER_TIMEOUT)),
    }
}

async fn answer(
    lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    id: u64,
) -> Option<serde_json::Value> {
    loop {
        let line = lines.next_line().await.ok()??;
        let message: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if message["id"] == id && message.get("method").is_none() {
            return Some(message);
        }
    }
}

impl Seen {
    fn note(&self, asked: Asked) {
        let mut known = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < ASKED_MAX && known.insert(format!("{asked:?}")) {
            self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        }
    }
}

fn needs(seen: &Seen, base: &Plan, command: &Command, stderr: &str, reach: &Reach) -> Needs {
    let mut needs = Needs::default();
    for asked in seen.calls.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        match asked {
            Asked::Read(path) => needs.read(path, base, command),
            Asked::Write(path) => needs.write(path, base, command),
            Asked::Connect(to) if to.ip() == std::net::IpAddr::from(PROXY.0) && to.port() == PROXY.1 => {}
            Asked::Connect(to) => drop(needs.addresses.insert(to.to_string())),
            Asked::ConnectUnix(Some(path)) if path.exists() => {
                needs.unix_sockets.insert(path.display().to_string());
            }
            Asked::ConnectUnix(_) => {}
        }
    }
    needs.hosts = seen.hosts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for denial in reach.denials(stderr, &[]) {
        if let Wanted::Connect(Some((host, port))) = denial.wanted {
            needs.hosts.insert(format!("{host}:{port}"));
        }
    }
    let written = needs.write.clone();
    needs.read.retain(|path| !written.iter().any(|written| path.starts_with(written)));
    simplify(&mut needs.read);
    simplify(&mut needs.write);
    needs
}

impl Needs {
    fn read(&mut self, path: &Path, base: &Plan, command: &Command) {
        // What is not there cannot be given; programs look for much that is not.
        let Ok(path) = path.canonicalize() else { return };
        if !is_of_the_sandbox(&path) && !is_below(&path, &base.read) && !is_protected(&path, command) {
            self.read.insert(path);
        }
    }

    fn write(&mut self, path: &Path, base: &Plan, command: &Command) {
        let existing = path.canonicalize();
        let in_folder = || path.parent().and_then(|folder| folder.canonicalize().ok());
        let Some(place) = existing.ok().or_else(in_folder) else { return };
        let is_private = place == Path::new("/tmp") || place == Path::new("/");
        if !is_of_the_sandbox(&place) && !is_private && !is_below(&place, &base.write) && !is_protected(&place, command)
        {
            self.write.insert(place);
        }
    }
}

/// There it has files and devices of its own.
fn is_of_the_sandbox(path: &Path) -> bool {
    ["/proc", "/dev", "/sys"].iter().any(|own| path.starts_with(own))
}

fn is_below(path: &Path, granted: &[PathBuf]) -> bool {
    granted.iter().any(|granted| path.starts_with(granted))
}

fn is_protected(path: &Path, command: &Command) -> bool {
    command.protected.iter().filter_map(|own| own.canonicalize().ok()).any(|own| path.starts_with(own))
}

fn simplify(paths: &mut BTreeSet<PathBuf>) {
    let all = paths.clone();
    paths.retain(|path| !all.iter().any(|other| other != path && path.starts_with(other)));
}

fn in_toml(name: &str, needs: &Needs, answered: &str) -> String {
    let list = |entries: Vec<String>| {
        let quoted: Vec<String> = entries.iter().map(|entry| serde_json::json!(entry).to_string()).collect();
        format!("[{}]", quoted.join(", "))
    };
    let paths = |paths: &BTreeSet<PathBuf>| list(paths.iter().map(|path| path.display().to_string()).collect());
    let mut lines = vec![
        format!("# What {name} asked for beyond what every server has. While it was watched, {answered}."),
        "# It could read what its user may, write nothing outside, and reach nobody. What its tools do".to_owned(),
        "# when they are called was not seen. Take out what it does not need: this is what it wanted.".to_owned(),
    ];
    for address in &needs.addresses {
        lines.push(format!("# It connected to {address}; write the name of that host to network.allow if it should."));
    }
    lines.push(format!("[servers.{name}.sandbox]"));
    if !needs.read.is_empty() {
        lines.push(format!("read = {}", paths(&needs.read)));
    }
    if !needs.write.is_empty() {
        lines.push(format!("write = {}", paths(&needs.write)));
    }
    let network = match needs.hosts.is_empty() {
        true => "\"none\"".to_owned(),
        false => format!("{{ allow = {} }}", list(needs.hosts.iter().cloned().collect())),
    };
    lines.push(format!("network = {network}"));
    if !needs.unix_sockets.is_empty() {
        let sockets: Vec<&str> = needs.unix_sockets.iter().map(String::as_str).collect();
        lines.push(format!("# unix_sockets = true    # it connected to {}", sockets.join(", ")));
    }
    lines.join("\n")
}
