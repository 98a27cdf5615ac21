//! Files, and whom a process may signal: Landlock. Every rule is a hard requirement.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

use super::super::{Network, Plan, Refusal, Tier};

/// The first version that can forbid to truncate a file.
const ABI_MIN: u32 = 3;
/// The first that keeps signals and abstract sockets inside.
const ABI_SCOPES: u32 = 6;

pub(super) fn abi() -> u32 {
    // SAFETY: without a ruleset and with this flag it only answers a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, 1) };
    u32::try_from(version).unwrap_or(0)
}

fn known(abi: u32) -> ABI {
    match abi {
        0 => ABI::Unsupported,
        1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        6 => ABI::V6,
        _ => ABI::V7,
    }
}

/// Of this kernel, or why it is too old for what is asked for.
pub(super) fn apply(plan: &Plan, tier: Tier) -> Result<(), Refusal> {
    let version = abi();
    suffices(version, tier, &plan.server)?;
    restrict(plan, tier, &Used::of(version, plan)).map_err(|error| Refusal::of("Landlock cannot be applied", error))
}

fn suffices(version: u32, tier: Tier, server: &str) -> Result<(), Refusal> {
    if version < ABI_MIN {
        return Err(Refusal(format!(
            "this kernel's Landlock is version {version}, and at least {ABI_MIN} is needed: use Linux 6.2 or later \
             with \"landlock\" in its lsm= list; to run it without protection, write sandbox = \"off\" under \
             [servers.{server}]"
        )));
    }
    if version < ABI_SCOPES && tier == Tier::Core {
        return Err(Refusal(format!(
            "without namespaces at least version {ABI_SCOPES} of Landlock is needed to keep signals inside, and this \
             kernel has {version}: use Linux 6.12 or later, or allow user namespaces"
        )));
    }
    Ok(())
}

/// What this version leaves open that a later one would not, and nothing else covers.
pub(super) fn lacks(version: u32, plan: &Plan) -> Vec<String> {
    // Otherwise the network is its own, or there are no such sockets.
    let has_abstract_sockets = plan.unix_sockets && plan.network == Network::Open;
    let is_open = has_abstract_sockets && version < ABI_SCOPES;
    is_open
        .then(|| format!("abstract unix sockets (Landlock {version}, and {ABI_SCOPES} is needed)"))
        .into_iter()
        .collect()
}

/// What is taken of a version: all that it can forbid, and of that what is given.
#[derive(Debug)]
struct Used {
    abi: ABI,
    forbidden: BitFlags<AccessFs>,
    read: BitFlags<AccessFs>,
    write: BitFlags<AccessFs>,
    tcp: BitFlags<AccessNet>,
    scopes: BitFlags<Scope>,
}

impl Used {
    fn of(version: u32, plan: &Plan) -> Self {
        let abi = known(version);
        let forbidden = AccessFs::from_all(abi);
        let mut write = forbidden & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
        if !plan.unix_sockets {
            write &= !BitFlags::from(AccessFs::MakeSock);
        }
        let tcp = if plan.network == Network::None { AccessNet::from_all(abi) } else { BitFlags::EMPTY };
        Used { abi, forbidden, read: AccessFs::from_read(abi), write, tcp, scopes: Scope::from_all(abi) }
    }
}

fn restrict(plan: &Plan, tier: Tier, used: &Used) -> Result<(), Box<dyn std::error::Error>> {
    let Used { abi, forbidden, read, write, tcp, scopes } = *used;
    let mut rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    rules = rules.handle_access(forbidden)?;
    if !tcp.is_empty() {
        rules = rules.handle_access(tcp)?;
    }
    if !scopes.is_empty() {
        rules = rules.scope(scopes)?;
    }
    let mut rules = rules.create()?;
    let (home, tmp) = plan.private_folders(tier);
    let (mut readable, mut writable) = (plan.read.clone(), plan.write.clone());
    writable.extend([home, tmp]);
    if tier == Tier::Full {
        readable.extend(["/proc", "/etc/hosts"].map(PathBuf::from));
        writable.push("/dev/shm".into());
    }
    let devices = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"].map(PathBuf::from);
    let all = readable.iter().map(|path| (path, read)).chain(writable.iter().chain(&devices).map(|path| (path, write)));
    for (path, access) in all {
        let Ok(opened) = PathFd::new(path) else { continue };
        let access = if is_folder(path) { access } else { access & AccessFs::from_file(abi) };
        rules = rules.add_rule(PathBeneath::new(opened, access))?;
    }
    if tier == Tier::Full {
        // Nothing is there that was not granted: its names may be listed.
        rules = rules.add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::ReadDir))?;
    }
    let status = rules.restrict_self()?;
    // A hard requirement that was not met has been an error above.
    debug_assert_eq!(status.ruleset, RulesetStatus::FullyEnforced);
    Ok(())
}

fn is_folder(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// See landlock(7): what each version has brought.
    #[test]
    fn of_each_version_is_used_what_it_can_do_and_no_more() {
        let plan = Plan { network: Network::None, unix_sockets: false, ..Plan::off("a") };
        let open = Plan { network: Network::Open, ..plan.clone() };
        for version in 1..=9 {
            let used = Used::of(version, &plan);
            for (right, since) in
                [(AccessFs::WriteFile, 1), (AccessFs::Refer, 2), (AccessFs::Truncate, 3), (AccessFs::IoctlDev, 5)]
            {
                assert_eq!(used.forbidden.contains(right), version >= since, "{right:?} in {version}");
                let is_given = version >= since && right != AccessFs::IoctlDev;
                assert_eq!(used.write.contains(right), is_given, "{right:?} in {version}");
                assert!(!used.read.contains(right), "{right:?} in {version}");
            }
            for never in [AccessFs::MakeChar, AccessFs::MakeBlock, AccessFs::MakeSock] {
                assert!(used.forbidden.contains(never) && !used.write.contains(never), "{never:?} in {version}");
            }
            assert!(used.read.contains(AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute));
            assert_eq!(used.tcp == (AccessNet::BindTcp | AccessNet::ConnectTcp), version >= 4, "TCP in {version}");
            assert_eq!(used.tcp.is_empty(), version < 4, "TCP in {version}");
            assert!(Used::of(version, &open).tcp.is_empty(), "what is open is not forbidden");
            assert_eq!(used.scopes == (Scope::Signal | Scope::AbstractUnixSocket), version >= 6, "scopes in {version}");
            assert_eq!(used.scopes.is_empty(), version < 6, "scopes in {version}");
        }
    }

    #[test]
    fn a_version_that_is_too_old_is_refused_with_what_is_needed() {
        for version in 0..=9 {
            let full = suffices(version, Tier::Full, "a");
            let core = suffices(version, Tier::Core, "a");
            assert_eq!((full.is_ok(), core.is_ok()), (version >= 3, version >= 6), "{version}");
            if let Err(Refusal(why)) = full {
                let expected = format!("Landlock is version {version}, and at least 3 is needed: use Linux 6.2");
                assert!(why.contains(&expected) && why.contains("sandbox = \"off\" under [servers.a]"), "{why}");
            } else if let Err(Refusal(why)) = core {
                let expected = format!(
                    "at least version 6 of Landlock is needed to keep signals inside, and this kernel has {version}"
                );
                assert!(why.contains(&expected) && why.contains("allow user namespaces"), "{why}");
            }
        }
    }

    #[test]
    fn what_a_version_leaves_open_is_told() {
        let open = Plan { network: Network::Open, unix_sockets: true, ..Plan::off("a") };
        for version in 3..=7 {
            let lacks = lacks(version, &open);
            assert_eq!(lacks.len(), usize::from(version < 6), "{lacks:?}");
            assert!(lacks.iter().all(|what| what.starts_with("abstract unix sockets")), "{lacks:?}");
            for covered in [
                Plan { unix_sockets: false, ..open.clone() },
                Plan { network: Network::None, ..open.clone() },
                Plan { network: Network::Allow(Vec::new()), ..open.clone() },
            ] {
                assert_eq!(super::lacks(version, &covered), Vec::<String>::new());
            }
        }
    }
}
