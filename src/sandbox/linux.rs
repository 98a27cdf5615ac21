//! The means of Linux, applied to the process that calls.

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    mount::{MountFlags, MountPropagationFlags},
    process::Pid,
};

use super::{Plan, Profile, Refusal, Report, Tier};

/// The namespaces that a process is started in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Namespaces(libc::c_int);

impl Namespaces {
    pub(crate) fn bits(self) -> libc::c_int {
        self.0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn has_users(self) -> bool {
        self.0 & libc::CLONE_NEWUSER != 0
    }
}

/// What is tried; whether it must be had is decided where it cannot.
pub(crate) fn namespaces(_plan: &Plan) -> Namespaces {
    let mut wanted = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    // Root needs no user namespace to make others, and would be less than root in one.
    if !is_root() {
        wanted |= libc::CLONE_NEWUSER;
    }
    Namespaces(wanted)
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The kernel's errors here mislead; what is meant is a setting.
pub(crate) fn explain_namespaces(error: io::Error) -> io::Error {
    let why = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC) => "sysctl user.max_user_namespaces (or max_pid_namespaces) is used up or 0",
        Some(Errno::PERM | Errno::ACCESS) => {
            "not permitted: in a container its seccomp profile forbids it; else see sysctl \
             kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns"
        }
        Some(Errno::INVAL | Errno::NOSYS) => "this kernel was built without them",
        _ => return error,
    };
    io::Error::other(why)
}

/// Everybody is who he was. Called by the launcher for its child.
pub(crate) fn map_users(namespaces: Namespaces, child: Pid) -> io::Result<()> {
    if !namespaces.has_users() {
        return Ok(());
    }
    let write = |file: &str, text: &str| std::fs::write(format!("/proc/{}/{file}", child.as_raw_nonzero()), text);
    if is_root() {
        write("uid_map", "0 0 4294967295")?;
        return write("gid_map", "0 0 4294967295");
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    write("uid_map", &format!("{uid} {uid} 1"))?;
    write("setgroups", "deny")?;
    write("gid_map", &format!("{gid} {gid} 1"))
}

/// The namespaces cannot be had: what is missing without them, where that is accepted.
pub(crate) fn without_namespaces(plan: &Plan, why: &str) -> Result<Vec<String>, Refusal> {
    match plan.profile {
        Profile::Off => Ok(vec![format!("certain end of the whole process tree ({why})")]),
        _ => Err(Refusal(why.to_owned())),
    }
}

/// What is prepared in new namespaces before the program.
pub(crate) struct Inside {
    pub(crate) missing: Vec<String>,
    pub(crate) listeners: Vec<OwnedFd>,
}

/// Makes the surroundings inside new namespaces.
pub(crate) fn surround(_plan: &Plan) -> Result<Inside, Refusal> {
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).map_err(|error| Refusal::of("its mounts cannot be made private", error))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "/proc", "proc", flags, None)
        .map_err(|error| Refusal::of("a /proc of its own cannot be mounted", error))?;
    Ok(Inside { missing: Vec::new(), listeners: Vec::new() })
}

/// For the first process of a namespace, which only waits from now on.
pub(crate) fn drop_rights(_plan: &Plan) -> Result<(), Refusal> {
    Ok(())
}

/// The last thing before the program: what is taken here cannot be taken back.
pub(crate) fn confine(_plan: &Plan, _tier: Tier) -> Result<(), Refusal> {
    Ok(())
}

pub(crate) fn report(plan: &Plan, tier: Tier, missing: Vec<String>) -> Report {
    let tree_kill = if tier == Tier::Full { "certain" } else { "best effort" };
    match plan.profile {
        Profile::Off => Report {
            profile: "off".to_owned(),
            tier: "none".to_owned(),
            network: "open".to_owned(),
            tree_kill: tree_kill.to_owned(),
            not_enforced: ["files", "network", "limits"].map(str::to_owned).into_iter().chain(missing).collect(),
            ..Report::default()
        },
        Profile::Strict | Profile::Standard => Report::default(),
    }
}
