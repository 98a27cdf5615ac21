//! Services of seawall's own in the foreground: which one of servers.toml is meant, and of those
//! that stand on a port, that it runs until this process is told to stop.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::told_to_stop;
use crate::{
    config::{Config, Options, Service, ServiceKind},
    say::say,
};

/// What such a service is called.
pub(super) struct Called {
    /// As `builtin` has it.
    pub(super) builtin: &'static str,
    /// Where nobody gave it another name.
    pub(super) usually: &'static str,
    pub(super) plural: &'static str,
    /// What servers.toml must have for one.
    pub(super) example: &'static str,
}

/// The one service that is meant, and its settings.
pub(super) fn chosen<'c, S>(
    name: Option<&str>,
    config: &'c Config,
    called: &Called,
    pick: impl Fn(&'c Options) -> Option<&'c S>,
) -> anyhow::Result<(&'c Service, &'c S)> {
    let found: Vec<(&Service, &S)> = config
        .services
        .iter()
        .filter_map(|service| match &service.kind {
            ServiceKind::Builtin { options, .. } => pick(options).map(|settings| (service, settings)),
            _ => None,
        })
        .collect();
    let names = |between: &str| found.iter().map(|(found, _)| found.name.as_str()).collect::<Vec<_>>().join(between);
    let chosen = match (name, &found[..]) {
        (Some(name), _) => found.iter().find(|(service, _)| service.name == name),
        (None, [_, _, ..]) => bail!("there are several {}; say which one: {}", called.plural, names(" or ")),
        (None, one) => one.first(),
    };
    let Some(&(service, settings)) = chosen else {
        let (name, builtin, path) = (name.unwrap_or(called.usually), called.builtin, config.path.display());
        let right = match found.is_empty() {
            true => format!("write:\n{}", called.example),
            false => format!("there are: {}", names(", ")),
        };
        bail!("there is no [services.{name}] with builtin = \"{builtin}\" in {path}; {right}");
    };
    match &service.problem {
        Some(problem) => bail!("[services.{}] cannot run: {problem}", service.name),
        None => Ok((service, settings)),
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
