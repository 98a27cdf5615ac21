//! Paths, arguments and variables of a job: launchd takes each as it stands there. It
//! expands neither `~` nor a variable, and has no folder that a relative path could be of.

use std::path::{Path, PathBuf};

use plist::{Dictionary, Value};

use super::{Checking, Needed, What};

/// Keys whose value is a path, or an array of them, and what must be there.
const PATHS: [(&str, Option<What>); 8] = [
    ("Program", Some(What::Program)),
    ("QueueDirectories", Some(What::Folder)),
    ("RootDirectory", Some(What::Folder)),
    ("StandardErrorPath", Some(What::FolderOf)),
    ("StandardInPath", Some(What::FolderOf)),
    ("StandardOutPath", Some(What::FolderOf)),
    ("WatchPaths", None),
    ("WorkingDirectory", Some(What::Folder)),
];

/// Variables that people expect to be there. Others, such as an awk's `$NF`, may well be
/// meant for the program.
const USUAL_VARIABLES: [&str; 8] = ["HOME", "USER", "LOGNAME", "PATH", "TMPDIR", "PWD", "SHELL", "UID"];
const SHELLS: [&str; 8] = ["sh", "bash", "zsh", "dash", "ksh", "fish", "csh", "tcsh"];

impl Checking<'_> {
    pub(super) fn paths(&mut self, job: &Dictionary) {
        for (key, what) in PATHS {
            match job.get(key) {
                Some(Value::String(path)) => self.path(key, path, what),
                Some(Value::Array(all)) => {
                    for (n, path) in all.iter().enumerate().filter_map(|(n, one)| Some((n, one.as_string()?))) {
                        self.path(&format!("{key}.{n}"), path, what);
                    }
                }
                _ => {}
            }
        }
        let sockets = job.get("Sockets").and_then(Value::as_dictionary);
        for (name, socket) in sockets.into_iter().flatten() {
            let path = |socket: &Value| Some(socket.as_dictionary()?.get("SockPathName")?.as_string()?.to_owned());
            if let Some(path) = path(socket) {
                self.path(&format!("Sockets.{name}.SockPathName"), &path, Some(What::FolderOf));
            }
            for (n, socket) in socket.as_array().into_iter().flatten().enumerate() {
                if let Some(path) = path(socket) {
                    self.path(&format!("Sockets.{name}.{n}.SockPathName"), &path, Some(What::FolderOf));
                }
            }
        }
    }

    fn path(&mut self, key: &str, path: &str, what: Option<What>) {
        if let Some(variable) = variable(path, |_| true) {
            return self.unexpanded(key, &variable);
        }
        if path.starts_with('~') {
            self.error(key, format!("begins with \"~\", which launchd does not expand: {path}"));
        } else if !path.starts_with('/') {
            self.error(key, format!("is a relative path, and a job has no folder that it could be of: {path}"));
        } else if let Some(what) = what {
            self.checked.paths.push(Needed { key: key.to_owned(), path: PathBuf::from(path), what });
        }
    }

    pub(super) fn arguments(&mut self, job: &Dictionary) {
        const KEY: &str = "ProgramArguments";
        let arguments = job.get(KEY).and_then(Value::as_array);
        let words: Vec<&str> = arguments.into_iter().flatten().filter_map(Value::as_string).collect();
        let program = job.get("Program").and_then(Value::as_string);
        if words.is_empty() && program.is_none() && !job.contains_key("BundleProgram") {
            return self.error("", "has neither Program nor ProgramArguments: there is nothing to run");
        }
        if let (None, Some(word)) = (program, words.first()) {
            if word.contains('/') || word.starts_with(['~', '$']) {
                self.path(KEY, word, Some(What::Program));
            } else {
                let message =
                    format!("names {word} without a folder: launchd looks in /usr/bin, /bin, /usr/sbin and /sbin only");
                self.warning(KEY, message);
            }
        }
        for word in words.iter().take(script_at(program, &words)).skip(1) {
            if word.starts_with("~/") || word.contains("=~/") {
                self.error(KEY, format!("holds {word}, and launchd does not expand \"~\""));
            }
            self.usual_variable(KEY, word);
        }
    }

    pub(super) fn environment(&mut self, job: &Dictionary) {
        let environment = job.get("EnvironmentVariables").and_then(Value::as_dictionary);
        for (name, value) in environment.into_iter().flatten() {
            let key = format!("EnvironmentVariables.{name}");
            let Some(value) = value.as_string() else { continue };
            if value.contains("$PATH") || name == "PATH" && value.split(':').any(|folder| folder.starts_with('~')) {
                self.error(&key, "is not expanded by launchd; write the folders out");
            } else {
                self.usual_variable(&key, value);
            }
            if sounds_secret(name) && !value.is_empty() {
                self.warning(
                    &key,
                    "looks like a secret, in a file that is easily read; write ${file:PATH} in servers.toml instead",
                );
            }
        }
    }

    /// One in braces is meant to be expanded, whatever its name.
    fn usual_variable(&mut self, key: &str, text: &str) {
        let is_meant = |found: &str| found.starts_with("${") || USUAL_VARIABLES.contains(&&found[1..]);
        if let Some(variable) = variable(text, is_meant) {
            self.unexpanded(key, &variable);
        }
    }

    fn unexpanded(&mut self, key: &str, variable: &str) {
        self.error(key, format!("holds {variable}, and launchd expands no variables"));
    }
}

/// The first `$NAME` or `${NAME…}` of a text that is `meant` to be one.
fn variable(text: &str, meant: impl Fn(&str) -> bool) -> Option<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices('$').find_map(|(at, _)| {
        let rest = &text[at + 1..];
        let length = match rest.strip_prefix('{') {
            Some(braced) => braced.find('}').filter(|end| *end > 0)? + 2,
            None if rest.starts_with(|c: char| c.is_ascii_digit()) => return None,
            None => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
        };
        let found = &text[at..at + 1 + length];
        (length > 0 && meant(found)).then(|| found.to_owned())
    })
}

/// Where what a shell is to run begins: there `~` and variables are the shell's business.
fn script_at(program: Option<&str>, words: &[&str]) -> usize {
    let program = program.or(words.first().copied()).unwrap_or_default();
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let is_command = |word: &&str| word.starts_with('-') && !word.starts_with("--") && word.contains('c');
    match SHELLS.contains(&&*name) {
        true => words.iter().skip(1).position(is_command).map_or(words.len(), |at| at + 2),
        false => words.len(),
    }
}

fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["token", "secret", "password", "passwd", "api_key", "apikey", "credential"].iter().any(|word| name.contains(word))
}
