//! Walking through a folder: every file that is meant, each subfolder once, and no
//! way out through a link. One file at a time, so that a folder of any size fits.

use std::{
    collections::HashSet,
    fs::{self, DirEntry, Metadata, ReadDir},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{eyes::Eyes, folder::Folder};

/// More subfolders than this are left out, and it is said once.
const FOLDERS_MAX: usize = 100_000;
const DEPTH_MAX: usize = 128;

/// A walk under way, and at its end how it went.
#[derive(Debug)]
pub(super) struct Walk {
    from: PathBuf,
    to_visit: Vec<(PathBuf, usize)>,
    visited: HashSet<(u64, u64)>,
    reading: Option<(ReadDir, usize)>,
    pub(super) unreadable: Vec<PathBuf>,
    /// Subfolders beyond the bounds.
    pub(super) left_out: usize,
}

impl Walk {
    /// Everything below `from`, which is a watched folder or in one.
    pub(super) fn new(from: &Path) -> Self {
        Walk {
            from: from.to_owned(),
            to_visit: vec![(from.to_owned(), 0)],
            visited: HashSet::new(),
            reading: None,
            unreadable: Vec::new(),
            left_out: 0,
        }
    }

    pub(super) fn from(&self) -> &Path {
        &self.from
    }

    /// The next file that is meant.
    pub(super) fn next(&mut self, folder: &Folder, eyes: &mut Eyes) -> Option<(PathBuf, Metadata)> {
        loop {
            while let Some((entries, depth)) = &mut self.reading {
                let depth = *depth;
                match entries.next() {
                    None => self.reading = None,
                    Some(Ok(entry)) => match look(folder, &entry) {
                        Some((path, found)) if found.is_dir() => self.to_visit.push((path, depth + 1)),
                        Some(file) => return Some(file),
                        None => {}
                    },
                    Some(Err(_)) => {}
                }
            }
            let (path, depth) = self.to_visit.pop()?;
            self.enter(folder, eyes, path, depth);
        }
    }

    /// Watched before it is read, so that nothing appears in between.
    fn enter(&mut self, folder: &Folder, eyes: &mut Eyes, path: PathBuf, depth: usize) {
        if self.visited.len() >= FOLDERS_MAX || depth > DEPTH_MAX {
            self.left_out += 1;
            return;
        }
        let read = fs::metadata(&path).and_then(|found| {
            // Where links are followed, several may lead to the same.
            if !self.visited.insert((found.dev(), found.ino())) {
                return Ok(None);
            }
            eyes.watch(&path, path == folder.path(), folder.settings.recursive);
            fs::read_dir(&path).map(Some)
        });
        match read {
            Ok(entries) => self.reading = entries.map(|entries| (entries, depth)),
            Err(error) if is_gone(&error) => {}
            Err(_) => self.unreadable.push(path),
        }
    }
}

/// A file or a subfolder that is meant.
fn look(folder: &Folder, entry: &DirEntry) -> Option<(PathBuf, Metadata)> {
    let path = entry.path();
    let kind = entry.file_type().ok()?;
    if kind.is_symlink() && !folder.settings.follow_links {
        return None;
    }
    let rest = folder.relative(&path)?;
    let select = &folder.settings.select;
    // Its name first: most of what is not meant need not be asked about.
    let enters = folder.settings.recursive && select.enters(rest);
    if kind.is_dir() && !enters || kind.is_file() && !select.takes(rest) {
        return None;
    }
    let found = folder.file(&path).ok()?;
    let is_meant = match found.is_dir() {
        true => enters && (!kind.is_symlink() || folder.leads_away(&path)),
        false => found.is_file() && select.takes(rest),
    };
    is_meant.then_some((path, found))
}

/// Whether nothing is at a path, as opposed to something that cannot be looked at.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
