//! Who runs the gateway, and what the machine gives: by programs that become it.

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration};

use super::wait::wait_until;

/// An ordinary user of the tests, with no name.
pub const USER: u32 = 1500;
const NOBODY: u32 = 65534;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pub is_root: bool,
    pub has_namespaces: bool,
}

impl Machine {
    /// All four; only what can be had by an ordinary user where the tests are run by one.
    pub fn all() -> Vec<Machine> {
        let who = if rustix::process::geteuid().is_root() { vec![true, false] } else { vec![false] };
        who.into_iter()
            .flat_map(|is_root| [true, false].map(|has_namespaces| Machine { is_root, has_namespaces }))
            .collect()
    }

    pub fn tier(self) -> &'static str {
        if self.has_namespaces { "full" } else { "core" }
    }

    /// Who a confined server is.
    pub fn server_uid(self) -> u32 {
        match (rustix::process::geteuid().as_raw(), self.is_root) {
            (0, true) => NOBODY,
            (0, false) => USER,
            (own, _) => own,
        }
    }

    /// What becomes the gateway.
    pub fn wrapper(self) -> Vec<String> {
        let mut words = Vec::new();
        let am_root = rustix::process::geteuid().is_root();
        if !self.has_namespaces {
            words.extend([super::hostile().display().to_string(), "without-namespaces".to_owned()]);
        }
        if am_root && !self.is_root {
            words.extend(["setpriv", "--reuid=1500", "--regid=1500", "--clear-groups"].map(str::to_owned));
        }
        words
    }

    /// A command of the user that runs the gateway.
    pub fn owner(self, program: &Path) -> Command {
        if !rustix::process::geteuid().is_root() || self.is_root {
            return Command::new(program);
        }
        self.free(program)
    }

    /// What `status --json` says of one running server's sandbox.
    pub async fn sandbox_of(self, server: &str, config: &Path) -> serde_json::Value {
        wait_until(Duration::from_secs(20), "the server to run", async || {
            Some(self.asked_for_sandbox(server, config)).filter(|sandbox| sandbox["tree_kill"] != "none")
        })
        .await
    }

    fn asked_for_sandbox(self, server: &str, config: &Path) -> serde_json::Value {
        self.status_of(server, config)["sandbox"].clone()
    }

    /// What `status --json` says of one server, asked by the user that runs the gateway.
    pub fn status_of(self, server: &str, config: &Path) -> serde_json::Value {
        let mut command = self.owner(env!("CARGO_BIN_EXE_seawall").as_ref());
        command.args(["status", "--json", "--config"]).arg(config);
        let output = command.output().expect("seawall can be run");
        let status: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("no JSON: {error}: {output:?}"));
        status["servers"][server].clone()
    }

    /// A command of the user that confined servers are, unconfined.
    pub fn free(self, program: &Path) -> Command {
        if !rustix::process::geteuid().is_root() {
            return Command::new(program);
        }
        let uid = self.server_uid();
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"]).arg(program);
        command
    }

    /// Gives a path to the user that confined servers are.
    pub fn give(self, path: &Path) {
        if rustix::process::geteuid().is_root() {
            let uid = self.server_uid();
            std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("root can give");
        }
    }

    /// Gives a gateway's folder to whoever will run it, open for all to look into.
    pub fn settle(self, folder: &Path) {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        if rustix::process::geteuid().is_root() && !self.is_root {
            std::os::unix::fs::chown(folder, Some(USER), Some(USER)).expect("root can give");
        }
    }
}
