//! Units stopped and removed: those of this servers.toml, and no others unasked.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, anyhow};

use super::installed::Units;
use crate::{
    command::units::{
        file::{is_there, name_of},
        left::{self, Of},
        whose::Whose,
    },
    say::{note, say},
};

/// What may be removed although it is not of this servers.toml.
#[derive(Clone, Copy)]
struct Accepted {
    foreign: bool,
    gone: bool,
}

impl Accepted {
    fn has(self, whose: &Whose) -> bool {
        self.foreign || whose.may_be_changed() || self.gone && matches!(whose, Whose::Gone(_))
    }
}

impl Units {
    pub(super) fn uninstall(&self, foreign: bool) -> anyhow::Result<ExitCode> {
        // Nothing here has the name of one whose servers.toml is gone: whoever names it means it.
        let left = left::meant(self.left(), &self.wanted)?;
        let left = left.iter().map(|left| (left.name.as_str(), matches!(left.of, Of::Gone(_))));
        let units = self.wanted.units.iter().map(|unit| (unit.name.as_str(), false));
        let mut failed = false;
        let mut of_each = |name: &str, error: anyhow::Error| {
            // The others can still go.
            note!("seawall: {name}: {error:#}");
            failed = true;
        };
        let mut removed = Vec::new();
        for (name, gone) in left.chain(units) {
            match self.uninstall_one(name, Accepted { foreign, gone }) {
                Ok(true) => removed.push(self.mark(name)),
                Ok(false) => {}
                Err(error) => of_each(name, error),
            }
        }
        removed.extend(self.orphans());
        if !removed.is_empty() {
            match self.tell(&["daemon-reload"]) {
                Ok(()) => removed.iter().try_for_each(|mark| self.changes.finished(mark))?,
                Err(error) => of_each("daemon-reload", error.context("systemd still has what was removed")),
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Whether anything was removed.
    fn uninstall_one(&self, name: &str, accepted: Accepted) -> anyhow::Result<bool> {
        // Whatever it was when it was installed.
        let there = self.paths(name).into_iter().filter(|path| is_there(path));
        let there: Vec<(PathBuf, Whose)> = there.map(|path| (path.clone(), self.whose(&path, name))).collect();
        if there.is_empty() {
            say!("{name}: not installed")?;
            return Ok(false);
        }
        let (ours, others): (Vec<_>, Vec<_>) = there.into_iter().partition(|(_, whose)| accepted.has(whose));
        let has_removed = !ours.is_empty();
        if has_removed {
            let paths: Vec<PathBuf> = ours.into_iter().map(|(path, _)| path).collect();
            self.remove(name, &paths)?;
        }
        for (path, whose) in &others {
            let words = whose.in_words().unwrap_or_default();
            let alone = whose.left_alone(path, &words, "uninstall", name);
            if !self.wanted.is_all {
                return Err(anyhow!(alone));
            }
            say!("{name}: {alone}")?;
        }
        Ok(has_removed)
    }

    fn remove(&self, name: &str, paths: &[PathBuf]) -> anyhow::Result<()> {
        let units: Vec<String> = paths.iter().map(|path| name_of(path)).collect();
        let words = ["disable", "--now"].into_iter().chain(units.iter().map(String::as_str));
        self.tell(&words.collect::<Vec<_>>()).context("nothing of it was removed")?;
        self.changes.begin(&self.mark(name))?;
        paths.iter().try_for_each(|path| self.changes.remove(path))
    }
}
