//! The steps that are seawall's own, each done in a process of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Now, What, digest};
use crate::say::say;
use crate::store::{
    ReadError,
    upkeep::{self, Kept, UpkeepError},
};

/// Why one of them failed.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepFailed {
    #[error(transparent)]
    Upkeep(#[from] UpkeepError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("a command is no step of seawall's own")]
    Command,
}

/// Does it, with the databases that there are; `store` is the one of failures. What was
/// done is said on stdout. All databases are gone through, and the first failure is told.
pub fn perform(what: &What, databases: &[Kept], store: &Path, now: &Now) -> Result<(), UpkeepFailed> {
    // One that no service has made yet is nothing to look after.
    let there = databases.iter().filter(|kept| kept.path().exists());
    match what {
        What::Command(_) => Err(UpkeepFailed::Command),
        What::Retention => each(there, |kept| Ok(kept.retain()?)),
        What::Check => each(there, |kept| {
            upkeep::check(kept.path())?;
            told(say!("{} is whole", kept.path().display()));
            Ok(())
        }),
        What::Backup { to, keep } => each(there, |kept| back_up(kept.path(), to, *keep, now)),
        What::Digest { to, keep, since } => {
            let text = digest::write(store, *since, now)?;
            let path = to.join(format!("digest-{}.md", now.stamp()));
            put(&path, &text).map_err(|source| UpkeepFailed::Io { path: path.clone(), source })?;
            told(say!("{}", path.display()));
            prune(to, "digest", "md", *keep)
        }
    }
}

/// What is done stays done where nobody can be told.
fn told(_: io::Result<()>) {}

fn each<'k>(
    databases: impl Iterator<Item = &'k Kept>,
    work: impl Fn(&Kept) -> Result<(), UpkeepFailed>,
) -> Result<(), UpkeepFailed> {
    let outcomes: Vec<_> = databases.map(work).collect();
    outcomes.into_iter().collect()
}

fn back_up(path: &Path, to: &Path, keep: u32, now: &Now) -> Result<(), UpkeepFailed> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let copy = upkeep::back_up(path, to, &format!("{stem}-{}.db", now.stamp()))?;
    told(say!("{}", copy.display()));
    prune(to, &stem, "db", keep)
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    use std::{
        io::Write as _,
        os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    };
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let half = path.with_extension("half-written");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(half, path)
}

/// Removes the oldest of `STEM-YYYYMMDD-HHMMSS.EXTENSION`, so that `keep` are left; no
/// other file is touched.
fn prune(folder: &Path, stem: &str, extension: &str, keep: u32) -> Result<(), UpkeepFailed> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| UpkeepFailed::Io { path, source }
    };
    let mut ours: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(io(folder))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_ours(path, stem, extension))
        .collect();
    // By name is by time.
    ours.sort();
    let surplus = ours.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    ours.iter().take(surplus).try_for_each(|path| fs::remove_file(path).map_err(io(path)))
}

fn is_ours(path: &Path, stem: &str, extension: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stamp = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-'));
    let stamp = stamp.and_then(|rest| rest.strip_suffix(extension)).and_then(|rest| rest.strip_suffix('.'));
    stamp.is_some_and(|stamp| {
        stamp.len() == 15 && stamp.bytes().enumerate().all(|(i, b)| if i == 8 { b == b'-' } else { b.is_ascii_digit() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_oldest_of_the_same_name_go() {
        let folder = tempfile::tempdir().expect("folder");
        let keep =
            ["seawall-2026.db", "emit-20200101-000000.db", "seawall-20200101-000000.db.gz", "seawall-x.db", "notes"];
        let ours = ["seawall-20200101-000000.db", "seawall-20260101-000000.db", "seawall-20251231-235959.db"];
        for name in keep.iter().chain(&ours) {
            fs::write(folder.path().join(name), "x").expect("written");
        }
        prune(folder.path(), "seawall", "db", 1).expect("pruned");
        let left = |name: &&str| folder.path().join(name).exists();
        assert!(keep.iter().all(left));
        assert_eq!(ours.iter().filter(|name| left(name)).collect::<Vec<_>>(), [&"seawall-20260101-000000.db"]);
    }
}
