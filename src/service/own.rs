//! The services that are seawall itself, by their names in `builtin = "..."`.

use std::path::Path;

/// The values that `builtin` may have in `[services.NAME]`.
pub const NAMES: [&str; 4] = ["gateway", "embedding", "watch", "emit"];

/// How one of them is started: seawall again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// Program and arguments.
    Started(Vec<String>),
    /// This version does not have it.
    NotYet,
}

/// What `seawall run` starts for a builtin service.
pub fn find(builtin: &str, seawall: &Path, config: &Path) -> Own {
    let subcommand = match builtin {
        "gateway" => "serve",
        _ => return Own::NotYet,
    };
    let words = [&*seawall.to_string_lossy(), subcommand, "--config", &*config.to_string_lossy()];
    Own::Started(words.map(str::to_owned).to_vec())
}
