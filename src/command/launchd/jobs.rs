//! The jobs of launchd on this machine: compared, installed, removed, shown.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::bail;

use super::{LOGS, Printed, given, lint};
use crate::{
    command::units::{
        Options, Wanted,
        file::{self, UnitFile},
        left::{self, Left, Of},
        print_findings,
        tool::Tool,
    },
    say::{note, say},
    text,
    unit::{LABEL_PREFIX, Scope, Unit, launchd},
};

/// A job that is going away is still there for a moment.
const BOOTSTRAP_TRIES: u32 = 10;
const BOOTSTRAP_PAUSE: Duration = Duration::from_millis(500);

/// The jobs, the files they are in, and the launchd they are of.
pub(super) struct Jobs {
    wanted: Wanted,
    folder: PathBuf,
    domain: String,
    is_daemon: bool,
    launchctl: Tool,
}

impl Jobs {
    pub(super) fn new(options: &Options, wanted: Wanted, launchctl: Tool) -> Self {
        let folder = match (&options.folder, options.daemon) {
            (Some(folder), _) => folder.clone(),
            (None, true) => PathBuf::from("/Library/LaunchDaemons"),
            (None, false) => wanted.place.home.join("Library/LaunchAgents"),
        };
        let domain = match options.daemon {
            true => "system".to_owned(),
            false => format!("gui/{}", rustix::process::getuid().as_raw()),
        };
        Jobs { wanted, folder, domain, is_daemon: options.daemon, launchctl }
    }

    /// Where jobs of services that are gone are meant too.
    pub(super) fn or_left(options: &Options, config: Option<PathBuf>, launchctl: Tool) -> anyhow::Result<Self> {
        Ok(Jobs::new(options, options.wanted_or_left(config, LOGS)?, launchctl))
    }

    fn file(&self, unit: &Unit) -> UnitFile {
        UnitFile { path: self.folder.join(launchd::file_name(unit)), text: launchd::plist(unit) }
    }

    fn target(&self, label: &str) -> String {
        format!("{}/{label}", self.domain)
    }

    /// What launchd says of a job; `None` where it is not loaded.
    fn printed(&self, label: &str) -> Option<String> {
        self.launchctl.ask(&["print", &self.target(label)])
    }

    fn path_of(&self, left: &Left) -> PathBuf {
        self.folder.join(format!("{LABEL_PREFIX}{}.plist", left.name))
    }

    /// Jobs that are installed and that servers.toml has no service of.
    fn left(&self) -> Vec<Left> {
        let Ok(files) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        paths.sort();
        let of = |path: &PathBuf| {
            let stem = path.file_name()?.to_str()?.strip_prefix(LABEL_PREFIX)?.strip_suffix(".plist")?;
            let installed = launchd::installed(&lint::read(path).ok()?)?;
            (installed.name == stem).then(|| Left::of(installed, &self.wanted))?
        };
        paths.iter().filter_map(of).collect()
    }

    pub(super) fn diff(&self) -> anyhow::Result<ExitCode> {
        let mut differ = false;
        for unit in &self.wanted.units {
            let file = self.file(unit);
            match file.installed() {
                None => say!("{}: not installed", unit.label())?,
                Some(installed) if installed == file.text => continue,
                Some(installed) => {
                    let lines = text::harmless(&file::diff(&installed, &file.text));
                    say!("{}:\n{}", unit.label(), lines.trim_end_matches('\n'))?;
                }
            }
            differ = true;
        }
        for left in left::meant(self.left(), &self.wanted)? {
            say!("{LABEL_PREFIX}{}: installed, {}", left.name, left.in_words())?;
            differ = true;
        }
        Ok(if differ { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    pub(super) fn install(&self, restart: bool) -> anyhow::Result<ExitCode> {
        self.refuse_what_cannot_work()?;
        self.make_log_folder()?;
        if !self.launchctl.dry_run {
            self.wanted.note_first_seen();
        }
        let mut failed = false;
        for unit in &self.wanted.units {
            if let Err(error) = self.install_one(unit, restart) {
                // The others can still be had.
                note!("seawall: {}: {error:#}", unit.label());
                failed = true;
            }
        }
        for left in self.left().iter().filter(|left| left.of == Of::This) {
            let name = &left.name;
            say!("{LABEL_PREFIX}{name}: no longer in servers.toml; `seawall launchd uninstall {name}` removes it")?;
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Errors of all of them are said before anything is touched; warnings stop nothing.
    fn refuse_what_cannot_work(&self) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        for unit in &self.wanted.units {
            let name = launchd::file_name(unit);
            if print_findings(&name, &lint::checked(launchd::plist(unit).as_bytes(), &name, true), false)? {
                wrong.push(name);
            }
        }
        if print_findings("servers.toml", &self.wanted.variables(given(self.is_daemon)), false)? {
            wrong.push("servers.toml".to_owned());
        }
        if !wrong.is_empty() {
            bail!("nothing was installed: see the errors of {} above", wrong.join(", "));
        }
        Ok(())
    }

    fn make_log_folder(&self) -> anyhow::Result<()> {
        let logs = &self.wanted.place.logs;
        if logs.is_dir() {
            return Ok(());
        }
        say!("{} the folder {}", if self.launchctl.dry_run { "would make" } else { "make" }, logs.display())?;
        let owner = match &self.wanted.place.scope {
            Scope::Daemon { user } => Some(user.as_str()),
            Scope::Agent => None,
        };
        if self.launchctl.dry_run { Ok(()) } else { file::make_folder(logs, owner) }
    }

    fn install_one(&self, unit: &Unit, restart: bool) -> anyhow::Result<()> {
        let (file, label) = (self.file(unit), unit.label());
        let target = self.target(&label);
        let is_loaded = self.printed(&label).is_some();
        if file.is_current() && is_loaded {
            say!("{label}: unchanged")?;
            return match restart && unit.schedule.is_none() {
                true => self.launchctl.tell(&["kickstart", "-k", &target]),
                false => Ok(()),
            };
        }
        say!("{label}:")?;
        if !file.is_current() {
            say!("  {} {}", if self.launchctl.dry_run { "would write" } else { "write" }, file.path.display())?;
            if !self.launchctl.dry_run {
                file.write()?;
            }
        }
        if is_loaded {
            self.launchctl.tell(&["bootout", &target])?;
        }
        // One that was disabled by hand would be refused with an unhelpful number.
        self.launchctl.tell(&["enable", &target])?;
        self.bootstrap(&file.path)?;
        if unit.schedule.is_none() && unit.run_at_load {
            self.launchctl.tell(&["kickstart", &target])?;
        }
        Ok(())
    }

    fn bootstrap(&self, path: &Path) -> anyhow::Result<()> {
        let path = path.to_string_lossy();
        let words = ["bootstrap", &self.domain, &path];
        let mut tries = 1;
        loop {
            match self.launchctl.tell(&words) {
                Err(_) if tries < BOOTSTRAP_TRIES => {
                    tries += 1;
                    thread::sleep(BOOTSTRAP_PAUSE);
                }
                done => return done,
            }
        }
    }

    pub(super) fn uninstall(&self) -> anyhow::Result<ExitCode> {
        let left = left::removable(self.left(), &self.wanted)?;
        let mut jobs: Vec<(String, PathBuf)> =
            left.iter().map(|left| (format!("{LABEL_PREFIX}{}", left.name), self.path_of(left))).collect();
        for unit in &self.wanted.units {
            let path = self.file(unit).path;
            match self.owner(&path) {
                Some(config) if self.wanted.is_all => say!("{}: {}", unit.label(), left::another(&config))?,
                Some(config) => return Err(left::not_ours(&unit.name, &config)),
                None => jobs.push((unit.label(), path)),
            }
        }
        let mut failed = false;
        for (label, path) in jobs {
            if let Err(error) = self.uninstall_one(&label, &path) {
                // The others can still go.
                note!("seawall: {label}: {error:#}");
                failed = true;
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// The other servers.toml that a file is of.
    fn owner(&self, path: &Path) -> Option<PathBuf> {
        left::owner(launchd::installed(&lint::read(path).ok()?), &self.wanted)
    }

    fn uninstall_one(&self, label: &str, path: &Path) -> anyhow::Result<()> {
        let is_loaded = self.printed(label).is_some();
        if !is_loaded && !path.exists() {
            say!("{label}: not installed")?;
            return Ok(());
        }
        say!("{label}:")?;
        if is_loaded {
            self.launchctl.tell(&["bootout", &self.target(label)])?;
        }
        if path.exists() {
            say!("  {} {}", if self.launchctl.dry_run { "would remove" } else { "remove" }, path.display())?;
            if !self.launchctl.dry_run {
                file::remove(path)?;
            }
        }
        Ok(())
    }

    pub(super) fn status(&self) -> anyhow::Result<ExitCode> {
        if !self.launchctl.is_there() {
            bail!("there is no launchctl here: launchd is the supervisor of macOS");
        }
        let all = self.left();
        // Beside what is meant, a whole look shows what others have there.
        let left = left::meant(all.clone(), &self.wanted)?;
        let left = if self.wanted.is_all { all } else { left };
        for unit in &self.wanted.units {
            let file = self.file(unit);
            let installed = match file.installed() {
                None => "not installed".to_owned(),
                Some(text) if text == file.text => "installed".to_owned(),
                Some(_) => match self.owner(&file.path) {
                    Some(config) => format!("installed, {}", left::another(&config)),
                    None => "installed, differs from servers.toml".to_owned(),
                },
            };
            say!("{:<32} {installed}; {}", unit.label(), self.state(&unit.label(), unit.schedule.is_some()))?;
        }
        for left in &left {
            let label = format!("{LABEL_PREFIX}{}", left.name);
            say!("{label:<32} installed, {}; {}", left.in_words(), self.state(&label, false))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn state(&self, label: &str, is_scheduled: bool) -> String {
        let printed = self.printed(label);
        printed.map_or_else(|| "not loaded".to_owned(), |printed| Printed::of(&printed).in_words(is_scheduled))
    }
}
