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
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        6 => ABI::V6,
        _ => ABI::V7,
    }
}

pub(super) fn apply(plan: &Plan, tier: Tier) -> Result<(), Refusal> {
    let version = abi();
    if version < ABI_MIN {
        return Err(Refusal(format!(
            "this kernel's Landlock is version {version}, and at least {ABI_MIN} is needed: use Linux 6.2 or later \
             with \"landlock\" in its lsm= list; to run it without protection, write sandbox = \"off\" under \
             [servers.{}]",
            plan.server
        )));
    }
    if version < ABI_SCOPES && tier == Tier::Core {
        return Err(Refusal(format!(
            "without namespaces at least version {ABI_SCOPES} of Landlock is needed to keep signals inside, and this \
             kernel has {version}: use Linux 6.12 or later, or allow user namespaces"
        )));
    }
    restrict(plan, tier, version).map_err(|error| Refusal::of("Landlock cannot be applied", error))
}

fn restrict(plan: &Plan, tier: Tier, version: u32) -> Result<(), Box<dyn std::error::Error>> {
    let abi = known(version);
    let read = AccessFs::from_read(abi);
    let mut write = AccessFs::from_all(abi) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    if version >= 5 {
        write &= !BitFlags::from(AccessFs::IoctlDev);
    }
    if !plan.unix_sockets {
        write &= !BitFlags::from(AccessFs::MakeSock);
    }
    let mut rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    rules = rules.handle_access(AccessFs::from_all(abi))?;
    if version >= 4 && plan.network == Network::None {
        rules = rules.handle_access(AccessNet::from_all(abi))?;
    }
    if version >= ABI_SCOPES {
        rules = rules.scope(Scope::from_all(abi))?;
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
