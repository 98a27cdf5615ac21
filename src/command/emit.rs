//! `seawall emit-server`: takes events of the user's programs in over HTTP, until it is
//! told to stop.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{block_on, load_config, profile_on_usr2, told_to_stop};
use crate::{
    config::{Config, Options, ServiceKind},
    emit::{self, Settings},
    gateway::reload::Overrides,
    say::{note, say},
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
    let mut found = config.services.iter().filter_map(|service| match &service.kind {
        ServiceKind::Builtin { options: Options::Emit(settings), .. } => Some((service, settings)),
        _ => None,
    });
    let chosen = match name {
        Some(name) => found.find(|(service, _)| service.name == name),
        None => {
            let first = found.next();
            if let (Some((first, _)), Some((second, _))) = (first, found.next()) {
                bail!("there are several emit servers; say which one: {} or {}", first.name, second.name);
            }
            first
        }
    };
    let Some((service, settings)) = chosen else {
        let name = name.unwrap_or("emit-server");
        bail!("there is no [services.{name}] with builtin = \"emit\" in {}", config.path.display());
    };
    if let Some(problem) = &service.problem {
        bail!("{problem}");
    }
    if settings.database == config.gateway.database {
        bail!("{} is the gateway's own database; write another one into the options", settings.database.display());
    }
    Ok(settings.clone())
}

async fn serve(settings: Settings, profiles: PathBuf) -> anyhow::Result<ExitCode> {
    tokio::spawn(profile_on_usr2(profiles, "emit-server"));
    let told = told_to_stop();
    let listen = settings.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    // It serves whether anybody hears of it or not.
    let _ = say!("seawall: events at http://{address}/events");
    let shutdown = CancellationToken::new();
    let mut server = tokio::spawn(emit::serve(settings, listener, shutdown.clone()));
    let ended = tokio::select! {
        told = told => {
            told?;
            shutdown.cancel();
            server.await
        }
        // It never ends by itself unless it cannot begin.
        ended = &mut server => ended,
    };
    let all_answered = ended.context("the server died")?.context("the writer cannot be started")?;
    if !all_answered {
        note!("seawall: not every request could be answered in time");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
