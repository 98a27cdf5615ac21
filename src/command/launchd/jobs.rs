//! The jobs of launchd on this machine: compared, installed, removed, shown.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::{Printed, checked};
use crate::{
    command::units::{self, Options, Tool, UnitFile, Wanted, print_findings},
    unit::{LABEL_PREFIX, Unit, launchd},
};

/// A job that is going away is still there for a moment.
const BOOTSTRAP_TRIES: u32 = 10;
const BOOTSTRAP_PAUSE: Duration = Duration::from_millis(500);

/// The jobs, the files they are in, and the launchd they are of.
pub(super) struct Jobs {
    wanted: Wanted,
    folder: PathBuf,
    domain: String,
    launchctl: Tool,
}

impl Jobs {
    pub(super) fn new(options: &Options, wanted: Wanted, launchctl: Tool) -> anyhow::Result<Self> {
        let folder = match (&options.folder, options.daemon) {
            (Some(folder), _) => folder.clone(),
            (None, true) => PathBuf::from("/Library/LaunchDaemons"),
            (None, false) => wanted.place.home.join("Library/LaunchAgents"),
        };
        let domain = match options.daemon {
            true => "system".to_owned(),
            false => format!("gui/{}", rustix::process::getuid().as_raw()),
        };
        Ok(Jobs { wanted, folder, domain, launchctl })
    }

    fn file(&self, unit: &Unit) -> UnitFile {
        UnitFile { path: self.folder.join(launchd::file_name(unit)), text: launchd::plist(unit) }
    }

    fn target(&self, unit: &Unit) -> String {
        format!("{}/{}", self.domain, unit.label())
    }

    /// What launchd says of a job; `None` where it is not loaded.
    fn printed(&self, unit: &Unit) -> Option<String> {
        self.launchctl.ask(&["print", &self.target(unit)])
    }

    pub(super) fn diff(&self) -> ExitCode {
        let mut differ = false;
        for unit in &self.wanted.units {
            let file = self.file(unit);
            match file.installed() {
                None => println!("{}: not installed", unit.label()),
                Some(installed) if installed == file.text => continue,
                Some(installed) => print!("{}:\n{}", unit.label(), units::diff(&installed, &file.text)),
            }
            differ = true;
        }
        if differ { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    pub(super) fn install(&self, restart: bool) -> anyhow::Result<ExitCode> {
        self.refuse_what_cannot_work()?;
        self.make_log_folder()?;
        let mut failed = false;
        for unit in &self.wanted.units {
            if let Err(error) = self.install_one(unit, restart) {
                // The others can still be had.
                eprintln!("seawall: {}: {error:#}", unit.label());
                failed = true;
            }
        }
        self.tell_of_strays();
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn refuse_what_cannot_work(&self) -> anyhow::Result<()> {
        for unit in &self.wanted.units {
            if print_findings(
                &launchd::file_name(unit),
                &checked(&launchd::plist(unit), &launchd::file_name(unit), true),
                false,
            ) {
                bail!("nothing was installed");
            }
        }
        // The service itself will say so too; what else there is runs without it.
        print_findings("servers.toml", &self.wanted.variables(), false);
        Ok(())
    }

    fn make_log_folder(&self) -> anyhow::Result<()> {
        let logs = &self.wanted.place.logs;
        if logs.is_dir() {
            return Ok(());
        }
        println!("{} the folder {}", if self.launchctl.dry_run { "would make" } else { "make" }, logs.display());
        match self.launchctl.dry_run {
            true => Ok(()),
            false => fs::create_dir_all(logs).with_context(|| format!("{} cannot be made", logs.display())),
        }
    }

    fn install_one(&self, unit: &Unit, restart: bool) -> anyhow::Result<()> {
        let file = self.file(unit);
        let is_loaded = self.printed(unit).is_some();
        if file.is_current() && is_loaded {
            println!("{}: unchanged", unit.label());
            return match restart && unit.schedule.is_none() {
                true => self.launchctl.tell(&["kickstart", "-k", &self.target(unit)]),
                false => Ok(()),
            };
        }
        println!("{}:", unit.label());
        if !file.is_current() {
            println!("  {} {}", if self.launchctl.dry_run { "would write" } else { "write" }, file.path.display());
            if !self.launchctl.dry_run {
                file.write()?;
            }
        }
        if is_loaded {
            self.launchctl.tell(&["bootout", &self.target(unit)])?;
        }
        // One that was disabled by hand would be refused with an unhelpful number.
        self.launchctl.tell(&["enable", &self.target(unit)])?;
        self.bootstrap(&file.path)?;
        if unit.schedule.is_none() && unit.run_at_load {
            self.launchctl.tell(&["kickstart", &self.target(unit)])?;
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

    /// Jobs of services that servers.toml no longer has.
    fn tell_of_strays(&self) {
        let known: Vec<String> =
            self.wanted.config.services.iter().map(|service| format!("{LABEL_PREFIX}{}.plist", service.name)).collect();
        let Ok(files) = fs::read_dir(&self.folder) else { return };
        for name in files.flatten().map(|file| file.file_name().to_string_lossy().into_owned()) {
            if name.starts_with(LABEL_PREFIX) && name.ends_with(".plist") && !known.contains(&name) {
                println!(
                    "{name} is of no service in servers.toml any more: `launchctl bootout {}/{}` and remove it",
                    self.domain,
                    name.trim_end_matches(".plist")
                );
            }
        }
    }

    pub(super) fn uninstall(&self) -> anyhow::Result<ExitCode> {
        for unit in &self.wanted.units {
            let file = self.file(unit);
            let is_loaded = self.printed(unit).is_some();
            if !is_loaded && !file.path.exists() {
                println!("{}: not installed", unit.label());
                continue;
            }
            println!("{}:", unit.label());
            if is_loaded {
                self.launchctl.tell(&["bootout", &self.target(unit)])?;
            }
            if file.path.exists() {
                println!(
                    "  {} {}",
                    if self.launchctl.dry_run { "would remove" } else { "remove" },
                    file.path.display()
                );
                if !self.launchctl.dry_run {
                    units::back_up(&file.path)?;
                    fs::remove_file(&file.path)
                        .with_context(|| format!("{} cannot be removed", file.path.display()))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn status(&self) -> anyhow::Result<ExitCode> {
        if !self.launchctl.is_there() {
            bail!("there is no launchctl here: launchd is the supervisor of macOS");
        }
        for unit in &self.wanted.units {
            let file = self.file(unit);
            let installed = match file.installed() {
                None => "not installed",
                Some(text) if text == file.text => "installed",
                Some(_) => "installed, differs from servers.toml",
            };
            let state = self
                .printed(unit)
                .map_or_else(|| "not loaded".to_owned(), |printed| Printed::of(&printed).in_words(unit));
            println!("{:<32} {installed}; {state}", unit.label());
        }
        Ok(ExitCode::SUCCESS)
    }
}
