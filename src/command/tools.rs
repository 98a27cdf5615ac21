//! `seawall tools`: what can be called, by its public name.

use std::{io::Write, path::PathBuf, process::ExitCode};

use super::{
    gateway_or_own,
    print::{Colour, Style},
};
use crate::{
    control::{self, Request, ToolLine},
    say, text,
};

/// List every tool, by the name that clients see
///
/// Asks the running gateway; where there is none, starts the servers for as long as
/// it takes to list their tools.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  seawall tools\n  seawall tools files\n  seawall tools --json | jq -r .name")]
pub struct Args {
    /// Of this server alone
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// One JSON object a line, with each tool's whole definition
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let wanted = args.server.clone();
    let listing = gateway_or_own(config, &Request::Tools, args.server.as_deref(), |gateway| {
        Box::pin(async move { Ok(serde_json::value::to_raw_value(&control::list_tools(&gateway).await)?) })
    })?;
    let mut tools: Vec<ToolLine> = serde_json::from_str(listing.get())?;
    let is_known = wanted.as_ref().is_none_or(|server| tools.iter().any(|tool| tool.server == *server));
    anyhow::ensure!(
        is_known,
        "there is no server {:?} with tools; `seawall status` lists them",
        wanted.unwrap_or_default()
    );
    tools.retain(|tool| wanted.as_ref().is_none_or(|server| tool.server == *server));
    let mut out = say::out();
    match args.json {
        true => write_json(&mut out, &tools),
        false => write_text(&mut out, &tools, &Style::of_stdout()),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn write_json(out: &mut impl Write, tools: &[ToolLine]) -> std::io::Result<()> {
    tools.iter().try_for_each(|tool| writeln!(out, "{}", serde_json::to_string(tool)?))
}

fn write_text(out: &mut impl Write, tools: &[ToolLine], style: &Style) -> std::io::Result<()> {
    if tools.is_empty() {
        return writeln!(out, "no tools; `seawall status` shows how the servers are");
    }
    let width = tools.iter().map(|tool| tool.name.len()).max().unwrap_or(0);
    for tool in tools {
        let description = tool.tool.text("description").unwrap_or_default();
        let first_line = description.trim().lines().next().unwrap_or_default();
        writeln!(out, "{:width$}  {}", tool.name, style.paint(Colour::Dim, &text::quote(first_line, 100)))?;
    }
    Ok(())
}
