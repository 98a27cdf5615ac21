//! `seawall check`: is this servers.toml good, and what of it will not run?

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Value, json};

use crate::{
    config::{self, Complaints, Config, Kind, Server, ServiceKind},
    gateway::reload,
    say::{self, note},
    text,
};

use super::EXIT_BAD_CONFIG;

/// Check servers.toml without starting anything
///
/// Every complaint at once, each with its line; or what there is, and which servers
/// would be parked and why. Exits with 78 where the file is bad.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_help = "Examples:\n  seawall check\n  seawall check --config other.toml --json")]
pub struct Args {
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Checks the file named by `config`, or the one that `serve` would take.
pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let path = match config::find(config, &|name| std::env::var(name).ok()) {
        Ok(path) => path,
        Err(not_found) => {
            note!("seawall: {not_found}");
            return Ok(ExitCode::from(EXIT_BAD_CONFIG));
        }
    };
    let checked = config::read(&path).and_then(|text| reload::parse(&text, &path));
    let mut out = say::out();
    match args.json {
        true => writeln!(out, "{:#}", as_json(&path, &checked)),
        false => write_text(&mut out, &path, &checked),
    }?;
    Ok(if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_BAD_CONFIG) })
}

/// What a person reads: every complaint, or what there is and what of it is parked.
pub fn write_text(out: &mut impl Write, path: &Path, checked: &Result<Config, Complaints>) -> io::Result<()> {
    let config = match checked {
        Ok(config) => config,
        Err(complaints) => {
            writeln!(out, "{complaints}")?;
            return writeln!(out, "{} is bad: {}", path.display(), count(complaints.len(), "complaint"));
        }
    };
    let parked = config.servers.iter().filter(|server| server.problem.is_some()).count();
    write!(out, "{} is good: {}", path.display(), count(config.servers.len(), "server"))?;
    match parked {
        0 => writeln!(out)?,
        parked => writeln!(out, ", {parked} of them parked")?,
    }
    for server in &config.servers {
        let off = if server.enabled { "" } else { " (not enabled)" };
        write_line(out, &server.name, server.kind.key(), &target(server), off, server.problem.as_deref())?;
        write_warnings(out, &server.warnings)?;
    }
    if !config.services.is_empty() {
        writeln!(out, "{}", count(config.services.len(), "service"))?;
    }
    for service in &config.services {
        let (key, target) = match &service.kind {
            ServiceKind::Command { argv } => ("command", argv.first()),
            ServiceKind::Builtin { name, .. } => ("builtin", Some(name)),
        };
        let target = target.map_or("", String::as_str);
        write_line(out, &service.name, key, target, "", service.problem.as_deref())?;
        write_warnings(out, &service.warnings)?;
    }
    if !config.alerts.is_empty() {
        writeln!(out, "{}", count(config.alerts.len(), "alert"))?;
    }
    for problem in config.alerts.iter().filter_map(|alert| alert.problem.as_deref()) {
        writeln!(out, "  parked: {}", text::harmless(problem))?;
    }
    config.alerts.iter().try_for_each(|alert| write_warnings(out, &alert.warnings))
}

fn write_warnings(out: &mut impl Write, warnings: &[String]) -> io::Result<()> {
    warnings.iter().try_for_each(|warning| writeln!(out, "  {:<12} warning: {}", "", text::harmless(warning)))
}

fn write_line(
    out: &mut impl Write,
    name: &str,
    key: &str,
    target: &str,
    off: &str,
    problem: Option<&str>,
) -> io::Result<()> {
    writeln!(out, "  {name:<12} {key:<8} {}{off}", text::quote(target, 200))?;
    problem.map_or(Ok(()), |problem| writeln!(out, "  {:<12} parked: {}", "", text::harmless(problem)))
}

/// What a script reads.
pub fn as_json(path: &Path, checked: &Result<Config, Complaints>) -> Value {
    let config = match checked {
        Ok(config) => config,
        Err(complaints) => return json!({ "ok": false, "file": path, "complaints": complaints[..] }),
    };
    let servers = config.servers.iter().map(|server| {
        json!({
            "name": server.name.as_str(),
            "kind": server.kind.key(),
            "target": target(server),
            "enabled": server.enabled,
            "problem": server.problem,
            "warnings": server.warnings,
        })
    });
    let services = config.services.iter().map(|service| {
        let kind = match service.kind {
            ServiceKind::Command { .. } => "command",
            ServiceKind::Builtin { .. } => "builtin",
        };
        json!({ "name": service.name, "kind": kind, "problem": service.problem, "warnings": service.warnings })
    });
    let alerts = config.alerts.iter().map(|alert| json!({ "problem": alert.problem, "warnings": alert.warnings }));
    json!({
        "ok": true,
        "file": path,
        "servers": servers.collect::<Value>(),
        "services": services.collect::<Value>(),
        "alerts": alerts.collect::<Value>(),
    })
}

/// What a server is, without arguments, user info and query: those may hold secrets.
fn target(server: &Server) -> String {
    match &server.kind {
        Kind::Command { argv, .. } => argv.first().cloned().unwrap_or_default(),
        Kind::Builtin { name, .. } => name.clone(),
        Kind::Embed(_) => "embed".to_owned(),
        Kind::Url { url, .. } => match reqwest::Url::parse(url) {
            Ok(url) => format!("{}{}", url.origin().ascii_serialization(), url.path()),
            // One with a variable that cannot be had, and so as it was written.
            Err(_) => url.clone(),
        },
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
