//! The steps that are seawall's own, each done in a process of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{Now, What, digest};
use crate::{
    say::say,
    store::{
        ReadError,
        upkeep::{self, Kept, UpkeepError},
    },
    text,
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
    #[error("{} was deleted: its journal, or a copy of it, is still there", .0.display())]
    Gone(PathBuf),
    #[error("a command is no step of seawall's own")]
    Command,
}

/// Does it, with the databases that there are; `store` is the one of failures. What was
/// done is said on stdout. All databases are gone through, and the first failure is told.
pub fn perform(what: &What, databases: &[Kept], store: &Path, now: &Now) -> Result<(), UpkeepFailed> {
    let paths: Vec<&Path> = databases.iter().map(Kept::path).collect();
    // What two services share is one.
    let each = |work: &dyn Fn(&Kept, &str) -> Result<(), UpkeepFailed>| {
        let ones = databases.iter().enumerate().filter(|(n, kept)| !paths[..*n].contains(&kept.path()));
        let outcomes: Vec<_> = ones
            .map(|(_, kept)| {
                let label = label(kept.path(), &paths);
                if is_there(kept.path(), &label, what, now)? { work(kept, &label) } else { Ok(()) }
            })
            .collect();
        outcomes.into_iter().collect()
    };
    match what {
        What::Command(_) => Err(UpkeepFailed::Command),
        What::Retention => each(&|kept, _| Ok(kept.retain()?)),
        What::Check => each(&|kept, _| {
            upkeep::check(kept.path())?;
            told(say!("{} is whole", kept.path().display()));
            Ok(())
        }),
        What::Backup { to, keep } => each(&|kept, label| back_up(kept.path(), label, to, *keep, now)),
        What::Digest { to, keep, since } => {
            let text = digest::write(store, *since, now)?;
            let path = to.join(format!("digest-{}.md", now.stamp()));
            put(&path, &text).map_err(|source| UpkeepFailed::Io { path: path.clone(), source })?;
            told(say!("{}", path.display()));
            prune(&path, "digest", *keep, now)
        }
    }
}

/// Copies of one second have the names of the seconds after it.
const SAME_SECOND_MAX: u64 = 10;

/// What is done stays done where nobody can be told.
fn told(_: io::Result<()>) {}

/// One that no service has made yet is nothing to look after; one that was there once is, and
/// so is whatever leads to none that can be opened.
fn is_there(path: &Path, label: &str, what: &What, now: &Now) -> Result<bool, UpkeepFailed> {
    let is_none =
        |path: &Path| matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound);
    if !is_none(path) {
        return Ok(true);
    }
    let mut journal = path.as_os_str().to_owned();
    journal.push("-wal");
    let has_copy = match what {
        What::Backup { to, .. } => fs::read_dir(to).is_ok_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| made(&file.path(), label, "db", now).is_some()))
        }),
        _ => false,
    };
    if has_copy || !is_none(Path::new(&journal)) {
        return Err(UpkeepFailed::Gone(path.to_owned()));
    }
    told(say!("{} is not there yet", path.display()));
    Ok(false)
}

fn back_up(path: &Path, label: &str, to: &Path, keep: u32, now: &Now) -> Result<(), UpkeepFailed> {
    // One that was made within this second keeps its name.
    let names = (0..SAME_SECOND_MAX).map(|ahead_s| {
        let timestamp = now.timestamp.saturating_add(Duration::from_secs(ahead_s)).unwrap_or(now.timestamp);
        format!("{label}-{}.db", Now { timestamp, ..now.clone() }.stamp())
    });
    let is_free = |name: &String| fs::symlink_metadata(to.join(name)).is_err();
    let name = names.clone().find(is_free).or_else(|| names.clone().next()).unwrap_or_default();
    let copy = upkeep::back_up(path, to, &name)?;
    told(say!("{}", copy.display()));
    prune(&copy, label, keep, now)
}

/// What the copies of a database are called: as its file; where another of `all` is called
/// so, with its folder; where that is not enough, with a digest of its path. It is the same
/// in every run, in whatever order they are.
fn label(path: &Path, all: &[&Path]) -> String {
    // Of three lengths. Not every disk tells large letters from small ones.
    let is_anothers = |length: usize, label: &str| {
        let others = all.iter().filter(|other| **other != path);
        others
            .flat_map(|other| (0..=length).map(|length| label_of(other, length)))
            .any(|other| other.to_lowercase() == label.to_lowercase())
    };
    (0..2)
        .map(|length| (length, label_of(path, length)))
        .find(|(length, label)| !is_anothers(*length, label))
        .map_or_else(|| label_of(path, 2), |(_, label)| label)
}

fn label_of(path: &Path, length: usize) -> String {
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let digest = text::digest(&path.to_string_lossy());
    let parts = [path.file_stem().unwrap_or_default().to_string_lossy(), folder, digest.into()];
    parts[..=length].join("-")
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

/// Removes the oldest of `LABEL-TIME.EXTENSION` beside the `newest`, which is one of them and
/// stays, so that `keep` are left; no other file is touched.
fn prune(newest: &Path, label: &str, keep: u32, now: &Now) -> Result<(), UpkeepFailed> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| UpkeepFailed::Io { path, source }
    };
    let folder = newest.parent().unwrap_or(Path::new("."));
    let extension = newest.extension().unwrap_or_default().to_string_lossy();
    let mut others: Vec<(bool, Timestamp, PathBuf)> = fs::read_dir(folder)
        .map_err(io(folder))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name() != newest.file_name())
        .filter_map(|path| {
            let made = made(&path, label, &extension, now)?;
            // Of a day when the clock was wrong: older than whatever a right clock tells.
            let latest = now.timestamp.saturating_add(Duration::from_secs(SAME_SECOND_MAX)).unwrap_or(now.timestamp);
            Some((made <= latest, made, path))
        })
        .collect();
    others.sort();
    let keep_others = usize::try_from(keep).unwrap_or(usize::MAX).saturating_sub(1);
    let surplus = others.len().saturating_sub(keep_others);
    others.iter().take(surplus).try_for_each(|(_, _, path)| fs::remove_file(path).map_err(io(path)))
}

/// When one of that name was made, by its name.
fn made(path: &Path, label: &str, extension: &str, now: &Now) -> Option<Timestamp> {
    let name = path.file_name()?.to_str()?;
    let stamp = name.strip_prefix(label)?.strip_prefix('-')?.strip_suffix(extension)?.strip_suffix('.')?;
    now.of_stamp(stamp)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    fn at(time: &str) -> Now {
        Now { timestamp: time.parse().expect("a time"), zone: TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::UTC) }
    }

    /// Which of `names` are left after the first was made and pruned for.
    fn left(names: &[&str], keep: u32, time: &str) -> Vec<String> {
        let folder = tempfile::tempdir().expect("folder");
        for name in names {
            fs::write(folder.path().join(name), "x").expect("written");
        }
        prune(&folder.path().join(names[0]), "seawall", keep, &at(time)).expect("pruned");
        let is_left = |name: &&&str| folder.path().join(name).exists();
        names.iter().filter(is_left).map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_the_oldest_of_the_same_name_go() {
        let newest = "seawall-20260102T000000Z.db";
        let others = [
            "seawall-2026.db",
            "emit-20200101-000000.db",
            "seawall-x-20200101T000000Z.db",
            "seawall-20200101-000000.db.gz",
            "seawall-20209901-000000.db",
            "seawall-2020101-000000.db",
            "notes",
        ];
        // The one in the middle is of an earlier version, which wrote the time of the machine.
        let ours = ["seawall-20260101T000000Z.db", "seawall-20251231-235959.db", "seawall-20200101T000000Z.db"];
        let names: Vec<&str> = [newest].into_iter().chain(others).chain(ours).collect();
        assert_eq!(left(&names, 3, "2026-01-02T00:00:00Z"), names[..names.len() - 1]);
        assert_eq!(left(&names, 1, "2026-01-02T00:00:00Z"), names[..names.len() - 3]);
    }

    #[test]
    fn what_was_just_made_stays_and_a_clock_that_was_wrong_pushes_nothing_out() {
        let now = "2026-01-02T00:00:00Z";
        let (newest, yesterday) = ("seawall-20260102T000000Z.db", "seawall-20260101T000000Z.db");
        let of_the_future = ["seawall-20400101T000000Z.db", "seawall-20400102T000000Z.db"];
        let names = [newest, yesterday, of_the_future[0], of_the_future[1]];
        assert_eq!(left(&names, 3, now), [newest, yesterday, of_the_future[1]]);
        assert_eq!(left(&names, 2, now), [newest, yesterday]);
        assert_eq!(left(&names, 1, now), [newest]);
        // And one that is slow now.
        let slow = ["seawall-19700101T000100Z.db", newest, yesterday];
        assert_eq!(left(&slow, 2, "1970-01-01T00:01:00Z"), [slow[0], newest]);
    }

    #[test]
    fn only_a_database_that_never_was_is_left_out() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, to) = (folder.path().join("a.db"), folder.path().join("backups"));
        let databases = [Kept::Watch(path.clone())];
        let backup = What::Backup { to: to.clone(), keep: 3 };
        let day = std::cell::Cell::new(10);
        let done = |what: &What| {
            day.set(day.get() + 1);
            perform(what, &databases, &path, &at(&format!("2026-01-{}T00:00:00Z", day.get())))
        };
        for what in [&What::Retention, &What::Check, &backup] {
            done(what).expect("nothing to look after");
        }
        std::os::unix::fs::symlink(folder.path().join("unplugged/a.db"), &path).expect("a link");
        for what in [&What::Check, &backup] {
            done(what).expect_err("it leads nowhere");
        }
        fs::remove_file(&path).expect("a link");
        upkeep::tests_database(&path);
        for what in [&What::Check, &backup] {
            done(what).expect("it is whole");
        }
        fs::remove_file(&path).expect("there");
        let error = done(&backup).expect_err("there is a copy of it").to_string();
        assert!(error.contains("a.db was deleted"), "{error}");
        done(&What::Check).expect("nobody knows that it was");
        let mut journal = path.clone().into_os_string();
        journal.push("-wal");
        fs::write(journal, "x").expect("written");
        for what in [&What::Retention, &What::Check] {
            done(what).expect_err("its journal is there");
        }
    }

    #[test]
    fn copies_of_one_second_have_names_of_their_own() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, to) = (folder.path().join("a.db"), folder.path().join("backups"));
        upkeep::tests_database(&path);
        for _ in 0..3 {
            back_up(&path, "a", &to, 2, &at("2026-01-01T00:00:00Z")).expect("copied");
        }
        let mut names: Vec<_> = fs::read_dir(&to).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, ["a-20260101T000001Z.db", "a-20260101T000002Z.db"]);
    }

    #[test]
    fn an_hour_that_comes_twice_has_names_once() {
        let (first, second) = (at("2026-10-25T00:30:00Z"), at("2026-10-25T01:30:00Z"));
        assert_ne!(first.stamp(), second.stamp());
        assert_eq!(second.of_stamp(&second.stamp()), Some(second.timestamp));
    }

    #[test]
    fn copies_of_databases_of_one_name_have_names_of_their_own() {
        let paths = ["/s/seawall.db", "/s/emit.db", "/a/emit.db", "/b/a/Emit.db", "/s/emit-s.db"].map(Path::new);
        let labels = |paths: &[&Path]| paths.iter().map(|path| label(path, paths)).collect::<Vec<_>>();
        let all = labels(&paths);
        assert_eq!((all[0].as_str(), all[4].as_str()), ("seawall", "emit-s"));
        let different: std::collections::BTreeSet<String> = all.iter().map(|label| label.to_lowercase()).collect();
        assert_eq!(different.len(), paths.len(), "{all:?}");
        assert_eq!(label(paths[2], &[paths[4], paths[2], paths[3], paths[1], paths[0]]), all[2], "in any order");
        assert_eq!(labels(&paths[..2]), ["seawall", "emit"]);
        assert_eq!(labels(&[paths[1], Path::new("/c/emit.db")]), ["emit-s", "emit-c"]);
        assert_eq!(labels(&[paths[1], paths[1]]), ["emit", "emit"], "it is one");
    }
}
