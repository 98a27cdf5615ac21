//! What a server may touch. A [`Policy`] (what servers.toml asks for) becomes a
//! [`Plan`] (paths resolved, nothing left to decide but what the machine can give);
//! the launcher applies it and says in a [`Report`] what really holds.
//!
//! Knows neither MCP nor a runtime: all of it runs in a process that has just begun.

mod base;
pub mod denial;
pub mod egress;
mod laid;
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "some system calls have no safe form")]
pub(crate) mod linux;
#[cfg(any(target_os = "macos", test))]
mod macos;
mod plan;
mod planted;
mod policy;
#[cfg(not(target_os = "linux"))]
pub(crate) mod portable;
mod resolve;

pub(crate) use base::first_line;
pub use laid::LaidFiles;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub use linux::attempts;
#[cfg(target_os = "linux")]
pub use linux::observe;
pub(crate) use plan::HOME;
pub use plan::{Bounds, Identity, Plan, Report, Tier};
pub(crate) use planted::on_the_way;
pub use policy::{Destination, Launcher, Limits, Network, Package, Policy, Profile, WantedTier};
pub use resolve::Around;

/// A part of the protection cannot be had, so that the server is not started: which
/// one, and what to do or to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

impl Refusal {
    #[cfg(target_os = "linux")]
    pub(crate) fn of(what: &str, error: impl std::fmt::Display) -> Self {
        Refusal(format!("{what}: {error}"))
    }
}
