//! Changes to the files of units: each said before it is made, each file written whole, with
//! what was there kept beside it. What is not seawall's own is for the callers to leave
//! alone: [`super::whose`].

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{
    file::{UnitFile, name_of, with_ending},
    tool::Tool,
};
use crate::{
    id::unix_ms,
    say::{note, say},
};

/// How many of what a file once was stay beside it.
const BACKUPS_MAX: usize = 3;

/// What is done to the files, or would be.
#[derive(Clone, Copy, Debug)]
pub(in crate::command) struct Changes {
    pub(in crate::command) dry_run: bool,
}

impl Changes {
    fn say(self, verb: &str, what: impl std::fmt::Display) -> io::Result<()> {
        say!("  {}{verb} {what}", if self.dry_run { "would " } else { "" })
    }

    /// Of a change that was not finished.
    pub(in crate::command) fn and_now(self) -> &'static str {
        if self.dry_run { "and would be now" } else { "and is now" }
    }

    /// Puts the file in place whole. A link is replaced, never written through.
    pub(in crate::command) fn write(self, file: &UnitFile) -> anyhow::Result<()> {
        self.keep(&file.path)?;
        self.say("write", file.path.display())?;
        if !self.dry_run {
            put(&file.path, &file.text).with_context(|| format!("{} cannot be written", file.path.display()))?;
        }
        Ok(())
    }

    /// Removes a file of which a copy stays.
    pub(in crate::command) fn remove(self, path: &Path) -> anyhow::Result<()> {
        self.keep(path)?;
        self.say("remove", path.display())?;
        if self.dry_run {
            return Ok(());
        }
        match fs::remove_file(path) {
            // What cannot be copied was moved away.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{} cannot be removed", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Copies a file to a name that no supervisor reads, and lets the oldest copies go. A
    /// link, and what is no file, is moved there as it is.
    fn keep(self, path: &Path) -> anyhow::Result<()> {
        let Ok(metadata) = path.symlink_metadata() else { return Ok(()) };
        let beside = |suffix: String| with_ending(path, &format!(".backup-{suffix}"));
        if self.dry_run {
            self.say("keep what is there as", beside("TIME".to_owned()).display())?;
        } else {
            let backup = beside(unix_ms().to_string());
            self.say("keep what is there as", backup.display())?;
            let kept = if metadata.is_file() { fs::copy(path, &backup).map(drop) } else { fs::rename(path, &backup) };
            kept.with_context(|| format!("{} cannot be kept before it is changed", path.display()))?;
        }
        let mut backups = backups(path);
        let spare = (backups.len() + usize::from(self.dry_run)).saturating_sub(BACKUPS_MAX);
        for old in backups.drain(..spare) {
            self.say("remove", old.display())?;
            if !self.dry_run
                && let Err(error) = fs::remove_file(&old)
            {
                note!("seawall: {} cannot be removed: {error}", old.display());
            }
        }
        Ok(())
    }

    /// Notes that a unit is about to change: until [`Changes::finished`], what is in its file
    /// may not be what its supervisor goes by.
    pub(in crate::command) fn begin(self, mark: &Path) -> anyhow::Result<()> {
        if self.dry_run {
            return Ok(());
        }
        match OpenOptions::new().write(true).create_new(true).open(mark) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("{} cannot be written", mark.display()))
            }
            Err(_) => Ok(()),
            Ok(mut file) => {
                Ok(file.write_all(b"A change of this unit began and is not finished: install it again.\n")?)
            }
        }
    }

    pub(in crate::command) fn finished(self, mark: &Path) -> anyhow::Result<()> {
        if self.dry_run {
            return Ok(());
        }
        match fs::remove_file(mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{} cannot be removed", mark.display()))
            }
            _ => Ok(()),
        }
    }

    /// Makes a folder and what leads to it, all of `owner` where root makes them for somebody
    /// else: a daemon that may not write where its output goes is not started.
    pub(in crate::command) fn make_folder(self, folder: &Path, owner: Option<&str>) -> anyhow::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        self.say("make the folder", folder.display())?;
        if self.dry_run { Ok(()) } else { make_folder(folder, owner) }
    }
}

/// Written beside it, and moved over it: nobody ever reads half of it.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let half = path.with_extension("half-written");
    match fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&half)?;
    file.write_all(text.as_bytes())?;
    // As a umask would not have it.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.sync_all()?;
    fs::rename(&half, path)
}

/// What a file once was, the oldest first.
fn backups(path: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}.backup-", name_of(path));
    let files = path.parent().and_then(|folder| fs::read_dir(folder).ok());
    let made = |file: fs::DirEntry| {
        Some((file.file_name().to_str()?.strip_prefix(&prefix)?.parse::<u64>().ok()?, file.path()))
    };
    let mut found: Vec<(u64, PathBuf)> = files.into_iter().flatten().flatten().filter_map(made).collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

fn make_folder(folder: &Path, owner: Option<&str>) -> anyhow::Result<()> {
    let made: Vec<&Path> = folder.ancestors().take_while(|part| !part.exists()).collect();
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let Some(owner) = owner.filter(|_| rustix::process::getuid().is_root()) else { return Ok(()) };
    let id = Tool { program: "id".to_owned(), dry_run: false };
    let number = |flag| id.ask(&[flag, owner]).and_then(|said| said.trim().parse::<u32>().ok());
    let (uid, gid) = (number("-u"), number("-g"));
    for part in made {
        if uid.is_none() || chown(part, uid, gid).is_err() {
            note!("seawall: {} cannot be given to {owner}, who has to write there", part.display());
        }
    }
    Ok(())
}
