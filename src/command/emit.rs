//! `seawall emit-server`: takes events of the user's programs in over HTTP, until it is
//! told to stop.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};

use super::{
    block_on, load_config, profile_on_usr2,
    standing::{self, Called},
};
use crate::{
    config::{Config, Options},
    emit::{self, Settings},
    gateway::reload::Overrides,
    say::note,
};

const CALLED: Called = Called {
    builtin: "emit",
    usually: "emit-server",
    plural: "emit servers",
    example: "[services.emit-server]\nbuiltin = \"emit\"",
};

const EXAMPLES: &str = "\
Examples:
  seawall emit-server                       the one of ./servers.toml, in the foreground
  seawall run emit-server                   the same, watched and recorded: what its unit starts
  curl -H 'Content-Type: application/json' -d '{\"event_type\":\"deploy_done\"}' http://127.0.0.1:8421/events
  curl -N -H 'Accept: text/event-stream' http://127.0.0.1:8421/events
                                            events as they come";

/// Take events in over HTTP, and acknowledge what is on the disk
///
/// POST /events takes one JSON object, or one a line as application/x-ndjson. GET /events
/// lists them, or follows them. docs/services.md has the rest.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The NAME of [services.NAME], where there is more than one with builtin = "emit"
    name: Option<String>,
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (_, config) = load_config(config, Overrides::default())?;
    let settings = settings(args.name.as_deref(), &config)?;
    let profiles = config.gateway.state.join("heap");
    block_on(serve(settings, profiles))
}

/// Those of the one service that is meant.
fn settings(name: Option<&str>, config: &Config) -> anyhow::Result<Settings> {
    let (_, settings) = standing::chosen(name, config, &CALLED, |options| match options {
        Options::Emit(settings) => Some(settings),
        _ => None,
    })?;
    if settings.database == config.gateway.database {
        bail!("{} is the gateway's own database; write another one into the options", settings.database.display());
    }
    Ok(settings.clone())
}

async fn serve(settings: Settings, profiles: PathBuf) -> anyhow::Result<ExitCode> {
    tokio::spawn(profile_on_usr2(profiles, "emit-server"));
    let greeting = |address| format!("seawall: events at http://{address}/events");
    let server = |listener, shutdown| emit::serve(settings.clone(), listener, shutdown);
    let ended = standing::serve(settings.listen, greeting, server).await?;
    if !ended.context("the writer cannot be started")? {
        note!("seawall: not every request could be answered in time");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
