//! uv's files of settings: found where it looks for them for a tool, which is no project, and
//! laid into the folder of an installation for as long as that lasts, as whoever installs
//! may not be able to read the user's. They may hold credentials for an index.

use std::{
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
};

use super::{super::place, CONFIG, SYSTEM_CONFIG, settings::value};
use crate::sandbox::Identity;

const CONFIG_MAX_BYTES: u64 = 256 << 10;

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
        if value(env, "UV_NO_CONFIG").is_some() {
            return Files::default();
        }
        if let Some(file) = value(env, "UV_CONFIG_FILE") {
            let texts = read(PathBuf::from(file)).map(|text| (CONFIG, text)).into_iter().collect();
            return Files { texts, is_named: true };
        }
        let own = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = own("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(std::env::home_dir()?.join(".config"))).unwrap_or_default();
        let dirs = own("XDG_CONFIG_DIRS").unwrap_or_default();
        let mut system: Vec<PathBuf> = std::env::split_paths(&dirs).map(|folder| folder.join("uv/uv.toml")).collect();
        system.push(PathBuf::from("/etc/uv/uv.toml"));
        let user = read(home.join("uv/uv.toml")).map(|text| (CONFIG, text));
        let system = system.into_iter().find_map(read).map(|text| (SYSTEM_CONFIG, text));
        Files { texts: user.into_iter().chain(system).collect(), is_named: false }
    }

    /// Where uv finds them.
    pub(super) fn variables(&self, staging: &Path) -> Vec<(String, String)> {
        let path = |name: &str| staging.join(name).display().to_string();
        let mut variables = vec![("XDG_CONFIG_HOME", path(CONFIG)), ("XDG_CONFIG_DIRS", path(SYSTEM_CONFIG))];
        if self.is_named {
            variables.push(("UV_CONFIG_FILE", file(staging, CONFIG).display().to_string()));
        }
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Hands them, and the folder, to whoever installs.
    pub(super) fn furnish(&self, staging: &Path, user: Option<&Identity>) -> io::Result<()> {
        let mut made = vec![staging.to_owned()];
        for (place, text) in &self.texts {
            let (file, own) = (file(staging, place), staging.join(place).join("uv"));
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&own)?;
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(&file)?.write_all(text.as_bytes())?;
            made.extend([staging.join(place), own, file]);
        }
        match user {
            Some(user) => made.iter().try_for_each(|path| chown(path, Some(user.uid), Some(user.gid))),
            None => Ok(()),
        }
    }
}

fn file(staging: &Path, place: &str) -> PathBuf {
    staging.join(place).join("uv/uv.toml")
}
