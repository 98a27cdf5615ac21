//! `seawall breaker reset`: do not wait for a breaker.

use std::{path::PathBuf, process::ExitCode};

use super::ask_gateway;
use crate::control::Request;

/// Close the breaker of a tool
#[derive(Debug, clap::Args)]
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
    println!("the breaker of {tool} is closed");
    Ok(ExitCode::SUCCESS)
}
