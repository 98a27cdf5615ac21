//! System calls that no server needs, and the sockets that its network does not cover:
//! seccomp. All else is allowed: Landlock and the namespaces judge it.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::super::{Network, Plan, Refusal, Tier};

mod core_tier;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refused whatever their arguments.
const DENIED: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_process_madvise,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_settimeofday,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_syslog,
    libc::SYS_fanotify_init,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
];

#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[i64] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
    libc::SYS__sysctl,
    libc::SYS_uselib,
    libc::SYS_ustat,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[i64] = &[libc::SYS_kexec_file_load];

const NEW_NAMESPACES: [libc::c_int; 8] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
    0x80,
];

pub(super) fn apply(plan: &Plan, tier: Tier) -> Result<(), Refusal> {
    let refuse = |error: &dyn std::fmt::Display| Refusal(format!("the system call filter cannot be applied: {error}"));
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| refuse(&error))?;
    let compile = |rules: Rules, errno: i32| -> Result<BpfProgram, Refusal> {
        let action = SeccompAction::Errno(errno.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).map_err(|error| refuse(&error))?;
        filter.try_into().map_err(|error: seccompiler::BackendError| refuse(&error))
    };
    let pretended = match tier {
        Tier::Full => None,
        Tier::Core => Some(compile(core_tier::pretended().map_err(|error| refuse(&error))?, 0)?),
    };
    let denied = compile(denied(plan, tier).map_err(|error| refuse(&error))?, libc::EPERM)?;
    // Its flags are in memory, where no filter can look: libraries fall back to clone.
    let absent = compile([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)?;
    // Of two that answer with an error the later one wins.
    let programs = [pretended, Some(absent), Some(denied), cfg!(target_arch = "x86_64").then(other_numbers)];
    for program in programs.into_iter().flatten() {
        seccompiler::apply_filter(&program).map_err(|error| refuse(&error))?;
    }
    Ok(())
}

/// The x32 calls of x86_64 are the same calls under numbers that no rule names.
fn other_numbers() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        instruction(0x20, 0, 0, 0),   // load the number
        instruction(0x35, 0, 1, X32), // at least X32: the next, else the one after it
        instruction(0x06, 0, 0, 0x0005_0000 | libc::EPERM.unsigned_abs()),
        instruction(0x06, 0, 0, 0x7fff_0000), // allow
    ]
}

fn is(argument: u8, op: Op, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, Len::Dword, op, value)
}

fn denied(plan: &Plan, tier: Tier) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = DENIED.iter().chain(DENIED_HERE).map(|call| (*call, Vec::new())).collect();
    if tier == Tier::Core {
        rules.extend(core_tier::DENIED.iter().map(|call| (*call, Vec::new())));
    }
    let mut deny = |call: i64, conditions: Vec<SeccompCondition>| -> Result<(), seccompiler::BackendError> {
        rules.entry(call).or_default().push(SeccompRule::new(conditions)?);
        Ok(())
    };
    for flag in NEW_NAMESPACES {
        let flag = u64::from(flag.unsigned_abs());
        deny(libc::SYS_clone, vec![is(0, Op::MaskedEq(flag), flag)?])?;
    }
    // What a terminal would take for typed input.
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        deny(libc::SYS_ioctl, vec![is(1, Op::Eq, request)?])?;
    }
    // The limits and the priority of others: of a process, a group, all of a user.
    deny(libc::SYS_prlimit64, vec![is(0, Op::Ne, 0)?])?;
    const PROCESS: u64 = 0;
    const IO_PROCESS: u64 = 1;
    for (call, process) in [(libc::SYS_setpriority, PROCESS), (libc::SYS_ioprio_set, IO_PROCESS)] {
        deny(call, vec![is(0, Op::Ne, process)?])?;
        deny(call, vec![is(1, Op::Ne, 0)?])?;
    }
    deny(libc::SYS_personality, vec![is(0, Op::Ne, 0xffff_ffff)?, is(0, Op::Ne, 0)?])?;
    for bit in [0o4000, 0o2000] {
        let mode = |argument| is(argument, Op::MaskedEq(bit), bit);
        let creates = |argument| is(argument, Op::MaskedEq(0o100), 0o100);
        #[cfg(target_arch = "x86_64")]
        {
            deny(libc::SYS_chmod, vec![mode(1)?])?;
            deny(libc::SYS_creat, vec![mode(1)?])?;
            deny(libc::SYS_mknod, vec![mode(1)?])?;
            deny(libc::SYS_open, vec![creates(1)?, mode(2)?])?;
        }
        deny(libc::SYS_fchmod, vec![mode(1)?])?;
        deny(libc::SYS_fchmodat, vec![mode(2)?])?;
        deny(libc::SYS_fchmodat2, vec![mode(2)?])?;
        deny(libc::SYS_mknodat, vec![mode(2)?])?;
        deny(libc::SYS_openat, vec![creates(2)?, mode(3)?])?;
    }
    for conditions in sockets(plan)? {
        deny(libc::SYS_socket, conditions)?;
    }
    if plan.network != Network::Open {
        // It connects without connect(2).
        const FAST_OPEN: u64 = 0x2000_0000;
        for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
            deny(call, vec![is(flags, Op::MaskedEq(FAST_OPEN), FAST_OPEN)?])?;
        }
    }
    if plan.network == Network::None && !plan.unix_sockets {
        rules.insert(libc::SYS_socket, Vec::new());
    }
    Ok(rules)
}

/// Which socket(2) is refused. socketpair(2) is never: it reaches nobody else.
fn sockets(plan: &Plan) -> Result<Vec<Vec<SeccompCondition>>, seccompiler::BackendError> {
    const UNIX: u64 = libc::AF_UNIX as u64;
    let mut families = match plan.network {
        Network::None => vec![],
        Network::Loopback | Network::Allow(_) => vec![libc::AF_INET as u64, libc::AF_INET6 as u64],
        // Programs ask for the machine's addresses over netlink.
        Network::Open => vec![libc::AF_INET as u64, libc::AF_INET6 as u64, libc::AF_NETLINK as u64],
    };
    if plan.unix_sockets {
        families.push(UNIX);
    }
    let others: Result<Vec<_>, _> = families.iter().map(|family| is(0, Op::Ne, *family)).collect();
    let mut refused = vec![others?];
    if refused[0].is_empty() {
        // No condition would not be a rule; it is refused as a whole elsewhere.
        refused.clear();
    }
    let types: &[libc::c_int] = match plan.network {
        Network::Open => &[],
        Network::Loopback => &[libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP],
        Network::None | Network::Allow(_) => {
            &[libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP]
        }
    };
    for kind in types {
        refused.push(vec![is(0, Op::Ne, UNIX)?, is(1, Op::MaskedEq(0xf), u64::from(kind.unsigned_abs()))?]);
    }
    if plan.network != Network::Open {
        // Of the stream protocols only TCP: MPTCP is another way to connect.
        refused.push(vec![is(0, Op::Ne, UNIX)?, is(2, Op::Ne, 0)?, is(2, Op::Ne, 6)?, is(2, Op::Ne, 17)?]);
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_for_every_kind_of_network() {
        let arch = TargetArch::try_from(std::env::consts::ARCH).expect("a known machine");
        for network in [Network::None, Network::Loopback, Network::Open, Network::Allow(Vec::new())] {
            for (unix_sockets, tier) in
                [(false, Tier::Full), (true, Tier::Full), (false, Tier::Core), (true, Tier::Core)]
            {
                let plan = Plan { network: network.clone(), unix_sockets, ..Plan::off("a") };
                let rules = denied(&plan, tier).expect("rules");
                let whole = rules[&libc::SYS_socket].is_empty();
                assert_eq!(whole, network == Network::None && !unix_sockets);
                let filter =
                    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(1), arch).expect("a filter");
                let program: BpfProgram = filter.try_into().expect("a program");
                assert!(program.len() < 4096);
            }
        }
    }
}
