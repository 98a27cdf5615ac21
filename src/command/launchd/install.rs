//! Jobs put in place and started. What is there already, unchanged, is left alone; what was
//! begun once and not finished is finished.

use std::{path::Path, process::ExitCode, thread, time::Duration};

use anyhow::bail;

use super::{given, jobs::Jobs, lint};
use crate::{
    command::units::{UNFINISHED, Wishes, file::is_there, left::Of, print_findings},
    say::{note, say},
    unit::{LABEL_PREFIX, Scope, Unit, launchd},
};

/// A job that is going away is still there for a moment.
const BOOTSTRAP_TRIES: u32 = 10;
const BOOTSTRAP_PAUSE: Duration = Duration::from_millis(500);

impl Jobs {
    pub(super) fn install(&self, wishes: Wishes) -> anyhow::Result<ExitCode> {
        self.refuse_what_cannot_work()?;
        self.changes.make_folder(&self.folder, None)?;
        let owner = match &self.wanted.place.scope {
            Scope::Daemon { user } => Some(user.as_str()),
            Scope::Agent => None,
        };
        self.changes.make_folder(&self.wanted.place.logs, owner)?;
        if !self.launchctl.dry_run {
            self.wanted.note_first_seen();
        }
        let mut failed = false;
        for unit in &self.wanted.units {
            if let Err(error) = self.install_one(unit, wishes) {
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

    fn install_one(&self, unit: &Unit, wishes: Wishes) -> anyhow::Result<()> {
        let (file, label) = (self.file(unit), unit.label());
        let (target, mark) = (self.target(&label), Jobs::mark(&file.path));
        let printed = self.printed(&label);
        let whose = self.whose(&unit.name, &file.path, printed.as_deref());
        if let Some(words) = whose.in_words().filter(|_| !wishes.foreign) {
            bail!(whose.left_alone(&file.path, &words, "install", &unit.name));
        }
        let (is_current, is_unfinished) = (file.is_current(), is_there(&mark));
        if is_current && printed.is_some() && !is_unfinished && whose.may_be_changed() {
            say!("{label}: unchanged")?;
            if wishes.restart && unit.schedule.is_none() {
                self.changes.begin(&mark)?;
                self.launchctl.tell(&["kickstart", "-k", &target])?;
                self.changes.finished(&mark)?;
            }
            return Ok(());
        }
        let why = match is_unfinished {
            true => format!(" {UNFINISHED}, {}", self.changes.and_now()),
            false => String::new(),
        };
        say!("{label}:{why}")?;
        self.changes.begin(&mark)?;
        if !is_current {
            self.changes.write(&file)?;
        }
        if printed.is_some() {
            self.boot_out(&label)?;
        }
        // One that was disabled by hand would be refused with an unhelpful number.
        self.launchctl.tell(&["enable", &target])?;
        self.bootstrap(&file.path)?;
        if unit.schedule.is_none() && unit.run_at_load {
            self.launchctl.tell(&["kickstart", &target])?;
        }
        self.changes.finished(&mark)
    }

    /// launchctl also fails where a job merely takes its time to go.
    pub(super) fn boot_out(&self, label: &str) -> anyhow::Result<()> {
        let told = self.launchctl.tell(&["bootout", &self.target(label)]);
        told.or_else(|error| if self.printed(label).is_none() { Ok(()) } else { Err(error) })
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
}
