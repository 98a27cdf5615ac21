//! `seawall serve`: the gateway in the foreground, until it is told to stop.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{block_on, greeting, load_config, profile_on_usr2, told_to_stop};
use crate::{
    config::command_value,
    control,
    gateway::{
        Gateway,
        lock::StateLock,
        reload::{Overrides, Reloader},
    },
    heap,
    say::note,
};

const EXAMPLES: &str = "\
Examples:
  seawall serve                              what ./servers.toml lists, where it says
  seawall serve --listen 127.0.0.1:0         on any free port; the first line says which
  seawall serve --config ~/mcp/servers.toml  database and state are then beside that file
  RUST_LOG=debug seawall serve --log json    everything it does, as JSON lines on stderr";

/// Serve MCP clients (the default)
///
/// Starts every server of servers.toml and serves them at http://ADDR/mcp, each alone
/// at http://ADDR/mcp/NAME. An edit of servers.toml takes effect when it is saved.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Listen here instead of where servers.toml says; port 0 takes any free one
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
}

/// A process that does not end by then is ended.
const EXIT_MARGIN: Duration = Duration::from_secs(9);

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    // Before there are commands of values, which may take long and would be left behind.
    command_value::heed_signals().context("signals cannot be heard")?;
    let (reloader, config) = load_config(config, Overrides { listen: args.listen })?;
    if command_value::is_stopping() {
        note!("seawall: stopped before it had begun");
        return Ok(ExitCode::SUCCESS);
    }
    let _lock = StateLock::take(&config.gateway.state)?;
    let code = block_on(serve(reloader, config));
    command_value::end_all();
    let code = code?;
    // Threads of handlers that never yield must not keep the process.
    std::process::exit(code);
}

async fn serve(reloader: Reloader, config: crate::config::Config) -> anyhow::Result<i32> {
    let listen = config.gateway.listen;
    let state = config.gateway.state.clone();
    let drain = config.gateway.drain;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    let socket = control::bind(&state).context("the control socket cannot be made")?;

    // Before there is anybody who could be left behind, and before it is said that it listens.
    let told = told_to_stop();
    // Told in between, when nobody else listened.
    if command_value::is_stopping() {
        let _ = std::fs::remove_file(control::socket_path(&state));
        return Ok(0);
    }
    let gateway = Gateway::builder().config(config).start();
    gateway.serve_http(listener);
    let reloader = Arc::new(reloader);
    gateway.spawn_to_the_end({
        let (state, gateway, reloader) = (state.clone(), gateway.clone(), reloader.clone());
        async move { control::serve(socket, &state, gateway, reloader).await }
    });
    gateway.spawn(reloader.clone().watch(gateway.clone()));
    gateway.spawn(reload_on_hangup(reloader, gateway.clone()));
    gateway.spawn(profile_on_usr2(state.join("heap"), "gateway"));
    gateway.spawn(greeting::greet(gateway.clone(), address));
    heap::tidy();

    let is_broken = tokio::select! {
        told = told => told.map(|()| false)?,
        _ = gateway.broken() => true,
    };
    note!("seawall: stopping; calls have {} to finish, a second signal stops at once", crate::text::duration(drain));
    let unfinished = tokio::select! {
        unfinished = tokio::time::timeout(drain + EXIT_MARGIN, gateway.shutdown()) => unfinished.unwrap_or(vec!["the shutdown"]),
        _ = told_to_stop() => vec!["everything: a second signal came"],
    };
    let _ = std::fs::remove_file(control::socket_path(&state));
    if unfinished.is_empty() {
        return Ok(i32::from(is_broken));
    }
    note!("seawall: not finished: {}", unfinished.join(", "));
    Ok(1)
}

/// SIGHUP means what it means to other daemons; unheard, it would end the process.
fn reload_on_hangup(reloader: Arc<Reloader>, gateway: Gateway) -> impl Future<Output = ()> + Send + 'static {
    let heard = signal(SignalKind::hangup());
    async move {
        let Ok(mut hangup) = heard else { return };
        while hangup.recv().await.is_some() {
            // What is wrong with it is logged and shown in `status`.
            let (reloader, gateway) = (reloader.clone(), gateway.clone());
            let _ = tokio::task::spawn_blocking(move || reloader.reload(&gateway)).await;
        }
    }
}
