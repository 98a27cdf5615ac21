//! A file system of its own: an empty one, into which only what was granted is bound.
//! What is not there cannot be asked for, not even whether it exists.

use std::{
    ffi::CString,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, mount_bind_recursive, unmount},
};

use super::super::{Network, Plan, Refusal, Tier, egress, plan::is_within};

const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Where the old root is seen while the new one is built, and where the new one grows.
const OLD: &str = "/old";
const NEW: &str = "/new";
/// One file system for all that is private, so that one bound holds for its sum.
const SCRATCH: &str = "/scratch";
/// Folders and links only.
const SKELETON_OPTIONS: &str = "mode=0755,size=8m,nr_inodes=16k";
/// A chain of links longer than this is a ring.
const LINKS_MAX: usize = 40;

/// Replaces this process's file system.
pub(super) fn build(plan: &Plan) -> Result<(), Refusal> {
    step("a place to build in", stand_aside())?;
    for path in plan.read.iter().chain(&plan.write) {
        let writable = is_within(path, &plan.write);
        bind(path, writable).map_err(|error| Refusal::of(&format!("{} cannot be bound", path.display()), error))?;
    }
    for path in base_links().iter().chain(&plan.written) {
        // Where this fails the path leads nowhere inside, as it may well do.
        let _ = lead(path, LINKS_MAX);
    }
    step("its private folders", private(plan))?;
    // Last of what is below other things: it must lie on top of them.
    for path in &plan.masked {
        step("seawall's own files", mask(path, &plan.shown))?;
    }
    step("its devices", devices())?;
    step("its names of hosts", hosts(plan))?;
    fs::create_dir_all(format!("{NEW}/proc")).map_err(|error| Refusal::of("no /proc", error))?;
    super::mount_proc(&format!("{NEW}/proc"))?;
    step("its root", enter())
}

fn step(what: &str, result: Result<(), std::io::Error>) -> Result<(), Refusal> {
    result.map_err(|error| Refusal::of(&format!("{what} cannot be made"), error))
}

/// Makes an empty file system the root, with the old one below it.
fn stand_aside() -> std::io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let options = CString::new(SKELETON_OPTIONS)?;
    mount("tmpfs", "/tmp", "tmpfs", flags, Some(options.as_c_str()))?;
    for folder in [OLD, NEW, SCRATCH] {
        fs::create_dir(format!("/tmp{folder}"))?;
    }
    rustix::process::pivot_root("/tmp", format!("/tmp{OLD}"))?;
    rustix::process::chdir("/")?;
    mount("tmpfs", NEW, "tmpfs", flags, Some(options.as_c_str()))?;
    Ok(())
}

fn old(path: &Path) -> PathBuf {
    inside(OLD, path)
}

fn new(path: &Path) -> PathBuf {
    inside(NEW, path)
}

fn inside(root: &str, path: &Path) -> PathBuf {
    Path::new(root).join(path.strip_prefix("/").unwrap_or(path))
}

fn bind(path: &Path, writable: bool) -> std::io::Result<()> {
    let (source, target) = (old(path), new(path));
    make_target(&source, &target)?;
    mount_bind_recursive(&source, &target)?;
    set_flags(
        &target,
        libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | if writable { 0 } else { libc::MOUNT_ATTR_RDONLY },
    )
}

/// Something to mount on, of the same kind.
fn make_target(source: &Path, target: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(target).is_ok() {
        return Ok(());
    }
    if fs::metadata(source)?.is_dir() {
        return fs::create_dir_all(target);
    }
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(target, "")
}

/// Sets attributes of a mount and of all below it; none is ever taken away, as the
/// kernel would not let a user namespace do.
fn set_flags(target: &Path, attributes: u64) -> std::io::Result<()> {
    let path = CString::new(target.as_os_str().as_bytes())?;
    let attributes = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: path and attributes are what this call reads, and live until it returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Names by which programs are known, whatever they lead to.
fn base_links() -> Vec<PathBuf> {
    let names = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/localtime", "/etc/resolv.conf", "/etc/ssl/certs"];
    names.iter().chain(&["/etc/os-release", "/etc/alternatives"]).map(PathBuf::from).collect()
}

/// Makes a path lead to where it leads outside, link by link.
fn lead(path: &Path, links_left: usize) -> std::io::Result<()> {
    let mut at = PathBuf::from("/");
    let mut components = path.components();
    while let Some(component) = components.next() {
        match component {
            Component::ParentDir => {
                at.pop();
            }
            Component::Normal(name) => at.push(name),
            _ => {}
        }
        let Ok(target) = fs::read_link(old(&at)) else { continue };
        let Some(links_left) = links_left.checked_sub(1) else { return Ok(()) };
        if fs::symlink_metadata(new(&at)).is_err() {
            if let Some(folder) = new(&at).parent() {
                fs::create_dir_all(folder)?;
            }
            std::os::unix::fs::symlink(&target, new(&at))?;
        }
        at.pop();
        return lead(&at.join(target).join(components.as_path()), links_left);
    }
    Ok(())
}

/// Something else in the place of what is not to be seen, but for `shown` below it.
fn mask(path: &Path, shown: &[PathBuf]) -> std::io::Result<()> {
    let target = new(path);
    if fs::metadata(&target)?.is_dir() {
        let options = CString::new("mode=0555,size=4k")?;
        mount("tmpfs", &target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))?;
        for path in shown.iter().filter(|shown| shown.starts_with(path)) {
            bind(path, false)?;
        }
        return set_flags(&target, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_RDONLY);
    }
    // Not /dev/null: that may be written to wherever it is.
    let empty = Path::new(SCRATCH).join("empty");
    fs::write(&empty, "")?;
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o444))?;
    mount_bind_recursive(&empty, &target)?;
    set_flags(&target, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_RDONLY)
}

/// Home, temporary files and shared memory: writable, its own, bounded, gone with it.
fn private(plan: &Plan) -> std::io::Result<()> {
    // Names take memory that the size does not count: one for each page of it.
    let names = (plan.limits.tmp_bytes / 4096).max(1024);
    let options = CString::new(format!("mode=0755,size={},nr_inodes={names}", plan.limits.tmp_bytes))?;
    mount("tmpfs", SCRATCH, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))?;
    let (home, tmp) = plan.private_folders(Tier::Full);
    let laid = Path::new(SCRATCH).join("home");
    for (name, target, mode) in [("home", home, 0o700), ("tmp", tmp, 0o1777), ("shm", "/dev/shm".into(), 0o1777)] {
        let source = Path::new(SCRATCH).join(name);
        fs::create_dir(&source)?;
        fs::set_permissions(&source, fs::Permissions::from_mode(mode))?;
        if let Some(user) = &plan.identity {
            std::os::unix::fs::chown(&source, Some(user.uid), Some(user.gid))?;
        }
        if source == laid {
            lay(plan, &laid)?;
        }
        // What is granted below it stays in sight.
        let target = new(&target);
        let hidden = granted_below(plan, &target);
        fs::create_dir_all(&target)?;
        mount_bind_recursive(&source, &target)?;
        for path in hidden {
            bind(&path, is_within(&path, &plan.write))?;
        }
    }
    for path in plan.written.iter().filter(|path| path.starts_with("/tmp")) {
        let _ = lead(path, LINKS_MAX);
    }
    let _ = fs::create_dir_all(format!("{NEW}/var"));
    match std::os::unix::fs::symlink("/tmp", format!("{NEW}/var/tmp")) {
        Err(error) if error.raw_os_error().map(Errno::from_raw_os_error) != Some(Errno::EXIST) => Err(error),
        _ => Ok(()),
    }
}

/// What the program is to find in its home, for itself alone.
fn lay(plan: &Plan, home: &Path) -> std::io::Result<()> {
    for (path, text) in plan.laid.iter() {
        let file = home.join(path);
        let folders = file.ancestors().skip(1).take_while(|folder| *folder != home);
        fs::create_dir_all(file.parent().unwrap_or(home))?;
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let Some(user) = &plan.identity else { continue };
        for path in folders.chain([file.as_path()]) {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))?;
        }
    }
    Ok(())
}

fn granted_below(plan: &Plan, target: &Path) -> Vec<PathBuf> {
    let all = plan.read.iter().chain(&plan.write);
    all.filter(|path| new(path).starts_with(target)).cloned().collect()
}

fn devices() -> std::io::Result<()> {
    for name in DEVICES {
        let path = Path::new("/dev").join(name);
        make_target(&old(&path), &new(&path))?;
        mount_bind_recursive(old(&path), new(&path))?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        std::os::unix::fs::symlink(target, format!("{NEW}/dev/{name}"))?;
    }
    Ok(())
}

/// With a network of its own it knows the names that it may reach, and no others.
fn hosts(plan: &Plan) -> std::io::Result<()> {
    if plan.network == Network::Open {
        return Ok(());
    }
    let text = egress::hosts_file(&plan.network);
    let target = new(Path::new("/etc/hosts"));
    if fs::symlink_metadata(&target).is_err() {
        fs::create_dir_all(format!("{NEW}/etc"))?;
        fs::write(&target, "")?;
    }
    let source = Path::new(SCRATCH).join("hosts");
    fs::write(&source, text)?;
    fs::set_permissions(&source, fs::Permissions::from_mode(0o644))?;
    mount_bind_recursive(&source, &target)?;
    set_flags(&target, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV)
}

/// The new root is the only one from here on.
fn enter() -> std::io::Result<()> {
    // Nothing can be added to the skeleton; what is mounted in it has its own rules.
    rustix::process::chdir(NEW)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_remount("/", flags, "")?;
    Ok(())
}
