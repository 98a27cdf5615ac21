//! Services of seawall's own that stand on a port in the foreground: which one of servers.toml
//! is meant, and that it runs until this process is told to stop.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::told_to_stop;
use crate::{
    config::{Config, Options, ServiceKind},
    say::say,
};

/// What such a service is called.
pub(super) struct Called {
    /// As `builtin` has it.
    pub(super) builtin: &'static str,
    /// Where nobody gave it another name.
    pub(super) usually: &'static str,
    pub(super) plural: &'static str,
}

/// The settings of the one service that is meant.
pub(super) fn settings<'c, S>(
    name: Option<&str>,
    config: &'c Config,
    called: &Called,
    pick: impl Fn(&'c Options) -> Option<&'c S>,
) -> anyhow::Result<&'c S> {
    let mut found = config.services.iter().filter_map(|service| match &service.kind {
        ServiceKind::Builtin { options, .. } => pick(options).map(|settings| (service, settings)),
        _ => None,
    });
    let chosen = match name {
        Some(name) => found.find(|(service, _)| service.name == name),
        None => {
            let first = found.next();
            if let (Some((first, _)), Some((second, _))) = (first, found.next()) {
                bail!("there are several {}; say which one: {} or {}", called.plural, first.name, second.name);
            }
            first
        }
    };
    let Some((service, settings)) = chosen else {
        let (name, builtin) = (name.unwrap_or(called.usually), called.builtin);
        bail!("there is no [services.{name}] with builtin = \"{builtin}\" in {}", config.path.display());
    };
    match &service.problem {
        Some(problem) => bail!("{problem}"),
        None => Ok(settings),
    }
}

/// Binds, says where with `greeting`, and serves until this process is told to stop.
pub(super) async fn serve<T, F>(
    listen: SocketAddr,
    greeting: impl FnOnce(SocketAddr) -> String,
    server: impl FnOnce(TcpListener, CancellationToken) -> F,
) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let told = told_to_stop();
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    // It serves whether anybody hears of it or not.
    let _ = say!("{}", greeting(address));
    let shutdown = CancellationToken::new();
    let mut server = tokio::spawn(server(listener, shutdown.clone()));
    let ended = tokio::select! {
        told = told => {
            told?;
            shutdown.cancel();
            server.await
        }
        // It never ends by itself unless it cannot begin.
        ended = &mut server => ended,
    };
    ended.context("the server died")
}
