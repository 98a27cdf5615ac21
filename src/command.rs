//! The subcommands: each reads its arguments, does its work and says its exit code.
//! From here outwards `anyhow` is allowed.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use serde_json::value::RawValue;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    call::BoxFuture,
    config::{self, Complaints, Config},
    control::{self, ControlError, Request},
    gateway::{
        Gateway,
        reload::{Overrides, Reloader},
    },
    service::fault::{Fault, classify},
};

pub mod breaker;
pub mod call;
pub mod check;
pub mod events;
pub mod failures;
mod greeting;
pub mod launchd;
mod listing;
pub mod mcp;
mod print;
pub mod reload;
pub mod restart;
pub mod run;
pub mod serve;
pub mod services;
pub mod status;
pub mod stdio;
pub mod systemd;
pub mod tools;
mod units;
pub mod why;

/// `EX_CONFIG` of sysexits.h: the servers.toml is bad, or there is none.
const EXIT_BAD_CONFIG: u8 = 78;
const EXIT_NO_GATEWAY: u8 = 3;

/// What an error means to a script.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Complaints>() || error.is::<config::NotFound>() {
        return ExitCode::from(EXIT_BAD_CONFIG);
    }
    match error.downcast_ref() {
        Some(ControlError::NoGateway) => ExitCode::from(EXIT_NO_GATEWAY),
        // What was told to end has ended: no supervisor need start it again.
        _ if classify(error.as_ref()) == Fault::Shutdown => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Where the database of a servers.toml is, be the file good or bad: who asks for
/// failures may well have one that is bad.
pub fn database(config: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    place(config, |config| config.gateway.database.clone(), "seawall.db")
}

fn state_folder(config: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    place(config, |config| config.gateway.state.clone(), ".seawall")
}

fn place(config: Option<PathBuf>, of: impl Fn(&Config) -> PathBuf, default: &str) -> anyhow::Result<PathBuf> {
    let path = find(config)?;
    match Reloader::new(&path, Overrides::default()).load() {
        Ok(config) => Ok(of(&config)),
        Err(_) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            eprintln!("seawall: {} is bad (`seawall check` says why); using {default} beside it", path.display());
            Ok(folder.join(default))
        }
    }
}

fn find(config: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    Ok(config::find(config, &|name| std::env::var(name).ok())?)
}

fn load_config(config: Option<PathBuf>, overrides: Overrides) -> anyhow::Result<(Reloader, Config)> {
    let path = std::path::absolute(find(config)?).context("the path of servers.toml is no path")?;
    let reloader = Reloader::new(&path, overrides);
    let config = reloader.load()?;
    Ok((reloader, config))
}

pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("seawall")
        .build()
        .context("no runtime can be started")?
        .block_on(work)
}

fn ask_gateway(config: Option<PathBuf>, request: &Request) -> anyhow::Result<Box<RawValue>> {
    let state = state_folder(config)?;
    block_on(async {
        let answer = control::ask(&state, request).await;
        answer.map_err(|error| match error {
            ControlError::NoGateway => anyhow::Error::new(error).context("start one with `seawall serve`"),
            error => error.into(),
        })
    })
}

/// Asks the running gateway; where there is none, does `work` with one of its own, of
/// the `only` server if that is named.
fn gateway_or_own(
    config: Option<PathBuf>,
    request: &Request,
    only: Option<&str>,
    work: impl FnOnce(Gateway) -> BoxFuture<'static, anyhow::Result<Box<RawValue>>>,
) -> anyhow::Result<Box<RawValue>> {
    let path = find(config.clone())?;
    let state = state_folder(Some(path.clone()))?;
    block_on(async {
        match control::ask(&state, request).await {
            Err(ControlError::NoGateway) => {}
            answered => return Ok(answered?),
        }
        let (_, mut config) = load_config(Some(path), Overrides::default())?;
        if let Some(only) = only.filter(|only| config.servers.iter().any(|server| &*server.name == *only)) {
            config.servers.retain(|server| &*server.name == only);
        }
        let gateway = Gateway::builder().config(config).start();
        let result = work(gateway.clone()).await;
        gateway.shutdown().await;
        result
    })
}

/// Waits for SIGTERM or SIGINT.
async fn told_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be waited for")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
