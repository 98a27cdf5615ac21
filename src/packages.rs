//! Servers that a package manager would fetch at each start, as `npx` does: their packages
//! are installed once, into a folder of their own, and the program found there is run.
//!
//! The first phase reaches the registry's hosts and writes that folder, and has nothing
//! of the server's; no code of a package runs in it. In the second the folder can only be
//! read, and all else is as the server's own policy says. Knows nothing of MCP.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    egress::{Egress, OwnListeners, Rule},
    link::StartError,
    process::Command,
    sandbox::Policy,
};

mod npm;
mod place;
mod request;
mod run;

use place::{Note, Place};
use request::Request;
use run::Said;

/// An installation that takes longer is broken off.
const INSTALL_MAX: Duration = Duration::from_secs(300);
/// The same for what it may write.
const INSTALL_MAX_BYTES: u64 = 2 << 30;
/// What will not heal by itself is not asked of a registry again before: each call of a
/// parked server is a reason to try.
const HOPELESS_FOR: Duration = Duration::from_secs(60);

/// The packages of one server, and what is run of them.
pub struct Packages {
    request: Request,
    folder: PathBuf,
    /// As it is written in servers.toml.
    server: Command,
    own: OwnListeners,
    tasks: TaskTracker,
    /// Instances that start side by side install once.
    turn: tokio::sync::Mutex<()>,
    ready: Mutex<Option<Command>>,
    /// Why it cannot be installed, and since when that is known.
    hopeless: Mutex<Option<(Instant, String)>>,
}

impl Packages {
    /// `None` for a server that is run as it stands; an error where its command cannot be
    /// understood. `folder` is the one for all servers' packages.
    pub fn of(
        server: &Command,
        folder: Option<&Path>,
        own: &OwnListeners,
        tasks: &TaskTracker,
    ) -> Result<Option<Self>, String> {
        let Some(request) = Request::of(server)? else { return Ok(None) };
        let Some(folder) = folder else {
            return Err("its packages are installed into the state folder, and this gateway has none".to_owned());
        };
        Ok(Some(Packages {
            request,
            folder: folder.to_owned(),
            server: server.clone(),
            own: own.clone(),
            tasks: tasks.clone(),
            turn: tokio::sync::Mutex::default(),
            ready: Mutex::default(),
            hopeless: Mutex::default(),
        }))
    }

    /// What to run, if that is known and still there.
    pub fn ready(&self) -> Option<Command> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        // The user may have tidied up.
        ready.sandbox.read.last().is_some_and(|folder| folder.is_dir()).then_some(ready)
    }

    /// What to run, installed first where it is not there.
    pub async fn prepared(&self) -> Result<Command, StartError> {
        let _turn = self.turn.lock().await;
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        if let Some(why) = self.hopeless() {
            return Err(StartError::Permanent(why));
        }
        let prepared = self.prepare().await;
        if let Err(StartError::Permanent(why)) = &prepared {
            *self.hopeless.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), why.clone()));
        }
        prepared
    }

    fn hopeless(&self) -> Option<String> {
        let hopeless = self.hopeless.lock().unwrap_or_else(PoisonError::into_inner).clone();
        hopeless.filter(|(since, _)| since.elapsed() < HOPELESS_FOR).map(|(_, why)| why)
    }

    async fn prepare(&self) -> Result<Command, StartError> {
        let settings = npm::settings(&self.server, &self.tasks).await?;
        let user = self.server.sandbox.user.as_deref().unwrap_or_default();
        let Request { packages, bin, .. } = &self.request;
        let made_of = format!("{:?}", ("npx", packages, bin, user, &settings.registries));
        let place = Place::new(&self.folder, &made_of);
        let note = match place.note(&self.request) {
            Some(note) => note,
            None => self.install(&place, &settings).await?,
        };
        let command = self.program(&place, &note);
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(command.clone());
        Ok(command)
    }

    async fn install(&self, place: &Place, settings: &npm::Settings) -> Result<Note, StartError> {
        let _held = place.hold(INSTALL_MAX).await?;
        // Somebody else may have had the same wish.
        if let Some(note) = place.note(&self.request) {
            return Ok(note);
        }
        tracing::info!(server = %self.server.name, "installing {}", self.request);
        let staging = place.clear().await?;
        let command = npm::install(&self.request, settings, &self.server, &staging)?;
        let plan = command.plan().map_err(|error| refused(run::start_error(error)))?;
        npm::furnish(&staging, settings, plan.identity.as_ref()).map_err(|error| place.failed(error))?;
        let denied = Arc::<Mutex<Vec<String>>>::default();
        let told = denied.clone();
        let rule = Rule::new(&self.server.name, &settings.hosts()?, self.own.clone()).trusting_names();
        let egress = Egress::new(
            rule,
            Arc::new(move |denial| {
                told.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{}:{}", denial.host, denial.port));
            }),
        );
        let said = run::run(&command, Some(egress), INSTALL_MAX, &self.tasks).await.map_err(refused)?;
        if !said.succeeded {
            let denied = denied.lock().unwrap_or_else(PoisonError::into_inner).first().cloned();
            return Err(npm::failure(&self.request, &said, denied.as_deref()));
        }
        let note = npm::program(&self.request, &staging).map_err(StartError::Permanent)?;
        npm::tidy(&staging).await.map_err(|error| place.failed(error))?;
        place.keep(&note).map_err(|error| place.failed(error))?;
        Ok(note)
    }

    fn program(&self, place: &Place, note: &Note) -> Command {
        let folder = place.done();
        let file = folder.join(&note.file);
        let (program, script) = match note.is_script {
            true => ("node".to_owned(), Some(file.into_os_string())),
            false => (file.display().to_string(), None),
        };
        let args = script.into_iter().chain(self.request.args.iter().cloned()).collect();
        let mut sandbox = self.server.sandbox.clone();
        sandbox.read.push(folder);
        Command { program, args, sandbox, ..self.server.clone() }
    }
}

/// What the sandbox of an installation lacks is not to be written into the server's own.
fn refused(error: StartError) -> StartError {
    match error {
        StartError::Refused(why) => StartError::Refused(format!(
            "its package cannot be installed confined: {why} (or install it yourself, and name its program in command)"
        )),
        other => other,
    }
}

/// Of the first phase: nothing but the folder, the registry and what the manager needs.
fn confined(server: &Command, settings: &npm::Settings, staging: &Path) -> Result<Policy, StartError> {
    use crate::sandbox::{Limits, Network};
    Ok(Policy {
        read: settings.read.clone(),
        write: vec![staging.to_owned()],
        network: Network::Allow(settings.hosts()?),
        env: settings.env.clone(),
        user: server.sandbox.user.clone(),
        limits: Limits { disk_bytes: Some(INSTALL_MAX_BYTES), ..Limits::default() },
        ..Policy::default()
    })
}
