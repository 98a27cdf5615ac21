//! The few things of the operating system that no safe crate offers: a fork (into
//! namespaces too), signals as a descriptor, closing what was inherited.
//!
//! Only the launcher forks, and it has one thread: what follows a fork of it may
//! allocate and lock.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use rustix::io::{FdFlags, fcntl_setfd};

/// Lets the program that `command` starts inherit `fd`, and no other program.
pub(super) fn inherit(command: &mut tokio::process::Command, fd: BorrowedFd<'static>) {
    // SAFETY: between fork and exec only one fcntl(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || Ok(fcntl_setfd(fd, FdFlags::empty())?));
    }
}

/// Lets the program that `command` starts be killed when this process is, where the system
/// can. What that one has started goes on.
pub fn dies_with_us(command: &mut std::process::Command) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt as _;
        // SAFETY: between fork and exec only one prctl(2) is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// A descriptor that stays open until the command was spawned, in a form that the
/// child's hook may hold.
pub(super) fn borrowed(fd: &OwnedFd) -> BorrowedFd<'static> {
    // SAFETY: the hook runs within `spawn`, and its caller holds the owner until then.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}

/// Takes over a descriptor that was named on the command line.
pub(super) fn take_fd(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::other("the control descriptor cannot be one of the standard streams"));
    }
    // SAFETY: it is only asked about.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, as the line above has shown, and nobody else in this process,
    // which has just begun, knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(target_os = "linux")]
pub(super) use linux::{Fork, block_signals, close_others, fork_into, next_signal, unblock_signals};

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::{AsRawFd as _, FromRawFd as _};

    use rustix::process::Pid;

    use super::{BorrowedFd, OwnedFd, RawFd, io};

    /// Closes everything but the standard streams and `keep`.
    pub(in crate::process) fn close_others(keep: BorrowedFd<'_>) -> io::Result<()> {
        let keep = keep.as_raw_fd().unsigned_abs();
        for (first, last) in [(3, keep.saturating_sub(1)), (keep + 1, u32::MAX)] {
            // SAFETY: no value of this process owns any of them: it has just begun.
            if first <= last && unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    pub(in crate::process) enum Fork {
        Parent(Pid),
        Child,
    }

    /// fork(2), the child in new namespaces as `CLONE_NEW…` flags say.
    pub(in crate::process) fn fork_into(namespaces: libc::c_int) -> io::Result<Fork> {
        let flags = libc::c_ulong::from((namespaces | libc::SIGCHLD).unsigned_abs());
        // SAFETY: without CLONE_VM and a stack this is fork(2), and this process has one
        // thread, so that no lock is held by somebody who is not there any more.
        match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
            0 => Ok(Fork::Child),
            pid => match i32::try_from(pid).ok().and_then(|pid| if pid > 0 { Pid::from_raw(pid) } else { None }) {
                Some(pid) => Ok(Fork::Parent(pid)),
                None => Err(io::Error::last_os_error()),
            },
        }
    }

    /// From now on children's ends and requests to stop are read from a descriptor.
    pub(in crate::process) fn block_signals() -> io::Result<OwnedFd> {
        // SAFETY: the set is initialised by sigemptyset(3) before it is read.
        let fd: RawFd = unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(&raw mut set, signal);
            }
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd(2) has just made it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The next signal that has come; `None` if none waits.
    pub(in crate::process) fn next_signal(signals: &OwnedFd) -> Option<libc::c_int> {
        let mut buffer = [0; size_of::<libc::signalfd_siginfo>()];
        let read = rustix::io::read(signals, &mut buffer).ok()?;
        let number = buffer.first_chunk().filter(|_| read == buffer.len())?;
        i32::try_from(u32::from_ne_bytes(*number)).ok()
    }

    /// Signals do again what they do by default.
    pub(in crate::process) fn unblock_signals() {
        // SAFETY: the set is initialised by sigemptyset(3) before it is read.
        unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        }
    }
}
