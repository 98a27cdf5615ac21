//! Opens files beneath one directory, and no others.
//!
//! On Linux the kernel keeps the promise: `openat2` with `RESOLVE_BENEATH` refuses
//! every path that leaves the directory, however symlinks are changed meanwhile.
//! Elsewhere, and under kernels or filters without it, a path is made canonical,
//! compared, and then walked one component at a time without following links: a
//! link that was put in its way after the comparison ends the walk.

use std::{
    ffi::{OsStr, OsString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};

/// `openat2` asks to be called again when something was renamed while it looked.
#[cfg(target_os = "linux")]
const RENAME_RETRIES: usize = 32;

/// A directory that is only walked through; reading it may be forbidden.
#[cfg(target_os = "linux")]
pub(super) const WALKED: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
pub(super) const WALKED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory that nothing is reached outside of.
#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
    /// Canonical when it was opened.
    path: PathBuf,
}

impl Root {
    pub(super) fn open(path: &Path) -> std::io::Result<Root> {
        let path = path.canonicalize()?;
        let dir = rustix::fs::open(&path, WALKED, Mode::empty())?;
        Ok(Root { dir, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens `relative` beneath this directory; `EXDEV` if it leads out of it. The
    /// empty path is the directory itself.
    pub(super) fn open_at(&self, relative: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        #[cfg(target_os = "linux")]
        if let Some(opened) = beneath(self.dir.as_fd(), relative, flags | OFlags::CLOEXEC, mode) {
            return opened;
        }
        self.walk(relative, flags | OFlags::CLOEXEC, mode)
    }

    /// The directory that holds `relative`, and its name in there.
    pub(super) fn parent_of<'a>(&self, relative: &'a Path) -> Result<(OwnedFd, &'a OsStr), Errno> {
        let name = relative.file_name().ok_or(Errno::ISDIR)?;
        let parent = relative.parent().unwrap_or(Path::new(""));
        Ok((self.open_at(parent, WALKED, Mode::empty())?, name))
    }

    fn walk(&self, relative: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let follow_last = !flags.intersects(OFlags::NOFOLLOW | OFlags::CREATE);
        self.walk_through(&self.resolved(relative, follow_last)?, flags, mode)
    }

    fn walk_through(&self, components: &[OsString], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let Some((last, through)) = components.split_last() else {
            return openat(&self.dir, ".", flags, mode);
        };
        let mut at: Option<OwnedFd> = None;
        for component in through {
            let from = at.as_ref().map_or(self.dir.as_fd(), AsFd::as_fd);
            at = Some(openat(from, component, WALKED | OFlags::NOFOLLOW, Mode::empty())?);
        }
        let from = at.as_ref().map_or(self.dir.as_fd(), AsFd::as_fd);
        openat(from, last, flags | OFlags::NOFOLLOW, mode)
    }

    /// The components of what `relative` stands for now, links resolved.
    fn resolved(&self, relative: &Path, follow_last: bool) -> Result<Vec<OsString>, Errno> {
        let whole = self.path.join(relative);
        let canonical = match (follow_last, relative.parent(), relative.file_name()) {
            (false, Some(parent), Some(name)) => canonical(&self.path.join(parent))?.join(name),
            _ => canonical(&whole)?,
        };
        let inside = canonical.strip_prefix(&self.path).map_err(|_| Errno::XDEV)?;
        inside
            .components()
            .map(|component| match component {
                Component::Normal(name) => Ok(name.to_owned()),
                _ => Err(Errno::XDEV),
            })
            .collect()
    }
}

fn canonical(path: &Path) -> Result<PathBuf, Errno> {
    path.canonicalize().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
}

/// `None` where the kernel, or a filter, does not let us ask.
#[cfg(target_os = "linux")]
fn beneath(dir: BorrowedFd<'_>, relative: &Path, flags: OFlags, mode: Mode) -> Option<Result<OwnedFd, Errno>> {
    use rustix::fs::{ResolveFlags, openat2};

    let confined = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RENAME_RETRIES {
        match openat2(dir, relative, flags, mode, confined) {
            Err(Errno::AGAIN) => {}
            // A filter that does not know the call answers EPERM as well; if that is
            // the file's own answer, the walk will hear it again.
            Err(Errno::NOSYS | Errno::PERM) => return None,
            opened => return Some(opened),
        }
    }
    Some(Err(Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    type Open = fn(&Root, &Path, OFlags) -> Result<OwnedFd, Errno>;

    /// Both ways of keeping the promise, whatever this kernel can do.
    const WAYS: [(&str, Open); 2] = [
        ("as this system does it", |root, path, flags| root.open_at(path, flags, mode_for(flags))),
        ("walked", |root, path, flags| root.walk(path, flags, mode_for(flags))),
    ];

    fn mode_for(flags: OFlags) -> Mode {
        if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o600) } else { Mode::empty() }
    }

    /// `outside/secret` beside `inside/{a.txt,deep/b.txt}` and links of every kind.
    fn playground() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        fs::create_dir_all(inside.join("deep")).expect("directories");
        fs::create_dir(&outside).expect("a directory");
        fs::write(outside.join("secret"), "secret").expect("a file");
        fs::write(inside.join("a.txt"), "a").expect("a file");
        fs::write(inside.join("deep/b.txt"), "b").expect("a file");
        for (target, name) in [
            (outside.join("secret"), "out_absolute"),
            (PathBuf::from("../outside/secret"), "out_relative"),
            (outside.clone(), "out_directory"),
            (PathBuf::from("deep/b.txt"), "in_relative"),
            (outside.join("not_there_yet"), "out_dangling"),
            (PathBuf::from("/proc/self/root"), "out_magic"),
        ] {
            symlink(target, inside.join(name)).expect("a link");
        }
        let root = Root::open(&inside).expect("the directory is there");
        (dir, root)
    }

    #[test]
    fn what_is_inside_opens() {
        let (_dir, root) = playground();
        for (way, open) in WAYS {
            for path in ["a.txt", "deep/b.txt", "in_relative", "deep/../a.txt"] {
                let opened = open(&root, Path::new(path), OFlags::RDONLY);
                assert!(opened.is_ok(), "{path} {way}: {opened:?}");
            }
        }
    }

    #[test]
    fn nothing_leads_out() {
        let (dir, root) = playground();
        let absolute = dir.path().join("outside/secret");
        let absolute = absolute.to_str().expect("UTF-8");
        for (way, open) in WAYS {
            for path in [
                "out_absolute",
                "out_relative",
                "out_directory/secret",
                "../outside/secret",
                "deep/../../outside/secret",
                "out_magic/etc/passwd",
                absolute,
                "/etc/passwd",
            ] {
                let opened = open(&root, Path::new(path), OFlags::RDONLY);
                let refused = matches!(opened, Err(Errno::XDEV | Errno::LOOP));
                // Only Linux has the place that the magic link points to.
                let missing = cfg!(not(target_os = "linux")) && matches!(opened, Err(Errno::NOENT));
                assert!(refused || missing, "{path} {way}: {opened:?}");
            }
        }
    }

    #[test]
    fn nothing_is_created_outside() {
        let (dir, root) = playground();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW;
        for (way, open) in WAYS {
            for path in ["out_dangling", "out_directory/new", "../outside/new"] {
                let opened = open(&root, Path::new(path), flags);
                assert!(opened.is_err(), "{path} {way}");
            }
            assert!(open(&root, Path::new("deep/new"), flags).is_ok(), "{way}");
        }
        let left: Vec<_> = fs::read_dir(dir.path().join("outside")).expect("a directory").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_link_put_in_the_way_after_the_comparison_ends_the_walk() {
        let (dir, root) = playground();
        let inside = dir.path().join("inside");
        for path in ["deep/b.txt", "a.txt"] {
            let resolved = root.resolved(Path::new(path), true).expect("it is inside");
            let first = inside.join(&resolved[0]);
            fs::rename(&first, inside.join("moved")).expect("a rename");
            let target = dir.path().join(if resolved.len() == 1 { "outside/secret" } else { "outside" });
            symlink(&target, &first).expect("a link");
            fs::write(dir.path().join("outside/b.txt"), "secret").expect("a file");
            let opened = root.walk_through(&resolved, OFlags::RDONLY, Mode::empty());
            assert!(matches!(opened, Err(Errno::LOOP | Errno::NOTDIR)), "{path}: {opened:?}");
            fs::remove_file(&first).expect("a link");
            fs::rename(inside.join("moved"), &first).expect("a rename");
        }
    }

    #[test]
    fn a_directory_swapped_for_a_link_meanwhile_never_shows_what_is_outside() {
        use std::sync::atomic::{AtomicBool, Ordering};

        struct SetOnDrop<'a>(&'a AtomicBool);
        impl Drop for SetOnDrop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }

        let (dir, root) = playground();
        let inside = dir.path().join("inside");
        fs::create_dir(inside.join("swapped")).expect("a directory");
        fs::write(inside.join("swapped/secret"), "harmless").expect("a file");
        symlink(dir.path().join("outside"), inside.join("link")).expect("a link");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for (from, to) in
                        [("swapped", "kept"), ("link", "swapped"), ("swapped", "link"), ("kept", "swapped")]
                    {
                        fs::rename(inside.join(from), inside.join(to)).expect("a rename");
                    }
                }
            });
            // A failure below must end the other thread as well.
            let _done = SetOnDrop(&done);
            let too_long = std::time::Instant::now() + std::time::Duration::from_secs(30);
            for (way, open) in WAYS {
                let (mut tried, mut read) = (0, 0);
                while tried < 2000 || read < 20 {
                    assert!(std::time::Instant::now() < too_long, "{way}: {read} of {tried} were there to be read");
                    tried += 1;
                    let Ok(opened) = open(&root, Path::new("swapped/secret"), OFlags::RDONLY) else { continue };
                    assert_eq!(std::io::read_to_string(fs::File::from(opened)).expect("a file"), "harmless");
                    read += 1;
                }
            }
        });
    }
}
