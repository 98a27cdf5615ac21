//! `seawall sandbox check`: everything that a hostile server would try, tried from inside
//! a server's own sandbox, and beside it without one.

use std::{fmt::Write as _, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;
use tokio_util::task::TaskTracker;

use super::{
    super::print::{Colour, Style},
    as_server, block_on, command_of, load_config, with_words,
};
use crate::{
    config::Kind,
    gateway::reload::Overrides,
    process::{Command, launcher},
    sandbox::{Network, Plan, Report},
    say::{self, say},
    text,
};

#[cfg(target_os = "linux")]
mod world;

/// An attempt that has said nothing by then hangs, which is no success.
#[cfg(target_os = "linux")]
const ATTEMPT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    KeptOut,
    /// It fails without a sandbox as well: this proves nothing.
    Unproven,
    /// The policy gives it.
    Given,
    /// What the report lists as not enforced.
    NotEnforced,
    Open,
}

#[derive(Debug, Serialize)]
struct Finding {
    server: String,
    /// As in docs/sandbox.md.
    number: &'static str,
    attempt: String,
    verdict: Verdict,
    /// The attempt's own words.
    said: String,
}

pub(super) fn run(name: Option<String>, json: bool, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let names = match name {
        Some(name) => vec![name],
        None => {
            let (_, loaded) = load_config(config.clone(), Overrides::default())?;
            let servers = loaded.servers.iter().filter(|server| matches!(server.kind, Kind::Command { .. }));
            servers.map(|server| server.name.to_string()).collect()
        }
    };
    if names.is_empty() {
        bail!("there is no command server to check");
    }
    let mut all = Vec::new();
    for name in names {
        let found = check(as_server(command_of(config.clone(), &name)?)?).with_context(|| format!("server {name}"))?;
        if !json {
            print(&name, &found)?;
        }
        all.extend(found);
    }
    if json {
        say!("{}", serde_json::to_string(&all)?)?;
    }
    let is_open = all.iter().any(|finding| finding.verdict == Verdict::Open);
    Ok(if is_open { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[cfg(not(target_os = "linux"))]
fn check(_: Command) -> anyhow::Result<Vec<Finding>> {
    bail!("the attempts are those of Linux: on this system there are none to make")
}

#[cfg(target_os = "linux")]
fn check(command: Command) -> anyhow::Result<Vec<Finding>> {
    let plan = command.plan()?;
    if plan.is_off() {
        bail!("its sandbox is \"off\": there is nothing to escape from");
    }
    let world = world::World::new(&command, &plan)?;
    let mut found = Vec::new();
    for row in world::TABLE {
        let Some(arguments) = world.arguments(row, &plan) else { continue };
        let victim = world.victim()?;
        let arguments = world::with_victim(arguments, victim.id());
        let words: Vec<String> = [world.exe(), launcher::ATTEMPT.to_owned(), row.attempt.to_owned()]
            .into_iter()
            .chain(arguments.iter().cloned())
            .collect();
        let (said, report) = block_on(inside(&world.command(&command), &words))?;
        let got_through = said.starts_with("got through") || !victim.lives();
        let verdict = match got_through {
            true if row.is_given(&plan, &arguments) => Verdict::Given,
            true if row.needs_namespaces && report.tier != "full" => Verdict::NotEnforced,
            true => Verdict::Open,
            false if world.succeeds_without(row, &words) => Verdict::KeptOut,
            false => Verdict::Unproven,
        };
        let mut attempt = row.attempt.to_owned();
        for argument in &arguments {
            let _ = write!(attempt, " {argument}");
        }
        let number = row.number;
        found.push(Finding { server: command.name.clone(), number, attempt, verdict, said: said.trim().to_owned() });
    }
    Ok(found)
}

#[cfg(target_os = "linux")]
async fn inside(command: &Command, words: &[String]) -> anyhow::Result<(String, Report)> {
    let tasks = TaskTracker::new();
    let (child, mut pipes) = with_words(command.clone(), words).spawn(&tasks).await?;
    let mut said = String::new();
    let read = tokio::time::timeout(ATTEMPT_TIMEOUT, pipes.stdout.read_to_string(&mut said)).await;
    if read.is_err() {
        child.kill();
    }
    let exit = child.exited().await;
    if said.is_empty() {
        said = format!("ended by {exit}");
    }
    Ok((said, child.report().clone()))
}

fn print(server: &str, found: &[Finding]) -> anyhow::Result<()> {
    let style = Style::of_stdout();
    let mut out = say::out();
    writeln!(out, "{server}")?;
    for finding in found {
        let (word, colour) = match finding.verdict {
            Verdict::KeptOut => ("kept out", None),
            Verdict::Unproven => ("unproven", None),
            Verdict::Given => ("given", None),
            Verdict::NotEnforced => ("not enforced", Some(Colour::Yellow)),
            Verdict::Open => ("OPEN", Some(Colour::Red)),
        };
        let line = format!(
            "  {word:<12} {} {}: {}",
            finding.number,
            text::quote(&finding.attempt, 100),
            text::quote(finding.said.trim_start_matches("kept out: "), 100)
        );
        writeln!(out, "{}", colour.map_or(line.clone(), |colour| style.paint(colour, &line)))?;
    }
    let count = |verdict| found.iter().filter(|finding| finding.verdict == verdict).count();
    writeln!(
        out,
        "  {} attempts: {} kept out, {} unproven (they fail without a sandbox too), {} given by the policy, \
         {} not enforced here, {} open",
        found.len(),
        count(Verdict::KeptOut),
        count(Verdict::Unproven),
        count(Verdict::Given),
        count(Verdict::NotEnforced),
        count(Verdict::Open)
    )?;
    Ok(())
}

/// Whether the policy itself gives the network that an attempt needs.
#[cfg(target_os = "linux")]
fn network_gives(plan: &Plan, attempt: &str) -> bool {
    match (&plan.network, attempt) {
        (Network::Open, "connect" | "fast-open" | "mptcp" | "udp" | "listen" | "socket") => true,
        // Its own network: nobody else hears of it.
        (Network::Loopback, "udp" | "listen") | (Network::Allow(_), "listen") => true,
        _ => plan.unix_sockets && matches!(attempt, "unix" | "abstract-unix"),
    }
}
