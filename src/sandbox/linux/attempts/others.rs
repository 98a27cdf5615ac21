//! Attempts on other processes of the user that name none of them: their priority, and what
//! System V keeps for all of a user.

use std::io;

use super::{Found, call, raw, unless_refused};

/// Sets what the nicest of the user's processes has already, so that nobody is the worse for it.
pub(super) fn renice_all() -> Found {
    let user = i64::from(libc::PRIO_USER);
    // The call itself answers 20 less the niceness.
    let nice = 20 - raw(libc::SYS_getpriority, &[user, 0])?;
    call(libc::SYS_setpriority, &[user, 0, nice]).or_else(unless_refused_of_one)
}

/// Some of them may not be raised; then the others were set.
fn unless_refused_of_one(error: io::Error) -> Found {
    if error.raw_os_error() == Some(libc::EACCES) { Ok("the call is allowed".to_owned()) } else { Err(error) }
}

/// With a class that there is not: whoever may call hears of that.
pub(super) fn io_priority_all() -> Found {
    const USER: i64 = 3;
    call(libc::SYS_ioprio_set, &[USER, 0, 7 << 13]).or_else(unless_refused)
}

/// Makes a process one of those that wait for the others.
pub(super) fn schedule(pid: i64) -> Found {
    let priority = 0_i32;
    raw(libc::SYS_sched_setscheduler, &[pid, libc::SCHED_BATCH.into(), (&raw const priority) as i64])?;
    match raw(libc::SYS_sched_getscheduler, &[pid])? {
        policy if policy == i64::from(libc::SCHED_BATCH) => Ok("it waits for the others".to_owned()),
        _ => Err(io::Error::other("nothing has changed")),
    }
}

pub(super) fn shared_memory(segment: i64) -> Found {
    call(libc::SYS_shmat, &[segment, 0, 0]).map(|_| "it is here".to_owned())
}

/// Shared memory of the process that calls, open to all and gone with it: its number.
pub fn segment() -> io::Result<i64> {
    const BYTES: i64 = 4096;
    let number = raw(libc::SYS_shmget, &[libc::IPC_PRIVATE.into(), BYTES, i64::from(libc::IPC_CREAT | 0o666)])?;
    let attached = raw(libc::SYS_shmat, &[number, 0, 0]);
    // It goes when nobody is attached any more; until then others may be.
    raw(libc::SYS_shmctl, &[number, libc::IPC_RMID.into(), 0])?;
    attached.map(|_| number)
}
