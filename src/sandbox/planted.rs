//! What a server could have planted for its next start: a link, a first line of a script,
//! in a folder that it may write, by which it would then be given more than servers.toml
//! says. What is granted must not depend on anything in such a folder.

use std::{
    collections::VecDeque,
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

use super::plan::is_within;

/// As many as the system itself follows.
const LINKS_MAX: usize = 40;

/// Where `path` is led to by a link in one of the folders that the server may `write`, if
/// that is in none of them. These are without links themselves.
pub(super) fn leads_out(path: &Path, write: &[PathBuf]) -> Option<PathBuf> {
    let mut is_led = false;
    let at = walk(path, |at, is_link| is_led |= is_link && is_within(at.parent().unwrap_or(at), write));
    (is_led && !is_within(&at, write)).then_some(at)
}

/// The first place on the way to `path` that lies in one of these folders: a folder, a link,
/// or what it comes to. Whoever may write there says what is found. What does not exist yet
/// is where it would be.
pub(crate) fn on_the_way(path: &Path, write: &[PathBuf]) -> Option<PathBuf> {
    let mut found = None;
    walk(path, |at, _| {
        if found.is_none() && is_within(at, write) {
            found = Some(at.to_owned());
        }
    });
    found
}

/// Where `path` comes to, seeing each step, and whether that is a link.
fn walk(path: &Path, mut seen: impl FnMut(&Path, bool)) -> PathBuf {
    let mut left: VecDeque<OsString> = components(path);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(name) = left.pop_front() {
        if name == "/" {
            at = PathBuf::from("/");
        } else if name == ".." {
            at.pop();
        } else {
            let next = at.join(name);
            let target = next.read_link();
            seen(&next, target.is_ok());
            match target {
                Ok(target) if links < LINKS_MAX => {
                    links += 1;
                    let mut target = components(&target);
                    target.append(&mut left);
                    left = target;
                }
                _ => at = next,
            }
        }
    }
    at
}

/// Whether `path` itself, or what it would be, lies in such a folder.
pub(super) fn is_below(path: &Path, write: &[PathBuf]) -> bool {
    let folder = path.parent().unwrap_or(path);
    is_within(&folder.canonicalize().unwrap_or_else(|_| folder.to_owned()), write)
}

fn components(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir | Component::Prefix(_)));
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_in_a_writable_folder_is_seen_however_one_comes_to_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("it is there");
        let at = |name: &str| root.join(name);
        for name in ["out/deep", "other", "own"] {
            std::fs::create_dir_all(at(name)).expect("made");
        }
        std::fs::write(at("other/file"), "x").expect("written");
        symlink(at("other/file"), at("out/direct")).expect("linked");
        symlink("../../other", at("out/deep/folder")).expect("linked");
        symlink("deep", at("out/within")).expect("linked");
        symlink(at("out/direct"), at("own/by-way")).expect("linked");
        symlink(at("other"), at("own/given")).expect("linked");
        symlink("round", at("out/round")).expect("linked");
        let write = [at("out")];
        let led = |name: &str| leads_out(&at(name), &write);
        assert_eq!(led("out/direct"), Some(at("other/file")));
        assert_eq!(led("out/within/folder/file"), Some(at("other/file")));
        assert_eq!(led("own/by-way"), Some(at("other/file")));
        assert_eq!(led("out/deep/../direct"), Some(at("other/file")));
        for own in ["out/within/x", "own/given/file", "other/file", "out/deep/missing", "out/round"] {
            assert_eq!(led(own), None, "{own}");
        }
        assert_eq!(leads_out(&at("out/direct"), &[]), None);
    }

    #[test]
    fn a_folder_on_the_way_says_what_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("it is there");
        let at = |name: &str| root.join(name);
        for name in ["out", "other", "bin"] {
            std::fs::create_dir_all(at(name)).expect("made");
        }
        std::fs::write(at("other/file"), "x").expect("written");
        symlink(at("other/file"), at("out/back")).expect("linked");
        symlink("../out/back", at("bin/by-way")).expect("linked");
        symlink("../out", at("bin/folder")).expect("linked");
        symlink("../other/file", at("bin/fine")).expect("linked");
        let on = |name: &str| on_the_way(&at(name), &[at("out")]);
        assert_eq!(on("out"), Some(at("out")));
        assert_eq!(on("out/not/yet/there"), Some(at("out")));
        assert_eq!(on("bin/by-way"), Some(at("out")), "though it ends elsewhere");
        assert_eq!(on("bin/folder/../other/file"), Some(at("out")));
        assert_eq!(on("bin/folder/x"), Some(at("out")));
        for name in ["bin/fine", "other/file", "not/there", "outer"] {
            assert_eq!(on(name), None, "{name}");
        }
    }
}
