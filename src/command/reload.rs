//! `seawall reload`: read servers.toml now.

use std::{path::PathBuf, process::ExitCode};

use super::ask_gateway;
use crate::{control::Request, say::say};

/// Read servers.toml again now
///
/// A running gateway does so by itself when the file is saved; this also expands
/// `${file:…}` anew and tells what changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  seawall check && seawall reload")]
pub struct Args {}

pub fn run(_: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let changes = ask_gateway(config, &Request::Reload)?;
    let changes: Vec<String> = serde_json::from_str(changes.get())?;
    if changes.is_empty() {
        say!("nothing has changed")?;
    }
    for change in changes {
        say!("{change}")?;
    }
    Ok(ExitCode::SUCCESS)
}
