//! From an entry in servers.toml to the connector that reaches the server.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_util::task::TaskTracker;

use crate::{
    call::BoxFuture,
    config::{self, Kind},
    link::{Connector, Inbox, Link, StartError},
    process::Command,
    upstream::{
        self, Lifecycle,
        stdio::StdioConnector,
        url::{UrlConnector, UrlSettings},
    },
    wire::peer::Limits,
};

/// One write to a server may take so long; then it does not read its input.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The in-process servers by name: builtin ones and those of an embedder.
pub(super) type InProcess = HashMap<String, Arc<dyn Connector>>;

pub(super) fn connector(
    entry: &config::Server,
    in_process: &InProcess,
    max_message_bytes: usize,
    tasks: &TaskTracker,
) -> Arc<dyn Connector> {
    if let Some(problem) = &entry.problem {
        return Arc::new(Impossible(problem.clone()));
    }
    match &entry.kind {
        Kind::Command { argv, .. } => Arc::new(StdioConnector {
            command: command(entry, argv),
            limits: Limits { max_line_bytes: max_message_bytes, write_timeout: WRITE_TIMEOUT },
            tasks: tasks.clone(),
        }),
        Kind::Builtin { name, .. } => match in_process.get(name) {
            Some(connector) => connector.clone(),
            None => Arc::new(Impossible(format!("there is no builtin server \"{name}\""))),
        },
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

fn command(entry: &config::Server, argv: &[String]) -> Command {
    let (program, args) =
        argv.split_first().map(|(program, args)| (program.clone(), args.to_vec())).unwrap_or_default();
    let env = entry.env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    Command { program, args, env, cwd: entry.cwd.clone() }
}

/// A server that servers.toml asks for but that cannot be: parked with the reason.
struct Impossible(String);

impl Connector for Impossible {
    fn connect(&self, _: u64, _: Arc<dyn Inbox>) -> BoxFuture<'_, Result<Arc<dyn Link>, StartError>> {
        let reason = self.0.clone();
        Box::pin(async move { Err(StartError::Permanent(reason)) })
    }
}
