//! Who the process is, what it may use, and that it never becomes more.

use rustix::{
    fs::Access,
    io::Errno,
    process::{Gid, Resource, Rlimit, Uid, setrlimit},
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs},
};

use super::super::{Plan, Refusal, Tier};

/// Limits on what the process, and what it starts, may use.
pub(super) fn limit(plan: &Plan, tier: Tier) -> Result<(), Refusal> {
    let bounds = &plan.limits;
    let limits = [
        (Resource::Core, Some(0)),
        // Not the address space: language runtimes reserve far more than they use.
        (Resource::Data, bounds.memory_bytes),
        (Resource::Nofile, bounds.open_files.map(u64::from)),
        (Resource::Fsize, bounds.file_size_bytes),
        (Resource::Cpu, bounds.cpu_seconds.map(u64::from)),
        // Counted over all processes of a user, unless a user namespace counts apart.
        (Resource::Nproc, bounds.processes.map(u64::from).filter(|_| tier == Tier::Full)),
    ];
    for (resource, limit) in limits {
        let Some(limit) = limit else { continue };
        let hard = rustix::process::getrlimit(resource).maximum;
        let limit = Some(hard.map_or(limit, |hard| hard.min(limit)));
        setrlimit(resource, Rlimit { current: limit, maximum: limit })
            .map_err(|error| Refusal::of(&format!("the limit {resource:?} cannot be set"), error))?;
    }
    Ok(())
}

pub(super) fn limits_in_words(plan: &Plan, tier: Tier) -> Vec<String> {
    let bounds = &plan.limits;
    let size = |name: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{name} {}", crate::text::bytes(bytes)));
    let count = |name: &str, count: Option<u32>| count.map(|count| format!("{name} {count}"));
    let full = tier == Tier::Full;
    let has_disk = !plan.write.is_empty() || !full;
    [
        size("memory", bounds.memory_bytes),
        count("processes", bounds.processes.filter(|_| full)),
        count("open files", bounds.open_files),
        size("file size", bounds.file_size_bytes),
        count("cpu seconds", bounds.cpu_seconds),
        size("temporary files", Some(bounds.tmp_bytes).filter(|_| full)),
        size("disk", bounds.disk_bytes.filter(|_| has_disk)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Its user, no capability, and no way to either.
pub(super) fn drop_all(plan: &Plan) -> Result<(), Refusal> {
    let refuse = |error: Errno| Refusal::of("its capabilities cannot be dropped", error);
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // One that this kernel does not have, or nobody who has any.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(error) => return Err(refuse(error)),
        }
    }
    become_user(plan)?;
    match rustix::thread::clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(refuse(error)),
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).map_err(refuse)?;
    set_no_new_privs(true).map_err(|error| Refusal::of("no_new_privs cannot be set", error))
}

pub(super) fn become_user(plan: &Plan) -> Result<(), Refusal> {
    let Some(user) = &plan.identity else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_groups(&[])
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        .map_err(|error| Refusal::of(&format!("it cannot become user {}", user.name), error))
}

/// Files belong to somebody: what the user of a server cannot reach, the server cannot.
pub(super) fn can_reach(plan: &Plan) -> Result<(), Refusal> {
    let Some(user) = &plan.identity else { return Ok(()) };
    let access = |path: &std::path::Path, access| rustix::fs::access(path, access).is_ok();
    let (name, server) = (&user.name, &plan.server);
    if let Some(path) = plan.write.iter().find(|path| !access(path, Access::WRITE_OK | Access::READ_OK)) {
        let path = path.display();
        return Err(Refusal(format!(
            "write: user {name} cannot write {path}, which belongs to somebody else: chown {name} {path}, or write \
             user = \"OWNER\" under [servers.{server}.sandbox]"
        )));
    }
    if let Some(program) = plan.written.first().filter(|program| !access(program, Access::EXEC_OK)) {
        let program = program.display();
        return Err(Refusal(format!(
            "user {name} cannot run {program}: give others the right to read and execute it, or write \
             user = \"OWNER\" under [servers.{server}.sandbox]"
        )));
    }
    Ok(())
}
