//! The units of systemd on this machine: compared and shown. Changes none.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::bail;

use super::VERSION_ELSEWHERE;
use crate::{
    command::units::{
        Options, UNFINISHED, Wanted,
        changes::Changes,
        diff::diff,
        file::{There, UnitFile, is_there, name_of},
        left::{self, Left},
        tool::Tool,
    },
    say::say,
    text,
    unit::{Unit, systemd},
};

/// The units, the folder they are in, and the systemd they are of.
pub(super) struct Units {
    pub(super) wanted: Wanted,
    pub(super) folder: PathBuf,
    pub(super) is_daemon: bool,
    pub(super) systemctl: Tool,
    pub(super) loginctl: Tool,
    pub(super) changes: Changes,
    pub(super) version: u32,
}

impl Units {
    pub(super) fn new(
        options: &Options,
        wanted: Wanted,
        systemctl: Tool,
        loginctl: Tool,
        version: Option<u32>,
    ) -> Self {
        let config_home = std::env::var_os("XDG_CONFIG_HOME").filter(|home| !home.is_empty() && wanted.is_here);
        let folder = match (&options.folder, options.daemon) {
            (Some(folder), _) => folder.clone(),
            (None, true) => PathBuf::from("/etc/systemd/system"),
            (None, false) => {
                config_home.map_or_else(|| wanted.place.home.join(".config"), PathBuf::from).join("systemd/user")
            }
        };
        let version = version.or_else(|| version_of(&systemctl)).unwrap_or(VERSION_ELSEWHERE);
        let changes = Changes { dry_run: systemctl.dry_run };
        Units { wanted, folder, is_daemon: options.daemon, systemctl, loginctl, changes, version }
    }

    pub(super) fn files(&self, unit: &Unit) -> Vec<UnitFile> {
        let files = systemd::files(unit, self.version).into_iter();
        files.map(|file| UnitFile { path: self.folder.join(file.name), text: file.text }).collect()
    }

    /// Units that are installed and that servers.toml has no service of.
    pub(super) fn left(&self) -> Vec<Left> {
        let Ok(files) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        paths.sort();
        let of = |path: &PathBuf| {
            let name = systemd::name_of(path.file_name()?.to_str()?)?;
            let installed = systemd::installed(&There::at(path).text()?)?;
            (installed.name == name).then(|| Left::of(installed, &self.wanted))?
        };
        paths.iter().filter_map(of).collect()
    }

    pub(super) fn tell(&self, words: &[&str]) -> anyhow::Result<()> {
        self.systemctl.tell(&self.scoped(words))
    }

    pub(super) fn ask(&self, words: &[&str]) -> Option<String> {
        self.systemctl.ask(&self.scoped(words))
    }

    fn scoped<'a>(&self, words: &[&'a str]) -> Vec<&'a str> {
        let scope = if self.is_daemon { None } else { Some("--user") };
        scope.into_iter().chain(words.iter().copied()).collect()
    }

    pub(super) fn diff(&self) -> anyhow::Result<ExitCode> {
        let mut differ = false;
        for unit in &self.wanted.units {
            for file in self.files(unit) {
                differ |= self.diff_one(unit, &file)?;
            }
            if is_there(&self.mark(&unit.name)) {
                say!("seawall-{}: {UNFINISHED}", unit.name)?;
                differ = true;
            }
        }
        for timer in self.wanted.units.iter().filter_map(|unit| self.own_spare_timer(unit)) {
            say!("{}: installed, and its service has no schedule any more", name_of(&timer))?;
            differ = true;
        }
        for left in left::meant(self.left(), &self.wanted)? {
            say!("seawall-{}: installed, {}", left.name, left.in_words())?;
            differ = true;
        }
        Ok(if differ { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn diff_one(&self, unit: &Unit, file: &UnitFile) -> anyhow::Result<bool> {
        let name = name_of(&file.path);
        match file.there() {
            There::Nothing => say!("{name}: not installed")?,
            There::Bytes(_) if file.is_current() => return Ok(false),
            there => {
                let whose = self.whose(&file.path, &unit.name).in_words();
                let head = whose.map_or(format!("{name}:"), |words| format!("{name}: installed, {words}"));
                let lines = there.text().map(|installed| text::harmless(&diff(&installed, &file.text)));
                say!("{}", format!("{head}\n{}", lines.unwrap_or_default()).trim_end_matches('\n'))?;
            }
        }
        Ok(true)
    }

    pub(super) fn status(&self) -> anyhow::Result<ExitCode> {
        if !self.systemctl.is_there() {
            bail!("there is no systemctl here");
        }
        let all = self.left();
        // Beside what is meant, a whole look shows what others have there.
        let left = left::meant(all.clone(), &self.wanted)?;
        let left = if self.wanted.is_all { all } else { left };
        for unit in &self.wanted.units {
            let files = self.files(unit);
            let is_current = files.iter().all(UnitFile::is_current) && self.own_spare_timer(unit).is_none();
            let not_ours = files.iter().find_map(|file| self.whose(&file.path, &unit.name).in_words());
            let installed = match files.iter().all(|file| is_there(&file.path)) {
                _ if not_ours.is_some() => format!("installed, {}", not_ours.unwrap_or_default()),
                false => "not installed".to_owned(),
                true if is_there(&self.mark(&unit.name)) => format!("installed, {UNFINISHED}"),
                true if is_current => "installed".to_owned(),
                true => "installed, differs from servers.toml".to_owned(),
            };
            let name = systemd::starting_unit(unit);
            say!("{name:<32} {installed}; {}", self.state(&name))?;
        }
        for left in &left {
            let [timer, service] = self.paths(&left.name);
            let name = name_of(if is_there(&timer) { &timer } else { &service });
            say!("{name:<32} installed, {}; {}", left.in_words(), self.state(&name))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn state(&self, name: &str) -> String {
        let shown = self.ask(&["show", name, "--property=ActiveState,SubState,MainPID,NRestarts"]);
        shown.map_or_else(|| "systemd does not answer".to_owned(), |text| in_words(&text))
    }
}

fn in_words(shown: &str) -> String {
    let value = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or("");
    let pid = Some(value("MainPID")).filter(|pid| !matches!(*pid, "" | "0")).map(|pid| format!(", pid {pid}"));
    let restarts = Some(value("NRestarts")).filter(|n| !matches!(*n, "" | "0")).map(|n| format!(", {n} restarts"));
    format!(
        "{} ({}){}{}",
        value("ActiveState"),
        value("SubState"),
        pid.unwrap_or_default(),
        restarts.unwrap_or_default()
    )
}

/// `systemd 252 (252.38-1~deb12u1)`
fn version_of(systemctl: &Tool) -> Option<u32> {
    systemctl.ask(&["--version"])?.split_whitespace().nth(1)?.parse().ok()
}
