//! Installations that nobody has used for long are removed, and halves that nobody makes any
//! more. Never one that a seawall uses, whichever, or that servers.toml still asks for; and
//! nothing that no seawall has made.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::FlockOperation;

use super::{place::Place, request::Request};
use crate::process::Command;

/// An installation that was not used for so long is removed.
pub const KEPT_UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Names of an installation's own, the folder first and the locks last: whoever waits for
/// one of them finds what the others say.
const ENDINGS: [&str; 5] = ["part", "json", "json.part", "used", "lock"];

/// Removes from `folder` what none of `servers` asks for, nobody uses, and nobody has used
/// for `unused_for`; gives the folders that were removed. Waits for the disk, and for
/// nobody else.
pub fn sweep(folder: &Path, servers: &[Command], unused_for: Duration) -> Vec<PathBuf> {
    let wanted: Vec<Request> = servers.iter().filter_map(|server| Request::of(server).ok().flatten()).collect();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let keys: BTreeSet<String> = names.filter_map(|name| name.split('.').next().map(str::to_owned)).collect();
    let own: Vec<Place> = keys.iter().map(|key| Place::named(folder, key)).filter(Place::is_own).collect();
    for place in &own {
        if let Err(error) = remove_half(place) {
            tracing::warn!("half an installation cannot be removed from {}: {error}", place.done().display());
        }
    }
    let old = own.into_iter().filter(|place| {
        let is_wanted = place.any_note().is_some_and(|note| wanted.iter().any(|request| note.is_of(request)));
        !is_wanted && is_old(place, unused_for)
    });
    old.filter_map(|place| match remove(&place, unused_for) {
        Ok(removed) => removed.then(|| place.done()),
        Err(error) => {
            tracing::warn!("an old package cannot be removed from {}: {error}", place.done().display());
            None
        }
    })
    .collect()
}

fn is_old(place: &Place, unused_for: Duration) -> bool {
    // Of one that was never used: when it was made.
    let times = [place.beside("used"), place.beside("json"), place.beside("part"), place.done()];
    let last = times.iter().find_map(|path| path.metadata().and_then(|data| data.modified()).ok());
    last.is_some_and(|last| SystemTime::now().duration_since(last).is_ok_and(|age| age >= unused_for))
}

/// What somebody has begun who was killed meanwhile.
fn remove_half(place: &Place) -> io::Result<()> {
    let half = place.beside("part");
    if !half.exists() {
        return Ok(());
    }
    match place.try_lock("lock", FlockOperation::NonBlockingLockExclusive)? {
        Some(_installing) => gone(std::fs::remove_dir_all(half)),
        None => Ok(()),
    }
}

/// False where somebody installs or uses it after all.
fn remove(place: &Place, unused_for: Duration) -> io::Result<bool> {
    let alone = |ending: &str| place.try_lock(ending, FlockOperation::NonBlockingLockExclusive);
    let Some(_installing) = alone("lock")? else { return Ok(false) };
    let was_used = place.beside("used").exists();
    let Some(_used) = alone("used")? else { return Ok(false) };
    if was_used && !is_old(place, unused_for) {
        return Ok(false);
    }
    // Without its note it is not taken for a whole one.
    gone(std::fs::remove_file(place.beside("json")))?;
    gone(std::fs::remove_dir_all(place.done()))?;
    for ending in ENDINGS {
        let path = place.beside(ending);
        gone(if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) })?;
    }
    Ok(true)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn server(words: &[&str]) -> Command {
        Command {
            program: words[0].to_owned(),
            args: words[1..].iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: "/".into(),
            name: "x".to_owned(),
            sandbox: crate::sandbox::Policy::default(),
            protected: Vec::new(),
            ledger: None,
        }
    }

    /// With a name as seawall gives them.
    fn made(folder: &Path, what: &str) -> Place {
        let place = Place::new(folder, what);
        std::fs::write(place.beside("lock"), "").expect("written");
        place
    }

    /// An installation of this server, used so long ago.
    fn installed(folder: &Path, key: &str, words: &[&str], ago: Duration) -> Place {
        let place = made(folder, key);
        let request = Request::of(&server(words)).expect("understood").expect("packages");
        std::fs::create_dir(place.beside("part")).expect("made");
        std::fs::write(place.beside("part").join("file"), "x").expect("written");
        place.keep(&super::super::Note::of(&request, "file".into(), false)).expect("kept");
        let used = std::fs::File::create(place.beside("used")).expect("made");
        used.set_modified(SystemTime::now() - ago).expect("set");
        place
    }

    #[test]
    fn only_what_nobody_wants_uses_or_has_used_lately_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let put = |key: &str, words: &[&str], days: u32| installed(folder.path(), key, words, DAY * days);
        let old = put("old", &["npx", "-y", "a@1"], 31);
        let wanted = put("wanted", &["npx", "-y", "a@2"], 400);
        let young = put("young", &["uvx", "a"], 29);
        let other = put("other", &["uvx", "b"], 31);
        let in_use = put("in-use", &["npx", "c"], 31);
        let lock = in_use.try_lock("used", FlockOperation::NonBlockingLockShared).expect("a lock").expect("free");
        let installing = put("installing", &["npx", "d"], 31);
        let turn =
            installing.try_lock("lock", FlockOperation::NonBlockingLockExclusive).expect("a lock").expect("free");
        let half = made(folder.path(), "half");
        std::fs::create_dir(half.beside("part")).expect("made");
        std::fs::create_dir(installing.beside("part")).expect("made");

        let servers = [server(&["npx", "-y", "a@2"]), server(&["/bin/cat"])];
        let mut gone = [old.done(), other.done()].to_vec();
        gone.sort();
        assert_eq!(sweep(folder.path(), &servers, DAY * 30), gone);
        for kept in [&wanted, &young, &in_use, &installing] {
            assert!(kept.done().join("file").is_file() && kept.any_note().is_some(), "{}", kept.done().display());
        }
        assert!(installing.beside("part").is_dir(), "somebody is at it");
        assert!(!half.beside("part").exists(), "nobody goes on with it, and it is in nobody's way");
        drop((lock, turn));
        let mut removed = sweep(folder.path(), &[], Duration::ZERO);
        removed.sort();
        let mut rest = [in_use.done(), installing.done(), wanted.done(), young.done()].to_vec();
        rest.sort();
        assert_eq!(removed, rest);
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").flatten().map(|e| e.path()).collect();
        assert_eq!(left, [half.beside("lock")], "it is not old: it has no time of its own");
    }

    #[test]
    fn what_no_seawall_has_made_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let digest = crate::text::digest("somebody else's");
        let names = ["notes", "notes.part", "notes.lock", "notes.json", &digest, &format!("{digest}.part")];
        for name in names {
            match name.ends_with("lock") || name.ends_with("json") {
                true => std::fs::write(folder.path().join(name), "x").expect("written"),
                false => std::fs::create_dir(folder.path().join(name)).expect("made"),
            }
        }
        assert_eq!(sweep(folder.path(), &[], Duration::ZERO), Vec::<PathBuf>::new());
        for name in names {
            assert!(folder.path().join(name).exists(), "{name}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), names.len(), "nor is anything added");
    }

    #[test]
    fn a_lock_on_a_file_that_was_removed_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::named(folder.path(), "x");
        let exclusive = FlockOperation::NonBlockingLockExclusive;
        let first = place.try_lock("used", exclusive).expect("a lock").expect("free");
        assert!(place.try_lock("used", FlockOperation::NonBlockingLockShared).expect("tried").is_none());
        std::fs::remove_file(place.beside("used")).expect("removed");
        let second = place.try_lock("used", exclusive).expect("a lock").expect("another file");
        drop(first);
        assert!(place.try_lock("used", exclusive).expect("tried").is_none(), "the name is that of the second");
        drop(second);
    }
}
