//! `seawall restart`: a new instance of one server.

use std::{path::PathBuf, process::ExitCode};

use super::ask_gateway;
use crate::{control::Request, say::say};

/// Stop one server's instance and start a new one
///
/// Also starts a server at once that is parked or waits for its next try.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  seawall restart files")]
pub struct Args {
    /// The server's name in servers.toml
    server: String,
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    ask_gateway(config, &Request::Restart { server: args.server.clone() })?;
    say!("{} is being restarted; `seawall status` shows it", args.server)?;
    Ok(ExitCode::SUCCESS)
}
