//! The subcommands: each reads its arguments, does its work and says its exit code.
//! From here outwards `anyhow` is allowed.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
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
    heap,
    say::note,
    service::fault::{Fault, classify},
};

pub mod breaker;
pub mod call;
pub mod check;
pub mod doctor;
pub mod embedding;
pub mod emit;
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
pub mod sandbox;
pub mod serve;
pub mod services;
mod standing;
pub mod status;
pub mod stdio;
pub mod systemd;
pub mod tasks;
pub mod tools;
mod units;
pub mod watch;
pub mod why;

/// `EX_CONFIG` of sysexits.h: the servers.toml is bad, or there is none.
const EXIT_BAD_CONFIG: u8 = 78;
const EXIT_NO_GATEWAY: u8 = 3;
const RUNTIME_END_TIMEOUT: Duration = Duration::from_millis(500);

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

/// An error with its causes, outermost first. Errors that quote their cause say it once.
pub fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said {
        said if said.is_empty() => cause,
        said if said.ends_with(&cause) => said,
        said => format!("{said}: {cause}"),
    })
}

/// Where the database of a servers.toml is, be the file good or bad: who asks for
/// failures may well have one that is bad.
pub fn database(config: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    place(config, |config| config.gateway.database.clone(), "database", "seawall.db")
}

fn state_folder(config: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    place(config, |config| config.gateway.state.clone(), "state", ".seawall")
}

fn place(
    config: Option<PathBuf>,
    of: impl Fn(&Config) -> PathBuf,
    key: &str,
    default: &str,
) -> anyhow::Result<PathBuf> {
    let path = match find(config) {
        Ok(path) => path,
        // The gateway that ran by it may well be running still.
        Err(gone) => {
            let left = gone.looked_at.iter().map(|path| folder_of(path).join(default)).find(|place| place.exists());
            let left = left.ok_or(gone)?;
            note!("seawall: servers.toml is gone; using {}", left.display());
            return Ok(left);
        }
    };
    // Looked at only: asking a keyring for a folder's name would be much.
    match crate::config::read(&path).and_then(|text| crate::gateway::reload::parse(&text, &path)) {
        Ok(config) => Ok(of(&config)),
        Err(_) => {
            let said = std::fs::read_to_string(&path).ok().and_then(|text| config::said_of_gateway(&text, key));
            let place = said.as_deref().unwrap_or(default);
            note!("seawall: {} is bad (`seawall check` says why); using {place}", path.display());
            Ok(folder_of(&path).join(place))
        }
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn find(config: Option<PathBuf>) -> Result<PathBuf, config::NotFound> {
    config::find(config, &|name| std::env::var(name).ok())
}

fn load_config(config: Option<PathBuf>, overrides: Overrides) -> anyhow::Result<(Reloader, Config)> {
    let path = std::path::absolute(find(config)?).context("the path of servers.toml is no path")?;
    let reloader = Reloader::new(&path, overrides);
    let config = reloader.load()?;
    Ok((reloader, config))
}

pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("seawall")
        .build()
        .context("no runtime can be started")?;
    let result = runtime.block_on(work);
    // Long enough to drop every task and with it every child; dropping the runtime
    // would wait for a thread that reads stdin until the client says something.
    runtime.shutdown_timeout(RUNTIME_END_TIMEOUT);
    result
}

fn ask_gateway(config: Option<PathBuf>, request: &Request) -> anyhow::Result<Box<RawValue>> {
    let state = state_folder(config)?;
    block_on(async { Ok(control::ask(&state, request).await?) })
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
        note!("seawall: no gateway is running, the servers run for the length of this command");
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

/// SIGUSR2 asks one of seawall's own services what fills its memory. Heard from the call
/// on: one that came before would end the process.
fn profile_on_usr2(folder: PathBuf, name: &'static str) -> impl Future<Output = ()> + Send + 'static {
    let heard = signal(SignalKind::user_defined2());
    async move {
        let Ok(mut asked) = heard else { return };
        while asked.recv().await.is_some() {
            let folder = folder.clone();
            match tokio::task::spawn_blocking(move || heap::profile(&folder, name)).await {
                Ok(Ok(path)) => tracing::info!("a heap profile was written: {}", path.display()),
                Ok(Err(error)) => tracing::warn!("{error}"),
                Err(error) => tracing::error!("the heap profile: {error}"),
            }
        }
    }
}

/// Waits for SIGTERM or SIGINT, which are heard from the call on.
fn told_to_stop() -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for");
    let interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be waited for");
    async move {
        let (mut terminate, mut interrupt) = (terminate?, interrupt?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ExitCode` compares with nothing, and says what it is.
    fn code_of(error: anyhow::Error) -> String {
        format!("{:?}", exit_code(&error))
    }

    #[tokio::test]
    async fn what_was_shut_down_is_no_failure_and_a_panic_is_one() {
        let (done, failed) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::FAILURE));
        let sleeping = tokio::spawn(std::future::pending::<()>());
        sleeping.abort();
        let cancelled = sleeping.await.context("the server died").expect_err("aborted");
        assert_eq!(code_of(cancelled), done);
        let panicked = tokio::spawn(async { panic!("a bug") }).await.context("the server died");
        assert_eq!(code_of(panicked.expect_err("panicked")), failed);
        assert_eq!(code_of(anyhow::anyhow!("whatever else")), failed);
    }
}
