//! Units put in place and started. What is there already, unchanged, is left alone; what was
//! begun once and not finished is finished.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};

use super::installed::Units;
use crate::{
    command::units::{
        UNFINISHED, Wishes,
        file::{UnitFile, is_there, name_of},
        left::Of,
        own_name,
    },
    say::{note, say},
    unit::{Unit, systemd},
};

/// A unit whose files are in place.
struct Placed<'a> {
    unit: &'a Unit,
    /// Whether systemd goes by something else than by what is in the files now.
    has_changed: bool,
    is_enabled: bool,
    is_active: bool,
}

impl Units {
    pub(super) fn install(&self, wishes: Wishes) -> anyhow::Result<ExitCode> {
        self.refuse_what_cannot_work()?;
        self.changes.make_folder(&self.folder, None)?;
        if !self.systemctl.dry_run {
            self.wanted.note_first_seen();
        }
        let mut failed = false;
        let mut of_each = |name: &str, error: anyhow::Error| {
            // The others can still be had.
            note!("seawall: {name}: {error:#}");
            failed = true;
        };
        let mut placed = Vec::new();
        for unit in &self.wanted.units {
            match self.place(unit, wishes) {
                Ok(one) => placed.push(one),
                Err(error) => of_each(&unit.name, error),
            }
        }
        if placed.iter().any(|one| one.has_changed) || !self.orphans().is_empty() {
            self.tell(&["daemon-reload"]).context("nothing was started; the next install goes on from here")?;
            self.orphans().iter().try_for_each(|mark| self.changes.finished(mark))?;
        }
        for one in placed {
            if let Err(error) = self.start(&one, wishes) {
                of_each(&one.unit.name, error);
            }
        }
        for left in self.left().iter().filter(|left| left.of == Of::This) {
            let name = &left.name;
            say!("seawall-{name}: no longer in servers.toml; `seawall systemd uninstall {name}` removes it")?;
        }
        self.tell_of_lingering()?;
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn place<'a>(&self, unit: &'a Unit, wishes: Wishes) -> anyhow::Result<Placed<'a>> {
        let (name, mark) = (systemd::starting_unit(unit), self.mark(&unit.name));
        let is_enabled = self.ask(&["is-enabled", &name]).is_some();
        let is_active = self.ask(&["is-active", &name]).is_some();
        let mut files = self.files(unit);
        for file in &files {
            let whose = self.whose(&file.path, &unit.name);
            if let Some(words) = whose.in_words().filter(|_| !wishes.foreign) {
                bail!(whose.left_alone(&file.path, &words, "install", &unit.name));
            }
        }
        files.retain(|file| !file.is_current());
        let spare = self.spare_timer_to_remove(unit, wishes)?;
        let is_unfinished = is_there(&mark);
        if is_unfinished {
            say!("{name}: {UNFINISHED}, {}", self.changes.and_now())?;
        }
        let is_stale = is_unfinished || self.is_stale(unit);
        if spare.is_some() || !files.is_empty() || is_stale {
            self.changes.begin(&mark)?;
        }
        let has_changed = is_stale || spare.is_some() || !files.is_empty();
        if let Some(timer) = spare {
            self.tell(&["disable", "--now", &name_of(&timer)])?;
            self.changes.remove(&timer)?;
        }
        for file in files {
            self.replace(&file)?;
        }
        Ok(Placed { unit, has_changed, is_enabled, is_active })
    }

    fn spare_timer_to_remove(&self, unit: &Unit, wishes: Wishes) -> anyhow::Result<Option<PathBuf>> {
        let Some(timer) = self.spare_timer(unit) else { return Ok(None) };
        let whose = self.whose(&timer, &unit.name);
        match whose.in_words().filter(|_| !wishes.foreign) {
            // It may well be meant to start this very service.
            Some(words) => {
                say!("{}", whose.left_alone(&timer, &words, "install", &unit.name))?;
                Ok(None)
            }
            None => Ok(Some(timer)),
        }
    }

    /// Whether systemd knows of files that have changed since it read them.
    fn is_stale(&self, unit: &Unit) -> bool {
        let names: Vec<String> = self.files(unit).iter().map(|file| name_of(&file.path)).collect();
        let words = ["show", "--property=NeedDaemonReload"].into_iter().chain(names.iter().map(String::as_str));
        let shown = self.ask(&words.collect::<Vec<_>>()).unwrap_or_default();
        shown.lines().any(|line| line == "NeedDaemonReload=yes")
    }

    fn replace(&self, file: &UnitFile) -> anyhow::Result<()> {
        let is_started_by_itself = |text: &str| text.contains("\n[Install]\n");
        let before = file.there().text();
        if before.is_some_and(|text| is_started_by_itself(&text)) && !is_started_by_itself(&file.text) {
            // It has a timer from now on, and would still start at every login.
            self.tell(&["disable", "--now", &name_of(&file.path)])?;
        }
        self.changes.write(file)
    }

    fn start(&self, placed: &Placed<'_>, wishes: Wishes) -> anyhow::Result<()> {
        let Placed { unit, has_changed, is_enabled, is_active } = placed;
        let (name, mark) = (systemd::starting_unit(unit), self.mark(&unit.name));
        let is_on = *is_enabled && *is_active;
        if is_on && !has_changed && !wishes.restart {
            return Ok(say!("{name}: unchanged")?);
        }
        self.changes.begin(&mark)?;
        if !is_on {
            self.tell(&["enable", "--now", &name])?;
        }
        if *is_active && (*has_changed || wishes.restart) {
            self.tell(&["restart", &name])?;
        }
        self.changes.finished(&mark)
    }

    /// Marks of units whose files are gone: systemd was not told of it.
    pub(super) fn orphans(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|file| file.path());
        let mut marks: Vec<PathBuf> = files
            .filter(|path| {
                let name = name_of(path);
                let name = name.strip_prefix("seawall-").and_then(|name| name.strip_suffix(".unfinished"));
                name.is_some_and(|name| !self.paths(name).iter().any(|path| is_there(path)))
            })
            .collect();
        marks.sort();
        marks
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
}
