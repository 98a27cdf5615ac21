//! The embedding server: texts in over HTTP, as OpenAI's `POST /v1/embeddings` takes them,
//! vectors out.
//!
//! ```text
//! POST /v1/embeddings ─ guard ─ body ─ ask.rs: what is wrong ─ keeper.rs: which process
//!                                        │ worker.rs: a pipe, frames of talk.rs
//!                     answer ◂───────────┴ engine.rs: batches ─ model.rs: tokens, BERT, pooling
//! ```
//!
//! The model lives in a process of its own, so that replacing that process gives all of
//! its memory back, and its death costs no request: what it had in hand is asked of the
//! next one. Whoever listens never loads a model and never restarts.

use std::{fmt, path::PathBuf, time::Duration};

#[cfg(feature = "embedding")]
mod engine;
#[cfg(feature = "embedding")]
mod model;

mod ask;
pub mod folder;
mod front;
mod keeper;
mod reply;
mod server;
mod talk;
mod worker;

pub use keeper::{Keeper, Refused, Vectors};
pub use server::serve;
pub use talk::Input;

pub const PORT: u16 = 11435;

/// Whether this program can run a model at all.
pub const IS_BUILT_IN: bool = cfg!(feature = "embedding");
/// What those are told who ask for one where it cannot.
pub const NOT_BUILT_IN: &str = "this seawall was built without the embedding server; \
                                build it with `cargo build --release --features embedding`";

/// The argument by which this program becomes the process of a model.
const SUBCOMMAND: &str = "embedding-worker";

/// What its `options` in servers.toml say.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    pub listen: std::net::SocketAddr,
    /// What a client shows as `Authorization: Bearer`; required beyond loopback.
    pub token: Option<String>,
    pub allowed_hosts: Vec<String>,
    pub allowed_origins: Vec<String>,
    pub max_body_bytes: usize,
    /// Texts of one request.
    pub max_inputs: usize,
    pub max_text_bytes: usize,
    /// How long a connection may be idle.
    pub keep_alive: Duration,
    /// What else the model is called by clients that ask for one by name.
    pub aliases: Vec<String>,
    pub model: ModelSettings,
}

/// One model, and the process that it lives in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSettings {
    /// What clients call it.
    pub name: String,
    /// Of a sentence-transformers model.
    pub folder: PathBuf,
    pub threads: usize,
    /// How long the first of a batch waits for others.
    pub batch_wait: Duration,
    /// Requests that may wait or be under way.
    pub queue: usize,
    /// From when a request has been read until it is answered.
    pub timeout: Duration,
    pub recycle: Recycle,
    /// Without a request for so long, its process is stopped; the next one starts it.
    pub idle_stop: Option<Duration>,
}

/// When a healthy process is replaced by a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recycle {
    pub requests: u64,
    /// Resident.
    pub memory_bytes: u64,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { listen, token, allowed_hosts, allowed_origins, .. } = self;
        f.debug_struct("Settings")
            .field("listen", listen)
            .field("token", &token.as_ref().map(|_| "***"))
            .field("allowed_hosts", allowed_hosts)
            .field("allowed_origins", allowed_origins)
            .field("max_body_bytes", &self.max_body_bytes)
            .field("max_inputs", &self.max_inputs)
            .field("max_text_bytes", &self.max_text_bytes)
            .field("keep_alive", &self.keep_alive)
            .field("aliases", &self.aliases)
            .field("model", &self.model)
            .finish()
    }
}

/// Must be called at the beginning of `main` in every program that is to run models: their
/// processes are this very program. `Some` where it was started for that; exit with it then.
pub fn enter() -> Option<std::process::ExitCode> {
    if std::env::args_os().nth(1)? != SUBCOMMAND {
        return None;
    }
    #[cfg(feature = "embedding")]
    return Some(engine::run());
    #[cfg(not(feature = "embedding"))]
    {
        crate::say::note!("seawall: {NOT_BUILT_IN}");
        Some(std::process::ExitCode::FAILURE)
    }
}
