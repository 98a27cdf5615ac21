//! The units of systemd on this machine: compared, installed, removed, shown.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;

use super::VERSION_ELSEWHERE;
use crate::{
    command::units::{
        Options, Wanted,
        file::{self, UnitFile},
        left::{self, Left, Of},
        own_name,
        tool::Tool,
    },
    say::{note, say},
    text,
    unit::{Unit, systemd},
};

/// The units, the folder they are in, and the systemd they are of.
pub(super) struct Units {
    pub(super) wanted: Wanted,
    folder: PathBuf,
    pub(super) is_daemon: bool,
    systemctl: Tool,
    loginctl: Tool,
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
        Units { wanted, folder, is_daemon: options.daemon, systemctl, loginctl, version }
    }

    fn files(&self, unit: &Unit) -> Vec<UnitFile> {
        let files = systemd::files(unit, self.version).into_iter();
        files.map(|file| UnitFile { path: self.folder.join(file.name), text: file.text }).collect()
    }

    /// The timer of a service that has no schedule any more: it would go on starting it.
    fn spare_timer(&self, unit: &Unit) -> Option<PathBuf> {
        let path = self.folder.join(format!("seawall-{}.timer", unit.name));
        (unit.schedule.is_none() && path.exists()).then_some(path)
    }

    /// The other servers.toml that an installed unit is of.
    fn owner(&self, unit: &Unit) -> Option<PathBuf> {
        let path = self.folder.join(format!("seawall-{}.service", unit.name));
        left::owner(systemd::installed(&file::text(&path)?), &self.wanted)
    }

    /// Units that are installed and that servers.toml has no service of.
    fn left(&self) -> Vec<Left> {
        let Ok(files) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        paths.sort();
        let of = |path: &PathBuf| {
            let name = systemd::name_of(path.file_name()?.to_str()?)?;
            let installed = systemd::installed(&file::text(path)?)?;
            (installed.name == name).then(|| Left::of(installed, &self.wanted))?
        };
        paths.iter().filter_map(of).collect()
    }

    fn tell(&self, words: &[&str]) -> anyhow::Result<()> {
        self.systemctl.tell(&self.scoped(words))
    }

    fn ask(&self, words: &[&str]) -> Option<String> {
        self.systemctl.ask(&self.scoped(words))
    }

    fn scoped<'a>(&self, words: &[&'a str]) -> Vec<&'a str> {
        let scope = if self.is_daemon { None } else { Some("--user") };
        scope.into_iter().chain(words.iter().copied()).collect()
    }

    pub(super) fn diff(&self) -> anyhow::Result<ExitCode> {
        let mut differ = false;
        for file in self.wanted.units.iter().flat_map(|unit| self.files(unit)) {
            let name = name_of(&file.path);
            match file.installed() {
                None => say!("{name}: not installed")?,
                Some(installed) if installed == file.text => continue,
                Some(installed) => {
                    let lines = text::harmless(&file::diff(&installed, &file.text));
                    say!("{name}:\n{}", lines.trim_end_matches('\n'))?;
                }
            }
            differ = true;
        }
        for timer in self.wanted.units.iter().filter_map(|unit| self.spare_timer(unit)) {
            say!("{}: installed, and its service has no schedule any more", name_of(&timer))?;
            differ = true;
        }
        for left in left::meant(self.left(), &self.wanted)? {
            say!("seawall-{}: installed, {}", left.name, left.in_words())?;
            differ = true;
        }
        Ok(if differ { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    pub(super) fn install(&self, restart: bool) -> anyhow::Result<ExitCode> {
        self.refuse_what_cannot_work()?;
        if !self.systemctl.dry_run {
            self.wanted.note_first_seen();
        }
        let mut changed = Vec::new();
        for unit in &self.wanted.units {
            if self.write(unit)? {
                changed.push(unit.name.clone());
            }
        }
        if !changed.is_empty() {
            self.tell(&["daemon-reload"])?;
        }
        let mut failed = false;
        for unit in &self.wanted.units {
            if let Err(error) = self.start(unit, changed.contains(&unit.name), restart) {
                // The others can still be had.
                note!("seawall: {}: {error:#}", unit.name);
                failed = true;
            }
        }
        for left in self.left().iter().filter(|left| left.of == Of::This) {
            let name = &left.name;
            say!("seawall-{name}: no longer in servers.toml; `seawall systemd uninstall {name}` removes it")?;
        }
        self.tell_of_lingering()?;
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Whether anything had to be written.
    fn write(&self, unit: &Unit) -> anyhow::Result<bool> {
        let mut has_changed = false;
        if let Some(timer) = self.spare_timer(unit) {
            self.tell(&["disable", "--now", &name_of(&timer)])?;
            self.remove(&timer)?;
            has_changed = true;
        }
        for file in self.files(unit).into_iter().filter(|file| !file.is_current()) {
            let is_started_by_itself = |text: &str| text.contains("\n[Install]\n");
            if file.installed().is_some_and(|text| is_started_by_itself(&text)) && !is_started_by_itself(&file.text) {
                // It has a timer from now on, and would still start at every login.
                self.tell(&["disable", &name_of(&file.path)])?;
            }
            say!("{} {}", if self.systemctl.dry_run { "would write" } else { "write" }, file.path.display())?;
            if !self.systemctl.dry_run {
                file.write()?;
            }
            has_changed = true;
        }
        Ok(has_changed)
    }

    fn start(&self, unit: &Unit, has_changed: bool, restart: bool) -> anyhow::Result<()> {
        let name = systemd::starting_unit(unit);
        let is_on = self.ask(&["is-enabled", &name]).is_some() && self.ask(&["is-active", &name]).is_some();
        if !is_on {
            self.tell(&["enable", "--now", &name])
        } else if has_changed || restart {
            self.tell(&["restart", &name])
        } else {
            Ok(say!("{name}: unchanged")?)
        }
    }

    /// Without it, the user's units end with the last session and do not start at boot.
    fn tell_of_lingering(&self) -> anyhow::Result<()> {
        let Some(user) = own_name().filter(|_| !self.is_daemon) else { return Ok(()) };
        let shown = self.loginctl.ask(&["show-user", &user, "--property=Linger"]);
        let found = match shown.as_deref().map(str::trim) {
            Some("Linger=yes") => return Ok(()),
            Some("Linger=no") => format!("lingering is off for {user}"),
            _ => format!("loginctl does not say whether lingering is on for {user}"),
        };
        say!(
            "note: {found}: without it the services run only while you are logged in. \
             `loginctl enable-linger {user}` starts them at boot."
        )?;
        Ok(())
    }

    pub(super) fn uninstall(&self) -> anyhow::Result<ExitCode> {
        let left = left::removable(self.left(), &self.wanted)?;
        let mut names: Vec<&str> = left.iter().map(|left| left.name.as_str()).collect();
        for unit in &self.wanted.units {
            match self.owner(unit) {
                Some(config) if self.wanted.is_all => say!("{}: {}", unit.name, left::another(&config))?,
                Some(config) => return Err(left::not_ours(&unit.name, &config)),
                None => names.push(&unit.name),
            }
        }
        let mut removed = false;
        for name in names {
            // Whatever it was when it was installed.
            let paths = ["timer", "service"].map(|kind| self.folder.join(format!("seawall-{name}.{kind}")));
            let paths: Vec<PathBuf> = paths.into_iter().filter(|path| path.exists()).collect();
            if paths.is_empty() {
                say!("{name}: not installed")?;
                continue;
            }
            let units: Vec<String> = paths.iter().map(|path| name_of(path)).collect();
            let words = ["disable", "--now"].into_iter().chain(units.iter().map(String::as_str));
            self.tell(&words.collect::<Vec<_>>())?;
            paths.iter().try_for_each(|path| self.remove(path))?;
            removed = true;
        }
        if removed {
            self.tell(&["daemon-reload"])?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn remove(&self, path: &Path) -> anyhow::Result<()> {
        say!("{} {}", if self.systemctl.dry_run { "would remove" } else { "remove" }, path.display())?;
        if self.systemctl.dry_run { Ok(()) } else { file::remove(path) }
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
            let is_current = files.iter().all(UnitFile::is_current) && self.spare_timer(unit).is_none();
            let installed = match files.iter().all(|file| file.path.exists()) {
                false => "not installed".to_owned(),
                true if is_current => "installed".to_owned(),
                true => match self.owner(unit) {
                    Some(config) => format!("installed, {}", left::another(&config)),
                    None => "installed, differs from servers.toml".to_owned(),
                },
            };
            let name = systemd::starting_unit(unit);
            say!("{name:<32} {installed}; {}", self.state(&name))?;
        }
        for left in &left {
            let timer = format!("seawall-{}.timer", left.name);
            let service = format!("seawall-{}.service", left.name);
            let name = if self.folder.join(&timer).exists() { timer } else { service };
            say!("{name:<32} installed, {}; {}", left.in_words(), self.state(&name))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn state(&self, name: &str) -> String {
        let shown = self.ask(&["show", name, "--property=ActiveState,SubState,MainPID,NRestarts"]);
        shown.map_or_else(|| "systemd does not answer".to_owned(), |text| in_words(&text))
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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
