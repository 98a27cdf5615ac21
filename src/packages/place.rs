//! Where an installation is: under a name of its own, made whole beside it and then
//! renamed, so that half of one is never run. One at a time installs, whoever it is, and
//! nobody removes what somebody uses.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::Read as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::request::{Manager, Request};
use crate::link::StartError;

/// Somebody else's installation is looked at so often.
const TURN_INTERVAL: Duration = Duration::from_millis(200);
const NOTE_MAX_BYTES: u64 = 64 << 10;
/// A lock file that somebody removed meanwhile is made anew so often.
const LOCK_TRIES_MAX: usize = 8;

pub(super) struct Place {
    folder: PathBuf,
    /// Digest of all that makes another installation.
    key: String,
}

/// What is run of an installation that is complete.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Note {
    #[serde(default)]
    pub(super) manager: Manager,
    pub(super) packages: Vec<String>,
    pub(super) bin: Option<String>,
    /// Below its folder.
    pub(super) file: PathBuf,
    /// For node or python, rather than for the system.
    pub(super) is_script: bool,
}

/// While this is there, nobody removes the installation. The system takes it away with
/// the process, however that ends.
pub(super) struct InUse {
    _lock: File,
}

impl Note {
    pub(super) fn of(request: &Request, file: PathBuf, is_script: bool) -> Self {
        let Request { manager, packages, bin, .. } = request.clone();
        Note { manager, packages, bin, file, is_script }
    }

    pub(super) fn is_of(&self, request: &Request) -> bool {
        (self.manager, &self.packages, &self.bin) == (request.manager, &request.packages, &request.bin)
    }
}

impl Place {
    pub(super) fn new(folder: &Path, made_of: &str) -> Self {
        Place::named(folder, &crate::text::digest(made_of))
    }

    pub(super) fn named(folder: &Path, key: &str) -> Self {
        Place { folder: folder.to_owned(), key: key.to_owned() }
    }

    /// The whole installation.
    pub(super) fn done(&self) -> PathBuf {
        self.folder.join(&self.key)
    }

    pub(super) fn beside(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", self.key))
    }

    /// What was installed for this request, if it is whole.
    pub(super) fn note(&self, request: &Request) -> Option<Note> {
        let note = self.any_note()?;
        // The key is a short one.
        (note.is_of(request) && self.done().join(&note.file).is_file()).then_some(note)
    }

    pub(super) fn any_note(&self) -> Option<Note> {
        serde_json::from_str(&read(&self.beside("json"), NOTE_MAX_BYTES)?).ok()
    }

    /// Nobody else installs here while the file is open.
    pub(super) async fn hold(&self, wait: Duration) -> Result<File, StartError> {
        self.lock("lock", FlockOperation::NonBlockingLockExclusive, wait).await
    }

    /// Used from now on, and by this time at least.
    pub(super) async fn use_it(&self, wait: Duration) -> Result<InUse, StartError> {
        let lock = self.lock("used", FlockOperation::NonBlockingLockShared, wait).await?;
        lock.set_modified(SystemTime::now()).map_err(|error| self.failed(error))?;
        Ok(InUse { _lock: lock })
    }

    async fn lock(&self, ending: &str, how: FlockOperation, wait: Duration) -> Result<File, StartError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|error| self.failed(error))?;
        let until = Instant::now() + wait;
        let mut is_told = false;
        loop {
            if let Some(file) = self.try_lock(ending, how).map_err(|error| self.failed(error))? {
                return Ok(file);
            }
            if Instant::now() >= until {
                return Err(StartError::Transient("another seawall installs its package, and does not end".to_owned()));
            }
            if !std::mem::replace(&mut is_told, true) {
                tracing::info!("another seawall is at {}: waiting for it", self.done().display());
            }
            sleep(TURN_INTERVAL).await;
        }
    }

    /// `None` while somebody else has it.
    pub(super) fn try_lock(&self, ending: &str, how: FlockOperation) -> std::io::Result<Option<File>> {
        let path = self.beside(ending);
        for _ in 0..LOCK_TRIES_MAX {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            match flock(&file, how) {
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                locked => locked?,
            }
            // Whoever tidies up removes the file while he has it: a lock on what has no
            // name any more keeps nobody out.
            let (own, there) = (file.metadata()?, std::fs::metadata(&path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
                return Ok(Some(file));
            }
        }
        Ok(None)
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

    /// What was begun comes to nothing.
    pub(super) async fn discard(&self) {
        let staging = self.beside("part");
        if let Err(error) = tokio::fs::remove_dir_all(&staging).await {
            tracing::warn!("what was left of an installation stays in {}: {error}", staging.display());
        }
    }

    /// Whether a seawall has made it: its name is a digest, and its lock was there before
    /// anything else of it.
    pub(super) fn is_own(&self) -> bool {
        crate::text::is_digest(&self.key) && self.beside("lock").symlink_metadata().is_ok_and(|lock| lock.is_file())
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
