//! Jobs stopped and removed: those of this servers.toml, and no others unasked.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::anyhow;

use super::jobs::Jobs;
use crate::{
    command::units::{
        file::is_there,
        left::{self, Of},
        whose::Whose,
    },
    say::{note, say},
    unit::LABEL_PREFIX,
};

impl Jobs {
    pub(super) fn uninstall(&self, foreign: bool) -> anyhow::Result<ExitCode> {
        let mut jobs: Vec<(String, PathBuf, Whose)> = Vec::new();
        for left in left::meant(self.left(), &self.wanted)? {
            let whose = match &left.of {
                Of::Another(config) => Whose::Another(config.clone()),
                // Nothing here has its name, so that whoever names it means it.
                Of::This | Of::Gone(_) => Whose::Ours,
            };
            jobs.push((left.name.clone(), self.path_of(&left), whose));
        }
        for unit in &self.wanted.units {
            let path = self.file(unit).path;
            let whose = self.whose(&unit.name, &path, self.printed(&unit.label()).as_deref());
            jobs.push((unit.name.clone(), path, whose));
        }
        let mut failed = false;
        for (name, path, whose) in jobs {
            let label = format!("{LABEL_PREFIX}{name}");
            let words = whose.in_words().filter(|_| !foreign);
            let refused = words.map(|words| whose.left_alone(&path, &words, "uninstall", &name));
            let done = match refused {
                Some(why) if self.wanted.is_all => Ok(say!("{label}: {why}")?),
                Some(why) => Err(anyhow!(why)),
                None => self.uninstall_one(&label, &path),
            };
            if let Err(error) = done {
                // The others can still go.
                note!("seawall: {label}: {error:#}");
                failed = true;
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn uninstall_one(&self, label: &str, path: &Path) -> anyhow::Result<()> {
        let is_loaded = self.printed(label).is_some();
        if !is_loaded && !is_there(path) {
            say!("{label}: not installed")?;
            return self.changes.finished(&Jobs::mark(path));
        }
        say!("{label}:")?;
        if is_loaded {
            self.boot_out(label)?;
        }
        if is_there(path) {
            self.changes.remove(path)?;
        }
        self.changes.finished(&Jobs::mark(path))
    }
}
