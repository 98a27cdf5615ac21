//! Writing one file: as a whole, or at its end.
//!
//! A whole file is written beside its place and moved there, so that nobody ever
//! sees half of it, and so that a link in its place is replaced and not followed.

use std::{
    ffi::OsStr,
    fs::File,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path},
};

use rmcp::schemars::{self, JsonSchema};
use rustix::{
    fs::{AtFlags, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat},
    io::Errno,
};
use serde::Serialize;

use super::{list::Kind, roots::Place};
use crate::{id::Id, text};

pub(super) const CONTENT_BYTES_MAX: usize = 10 * 1024 * 1024;
const NEW_FILE: Mode = Mode::from_raw_mode(0o666);
const NEW_DIRECTORY: Mode = Mode::from_raw_mode(0o777);

#[derive(Serialize, JsonSchema)]
pub(super) struct Written {
    path: String,
    /// What was written by this call.
    bytes: usize,
    /// The file was not there before.
    created: bool,
}

/// Replaces the file, or makes it.
pub(super) fn whole(place: &Place<'_>, content: &str, create_directories: bool) -> Result<Written, String> {
    within_bounds(place, content)?;
    if create_directories {
        make_parents(place)?;
    }
    let (dir, name) = place.root.parent_of(&place.relative).map_err(|errno| place.refusal(errno))?;
    let replaced = replaceable(place, &dir, name)?;
    let unfinished = Unfinished::create(&dir).map_err(|errno| place.refusal(errno))?;
    unfinished.fill(content, replaced).map_err(|error| place.failed(&error))?;
    unfinished.move_to(name).map_err(|errno| place.refusal(errno))?;
    Ok(Written { path: place.shown.clone(), bytes: content.len(), created: replaced.is_none() })
}

/// Adds to the end of the file, or makes it.
pub(super) fn at_end(place: &Place<'_>, content: &str) -> Result<Written, String> {
    within_bounds(place, content)?;
    // Not to be opened before it is known to be a file: a pipe waits for its reader.
    let (dir, name) = place.root.parent_of(&place.relative).map_err(|errno| place.refusal(errno))?;
    let created = replaceable(place, &dir, name)?.is_none();
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(&dir, name, flags, NEW_FILE).map_err(|errno| place.refusal(errno))?;
    File::from(file).write_all(content.as_bytes()).map_err(|error| place.failed(&error))?;
    Ok(Written { path: place.shown.clone(), bytes: content.len(), created })
}

fn within_bounds(place: &Place<'_>, content: &str) -> Result<(), String> {
    if content.len() <= CONTENT_BYTES_MAX {
        return Ok(());
    }
    let (size, max) = (text::bytes(content.len() as u64), text::bytes(CONTENT_BYTES_MAX as u64));
    Err(place.says(&format!("was to get {size}, and one call writes at most {max}")))
}

/// The mode of the file that is there, and may be written; `None` if there is none.
fn replaceable(place: &Place<'_>, dir: &OwnedFd, name: &OsStr) -> Result<Option<Mode>, String> {
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(place.refusal(errno)),
    };
    match Kind::of(&stat) {
        Kind::File => {}
        Kind::Directory => return Err(place.refusal(Errno::ISDIR)),
        Kind::Symlink => return Err(place.refusal(Errno::LOOP)),
        Kind::Other => return Err(place.says("is no regular file")),
    }
    // Moving another file into its place would pass over a write protection.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty()).map_err(|errno| place.refusal(errno))?;
    Ok(Some(Mode::from_raw_mode(stat.st_mode & 0o777)))
}

fn make_parents(place: &Place<'_>) -> Result<(), String> {
    let mut made = std::path::PathBuf::new();
    for component in place.relative.parent().unwrap_or(Path::new("")).components() {
        let Component::Normal(name) = component else { continue };
        let made_so_far = place.root.open_at(&made, super::confine::WALKED, Mode::empty());
        let result = made_so_far.and_then(|dir| match mkdirat(dir, name, NEW_DIRECTORY) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        });
        result.map_err(|errno| place.refusal(errno))?;
        made.push(name);
    }
    Ok(())
}

/// A file beside the one to be written; removed unless it is moved into place.
struct Unfinished<'a> {
    dir: &'a OwnedFd,
    name: String,
    file: File,
    moved: bool,
}

impl<'a> Unfinished<'a> {
    fn create(dir: &'a OwnedFd) -> Result<Self, Errno> {
        let name = format!(".seawall-{}.tmp", Id::now());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(dir.as_fd(), &name, flags, NEW_FILE)?;
        Ok(Unfinished { dir, name, file: file.into(), moved: false })
    }

    fn fill(&self, content: &str, mode: Option<Mode>) -> std::io::Result<()> {
        let mut file = &self.file;
        file.write_all(content.as_bytes())?;
        if let Some(mode) = mode {
            rustix::fs::fchmod(&self.file, mode)?;
        }
        file.sync_data()
    }

    fn move_to(mut self, name: &OsStr) -> Result<(), Errno> {
        renameat(self.dir, &self.name, self.dir, name)?;
        self.moved = true;
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.moved {
            // Nothing else can be done about it.
            let _ = unlinkat(self.dir, &self.name, AtFlags::empty());
        }
    }
}
