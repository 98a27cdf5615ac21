//! The means of Linux, applied to the process that calls. What is taken here cannot be
//! taken back; what cannot be had is an error with its reason, never a silent no.

use std::{io, os::fd::OwnedFd, path::PathBuf};

use rustix::{
    io::Errno,
    mount::{MountFlags, MountPropagationFlags},
    process::Pid,
};

use super::{Network, Plan, Refusal, Report, Tier, egress};

pub mod attempts;
mod landlock;
mod net;
pub mod observe;
mod rights;
mod root;
mod syscalls;

/// The namespaces that a process is started in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Namespaces(libc::c_int);

impl Namespaces {
    pub(crate) fn bits(self) -> libc::c_int {
        self.0
    }

    fn has_users(self) -> bool {
        self.0 & libc::CLONE_NEWUSER != 0
    }
}

/// What is tried; whether it must be had is decided where it cannot.
pub(crate) fn namespaces(plan: &Plan) -> Namespaces {
    let mut wanted = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    if plan.is_off() {
        // Root needs no user namespace to make others, and would be less than root in one.
        if !is_root() {
            wanted |= libc::CLONE_NEWUSER;
        }
        return Namespaces(wanted);
    }
    // A user namespace of its own also for root: it counts the server's processes apart.
    wanted |= libc::CLONE_NEWUSER | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if plan.network != Network::Open {
        wanted |= libc::CLONE_NEWNET;
    }
    Namespaces(wanted)
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The kernel's errors here mislead; what is meant is a setting.
pub(crate) fn explain_namespaces(error: io::Error) -> io::Error {
    let why = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC) => {
            "the limit is used up or 0: raise sysctl user.max_user_namespaces and user.max_pid_namespaces"
        }
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
        // All that is mapped here: in a container not every number is.
        let own = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}"));
        write("uid_map", &identity_map(&own("uid_map")?))?;
        return write("gid_map", &identity_map(&own("gid_map")?));
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    write("uid_map", &format!("{uid} {uid} 1"))?;
    write("setgroups", "deny")?;
    write("gid_map", &format!("{gid} {gid} 1"))
}

/// The map that gives every number of `map` to itself.
fn identity_map(map: &str) -> String {
    let lines = map.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (inside, _, count) = (fields.next()?, fields.next()?, fields.next()?);
        Some(format!("{inside} {inside} {count}\n"))
    });
    lines.collect()
}

/// The namespaces cannot be had: what is missing without them, where that is accepted.
pub(crate) fn without_namespaces(plan: &Plan, why: &str) -> Result<Vec<String>, Refusal> {
    if plan.is_off() {
        return Ok(vec![format!("certain end of the whole process tree ({why})")]);
    }
    if let Some(need) = plan.needs_full.first() {
        let server = &plan.server;
        return Err(Refusal(format!(
            "{need} needs namespaces, and {why}. \
             To accept less, take it out under [servers.{server}.sandbox], or write sandbox = \"off\" for no protection"
        )));
    }
    let missing = [
        "pid namespace",
        "process limit",
        "size of temporary files",
        "certain end of the whole process tree",
        "names, sizes, links and attributes of files anywhere, and watching them (stat, readlink, getxattr, inotify)",
        "mode, times and attributes of what it may only read (by descriptor)",
    ];
    Ok(missing.iter().map(|part| (*part).to_owned()).chain([format!("namespaces: {why}")]).collect())
}

/// What is prepared in new namespaces before the program.
pub(crate) struct Inside {
    pub(crate) missing: Vec<String>,
    pub(crate) listeners: Vec<OwnedFd>,
}

/// Makes the surroundings inside new namespaces.
pub(crate) fn surround(plan: &Plan) -> Result<Inside, Refusal> {
    let propagation = if plan.is_off() { MountPropagationFlags::DOWNSTREAM } else { MountPropagationFlags::PRIVATE };
    rustix::mount::mount_change("/", propagation | MountPropagationFlags::REC)
        .map_err(|error| Refusal::of("its mounts cannot be made its own", error))?;
    if plan.is_off() {
        mount_proc("/proc")?;
        return Ok(Inside { missing: Vec::new(), listeners: Vec::new() });
    }
    let _ = rustix::system::sethostname(b"sandbox");
    let listeners = match &plan.network {
        Network::None | Network::Open => Vec::new(),
        Network::Loopback => net::up().map(|()| Vec::new())?,
        Network::Allow(allowed) => net::listeners(allowed)?,
    };
    root::build(plan)?;
    Ok(Inside { missing: Vec::new(), listeners })
}

fn mount_proc(target: &str) -> Result<(), Refusal> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", target, "proc", flags, None)
        .map_err(|error| Refusal::of("a /proc of its own cannot be mounted (in a container, /proc is masked)", error))
}

/// For the first process of a namespace, which only waits from now on.
pub(crate) fn drop_rights(plan: &Plan) -> Result<(), Refusal> {
    if plan.is_off() { rights::become_user(plan) } else { rights::drop_all(plan) }
}

/// The last thing before the program.
pub(crate) fn confine(plan: &Plan, tier: Tier) -> Result<(), Refusal> {
    if plan.is_off() {
        return rights::become_user(plan);
    }
    rights::limit(plan, tier)?;
    rights::drop_all(plan)?;
    rights::can_reach(plan)?;
    landlock::apply(plan, tier)?;
    syscalls::apply(plan, tier)
}

/// Variables that depend on how the server is confined.
pub(crate) fn variables(plan: &Plan, tier: Tier) -> Vec<(String, PathBuf)> {
    if plan.is_off() {
        return Vec::new();
    }
    let (home, tmp) = plan.private_folders(tier);
    let mut variables = vec![("HOME".to_owned(), home), ("TMPDIR".to_owned(), tmp)];
    if matches!(plan.network, Network::Allow(_)) {
        variables.extend(egress::variables().map(|(name, value)| (name.to_owned(), value.into())));
    }
    variables
}

/// Home and temporary files of the core tier.
pub(crate) fn make_private(plan: &Plan) -> Result<(), Refusal> {
    use std::os::unix::fs::DirBuilderExt as _;
    if plan.is_off() {
        return Ok(());
    }
    let (home, tmp) = plan.private_folders(Tier::Core);
    for folder in [&plan.private, &home, &tmp] {
        let made = std::fs::DirBuilder::new().mode(0o700).create(folder);
        let owned = made.and_then(|()| match &plan.identity {
            Some(user) => std::os::unix::fs::chown(folder, Some(user.uid), Some(user.gid)),
            None => Ok(()),
        });
        owned.map_err(|error| Refusal::of("its private folder cannot be made", error))?;
    }
    Ok(())
}

pub(crate) fn report(plan: &Plan, tier: Tier, missing: Vec<String>) -> Report {
    let tree_kill = if tier == Tier::Full { "certain" } else { "best effort" };
    let missing = plan.given_up.iter().cloned().chain(missing);
    if plan.is_off() {
        return Report {
            profile: "off".to_owned(),
            tier: "none".to_owned(),
            network: "open".to_owned(),
            tree_kill: tree_kill.to_owned(),
            not_enforced: ["files", "network", "limits"].map(str::to_owned).into_iter().chain(missing).collect(),
            ..Report::default()
        };
    }
    let version = landlock::abi();
    Report {
        profile: plan.profile.name().to_owned(),
        tier: if tier == Tier::Full { "full" } else { "core" }.to_owned(),
        network: plan.network.name().to_owned(),
        tree_kill: tree_kill.to_owned(),
        landlock_abi: version,
        limits: rights::limits_in_words(plan, tier),
        not_enforced: missing.chain(landlock::lacks(version, plan)).collect(),
    }
}
