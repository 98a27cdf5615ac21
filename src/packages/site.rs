//! One installation under way: runs what installs, confined to its folder and to the
//! hosts that it is given, and hears whom it asked for besides.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::task::TaskTracker;

use super::{
    INSTALL_MAX, Said,
    place::Place,
    request::Request,
    run::{self, run},
};
use crate::{
    egress::{Egress, OwnListeners, Rule},
    link::StartError,
    process::Command,
    sandbox::{Destination, Identity, Limits, Network, Policy},
};

/// What an installation may write.
const INSTALL_MAX_BYTES: u64 = 2 << 30;

pub(super) struct Site<'a> {
    pub(super) request: &'a Request,
    pub(super) server: &'a Command,
    pub(super) place: &'a Place,
    /// Where it is made.
    pub(super) staging: &'a Path,
    pub(super) own: &'a OwnListeners,
    pub(super) tasks: &'a TaskTracker,
}

/// What one run of a manager may reach.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    /// The user's own word, whatever addresses these have.
    pub(super) configured: Vec<Destination>,
    /// Somebody else's: only at addresses of the open internet.
    pub(super) learned: Vec<Destination>,
}

impl Hosts {
    pub(super) fn all(&self) -> Vec<Destination> {
        let mut all = self.configured.clone();
        all.extend(self.learned.iter().filter(|host| !self.configured.contains(host)).cloned());
        all
    }
}

impl Site<'_> {
    /// Whom the installation runs as, where that is somebody else than the gateway.
    pub(super) fn identity(&self, command: &Command) -> Result<Option<Identity>, StartError> {
        let plan = command.plan().map_err(|error| refused(run::start_error(error)))?;
        Ok(plan.identity)
    }

    /// A command in the folder, with nothing of the server's.
    pub(super) fn command(&self, program: String, args: Vec<std::ffi::OsString>, policy: Policy) -> Command {
        Command {
            program,
            args,
            env: Vec::new(),
            cwd: self.staging.to_owned(),
            sandbox: policy,
            // The state folder is one of these, and the packages are in it: nothing of the
            // others is given.
            protected: Vec::new(),
            ..self.server.clone()
        }
    }

    /// Of the first phase: nothing but the folder, the hosts and what the manager needs.
    pub(super) fn confined(&self, hosts: &Hosts, read: Vec<PathBuf>, env: Vec<String>) -> Policy {
        Policy {
            read,
            write: vec![self.staging.to_owned()],
            network: Network::Allow(hosts.all()),
            env,
            user: self.server.sandbox.user.clone(),
            limits: Limits { disk_bytes: Some(INSTALL_MAX_BYTES), ..Limits::default() },
            ..Policy::default()
        }
    }

    /// Runs it to its end; the places that it asked for and did not get come with it.
    pub(super) async fn run(&self, command: &Command, hosts: &Hosts) -> Result<(Said, Vec<Destination>), StartError> {
        let denied = Arc::<Mutex<Vec<Destination>>>::default();
        let told = denied.clone();
        let rule = Rule::new(&self.server.name, &hosts.all(), self.own.clone()).trusting(&hosts.configured);
        let egress = Egress::new(
            rule,
            Arc::new(move |denial| {
                let place = Destination { host: denial.host.clone(), port: denial.port };
                told.lock().unwrap_or_else(PoisonError::into_inner).push(place);
            }),
        );
        let said = run(command, Some(egress), INSTALL_MAX, self.tasks).await.map_err(refused)?;
        let denied = std::mem::take(&mut *denied.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((said, denied))
    }

    /// The same for one that has no network.
    pub(super) async fn run_alone(&self, command: &Command) -> Result<Said, StartError> {
        run(command, None, INSTALL_MAX, self.tasks).await.map_err(refused)
    }

    /// What to write for a place that an installation was kept from.
    pub(super) fn how_to_allow(&self, place: &Destination) -> String {
        let Destination { host, port } = place;
        let host = crate::text::quote(host, 100);
        format!("to allow: install_hosts = [\"{host}:{port}\"] under [servers.{}.sandbox]", self.server.name)
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
