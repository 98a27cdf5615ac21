//! What namespaces keep apart, for a server without them: files are changed by their names
//! only inside, and what System V and POSIX keep for all of a user is out of reach.
//!
//! Landlock judges who opens a file, not who changes its mode, owner, times or attributes,
//! and no filter sees a path. To refuse would break what merely copies a file. So such a call
//! is answered as done, and does nothing, inside too; by descriptor it works.

use seccompiler::{SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompRule};

use super::{Rules, is};

/// Newer than the C library may be; the same numbers on every machine.
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;
const FILE_SETATTR: i64 = 469;

/// Refused whatever their arguments.
pub(super) const DENIED: &[i64] = &[
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
];

/// Answered as done whatever their arguments.
const PRETENDED: &[i64] = &[libc::SYS_fchmodat, libc::SYS_fchmodat2, libc::SYS_fchownat];

#[cfg(target_arch = "x86_64")]
const PRETENDED_HERE: &[i64] =
    &[libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat];
#[cfg(not(target_arch = "x86_64"))]
const PRETENDED_HERE: &[i64] = &[];

/// How other processes are scheduled. Libraries name their own threads so.
const OF_PROCESSES: &[i64] =
    &[libc::SYS_sched_setscheduler, libc::SYS_sched_setparam, libc::SYS_sched_setattr, libc::SYS_sched_setaffinity];

/// What is answered as done. What another filter refuses is refused all the same: of two
/// errors the kernel takes that of the filter that was applied last.
pub(super) fn pretended() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = PRETENDED.iter().chain(PRETENDED_HERE).map(|call| (*call, Vec::new())).collect();
    for call in OF_PROCESSES {
        rules.insert(*call, vec![SeccompRule::new(vec![is(0, Op::Ne, 0)?])?]);
    }
    // Without a path it is futimens(3), of a file that was opened.
    let has_path = SeccompCondition::new(1, Len::Qword, Op::Ne, 0)?;
    let by_path = [has_path, is(3, Op::Ne, 0)?].map(|condition| SeccompRule::new(vec![condition]));
    rules.insert(libc::SYS_utimensat, by_path.into_iter().collect::<Result<_, _>>()?);
    Ok(rules)
}
