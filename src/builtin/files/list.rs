//! What is in a directory, and what one thing in it is.

use std::{
    ffi::{CStr, OsStr},
    os::{fd::AsFd, unix::ffi::OsStrExt},
};

use jiff::Timestamp;
use rmcp::schemars::{self, JsonSchema};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, RawMode, Stat, statat},
    io::Errno,
};
use serde::Serialize;

use super::roots::{Place, Roots};

const ENTRIES_MAX: usize = 1000;
/// Entries that are read to find the first ones by name.
pub(super) const ENTRIES_READ_MAX: usize = 100_000;

#[derive(Serialize, JsonSchema)]
pub(super) struct Listing {
    path: String,
    /// Sorted by name.
    entries: Vec<Entry>,
    /// Entries that are not shown because there are too many.
    left_out: usize,
}

#[derive(Serialize, JsonSchema)]
struct Entry {
    name: String,
    kind: Kind,
    /// Of files only.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Other,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct About {
    path: String,
    kind: Kind,
    bytes: u64,
    /// When its content last changed.
    modified: Option<String>,
    /// Permissions in octal, such as 644.
    mode: String,
}

/// The names of the directories, which is what there is above them.
pub(super) fn names(names: Vec<String>) -> Listing {
    let entries = names.into_iter().map(|name| Entry { name, kind: Kind::Directory, bytes: None }).collect();
    Listing { path: ".".to_owned(), entries, left_out: 0 }
}

pub(super) fn directory(place: &Place<'_>) -> Result<Listing, String> {
    let dir = place.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names = names_in(&dir).map_err(|errno| place.refusal(errno))?;
    let left_out = names.len().saturating_sub(ENTRIES_MAX);
    names.truncate(ENTRIES_MAX);
    // What vanished since it was read is not there.
    let entries = names.iter().filter_map(|name| entry(&dir, name).ok()).collect();
    Ok(Listing { path: place.shown.clone(), entries, left_out })
}

fn entry(dir: impl AsFd, name: &CStr) -> Result<Entry, Errno> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = Kind::of(&stat);
    let bytes = (kind == Kind::File).then(|| size(&stat));
    Ok(Entry { name: shown(name), kind, bytes })
}

/// The names in a directory, sorted; of a huge one, the first that were read.
pub(super) fn names_in(dir: impl AsFd) -> Result<Vec<std::ffi::CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)?.take(ENTRIES_READ_MAX) {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

pub(super) fn shown(name: &CStr) -> String {
    OsStr::from_bytes(name.to_bytes()).to_string_lossy().into_owned()
}

pub(super) fn about(place: &Place<'_>) -> Result<About, String> {
    let stat = if place.relative.as_os_str().is_empty() {
        place
            .root
            .open_at(&place.relative, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .and_then(rustix::fs::fstat)
    } else {
        // The thing itself and not what it points to: a link may point outside.
        let parent = place.root.parent_of(&place.relative);
        parent.and_then(|(dir, name)| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))
    };
    let stat = stat.map_err(|errno| place.refusal(errno))?;
    let modified = Timestamp::from_second(stat.st_mtime).ok().map(|time| time.to_string());
    Ok(About {
        path: place.shown.clone(),
        kind: Kind::of(&stat),
        bytes: size(&stat),
        modified,
        mode: format!("{:03o}", stat.st_mode & 0o7777),
    })
}

impl Kind {
    pub(super) fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(RawMode::from(stat.st_mode)) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            _ => Kind::Other,
        }
    }
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// The names of several directories, where `path` means the place above them.
pub(super) fn above(roots: &Roots, path: &str) -> Option<Vec<String>> {
    let above = matches!(path, "" | "." | "./");
    above.then(|| roots.names()).flatten()
}
