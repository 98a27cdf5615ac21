//! The files of units: what they are to say, and what is found in their place. Changes none.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::read::{Unreadable, read};

/// One file that a unit is written to.
#[derive(Clone, Debug)]
pub(in crate::command) struct UnitFile {
    pub(in crate::command) path: PathBuf,
    pub(in crate::command) text: String,
}

/// What is found in the place of a unit's file.
#[derive(Debug)]
pub(in crate::command) enum There {
    Nothing,
    /// A regular file, or a link to one.
    Bytes(Vec<u8>),
    /// Something that is no such file.
    Odd(Unreadable),
}

impl There {
    pub(in crate::command) fn at(path: &Path) -> Self {
        match read(path) {
            Ok(bytes) => There::Bytes(bytes),
            Err(Unreadable::Io(error)) if error.kind() == io::ErrorKind::NotFound => There::Nothing,
            Err(error) => There::Odd(error),
        }
    }

    /// What it says, whatever form somebody has brought it into.
    pub(in crate::command) fn text(&self) -> Option<String> {
        match self {
            There::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }
}

impl UnitFile {
    pub(in crate::command) fn there(&self) -> There {
        There::at(&self.path)
    }

    pub(in crate::command) fn is_current(&self) -> bool {
        matches!(self.there(), There::Bytes(bytes) if bytes == self.text.as_bytes())
    }
}

/// Whether anything has the name, a link that leads nowhere too.
pub(in crate::command) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// A name beside a file's that no supervisor reads.
pub(in crate::command) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

pub(in crate::command) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
