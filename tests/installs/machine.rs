//! A home with units in it, and what plays the supervisor.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use crate::support::{
    scratch::Scratch,
    units::{Recorder, seawall, text},
};

pub(crate) struct Machine {
    pub(crate) home: Scratch,
    pub(crate) recorder: Recorder,
    pub(crate) supervisor: &'static str,
}

impl Machine {
    pub(crate) fn new(supervisor: &'static str) -> Self {
        Machine { home: Scratch::new(), recorder: Recorder::new(), supervisor }
    }

    pub(crate) fn config(&self, name: &str, text: &str) -> PathBuf {
        self.home.write(name, text)
    }

    pub(crate) fn tries(&self, config: &Path, words: &[&str]) -> Output {
        let program = self.recorder.program();
        let tools: &[&str] = match self.supervisor {
            "launchd" => &["launchd", "--launchctl", &program],
            _ => &["systemd", "--systemctl", &program, "--loginctl", &program],
        };
        seawall(&[tools, words].concat(), config, self.home.path())
    }

    pub(crate) fn does(&self, config: &Path, words: &[&str]) -> String {
        let output = self.tries(config, words);
        assert!(output.status.success(), "{words:?}: {}", text(&output));
        text(&output)
    }

    pub(crate) fn fails(&self, config: &Path, words: &[&str]) -> String {
        let output = self.tries(config, words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", text(&output));
        text(&output)
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.home.file(if self.supervisor == "launchd" { "Library/LaunchAgents" } else { ".config/systemd/user" })
    }

    /// Files that the supervisor reads.
    pub(crate) fn files(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir(self.folder()) else { return Vec::new() };
        let names = files.flatten().map(|file| file.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> =
            names.filter(|name| !name.contains(".backup-") && !name.ends_with(".unfinished")).collect();
        names.sort();
        names
    }

    pub(crate) fn label(&self, name: &str) -> String {
        format!("{}{name}", if self.supervisor == "launchd" { "dev.seawall." } else { "seawall-" })
    }
}

pub(crate) const ONE: &str = "[services.one]\ncommand = [\"sleep\", \"9\"]\n";
pub(crate) const BOTH: [&str; 2] = ["launchd", "systemd"];

impl Machine {
    /// The file of a service's unit.
    pub(crate) fn unit(&self, name: &str) -> PathBuf {
        let kind = if self.supervisor == "launchd" { "plist" } else { "service" };
        self.folder().join(format!("{}.{kind}", self.label(name)))
    }

    /// What the folder of the units has, each with what it says, or what it leads to.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let files = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let mut all: Vec<(String, String)> = files
            .map(|file| {
                let said = match file.path().read_link() {
                    Ok(target) => format!("-> {}", target.display()),
                    Err(_) if file.path().is_file() => fs::read_to_string(file.path()).expect("readable"),
                    Err(_) => "no file".to_owned(),
                };
                (file.file_name().to_string_lossy().into_owned(), said)
            })
            .collect();
        all.sort();
        all
    }

    pub(crate) fn backups(&self, of: &Path) -> Vec<String> {
        let prefix = format!("{}.backup-", of.file_name().expect("a name").to_string_lossy());
        self.all().into_iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(_, said)| said).collect()
    }
}

/// As somebody would by hand: it still starts what it started.
pub(crate) fn edit(unit: &Path) -> String {
    let text = fs::read_to_string(unit).expect("a unit");
    let mark = if text.starts_with('<') { "<!-- edited by hand -->\n" } else { "# edited by hand\n" };
    fs::write(unit, text.clone() + mark).expect("written");
    text + mark
}
