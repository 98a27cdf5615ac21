//! Hot reload: servers.toml is watched, read when it has been quiet for a moment, and
//! put in force if it is good. A bad edit changes nothing.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{RecursiveMode, Watcher as _};
use tokio::{sync::mpsc, time::timeout};

use super::Gateway;
use crate::{
    config::{self, Builtins, Config, Surroundings},
    service,
    store::EventType,
};

/// An editor writes in several steps; after so long without one it is done.
const QUIET: Duration = Duration::from_millis(300);
/// For where the system tells nothing: network folders, containers.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);
/// A file that is away or empty for longer is not an editor's doing.
const AWAY: Duration = Duration::from_secs(3);

/// Said where a file without a word would stop servers.
const EMPTY: &str =
    "servers.toml is empty, as it is while an editor writes it; to stop all servers, leave a comment in it";

/// Reads one servers.toml again and again.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    /// What was read last, good or bad: the same is not looked at twice. `None` once it has
    /// been told that there is nothing.
    last: Mutex<Option<Vec<u8>>>,
    overrides: Overrides,
}

/// What the command line says above servers.toml.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub listen: Option<std::net::SocketAddr>,
}

impl Reloader {
    pub fn new(path: &Path, overrides: Overrides) -> Self {
        Reloader { path: path.to_owned(), last: Mutex::default(), overrides }
    }

    /// Reads the file for the first time.
    pub fn load(&self) -> Result<Config, config::Complaints> {
        self.understand(config::read_bytes(&self.path)?)
    }

    fn understand(&self, bytes: Vec<u8>) -> Result<Config, config::Complaints> {
        self.remember(Some(bytes.clone()));
        let env = |name: &str| std::env::var(name).ok();
        // Others look at the file; this is whoever starts what is in it.
        let run = Some::<config::RunCommand<'_>>(&config::command_value::value);
        let mut config = parse_and_run(&config::text(bytes, &self.path)?, &self.path, &env, run)?;
        if let Some(listen) = self.overrides.listen {
            config.gateway.listen = listen;
        }
        Ok(config)
    }

    /// Reads the file again and puts it in force: what changed, or what is wrong.
    ///
    /// It waits for the disk and for the commands of values: for a thread that may.
    pub fn reload(&self, gateway: &Gateway) -> Result<Vec<String>, String> {
        match config::read_plain_bytes(&self.path) {
            // Whoever asks for it may ask in the moment in which an editor writes: nobody
            // stops all servers by saving nothing.
            Ok(bytes) if bytes.trim_ascii().is_empty() && !gateway.upstreams().is_empty() => {
                Err(self.told_of_nothing(gateway, EMPTY.to_owned()))
            }
            Ok(bytes) => self.take(gateway, bytes),
            Err(complaints) => Err(self.told_of_nothing(gateway, complaints.to_string())),
        }
    }

    fn take(&self, gateway: &Gateway, bytes: Vec<u8>) -> Result<Vec<String>, String> {
        self.understand(bytes).map(|config| self.put_in_force(gateway, config)).map_err(|complaints| {
            let problem = complaints.to_string();
            refuse(gateway, problem.clone());
            problem
        })
    }

    /// What it held before is news when it comes back.
    fn told_of_nothing(&self, gateway: &Gateway, problem: String) -> String {
        self.remember(None);
        refuse(gateway, problem.clone());
        problem
    }

    fn remember(&self, bytes: Option<Vec<u8>>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
    }

    fn put_in_force(&self, gateway: &Gateway, config: Config) -> Vec<String> {
        let before = gateway.config().gateway;
        let after = config.gateway.clone();
        let mut changes = gateway.apply(config);
        let fixed = [
            ("listen", before.listen != after.listen),
            ("database", before.database != after.database),
            ("state", before.state != after.state),
            ("max_message", before.max_message_bytes != after.max_message_bytes),
        ];
        for (key, _) in fixed.iter().filter(|(_, changed)| *changed) {
            changes.push(format!("gateway.{key}: takes effect when seawall is started again"));
        }
        tracing::info!(
            "servers.toml was taken: {}",
            if changes.is_empty() { "no change".into() } else { changes.join(", ") }
        );
        gateway.event(EventType::ConfigReloaded, serde_json::json!({ "changes": changes }));
        changes
    }

    /// On a thread that may wait, for a disk may hang.
    async fn look(self: &Arc<Self>) -> Look {
        let reloader = self.clone();
        tokio::task::spawn_blocking(move || reloader.look_now()).await.unwrap_or(Look::Same)
    }

    fn look_now(&self) -> Look {
        let bytes = config::read_plain_bytes(&self.path);
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match bytes {
            Ok(bytes) if bytes.trim_ascii().is_empty() && last.is_some() => {
                Look::Away(format!("{}: is empty", self.path.display()))
            }
            Err(complaints) if last.is_some() => Look::Away(complaints.to_string()),
            Ok(bytes) if !bytes.trim_ascii().is_empty() && last.as_ref() != Some(&bytes) => Look::News(bytes),
            _ => Look::Same,
        }
    }

    /// Away or empty: for a moment that is an editor's doing.
    async fn away(self: &Arc<Self>, gateway: &Gateway, changes: &mut mpsc::Receiver<()>) {
        while timeout(AWAY, changes.recv()).await.is_ok() && matches!(self.look().await, Look::Away(_)) {}
        if let Look::Away(why) = self.look().await {
            self.told_of_nothing(gateway, format!("{why}; its servers go on as they are until it has text again"));
        }
    }

    /// Watches until dropped.
    pub async fn watch(self: Arc<Self>, gateway: Gateway) {
        if !self.path.is_file() {
            // It came through a pipe: there is nothing to come back to.
            return;
        }
        let (sender, mut changes) = mpsc::channel(1);
        let target = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let names: Vec<_> =
            [&self.path, &target].iter().filter_map(|path| path.file_name()).map(OsStr::to_owned).collect();
        let tell = move |event: notify::Result<notify::Event>| {
            // Others write into the folder too, the database among them.
            let about_it = |path: &PathBuf| path.file_name().is_some_and(|name| names.iter().any(|ours| ours == name));
            if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(about_it)) {
                // One waiting note is enough.
                let _ = sender.try_send(());
            }
        };
        // The folder, for editors replace the file; and the folder of what it links to.
        let mut watcher = notify::recommended_watcher(tell).inspect_err(|error| {
            tracing::warn!("changes of servers.toml are noticed late: {error}");
        });
        for folder in [self.path.parent(), target.parent()].into_iter().flatten() {
            if let Ok(watcher) = &mut watcher {
                let _ = watcher.watch(folder, RecursiveMode::NonRecursive);
            }
        }
        loop {
            let _ = timeout(LOOK_ANYWAY, changes.recv()).await;
            if let Look::Away(_) = self.look().await {
                self.away(&gateway, &mut changes).await;
            }
            if let Look::News(_) = self.look().await {
                while timeout(QUIET, changes.recv()).await.is_ok() {}
                // What was looked at is what is taken: it may be empty a moment later.
                if let Look::News(bytes) = self.look().await {
                    // On a thread that may wait: a keyring asks a person.
                    let (reloader, gateway) = (self.clone(), gateway.clone());
                    let _ = tokio::task::spawn_blocking(move || reloader.take(&gateway, bytes)).await;
                }
            }
        }
    }
}

/// What the file is, beside what was read last.
enum Look {
    Same,
    News(Vec<u8>),
    /// It has no text; why.
    Away(String),
}

fn refuse(gateway: &Gateway, problem: String) {
    tracing::error!("servers.toml was not taken, the last good one stays:\n{problem}");
    gateway.event(EventType::ConfigRejected, serde_json::json!({ "problem": problem }));
    gateway.reject(problem);
}

/// Reads text as servers.toml with this process's surroundings. Its commands for values
/// (`${cmd:…}`) are not run: see [`Reloader::load`].
pub fn parse(text: &str, path: &Path) -> Result<Config, config::Complaints> {
    parse_with(text, path, &|name| std::env::var(name).ok())
}

/// The same with another environment than this process's own.
pub fn parse_with(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, config::Complaints> {
    parse_and_run(text, path, env, None)
}

fn parse_and_run(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    run: Option<config::RunCommand<'_>>,
) -> Result<Config, config::Complaints> {
    let seawall = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("seawall"));
    let builtins = Builtins { servers: &super::introspect::BUILTINS, services: &service::own::NAMES };
    config::parse(text, path, &Surroundings { env, run, seawall: &seawall, builtins })
}
