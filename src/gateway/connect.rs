//! From an entry in servers.toml to the connector that reaches the server.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio_util::task::TaskTracker;

use crate::{
    call::BoxFuture,
    config::{self, Kind},
    egress::{Denial, Egress, OwnListeners, Rule},
    link::{Connector, Inbox, Link, StartError},
    packages::{self, Packages, Writers},
    process::{Command, ledger::Ledger},
    sandbox::{Network, Policy, Profile, denial::Wanted},
    store::{Event, EventType, Store},
    upstream::{
        self, Lifecycle,
        stdio::{OnDenied, StdioConnector},
        url::{UrlConnector, UrlSettings},
    },
    wire::peer::Limits,
};

/// One write to a server may take so long; then it does not read its input.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The in-process servers by name: builtin ones and those of an embedder.
pub(super) type InProcess = HashMap<String, Arc<dyn Connector>>;

/// What every process of the gateway's is to know of the gateway.
#[derive(Clone)]
pub(super) struct Own {
    store: Store,
    /// Where seawall itself listens.
    pub(super) listeners: OwnListeners,
    /// Of the servers' processes; `None` where nothing is kept on disk.
    pub(super) ledger: Option<Ledger>,
    /// What no server may see.
    pub(super) protected: Vec<PathBuf>,
    /// Where packages are installed; `None` where nothing is kept on disk.
    packages: Option<PathBuf>,
    /// Who may write where.
    writers: Writers,
}

impl Own {
    /// Of a gateway that keeps nothing on disk.
    pub(super) fn nowhere(store: Store) -> Self {
        let (protected, writers) = (Vec::new(), Writers::default());
        Own { store, listeners: Arc::default(), ledger: None, protected, packages: None, writers }
    }

    pub(super) fn of(config: &config::Config, store: Store) -> Self {
        let database = |suffix: &str| {
            let mut path = config.gateway.database.clone().into_os_string();
            path.push(suffix);
            PathBuf::from(path)
        };
        let mut protected = vec![config.path.clone(), config.gateway.state.clone()];
        protected.extend(["", "-wal", "-shm"].map(database));
        let packages = Some(config.gateway.state.join("packages"));
        let ledger = Some(Ledger::in_folder(&config.gateway.state));
        let own = Own { ledger, protected, packages, ..Own::nowhere(store) };
        own.know(config);
        own
    }

    /// Which servers there are, also those that are not enabled now: what may be run outside
    /// of a sandbox depends on where these may write.
    pub(super) fn know(&self, config: &config::Config) {
        let confined = config.servers.iter().filter_map(|entry| match &entry.kind {
            Kind::Command { sandbox, .. } if sandbox.profile != Profile::Off => Some((entry, sandbox)),
            _ => None,
        });
        let writers = confined
            .flat_map(|(entry, sandbox)| sandbox.write.iter().map(|folder| (entry.name.to_string(), folder.clone())));
        *self.writers.lock().unwrap_or_else(PoisonError::into_inner) = writers.collect();
    }
}

pub(super) fn connector(
    entry: &config::Server,
    in_process: &InProcess,
    max_message_bytes: usize,
    own: &Own,
    tasks: &TaskTracker,
) -> Arc<dyn Connector> {
    for warning in &entry.warnings {
        tracing::warn!(server = %entry.name, "{warning}");
    }
    if let Some(problem) = &entry.problem {
        return Arc::new(Impossible(problem.clone()));
    }
    match &entry.kind {
        Kind::Command { argv, sandbox } => {
            let command = command(entry, argv, sandbox, own);
            let limits = Limits { max_line_bytes: max_message_bytes, write_timeout: WRITE_TIMEOUT };
            let egress = egress(entry, sandbox, own);
            match Packages::of(&command, own.packages.as_deref(), &own.listeners, &own.writers, tasks) {
                Ok(packages) => Arc::new(
                    StdioConnector::new(command, egress, limits, tasks.clone(), on_denied(entry, own))
                        .with_packages(packages),
                ),
                Err(problem) => Arc::new(Impossible(problem)),
            }
        }
        Kind::Builtin { name, .. } => match in_process.get(name) {
            Some(connector) => connector.clone(),
            None => Arc::new(Impossible(format!("there is no builtin server \"{name}\""))),
        },
        // See embed.rs: it is made there.
        Kind::Embed(_) => Arc::new(Impossible("there is no builtin server \"embed\" here".to_owned())),
        Kind::Url { url, headers } => Arc::new(UrlConnector::new(UrlSettings {
            url: url.clone(),
            headers: headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
            max_message_bytes,
            tasks: tasks.clone(),
        })),
    }
}

/// What an entry is reached by, as text: when it changes, the server is another one.
pub(super) fn fingerprint(entry: &config::Server) -> String {
    let secrets = match &entry.kind {
        Kind::Url { headers, .. } => headers.iter().map(|(_, value)| value.expose()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    };
    let env: Vec<_> = entry.env.iter().map(|(name, value)| (name, value.expose())).collect();
    let reached_by = (&entry.kind, env, secrets, &entry.cwd, &entry.problem, entry.instances);
    crate::text::digest(&format!("{reached_by:?}"))
}

/// What may change without the server being another one.
pub(super) fn lifecycle(entry: &config::Server, drain: Duration) -> Lifecycle {
    let config::Recycle { calls, age, memory_bytes } = entry.recycle;
    Lifecycle { recycle: upstream::Recycle { calls, age, memory_bytes }, idle_stop: entry.idle_stop, drain }
}

pub(super) fn instances(entry: &config::Server) -> upstream::Instances {
    match entry.instances {
        config::Instances::Shared => upstream::Instances::Shared,
        config::Instances::PerSession(max) => upstream::Instances::PerSession(max),
    }
}

/// How a `command` server is started, for trying it without a gateway.
///
/// Its packages are installed first, where it is started from some.
pub(crate) async fn command_of(config: &config::Config, entry: &config::Server) -> Option<Result<Command, StartError>> {
    let Kind::Command { argv, sandbox } = &entry.kind else { return None };
    let own = Own { ledger: None, ..Own::of(config, Store::discarding()) };
    let command = command(entry, argv, sandbox, &own);
    let tasks = TaskTracker::new();
    Some(match Packages::of(&command, own.packages.as_deref(), &own.listeners, &own.writers, &tasks) {
        Ok(None) => Ok(command),
        Ok(Some(packages)) => packages.prepared().await,
        Err(problem) => Err(StartError::Permanent(problem)),
    })
}

/// Removes packages that nothing asks for any more; waits for the disk.
pub(super) fn tidy_packages(config: &config::Config, own: &Own) {
    let Some(folder) = &own.packages else { return };
    let commands = config.servers.iter().filter_map(|entry| match &entry.kind {
        Kind::Command { argv, sandbox } => Some(command(entry, argv, sandbox, own)),
        _ => None,
    });
    let commands: Vec<Command> = commands.collect();
    for folder in packages::sweep(folder, &commands, packages::KEPT_UNUSED) {
        tracing::info!("removed a package that nobody has used for a month: {}", folder.display());
    }
}

fn command(entry: &config::Server, argv: &[String], sandbox: &Policy, own: &Own) -> Command {
    let (program, args) = argv.split_first().map(|(program, args)| (program.clone(), args)).unwrap_or_default();
    let args = args.iter().map(|arg| placed(arg, &entry.cwd).into()).collect();
    let env = entry.env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    Command {
        program,
        args,
        env,
        cwd: entry.cwd.clone(),
        name: entry.name.to_string(),
        sandbox: sandbox.clone(),
        protected: own.protected.clone(),
        ledger: own.ledger.clone(),
    }
}

/// An argument that begins like a relative path is one, of the server's folder: a
/// confined server may have to start in another.
fn placed(arg: &str, cwd: &Path) -> String {
    match arg {
        "." => cwd.to_string_lossy().into_owned(),
        _ if arg.starts_with("./") => cwd.join(&arg[2..]).to_string_lossy().into_owned(),
        _ if arg == ".." || arg.starts_with("../") => cwd.join(arg).to_string_lossy().into_owned(),
        _ => arg.to_owned(),
    }
}

fn egress(entry: &config::Server, sandbox: &Policy, own: &Own) -> Option<Egress> {
    let Network::Allow(allowed) = &sandbox.network else { return None };
    let rule = Rule::new(&entry.name, allowed, own.listeners.clone());
    let (name, store) = (entry.name.to_string(), own.store.clone());
    let on_denied = move |denial: &Denial| {
        tracing::warn!(server = %name, "{denial}");
        let metadata = serde_json::json!({ "host": denial.host, "port": denial.port, "message": denial.message });
        store.event(Event {
            category: "server",
            event_type: EventType::SandboxDenied,
            service_name: name.clone(),
            metadata,
        });
    };
    Some(Egress::new(rule, Arc::new(on_denied)))
}

/// What a server's own complaints turn out to be is on record like what the proxy refuses.
fn on_denied(entry: &config::Server, own: &Own) -> OnDenied {
    let (name, store) = (entry.name.to_string(), own.store.clone());
    Arc::new(move |denial| {
        let message = denial.to_string();
        tracing::warn!(server = %name, "{message}");
        let metadata = match &denial.wanted {
            Wanted::Read(path) => serde_json::json!({ "access": "read", "path": path, "message": message }),
            Wanted::Write(path) => serde_json::json!({ "access": "write", "path": path, "message": message }),
            Wanted::Connect(Some((host, port))) => {
                serde_json::json!({ "access": "connect", "host": host, "port": port, "message": message })
            }
            Wanted::More(_) => serde_json::json!({ "access": "limit", "message": message }),
            Wanted::Connect(None) => serde_json::json!({ "access": "connect", "message": message }),
        };
        store.event(Event {
            category: "server",
            event_type: EventType::SandboxDenied,
            service_name: name.clone(),
            metadata,
        });
    })
}

/// A server that servers.toml asks for but that cannot be: parked with the reason.
pub(super) struct Impossible(pub(super) String);

impl Connector for Impossible {
    fn connect(&self, _: u64, _: Arc<dyn Inbox>) -> BoxFuture<'_, Result<Arc<dyn Link>, StartError>> {
        let reason = self.0.clone();
        Box::pin(async move { Err(StartError::Permanent(reason)) })
    }
}
