//! Watching what a program asks of the kernel, without a say in it: for `seawall sandbox
//! explain`. A filter stops each call that names a file or an address until whoever
//! holds its listener has looked; then it goes on, to whatever the sandbox makes of it.
//!
//! What is seen is for a proposal and nothing else: the program could change its words
//! between the look and the call.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::Refusal;

const PATH_MAX_BYTES: usize = 4096;

/// One call that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    Read(PathBuf),
    Write(PathBuf),
    /// An address of the network.
    Connect(std::net::SocketAddr),
    /// A Unix socket; abstract ones have no path.
    ConnectUnix(Option<PathBuf>),
}

/// Where a call has its path, and whether it changes something.
struct Shape {
    call: i64,
    /// The argument with the folder that the path is of; `None` for the working directory.
    folder: Option<usize>,
    path: usize,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// What the flags in this argument say.
    ByFlags(usize),
    Writes,
}

const fn shape(call: i64, folder: Option<usize>, path: usize, kind: Kind) -> Shape {
    Shape { call, folder, path, kind }
}

const SHAPES: &[Shape] = &[
    shape(libc::SYS_openat, Some(0), 1, Kind::ByFlags(2)),
    shape(libc::SYS_mkdirat, Some(0), 1, Kind::Writes),
    shape(libc::SYS_unlinkat, Some(0), 1, Kind::Writes),
    shape(libc::SYS_renameat2, Some(2), 3, Kind::Writes),
    shape(libc::SYS_symlinkat, Some(1), 2, Kind::Writes),
    shape(libc::SYS_linkat, Some(2), 3, Kind::Writes),
    shape(libc::SYS_truncate, None, 0, Kind::Writes),
];

#[cfg(target_arch = "x86_64")]
const SHAPES_HERE: &[Shape] = &[
    shape(libc::SYS_open, None, 0, Kind::ByFlags(1)),
    shape(libc::SYS_creat, None, 0, Kind::Writes),
    shape(libc::SYS_mkdir, None, 0, Kind::Writes),
    shape(libc::SYS_unlink, None, 0, Kind::Writes),
    shape(libc::SYS_rmdir, None, 0, Kind::Writes),
    shape(libc::SYS_rename, None, 1, Kind::Writes),
    shape(libc::SYS_renameat, Some(2), 3, Kind::Writes),
    shape(libc::SYS_symlink, None, 1, Kind::Writes),
    shape(libc::SYS_link, None, 1, Kind::Writes),
];
#[cfg(not(target_arch = "x86_64"))]
const SHAPES_HERE: &[Shape] = &[];

/// Puts the calling process under observation; the listener is for whoever watches. The
/// program must not have begun before it does.
pub(crate) fn begin() -> Result<OwnedFd, Refusal> {
    let calls: Vec<i64> = SHAPES.iter().chain(SHAPES_HERE).map(|shape| shape.call).chain([libc::SYS_connect]).collect();
    let statement = |code: u32, k| libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt: 0, jf: 0, k };
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for (at, call) in calls.iter().enumerate() {
        let mut jump = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, u32::try_from(*call).unwrap_or(u32::MAX));
        // To the last instruction.
        jump.jt = u8::try_from(calls.len() - at).unwrap_or(0);
        program.push(jump);
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF));
    let whole = libc::sock_fprog { len: u16::try_from(program.len()).unwrap_or(0), filter: program.as_mut_ptr() };
    // SAFETY: the program lives until the call returns, and the call only reads it.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const whole,
        )
    };
    match i32::try_from(listener) {
        // SAFETY: a new descriptor, which nobody else knows of.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Refusal::of("it cannot be observed", io::Error::last_os_error())),
    }
}

/// Looks at every call of the observed until none of them is left or `is_over`.
pub fn watch(listener: &OwnedFd, is_over: impl Fn() -> bool, mut on: impl FnMut(Asked)) {
    while !is_over() {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        let patience = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        match poll(&mut fds, Some(&patience)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) if fds[0].revents().contains(PollFlags::IN) => {}
            // All of them have ended.
            _ => return,
        }
        // SAFETY: plain data, which must be zero before it is filled.
        let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills what it is given.
        if unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice) } != 0 {
            continue;
        }
        // A program is not opened by itself; its first call tells which one it is.
        if let Ok(program) = std::fs::read_link(format!("/proc/{}/exe", notice.pid)) {
            on(Asked::Read(program));
        }
        if let Some(asked) = understand(&notice) {
            on(asked);
        }
        let go_on = libc::seccomp_notif_resp {
            id: notice.id,
            val: 0,
            error: 0,
            flags: u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1),
        };
        // SAFETY: the kernel only reads it. It fails where the caller is dead by now.
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const go_on) };
    }
}

fn understand(notice: &libc::seccomp_notif) -> Option<Asked> {
    let (call, arguments) = (i64::from(notice.data.nr), &notice.data.args);
    if call == libc::SYS_connect {
        return address(notice.pid, arguments[1], usize::try_from(arguments[2]).ok()?.min(128));
    }
    let shape = SHAPES.iter().chain(SHAPES_HERE).find(|shape| shape.call == call)?;
    let written = memory(notice.pid, arguments[shape.path], PATH_MAX_BYTES)?;
    let written = written.split(|byte| *byte == 0).next()?;
    let written = PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(written));
    let path = if written.is_absolute() {
        written
    } else {
        // The argument is an int in a register.
        let folder = shape.folder.map(|at| arguments[at] as u32 as i32).filter(|fd| *fd != libc::AT_FDCWD);
        let link = match folder {
            Some(fd) => format!("/proc/{}/fd/{fd}", notice.pid),
            None => format!("/proc/{}/cwd", notice.pid),
        };
        std::fs::read_link(link).ok()?.join(written)
    };
    let changes = match shape.kind {
        Kind::Writes => true,
        Kind::ByFlags(at) => {
            let flags = arguments[at] as u32 as i32;
            flags & libc::O_ACCMODE != libc::O_RDONLY || flags & (libc::O_CREAT | libc::O_TRUNC) != 0
        }
    };
    Some(if changes { Asked::Write(path) } else { Asked::Read(path) })
}

/// What is there up to `max` bytes, or to the end of the page's neighbours.
fn memory(pid: u32, at: u64, max: usize) -> Option<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = vec![0; max];
    // A short string may end where the next page is not mapped.
    let read = file.read_at(&mut bytes, at).ok()?;
    bytes.truncate(read);
    Some(bytes)
}

fn address(pid: u32, at: u64, length: usize) -> Option<Asked> {
    let bytes = memory(pid, at, length)?;
    let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let port = || Some(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
    match family {
        libc::AF_INET => {
            let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(Asked::Connect((ip, port()?).into()))
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Some(Asked::Connect((ip, port()?).into()))
        }
        libc::AF_UNIX => {
            let name = bytes.get(2..)?.split(|byte| *byte == 0).next().unwrap_or_default();
            let path = Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
            Some(Asked::ConnectUnix((!name.is_empty()).then(|| path.to_owned())))
        }
        _ => None,
    }
}
