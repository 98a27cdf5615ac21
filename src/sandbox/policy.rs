//! What servers.toml asks for: `[servers.NAME.sandbox]` as data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::laid::LaidFiles;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub profile: Profile,
    /// Readable (and executable) besides the base set.
    pub read: Vec<PathBuf>,
    /// Readable and writable.
    pub write: Vec<PathBuf>,
    pub network: Network,
    /// Names of seawall's own variables that are passed through.
    pub env: Vec<String>,
    pub launcher: Launcher,
    /// What the installation of its packages may reach besides what the package manager is
    /// configured to.
    pub install_hosts: Vec<Destination>,
    /// The least protection that is accepted.
    pub tier: WantedTier,
    /// Whom it runs as where seawall runs as root; `None` is nobody.
    pub user: Option<String>,
    pub unix_sockets: bool,
    pub limits: Limits,
    /// Installed for it by seawall; no key of servers.toml.
    pub package: Option<Box<Package>>,
    /// In its private home when it begins; no key of servers.toml.
    pub laid: LaidFiles,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            profile: Profile::Standard,
            read: Vec::new(),
            write: Vec::new(),
            network: Network::None,
            env: Vec::new(),
            launcher: Launcher::Auto,
            install_hosts: Vec::new(),
            tier: WantedTier::Auto,
            user: None,
            unix_sockets: false,
            limits: Limits::default(),
            package: None,
            laid: LaidFiles::default(),
        }
    }
}

/// A stranger has filled it: what is in there does not say what else is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Without links.
    pub folder: PathBuf,
    /// What seawall has chosen to run it.
    pub interpreter: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    Strict,
    Standard,
    Off,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    None,
    /// The server's own loopback, not the machine's.
    Loopback,
    Open,
    Allow(Vec<Destination>),
}

/// One place on the network: `api.example.com:443`, `*.example.com:443`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Lower case; `*.` before it means every name below it, and not itself.
    pub host: String,
    pub port: u16,
}

/// Whose caches and variables are prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    Auto,
    Npx,
    Uvx,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedTier {
    Auto,
    Core,
    Full,
}

/// `None` is what the profile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    pub processes: Option<u32>,
    pub open_files: Option<u32>,
    pub file_size_bytes: Option<u64>,
    /// Over the server's whole life; zero is no limit.
    pub cpu_seconds: Option<u32>,
    pub tmp_bytes: Option<u64>,
    /// What it may add to the folders that it may write.
    pub disk_bytes: Option<u64>,
}

impl Network {
    pub fn name(&self) -> &'static str {
        match self {
            Network::None => "none",
            Network::Loopback => "loopback",
            Network::Open => "open",
            Network::Allow(_) => "allow",
        }
    }
}

impl Profile {
    pub fn name(self) -> &'static str {
        match self {
            Profile::Strict => "strict",
            Profile::Standard => "standard",
            Profile::Off => "off",
        }
    }
}
