//! One folder that is watched: whether it is there, and which paths are of it.

use std::{
    collections::BTreeSet,
    fs::Metadata,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::settings::FolderSettings;
use crate::store::watch::{Baseline, Stamp, shown};

pub(super) struct Folder {
    pub(super) settings: FolderSettings,
    /// Where it really is: the system may tell of it under that name.
    real: PathBuf,
    /// Device and inode, while it is there.
    id: Option<(u64, u64)>,
    /// What is known of it; `None` until it was looked at.
    pub(super) baseline: Option<Baseline>,
    /// Of it and what is below, what cannot be read: told once.
    pub(super) unreadable: BTreeSet<PathBuf>,
}

/// What became of it since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Same,
    Absent,
    Arrived,
    Left,
}

impl Folder {
    pub(super) fn new(settings: FolderSettings) -> Self {
        let real = settings.path.clone();
        Folder { settings, real, id: None, baseline: None, unreadable: BTreeSet::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.settings.path
    }

    pub(super) fn look(&mut self) -> Presence {
        let found = std::fs::metadata(self.path()).ok().filter(Metadata::is_dir);
        let id = found.map(|found| (found.dev(), found.ino()));
        let before = std::mem::replace(&mut self.id, id);
        match (before, id) {
            (None, None) => Presence::Absent,
            (Some(_), None) => Presence::Left,
            (before, id) if before == id => Presence::Same,
            (_, Some(_)) => {
                self.real = self.path().canonicalize().unwrap_or_else(|_| self.path().to_owned());
                Presence::Arrived
            }
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.id.is_some()
    }

    /// The path that the system speaks of, as one of this folder.
    pub(super) fn own(&self, told: &Path) -> Option<PathBuf> {
        if told.starts_with(self.path()) {
            return Some(told.to_owned());
        }
        told.strip_prefix(&self.real).ok().map(|rest| self.path().join(rest))
    }

    /// Whether a file at this path would be taken.
    pub(super) fn takes(&self, path: &Path) -> bool {
        self.relative(path).is_some_and(|rest| {
            let select = &self.settings.select;
            (self.settings.recursive || rest.components().count() == 1) && select.reaches(rest) && select.takes(rest)
        })
    }

    /// Whether a folder at this path would be looked into.
    pub(super) fn enters(&self, path: &Path) -> bool {
        path == self.path()
            || self.settings.recursive
                && self
                    .relative(path)
                    .is_some_and(|rest| self.settings.select.reaches(rest) && self.settings.select.enters(rest))
    }

    /// Whether a link leads to another place than up or around in the folder, where all
    /// is seen anyway: a folder that is watched under two names is told of under one.
    pub(super) fn leads_away(&self, link: &Path) -> bool {
        let Some(Ok(above)) = link.parent().map(Path::canonicalize) else { return false };
        link.canonicalize().is_ok_and(|target| !above.starts_with(&target) && !target.starts_with(&self.real))
    }

    pub(super) fn relative<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        path.strip_prefix(self.path()).ok().filter(|rest| !rest.as_os_str().is_empty())
    }

    /// What there is to know of a file: of the link itself, or of what it leads to.
    pub(super) fn file(&self, path: &Path) -> std::io::Result<Metadata> {
        if self.settings.follow_links { std::fs::metadata(path) } else { std::fs::symlink_metadata(path) }
    }

    pub(super) fn as_json(&self) -> Value {
        let state = match self.id {
            None => "missing",
            Some(_) if self.unreadable.contains(self.path()) => "unreadable",
            Some(_) => "watched",
        };
        json!({
            "path": shown(bytes(self.path())),
            "state": state,
            "unreadable": self.unreadable.len(),
        })
    }
}

pub(super) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

pub(super) fn stamp(found: &Metadata) -> Stamp {
    let mtime_ns = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
    Stamp { device: found.dev(), inode: found.ino(), size: found.size(), mtime_ns }
}

/// When content, name or rights of it changed last, as Unix milliseconds: no program
/// can set the latter back.
pub(super) fn touched_ms(found: &Metadata) -> i64 {
    let ms = |s: i64, ns: i64| s.saturating_mul(1000).saturating_add(ns / 1_000_000);
    ms(found.mtime(), found.mtime_nsec()).max(ms(found.ctime(), found.ctime_nsec()))
}

/// When it came to be at its place, as Unix milliseconds, or later.
pub(super) fn arrived_ms(found: &Metadata) -> i64 {
    found.ctime().saturating_mul(1000).saturating_add(found.ctime_nsec() / 1_000_000)
}
