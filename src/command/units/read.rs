//! Reads a file that somebody else may have put there. Only a regular file is read, and only
//! so much of it: a pipe may never have a writer, and a device never an end.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// A job of a thousand arguments is a twentieth of this.
const UNIT_MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(in crate::command) enum Unreadable {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is a link to {}, which is not there", .0.display())]
    Dangling(PathBuf),
    #[error("is {0}, and not a file")]
    NoFile(&'static str),
    #[error("is larger than {} KiB, which no job and no unit is", UNIT_MAX_BYTES >> 10)]
    TooLarge,
}

pub(in crate::command) fn read(path: &Path) -> Result<Vec<u8>, Unreadable> {
    only_files(&path.metadata().map_err(|error| missing(path, error))?)?;
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    // It may have become another one since.
    only_files(&file.metadata()?)?;
    whole(file)
}

/// A link that leads nowhere is there all the same, and "no such file" would deny it.
fn missing(path: &Path, error: io::Error) -> Unreadable {
    match path.read_link() {
        Ok(target) if error.kind() == io::ErrorKind::NotFound => Unreadable::Dangling(target),
        _ => Unreadable::Io(error),
    }
}

fn whole(file: File) -> Result<Vec<u8>, Unreadable> {
    let mut bytes = Vec::new();
    file.take(UNIT_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > UNIT_MAX_BYTES { Err(Unreadable::TooLarge) } else { Ok(bytes) }
}

fn only_files(metadata: &Metadata) -> Result<(), Unreadable> {
    let kind = metadata.file_type();
    Err(Unreadable::NoFile(match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }))
}
