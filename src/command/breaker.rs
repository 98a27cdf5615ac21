//! `seawall breaker reset`: do not wait for a breaker.

use std::{path::PathBuf, process::ExitCode};

use super::ask_gateway;
use crate::{control::Request, say::say};

/// Close the breaker of a tool
///
/// An open breaker refuses calls of a tool that kept failing. It closes by itself once a
/// call succeeds again; this is for when you have mended the cause and do not want to wait.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  seawall status                          shows the breakers that are open\n  \
    seawall breaker reset files__read_file")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Close the breaker of a tool now, whatever opened it
    #[command(after_help = "Example:\n  seawall breaker reset files__read_file")]
    Reset {
        /// The tool's public name, as `seawall tools` lists it
        tool: String,
    },
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let Action::Reset { tool } = args.action;
    ask_gateway(config, &Request::ResetBreaker { tool: tool.clone() })?;
    say!("the breaker of {tool} is closed")?;
    Ok(ExitCode::SUCCESS)
}
