//! uv's files of settings: found where it looks for them for a tool, which is no project, and
//! laid into the private home of an installation, as whoever installs may not be able to
//! read the user's. They may hold credentials for an index, and so are on no disk there.

use std::path::PathBuf;

use super::{super::place, settings::value};
use crate::sandbox::{HOME, LaidFiles};

const CONFIG_MAX_BYTES: u64 = 256 << 10;
/// Folders in that home.
const CONFIG: &str = "config";
const SYSTEM_CONFIG: &str = "system-config";

#[derive(Default)]
pub(super) struct Files {
    /// By the folder that each gets.
    texts: Vec<(&'static str, String)>,
    /// uv is told of the one that there is.
    is_named: bool,
}

impl Files {
    pub(super) fn of(env: &[(String, String)]) -> Self {
        let read = |path: PathBuf| place::read(&path, CONFIG_MAX_BYTES);
        let is_named = value(env, "UV_NO_CONFIG").is_none() && value(env, "UV_CONFIG_FILE").is_some();
        let mut texts: Vec<(&'static str, String)> = Vec::new();
        for (folder, path) in Files::places(env) {
            // The first of the system's counts.
            if texts.iter().all(|(taken, _)| *taken != folder) {
                texts.extend(read(path).map(|text| (folder, text)));
            }
        }
        Files { texts, is_named }
    }

    /// Where they would be, by the folder that each gets.
    pub(super) fn places(env: &[(String, String)]) -> Vec<(&'static str, PathBuf)> {
        if value(env, "UV_NO_CONFIG").is_some() {
            return Vec::new();
        }
        if let Some(file) = value(env, "UV_CONFIG_FILE") {
            return vec![(CONFIG, PathBuf::from(file))];
        }
        let own = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = own("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(std::env::home_dir()?.join(".config"))).unwrap_or_default();
        let dirs = own("XDG_CONFIG_DIRS").unwrap_or_default();
        let mut system: Vec<PathBuf> = std::env::split_paths(&dirs).map(|folder| folder.join("uv/uv.toml")).collect();
        system.push(PathBuf::from("/etc/uv/uv.toml"));
        let user = (CONFIG, home.join("uv/uv.toml"));
        std::iter::once(user).chain(system.into_iter().map(|path| (SYSTEM_CONFIG, path))).collect()
    }

    /// Where uv finds them.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let path = |name: &str| format!("{HOME}/{name}");
        let mut variables = vec![("XDG_CONFIG_HOME", path(CONFIG)), ("XDG_CONFIG_DIRS", path(SYSTEM_CONFIG))];
        if self.is_named {
            variables.push(("UV_CONFIG_FILE", path(&file(CONFIG))));
        }
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// What is put there.
    pub(super) fn laid(&self) -> LaidFiles {
        let mut laid = LaidFiles::default();
        for (folder, text) in &self.texts {
            laid.push(file(folder), text.clone());
        }
        laid
    }
}

fn file(folder: &str) -> String {
    format!("{folder}/uv/uv.toml")
}
