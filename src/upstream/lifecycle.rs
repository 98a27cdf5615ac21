//! When a healthy instance ends, and how many there are: this room's settings.

use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    pub recycle: Recycle,
    /// Stopped after so long without a call; the next call starts it.
    pub idle_stop: Option<Duration>,
    /// Calls of an instance that was replaced have so long to end.
    pub drain: Duration,
}

/// When a healthy instance is replaced by a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recycle {
    /// After so many calls, give or take a tenth, so that servers that were started
    /// together are not replaced together.
    pub calls: Option<u32>,
    pub age: Option<Duration>,
    /// Resident, of the whole process tree.
    pub memory_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Instances {
    /// All sessions share one.
    #[default]
    Shared,
    /// Each session has its own, so many at most.
    PerSession(u32),
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle { recycle: Recycle::default(), idle_stop: None, drain: Duration::from_secs(30) }
    }
}
