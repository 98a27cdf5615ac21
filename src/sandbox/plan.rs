//! What the launcher is to do, and what it says it has done.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    laid::LaidFiles,
    policy::{Limits, Network, Profile},
};

/// The private home in a file system of its own.
pub(crate) const HOME: &str = "/home/server";

/// How much of the machine's means are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Rules on the process itself: Landlock, seccomp, limits.
    Core,
    /// Namespaces as well.
    Full,
}

/// All paths are absolute and without links, except where said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub profile: Profile,
    /// The name in servers.toml: for messages.
    pub server: String,
    /// Whom it runs as; `None` is whoever runs seawall.
    pub identity: Option<Identity>,
    pub read: Vec<PathBuf>,
    pub write: Vec<PathBuf>,
    /// Paths as they were written or found, links in them: they lead inside where they
    /// lead outside.
    pub written: Vec<PathBuf>,
    /// Below a path that may be read, and not to be seen.
    pub masked: Vec<PathBuf>,
    /// Below what is masked, and to be seen all the same: asked for by its own name.
    pub shown: Vec<PathBuf>,
    /// Its own folder, where it is in none of the above, is not to be seen: it then
    /// starts in its private home.
    pub keeps_cwd: bool,
    pub network: Network,
    pub unix_sockets: bool,
    pub limits: Bounds,
    /// Why less than the full tier will not do; empty where it will.
    pub needs_full: Vec<String>,
    /// What the policy itself gives up.
    pub given_up: Vec<String>,
    /// Each of its calls that names a file or an address is looked at first.
    pub observed: bool,
    /// What it finds in its home.
    pub laid: LaidFiles,
    /// Where home and temporary files are without a file system of its own.
    pub private: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// [`Limits`] with the profile's values filled in; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    pub memory_bytes: Option<u64>,
    pub processes: Option<u32>,
    pub open_files: Option<u32>,
    pub file_size_bytes: Option<u64>,
    pub cpu_seconds: Option<u32>,
    pub tmp_bytes: u64,
    /// Added to the folders that it may write, by the whole tree.
    pub disk_bytes: Option<u64>,
}

impl Bounds {
    pub(super) fn of(profile: Profile, written: &Limits) -> Self {
        const MIB: u64 = 1 << 20;
        let (memory, processes, file_size, tmp, disk) = match profile {
            Profile::Off => return Bounds::default(),
            Profile::Standard => (1024 * MIB, 256, 1024 * MIB, 256 * MIB, 4096 * MIB),
            Profile::Strict => (512 * MIB, 64, 256 * MIB, 64 * MIB, 1024 * MIB),
        };
        Bounds {
            memory_bytes: Some(written.memory_bytes.unwrap_or(memory)),
            processes: Some(written.processes.unwrap_or(processes)),
            open_files: Some(written.open_files.unwrap_or(1024)),
            file_size_bytes: Some(written.file_size_bytes.unwrap_or(file_size)),
            cpu_seconds: written.cpu_seconds.filter(|seconds| *seconds > 0),
            tmp_bytes: written.tmp_bytes.unwrap_or(tmp),
            disk_bytes: Some(written.disk_bytes.unwrap_or(disk)),
        }
    }
}

impl Plan {
    /// Every right of the user that runs seawall; the tree is held together all the same.
    pub fn off(server: &str) -> Self {
        Plan {
            profile: Profile::Off,
            server: server.to_owned(),
            identity: None,
            read: Vec::new(),
            write: Vec::new(),
            written: Vec::new(),
            masked: Vec::new(),
            shown: Vec::new(),
            keeps_cwd: true,
            network: Network::Open,
            unix_sockets: true,
            limits: Bounds::default(),
            needs_full: Vec::new(),
            given_up: Vec::new(),
            observed: false,
            laid: LaidFiles::default(),
            private: PathBuf::new(),
        }
    }

    pub fn is_off(&self) -> bool {
        self.profile == Profile::Off
    }

    /// Home and temporary files, as the program sees them.
    pub(crate) fn private_folders(&self, tier: Tier) -> (PathBuf, PathBuf) {
        match tier {
            Tier::Full => (PathBuf::from(HOME), PathBuf::from("/tmp")),
            Tier::Core => (self.private.join("home"), self.private.join("tmp")),
        }
    }
}

/// Whether `path` is one of `granted`, or below one.
pub(super) fn is_within(path: &Path, granted: &[PathBuf]) -> bool {
    granted.iter().any(|granted| path.starts_with(granted))
}

/// What really holds for a running server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub profile: String,
    /// none, core, full.
    pub tier: String,
    /// none, loopback, open, allow.
    pub network: String,
    /// `certain`, or `best effort` where there is no pid namespace.
    pub tree_kill: String,
    /// The version of the kernel's Landlock; zero where it has none, or where it is not used.
    pub landlock_abi: u32,
    /// Those that are in force: `memory 512 MiB`.
    pub limits: Vec<String>,
    pub not_enforced: Vec<String>,
}
