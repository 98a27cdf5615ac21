//! Where an installation is: under a name of its own, made whole beside it and then
//! renamed, so that half of one is never run. One at a time, whoever it is.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::Read as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::request::Request;
use crate::link::StartError;

/// Somebody else's installation is looked at so often.
const TURN_INTERVAL: Duration = Duration::from_millis(200);
const NOTE_MAX_BYTES: u64 = 64 << 10;

pub(super) struct Place {
    folder: PathBuf,
    /// Digest of all that makes another installation.
    key: String,
}

/// What is run of an installation that is complete.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) packages: Vec<String>,
    pub(super) bin: Option<String>,
    /// Below its folder.
    pub(super) file: PathBuf,
    /// For node, rather than for the system.
    pub(super) is_script: bool,
}

impl Place {
    pub(super) fn new(folder: &Path, made_of: &str) -> Self {
        Place { folder: folder.to_owned(), key: crate::text::digest(made_of) }
    }

    /// The whole installation.
    pub(super) fn done(&self) -> PathBuf {
        self.folder.join(&self.key)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", self.key))
    }

    /// What was installed for this request, if it is whole.
    pub(super) fn note(&self, request: &Request) -> Option<Note> {
        let note: Note = serde_json::from_str(&read(&self.beside("json"), NOTE_MAX_BYTES)?).ok()?;
        // The key is a short one.
        let is_it = note.packages == request.packages && note.bin == request.bin;
        (is_it && self.done().join(&note.file).is_file()).then_some(note)
    }

    /// Nobody else installs here while the file is open.
    pub(super) async fn hold(&self, wait: Duration) -> Result<File, StartError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|error| self.failed(error))?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.beside("lock")).map_err(|error| self.failed(error))?;
        let until = Instant::now() + wait;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() >= until {
                return Err(StartError::Transient("another seawall installs its package, and does not end".to_owned()));
            }
            sleep(TURN_INTERVAL).await;
        }
        Ok(file)
    }

    /// An empty folder to install into; what was left here by somebody who did not get
    /// to the end is removed.
    pub(super) async fn clear(&self) -> Result<PathBuf, StartError> {
        let staging = self.beside("part");
        for old in [&staging, &self.done()] {
            match tokio::fs::remove_dir_all(old).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(self.failed(error)),
                _ => {}
            }
        }
        // Whoever serves it may be somebody else than who made it.
        DirBuilder::new().mode(0o755).create(&staging).map_err(|error| self.failed(error))?;
        Ok(staging)
    }

    /// It is complete.
    pub(super) fn keep(&self, note: &Note) -> std::io::Result<()> {
        std::fs::rename(self.beside("part"), self.done())?;
        let written = self.beside("json.part");
        std::fs::write(&written, serde_json::to_vec(note)?)?;
        std::fs::rename(written, self.beside("json"))
    }

    pub(super) fn failed(&self, error: std::io::Error) -> StartError {
        StartError::Transient(format!("its package cannot be installed into {}: {error}", self.folder.display()))
    }
}

/// A text file of at most so many bytes.
pub(super) fn read(path: &Path, max_bytes: u64) -> Option<String> {
    let mut text = String::new();
    let read = File::open(path).ok()?.take(max_bytes + 1).read_to_string(&mut text).ok()?;
    (u64::try_from(read).ok()? <= max_bytes).then_some(text)
}
