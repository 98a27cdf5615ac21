//! One `serve` per state folder.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Held for the life of the gateway; the system gives it back however that ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("a gateway is running already for {}: process {pid}", folder.display())]
    Held { folder: PathBuf, pid: String },
    #[error("the state folder {} cannot be used: {source}", folder.display())]
    Io { folder: PathBuf, source: std::io::Error },
}

impl StateLock {
    /// Makes the folder, for its owner only, and takes its lock.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { folder: folder.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(io)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join("lock"))
            .map_err(io)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(LockError::Held { folder: folder.to_owned(), pid: pid.trim().to_owned() });
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(StateLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        let lock = StateLock::take(&state).expect("the first");
        let error = StateLock::take(&state).expect_err("the second").to_string();
        assert!(error.ends_with(&format!("process {}", std::process::id())), "{error}");
        drop(lock);
        assert!(StateLock::take(&state).is_ok());
        assert_eq!(std::fs::metadata(&state).expect("made").permissions().mode() & 0o777, 0o700);
    }
}
