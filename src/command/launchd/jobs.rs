//! The jobs of launchd on this machine: whose they are, compared and shown. Changes none.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;

use super::{LOGS, Printed};
use crate::{
    command::units::{
        Options, UNFINISHED, Wanted,
        changes::Changes,
        diff::diff,
        file::{There, UnitFile, is_there, with_ending},
        left::{self, Left},
        read::read,
        tool::Tool,
        whose::{Reads, Whose},
    },
    say::say,
    text,
    unit::{LABEL_PREFIX, Unit, launchd},
};

/// The jobs, the files they are in, and the launchd they are of.
pub(super) struct Jobs {
    pub(super) wanted: Wanted,
    pub(super) folder: PathBuf,
    pub(super) domain: String,
    pub(super) is_daemon: bool,
    pub(super) launchctl: Tool,
    pub(super) changes: Changes,
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
        let changes = Changes { dry_run: launchctl.dry_run };
        Jobs { wanted, folder, domain, is_daemon: options.daemon, launchctl, changes }
    }

    /// Where jobs of services that are gone are meant too.
    pub(super) fn or_left(options: &Options, config: Option<PathBuf>, launchctl: Tool) -> anyhow::Result<Self> {
        Ok(Jobs::new(options, options.wanted_or_left(config, LOGS)?, launchctl))
    }

    pub(super) fn file(&self, unit: &Unit) -> UnitFile {
        UnitFile { path: self.folder.join(launchd::file_name(unit)), text: launchd::plist(unit) }
    }

    pub(super) fn target(&self, label: &str) -> String {
        format!("{}/{label}", self.domain)
    }

    /// What launchd says of a job; `None` where it is not loaded.
    pub(super) fn printed(&self, label: &str) -> Option<String> {
        self.launchctl.ask(&["print", &self.target(label)])
    }

    pub(super) fn path_of(&self, left: &Left) -> PathBuf {
        self.folder.join(format!("{LABEL_PREFIX}{}.plist", left.name))
    }

    /// Jobs that are installed and that servers.toml has no service of.
    pub(super) fn left(&self) -> Vec<Left> {
        let Ok(files) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        paths.sort();
        let of = |path: &PathBuf| {
            let stem = path.file_name()?.to_str()?.strip_prefix(LABEL_PREFIX)?.strip_suffix(".plist")?;
            let installed = launchd::installed(&read(path).ok()?)?;
            (installed.name == stem).then(|| Left::of(installed, &self.wanted))?
        };
        paths.iter().filter_map(of).collect()
    }

    /// Whose a job is: by its file, and by the file that launchd has it from.
    pub(super) fn whose(&self, name: &str, path: &Path, printed: Option<&str>) -> Whose {
        let reads = |bytes: &[u8]| Reads { installed: launchd::installed(bytes), starts: launchd::starts(bytes) };
        let whose = Whose::of(&There::at(path), name, &self.wanted, reads);
        let from = printed.and_then(|printed| Printed::of(printed).path);
        match from.filter(|from| whose.may_be_changed() && !is_same_place(from, path)) {
            Some(from) => Whose::Foreign(format!("is loaded from {}", text::quote(&from.to_string_lossy(), 200))),
            None => whose,
        }
    }

    /// There from before the first step of a change until after its last.
    pub(super) fn mark(path: &Path) -> PathBuf {
        with_ending(path, ".unfinished")
    }

    pub(super) fn diff(&self) -> anyhow::Result<ExitCode> {
        let mut differ = false;
        for unit in &self.wanted.units {
            let (file, label) = (self.file(unit), unit.label());
            let whose = self.whose(&unit.name, &file.path, None).in_words();
            let head = whose.map_or(format!("{label}:"), |words| format!("{label}: installed, {words}"));
            match file.there() {
                There::Nothing => say!("{label}: not installed")?,
                There::Bytes(_) if file.is_current() && is_there(&Jobs::mark(&file.path)) => {
                    say!("{label}: installed, {UNFINISHED}")?;
                }
                There::Bytes(_) if file.is_current() => continue,
                there => {
                    let lines = there.text().map(|installed| text::harmless(&diff(&installed, &file.text)));
                    say!("{}", format!("{head}\n{}", lines.unwrap_or_default()).trim_end_matches('\n'))?;
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

    pub(super) fn status(&self) -> anyhow::Result<ExitCode> {
        if !self.launchctl.is_there() {
            bail!("there is no launchctl here: launchd is the supervisor of macOS");
        }
        let all = self.left();
        // Beside what is meant, a whole look shows what others have there.
        let left = left::meant(all.clone(), &self.wanted)?;
        let left = if self.wanted.is_all { all } else { left };
        for unit in &self.wanted.units {
            let (file, label) = (self.file(unit), unit.label());
            let printed = self.printed(&label);
            let whose = self.whose(&unit.name, &file.path, printed.as_deref());
            let installed = match whose.in_words() {
                Some(words) => format!("installed, {words}"),
                None if whose == Whose::Nobodys => "not installed".to_owned(),
                None if is_there(&Jobs::mark(&file.path)) => format!("installed, {UNFINISHED}"),
                None if file.is_current() => "installed".to_owned(),
                None => "installed, differs from servers.toml".to_owned(),
            };
            say!("{label:<32} {installed}; {}", state(printed.as_deref(), unit.schedule.is_some()))?;
        }
        for left in &left {
            let label = format!("{LABEL_PREFIX}{}", left.name);
            say!("{label:<32} installed, {}; {}", left.in_words(), state(self.printed(&label).as_deref(), false))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn state(printed: Option<&str>, is_scheduled: bool) -> String {
    printed.map_or_else(|| "not loaded".to_owned(), |printed| Printed::of(printed).in_words(is_scheduled))
}

/// Whatever links lead there: launchd names a place without them. What launchd has of a file
/// that is gone is of its place all the same.
fn is_same_place(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| Some((path.parent()?.canonicalize().ok()?, path.file_name()?.to_owned()));
    one == other || place(one).is_some_and(|one| place(other) == Some(one))
}
