//! The services that are seawall itself, by their names in `builtin = "..."`.

use std::path::Path;

/// The values that `builtin` may have in `[services.NAME]`.
pub const NAMES: [&str; 5] = ["gateway", "embedding", "watch", "emit", "tasks"];

/// How one of them is started: seawall again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// Program and arguments.
    Started(Vec<String>),
    /// This binary was built without it.
    NotBuiltIn,
}

/// What `seawall run` starts for a builtin service of the name `service`.
pub fn find(builtin: &str, service: &str, seawall: &Path, config: &Path) -> Own {
    if builtin == "embedding" && !cfg!(feature = "embedding") {
        return Own::NotBuiltIn;
    }
    let subcommand: &[&str] = match builtin {
        "gateway" => &["serve"],
        "watch" => &["file-watcher", service],
        "emit" => &["emit-server", service],
        "embedding" => &["embedding-server", service],
        "tasks" => &["tasks", "steps", service],
        _ => return Own::NotBuiltIn,
    };
    let (seawall, config) = (seawall.to_string_lossy(), config.to_string_lossy());
    let words = [&*seawall].into_iter().chain(subcommand.iter().copied()).chain(["--config", &*config]);
    Own::Started(words.map(str::to_owned).collect())
}
