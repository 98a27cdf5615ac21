//! Servers that a package manager would fetch at each start, as `npx` and `uvx` do: their
//! packages are installed once, into a folder of their own, and the program found there
//! is run.
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

use crate::{egress::OwnListeners, link::StartError, process::Command, sandbox::Package};

mod npm;
mod outside;
mod place;
mod request;
mod run;
mod site;
mod sweep;
mod uv;

use outside::Outside;
pub use outside::Writers;
use place::{InUse, Note, Place};
use request::{Manager, Request};
use run::Said;
use site::Site;
pub use sweep::{KEPT_UNUSED, sweep};

/// An installation that takes longer is broken off.
const INSTALL_MAX: Duration = Duration::from_secs(300);
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
    writers: Writers,
    tasks: TaskTracker,
    /// Instances that start side by side install once.
    turn: tokio::sync::Mutex<()>,
    ready: Mutex<Option<Ready>>,
    /// Why it cannot be installed, and since when that is known.
    hopeless: Mutex<Option<(Instant, String)>>,
}

/// Nobody removes it while it is known here.
#[derive(Clone)]
struct Ready {
    command: Command,
    folder: PathBuf,
    _in_use: Arc<InUse>,
}

/// What the user has configured, by whose packages they are.
enum Settings {
    Npm(npm::Settings),
    Uv(uv::Settings),
}

impl Settings {
    /// Which has been found before anything of a package was there.
    fn interpreter(&self) -> Option<&Path> {
        match self {
            Settings::Npm(_) => None,
            Settings::Uv(settings) => Some(settings.interpreter()),
        }
    }
}

impl Packages {
    /// `None` for a server that is run as it stands; an error where its command cannot be
    /// understood. `folder` is the one for all servers' packages.
    pub fn of(
        server: &Command,
        folder: Option<&Path>,
        own: &OwnListeners,
        writers: &Writers,
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
            writers: writers.clone(),
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
        ready.folder.is_dir().then_some(ready.command)
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
        let outside = Outside::of(&self.server, &self.writers);
        let (settings, made_of) = match self.request.manager {
            Manager::Npx => {
                let settings = npm::settings(&self.server, &outside, &self.tasks).await?;
                let made_of = format!("{:?}", settings.registries);
                (Settings::Npm(settings), made_of)
            }
            Manager::Uvx => {
                let settings = uv::settings(&self.request, &self.server, &outside, &self.tasks).await?;
                let made_of = settings.made_of();
                (Settings::Uv(settings), made_of)
            }
        };
        let user = self.server.sandbox.user.as_deref().unwrap_or_default();
        let Request { manager, packages, bin, options, .. } = &self.request;
        let made_of = format!("{:?}", (manager, packages, bin, options, user, made_of));
        let place = Place::new(&self.folder, &made_of);
        // Before it is looked at: from here on nobody removes it.
        let in_use = Arc::new(place.use_it(INSTALL_MAX).await?);
        let note = match place.note(&self.request) {
            Some(note) => note,
            None => self.install(&place, &settings).await?,
        };
        let command = self.program(&place, &note, settings.interpreter());
        let ready = Ready { command: command.clone(), folder: place.done(), _in_use: in_use };
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(ready);
        Ok(command)
    }

    async fn install(&self, place: &Place, settings: &Settings) -> Result<Note, StartError> {
        let _held = place.hold(INSTALL_MAX).await?;
        // Somebody else may have had the same wish.
        if let Some(note) = place.note(&self.request) {
            return Ok(note);
        }
        tracing::info!(server = %self.server.name, "installing {}", self.request);
        let staging = place.clear().await?;
        let site = Site {
            request: &self.request,
            server: &self.server,
            place,
            staging: &staging,
            own: &self.own,
            tasks: &self.tasks,
        };
        let installed = match settings {
            Settings::Npm(settings) => npm::install(&site, settings).await,
            Settings::Uv(settings) => uv::install(&site, settings).await,
        };
        match installed {
            Ok(note) => place.keep(&note).map_err(|error| place.failed(error)).map(|()| note),
            Err(why) => {
                place.discard().await;
                Err(why)
            }
        }
    }

    fn program(&self, place: &Place, note: &Note, interpreter: Option<&Path>) -> Command {
        let folder = place.done();
        let file = folder.join(&note.file);
        let (program, script) = match (note.is_script, self.request.manager) {
            (true, Manager::Npx) => ("node".to_owned(), Some(file.into_os_string())),
            // Its first line names the place where it was made.
            (true, Manager::Uvx) => (file.with_file_name("python").display().to_string(), Some(file.into_os_string())),
            (false, _) => (file.display().to_string(), None),
        };
        let args = script.into_iter().chain(self.request.args.iter().cloned()).collect();
        let mut sandbox = self.server.sandbox.clone();
        // What a stranger has put in there, a first line or a pyvenv.cfg, gives nothing.
        let known = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        sandbox.package = Some(Box::new(Package { folder: known, interpreter: interpreter.map(Path::to_owned) }));
        sandbox.read.push(folder);
        Command { program, args, sandbox, ..self.server.clone() }
    }
}
