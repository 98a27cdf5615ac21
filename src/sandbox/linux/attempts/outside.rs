//! Attempts to change a file without opening it: its mode, owner, times, attributes. A call that
//! says that it has succeeded may have done nothing: the file itself is looked at.

use std::{
    ffi::CString,
    fs,
    io::Error,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use super::{Found, path, raw};

const HERE: i64 = libc::AT_FDCWD as i64;
const EMPTY: i64 = libc::AT_EMPTY_PATH as i64;
// Newer than the C library may be; the same number on every machine.
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;
const FILE_SETATTR: i64 = 469;

/// The calls to make, one after the other.
type Ways<'a> = &'a [(&'static str, i64, &'a [i64])];

/// One file by all the names that it has for the kernel.
struct Target {
    by_name: CString,
    by_link: CString,
    empty: CString,
    /// With `O_PATH`: of this nobody asks what the file allows.
    opened: OwnedFd,
}

impl Target {
    fn of(file: &str) -> std::io::Result<Self> {
        use rustix::fs::{Mode, OFlags};
        let opened = rustix::fs::open(file, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let by_link = path(&format!("/proc/self/fd/{}", opened.as_raw_fd()));
        Ok(Target { by_name: path(file), by_link, empty: path(""), opened })
    }

    /// Its name, the link in /proc, the empty name beside its descriptor, the descriptor.
    fn arguments(&self) -> [i64; 4] {
        let at = |text: &CString| text.as_ptr() as i64;
        [at(&self.by_name), at(&self.by_link), at(&self.empty), self.opened.as_raw_fd().into()]
    }
}

pub(super) fn mode(file: &str) -> Found {
    let target = Target::of(file)?;
    let [name, link, empty, fd] = target.arguments();
    let mode = i64::from(fs::metadata(file)?.mode() & 0o777 ^ 0o100);
    tried(
        file,
        &[
            #[cfg(target_arch = "x86_64")]
            ("chmod", libc::SYS_chmod, &[name, mode]),
            ("fchmodat", libc::SYS_fchmodat, &[HERE, name, mode]),
            ("fchmodat by /proc", libc::SYS_fchmodat, &[HERE, link, mode]),
            ("fchmodat2", libc::SYS_fchmodat2, &[HERE, name, mode, 0]),
            ("fchmodat2 by O_PATH", libc::SYS_fchmodat2, &[fd, empty, mode, EMPTY]),
            ("fchmod by O_PATH", libc::SYS_fchmod, &[fd, mode]),
        ],
    )
}

pub(super) fn owner(file: &str) -> Found {
    let target = Target::of(file)?;
    let [name, link, empty, fd] = target.arguments();
    let data = fs::metadata(file)?;
    // To whom it belongs already: anybody may, and the time of the change tells of it.
    let (uid, gid) = (data.uid().into(), data.gid().into());
    tried(
        file,
        &[
            #[cfg(target_arch = "x86_64")]
            ("chown", libc::SYS_chown, &[name, uid, gid]),
            #[cfg(target_arch = "x86_64")]
            ("lchown", libc::SYS_lchown, &[name, uid, gid]),
            ("fchownat", libc::SYS_fchownat, &[HERE, name, uid, gid, 0]),
            ("fchownat by /proc", libc::SYS_fchownat, &[HERE, link, uid, gid, 0]),
            ("fchownat by O_PATH", libc::SYS_fchownat, &[fd, empty, uid, gid, EMPTY]),
            ("fchown by O_PATH", libc::SYS_fchown, &[fd, uid, gid]),
        ],
    )
}

pub(super) fn times(file: &str) -> Found {
    let target = Target::of(file)?;
    let [name, link, empty, fd] = target.arguments();
    let earlier = fs::metadata(file)?.mtime() - 1;
    // Seconds and their parts twice; for utime(2), whose two are seconds, as good.
    let pair = [earlier, 0, earlier, 0];
    let pair = pair.as_ptr() as i64;
    tried(
        file,
        &[
            #[cfg(target_arch = "x86_64")]
            ("utime", libc::SYS_utime, &[name, pair]),
            #[cfg(target_arch = "x86_64")]
            ("utimes", libc::SYS_utimes, &[name, pair]),
            #[cfg(target_arch = "x86_64")]
            ("futimesat", libc::SYS_futimesat, &[HERE, name, pair]),
            ("utimensat", libc::SYS_utimensat, &[HERE, name, pair, 0]),
            ("utimensat by /proc", libc::SYS_utimensat, &[HERE, link, pair, 0]),
            ("utimensat by O_PATH", libc::SYS_utimensat, &[fd, empty, pair, EMPTY]),
            ("utimensat by O_PATH without a name", libc::SYS_utimensat, &[fd, 0, pair, EMPTY]),
            ("futimens by O_PATH", libc::SYS_utimensat, &[fd, 0, pair, 0]),
        ],
    )
}

pub(super) fn attributes(file: &str) -> Found {
    let target = Target::of(file)?;
    let [name, link, empty, fd] = target.arguments();
    // Another one each time, and of another length by each way: to set what there is already is no change.
    let (key, value) = (path("user.hostile"), std::process::id().to_ne_bytes());
    let (key, value) = (key.as_ptr() as i64, value.as_ptr() as i64);
    // Of setxattrat: where the value is; its size, and no flags.
    let [described, shorter] = [[value as u64, 4], [value as u64, 3]];
    let [described, shorter] = [&described, &shorter].map(|words| words.as_ptr() as i64);
    // Of file_setattr: no flag of the file system, no project.
    let plain = [0_u64; 3];
    let plain = (&raw const plain) as i64;
    tried(
        file,
        &[
            ("setxattr", libc::SYS_setxattr, &[name, key, value, 4, 0]),
            ("setxattr by /proc", libc::SYS_setxattr, &[link, key, value, 3, 0]),
            ("lsetxattr", libc::SYS_lsetxattr, &[name, key, value, 2, 0]),
            ("setxattrat", SETXATTRAT, &[HERE, name, 0, key, described, 16]),
            ("setxattrat by O_PATH", SETXATTRAT, &[fd, empty, EMPTY, key, shorter, 16]),
            ("fsetxattr by O_PATH", libc::SYS_fsetxattr, &[fd, key, value, 4, 0]),
            ("removexattr", libc::SYS_removexattr, &[name, key]),
            ("lremovexattr", libc::SYS_lremovexattr, &[name, key]),
            ("removexattrat", REMOVEXATTRAT, &[HERE, name, 0, key]),
            ("fremovexattr by O_PATH", libc::SYS_fremovexattr, &[fd, key]),
            ("file_setattr", FILE_SETATTR, &[HERE, name, plain, 24, 0]),
        ],
    )
}

/// All ways that have changed the file, or that the kernel has judged by the file alone.
fn tried(file: &str, ways: Ways<'_>) -> Found {
    let state = || fs::metadata(file).map(|data| (data.mode(), data.mtime(), data.ctime(), data.ctime_nsec()));
    let mut through = Vec::new();
    let mut refused = Error::other("nothing has changed");
    for (name, call, arguments) in ways {
        let before = state()?;
        match raw(*call, arguments) {
            // It was looked for: so it would have been removed.
            Err(error) if error.raw_os_error() == Some(libc::ENODATA) => through.push(*name),
            Err(error) => refused = error,
            Ok(_) if state()? != before => through.push(*name),
            Ok(_) => {}
        }
    }
    if through.is_empty() { Err(refused) } else { Ok(through.join(", ")) }
}
