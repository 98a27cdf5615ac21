//! `seawall status`: how the gateway and its servers are.

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use serde_json::Value;

use super::{
    ask_gateway,
    print::{Colour, Style},
};
use crate::{control::Request, say, text};

/// Show how the gateway and its servers are
///
/// Servers with their state, process, uptime, memory, calls, failures and restarts,
/// and the breakers that are not closed. Exits with 3 where no gateway is running.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  seawall status\n  seawall status --json | jq '.servers.files.state'")]
pub struct Args {
    /// Everything, as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let status = ask_gateway(config, &Request::Status)?;
    let mut out = say::out();
    match args.json {
        true => writeln!(out, "{status}"),
        false => write_text(&mut out, &serde_json::from_str(status.get())?, &Style::of_stdout()),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn write_text(out: &mut impl Write, status: &Value, style: &Style) -> std::io::Result<()> {
    let gateway = &status["gateway"];
    writeln!(
        out,
        "seawall {} on http://{}/mcp, up {}, pid {}, {}, {} open",
        str_of(&gateway["version"]),
        str_of(&gateway["listen"]),
        duration(&gateway["uptime_ms"]),
        gateway["pid"],
        size(&gateway["memory_bytes"]),
        plural(gateway["sessions"].as_u64().unwrap_or(0), "session"),
    )?;
    if let Some(problem) = gateway["config_problem"].as_str() {
        writeln!(out, "{}", style.paint(Colour::Red, "the last edit of servers.toml was not taken:"))?;
        for line in problem.lines() {
            writeln!(out, "  {}", text::harmless(line))?;
        }
    }
    if let Some(trouble) = gateway["database"]["degraded"].as_str() {
        writeln!(out, "{} {}", style.paint(Colour::Red, "the database:"), text::harmless(trouble))?;
    }
    write_servers(out, &status["servers"], style)?;
    write_breakers(out, &status["breakers"], style)
}

const HEADINGS: [&str; 9] = ["SERVER", "STATE", "PID", "UP", "MEMORY", "TOOLS", "CALLS", "FAILURES", "RESTARTS"];

fn write_servers(out: &mut impl Write, servers: &Value, style: &Style) -> std::io::Result<()> {
    let Some(servers) = servers.as_object().filter(|servers| !servers.is_empty()) else {
        return writeln!(out, "\nno servers: add some to servers.toml");
    };
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(servers.iter().map(|(name, server)| {
        let number = |key: &str| server[key].as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string());
        [
            name.clone(),
            str_of(&server["state"]).to_owned(),
            number("pid"),
            if server["uptime_ms"].is_u64() { duration(&server["uptime_ms"]) } else { "-".to_owned() },
            size(&server["memory_bytes"]),
            number("tools"),
            number("calls"),
            number("failures"),
            number("restarts"),
        ]
    }));
    let widths: [usize; 9] = std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0));
    writeln!(out)?;
    for (at, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let line = cells.join("  ");
        let line = line.trim_end();
        match (at, row[1].as_str()) {
            (0, _) => writeln!(out, "{}", style.paint(Colour::Dim, line))?,
            (_, "ready" | "idle") => writeln!(out, "{line}")?,
            (_, _) => writeln!(out, "{}", style.paint(Colour::Red, line))?,
        }
        if at > 0 {
            write_remarks(out, &servers[&row[0]])?;
        }
    }
    Ok(())
}

/// What a server's line has no room for.
fn write_remarks(out: &mut impl Write, server: &Value) -> std::io::Result<()> {
    if let Some(reason) = server["reason"].as_str() {
        let retry = if server["retry_in_ms"].is_u64() {
            format!("; next try in {}", duration(&server["retry_in_ms"]))
        } else if server["state"] == "parked" {
            "; tried again when it is used, or by `seawall restart`".to_owned()
        } else {
            String::new()
        };
        writeln!(out, "    {}{retry}", text::harmless(reason))?;
    }
    if let Some(lines @ 1..) = server["stray_lines"].as_u64() {
        let last = str_of(&server["last_stray_line"]);
        writeln!(
            out,
            "    {} on its stdout that no client can read, the last: {}",
            plural(lines, "line"),
            text::quote(last, 120)
        )?;
    }
    Ok(())
}

fn write_breakers(out: &mut impl Write, breakers: &Value, style: &Style) -> std::io::Result<()> {
    let Some(breakers) = breakers.as_array().filter(|breakers| !breakers.is_empty()) else { return Ok(()) };
    writeln!(out, "\nbreakers that are not closed")?;
    for breaker in breakers {
        let tool = breaker["tool"].as_str().map_or("other requests", |tool| tool);
        let until = match breaker["retry_in_ms"].as_u64() {
            Some(ms) => format!("open for another {}", text::duration(Duration::from_millis(ms))),
            None => "the next call decides".to_owned(),
        };
        let line = format!("  {} {}: {until}", str_of(&breaker["server"]), text::harmless(tool));
        writeln!(out, "{}", style.paint(Colour::Red, &line))?;
        if let Some(cause) = breaker["last_cause"].as_str() {
            writeln!(out, "    {} failures in a row, the last: {}", breaker["failures"], text::quote(cause, 200))?;
        }
    }
    Ok(())
}

fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn duration(ms: &Value) -> String {
    text::duration(Duration::from_millis(ms.as_u64().unwrap_or(0)))
}

fn size(bytes: &Value) -> String {
    bytes.as_u64().map_or_else(|| "-".to_owned(), text::bytes)
}

fn plural(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
