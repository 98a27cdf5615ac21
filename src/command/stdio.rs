//! `seawall stdio`: one MCP client on stdin and stdout.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use tokio::{
    io::{BufReader, stdin, stdout},
    net::UnixStream,
};

use super::{block_on, load_config};
use crate::{
    config::Config,
    control::{self, ControlError},
    downstream,
    gateway::{Gateway, reload::Overrides},
    heap,
    say::note,
    session::{Gate as _, Scope},
};

const EXAMPLES: &str = "\
Examples:
  seawall --config ~/mcp/servers.toml stdio  all servers, as a client's config would say it
  seawall stdio files                        the server \"files\" alone
  seawall stdio --join                       never run servers here, fail if no gateway is running
  claude mcp add seawall -- seawall --config ~/mcp/servers.toml stdio";

/// Serve one MCP client over stdin and stdout
///
/// For clients that start their servers themselves, such as Claude Desktop. Joins the
/// running gateway of the same servers.toml, so that all clients share its servers;
/// where none is running, runs the servers itself until the input ends.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// One server alone, its names untouched; else all, as SERVER__name
    #[arg(value_name = "NAME")]
    pub server: Option<String>,
    /// Run the servers in this process, whatever else is running
    #[arg(long, conflicts_with = "join")]
    pub own: bool,
    /// Join the running gateway, and fail if there is none
    #[arg(long)]
    pub join: bool,
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (_, config) = load_config(config, Overrides::default())?;
    let code = block_on(serve(args, config))?;
    // The thread that reads stdin cannot be told to stop.
    std::process::exit(code);
}

async fn serve(args: Args, config: Config) -> anyhow::Result<i32> {
    if !args.own {
        match control::join(&config.gateway.state, args.server.clone()).await {
            Ok(stream) => {
                note!("seawall: joined the running gateway");
                return relay(&config, args.server, stream).await;
            }
            Err(ControlError::NoGateway) if !args.join => {}
            Err(error) => return Err(error.into()),
        }
    }
    note!("seawall: no gateway is used, the servers run in this process");
    own(args.server, config).await
}

/// Carries the client's lines, also over the death of the gateway.
async fn relay(config: &Config, server: Option<String>, link: BufReader<UnixStream>) -> anyhow::Result<i32> {
    let (state, drain) = (&config.gateway.state, config.gateway.drain);
    control::relay((stdin(), stdout()), drain, link, async || control::join(state, server.clone()).await).await?;
    Ok(0)
}

async fn own(server: Option<String>, config: Config) -> anyhow::Result<i32> {
    let drain = config.gateway.drain;
    let gateway = Gateway::builder().config(config).start();
    heap::tidy();
    let scope = match server {
        None => Scope::All,
        Some(name) => match gateway.router().scope(&name) {
            Some(scope) => scope,
            None => bail!("there is no server {name:?} in {}", gateway.config().path.display()),
        },
    };
    let streams = (stdin(), stdout());
    let (gate, limits, farewell) = (gateway.gate(), gateway.limits(), gateway.farewell_signal());
    let client = downstream::stdio::serve(streams, gate, scope, limits, drain, farewell, gateway.tasks());
    let mut client = std::pin::pin!(client);
    let unfinished = tokio::select! {
        () = client.as_mut() => gateway.shutdown().await,
        stopped = super::told_to_stop() => {
            stopped?;
            // Its calls get their answers before it is parted from.
            tokio::join!(gateway.shutdown(), client).0
        }
    };
    Ok(i32::from(!unfinished.is_empty()))
}
