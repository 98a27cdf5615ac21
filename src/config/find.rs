//! Which servers.toml is meant when none, or one, was named.

use std::{
    fmt,
    path::{Path, PathBuf},
};

const FILE_NAME: &str = "servers.toml";

/// No servers.toml; says where one was looked for and what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct NotFound {
    pub looked_at: Vec<PathBuf>,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no servers.toml; looked for it at\n")?;
        for path in &self.looked_at {
            writeln!(f, "  {}", path.display())?;
        }
        f.write_str("write one at any of these places, or name one with --config FILE")
    }
}

/// The file named by `explicit`, else `servers.toml` here, else the one in the user's
/// configuration folder.
pub fn find(explicit: Option<PathBuf>, env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, NotFound> {
    let mut looked_at = match explicit {
        Some(path) => vec![path],
        None => places(env),
    };
    // A pipe is as good as a file: `--config <(make-servers-toml)`.
    match looked_at.iter().position(|path| path.exists() && !path.is_dir()) {
        Some(found) => Ok(looked_at.swap_remove(found)),
        None => Err(NotFound { looked_at }),
    }
}

fn places(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let folder = |variable: &str| env(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = folder("HOME");
    let under_home = |path: &str| home.as_ref().map(|home| home.join(path));

    let mut places = vec![PathBuf::from(FILE_NAME)];
    let users = folder("XDG_CONFIG_HOME").or_else(|| under_home(".config"));
    places.extend(users.map(|folder| in_folder(&folder)));
    if cfg!(target_os = "macos") {
        places.extend(under_home("Library/Application Support").map(|folder| in_folder(&folder)));
    }
    places
}

fn in_folder(users: &Path) -> PathBuf {
    users.join("seawall").join(FILE_NAME)
}

/// What `[gateway]` says of a key, in a text that need not be TOML to its end: a running
/// gateway must be found just when an edit has gone wrong.
pub fn said_of_gateway(text: &str, key: &str) -> Option<String> {
    let is_header = |line: &str| line.trim_start().starts_with('[');
    let table = text.lines().skip_while(|line| line.trim_end() != "[gateway]").skip(1);
    let lines =
        table.take_while(|line| !is_header(line)).filter_map(|line| line.parse::<toml_edit::DocumentMut>().ok());
    lines.filter_map(|line| Some(line.get(key)?.as_str()?.to_owned())).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_folder_is_asked_after_the_current_one() {
        let xdg = tempfile::tempdir().unwrap();
        let file = in_folder(xdg.path());
        let env = |name: &str| (name == "XDG_CONFIG_HOME").then(|| xdg.path().display().to_string());
        let places = places(&env);
        assert_eq!(places, [PathBuf::from("servers.toml"), file]);
    }

    #[test]
    fn what_is_not_found_says_where_it_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.toml");
        let error = find(Some(path.clone()), &|_| None).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()));
        assert!(error.to_string().contains("--config FILE"));

        std::fs::write(&path, "").unwrap();
        assert_eq!(find(Some(path.clone()), &|_| None), Ok(path));
    }
}
