//! What the launcher is to do, and what it says it has done.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    Strict,
    Standard,
    Off,
}

/// How much of the machine's means are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Rules on the process itself: Landlock, seccomp, limits.
    Core,
    /// Namespaces as well.
    Full,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub profile: Profile,
}

impl Plan {
    /// Every right of the user that runs seawall; the tree is held together all the same.
    pub fn off() -> Self {
        Plan { profile: Profile::Off }
    }

    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        None
    }
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
    /// The version of the kernel's Landlock; zero where it has none.
    pub landlock_abi: u32,
    pub limits: Vec<String>,
    pub not_enforced: Vec<String>,
}
