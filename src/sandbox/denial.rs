//! A refusal put into words: what a program's own complaint, checked against its plan,
//! says that the sandbox has kept it from, and what to write to allow it.
//!
//! The kernel says only "permission denied", and says it to the program. So its words
//! are read; but nothing is claimed that the plan does not say as well: the path lies
//! outside of what was given, and it, or the folder it would be in, is there.

use std::{
    fmt,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use super::{Network, Plan, plan::is_within};
use crate::text;

mod reading;

use reading::{Complaint, Trouble};

/// So much is told of one text.
const DENIALS_MAX: usize = 3;
/// How the launcher begins when it says why it has ended a tree.
const ENDED: &str = "ended by the sandbox: ";
const PATH_MAX_BYTES: usize = 1024;
/// The sandbox's own: not there, or not as outside, whatever the policy.
const OWN: [&str; 3] = ["/proc", "/dev", "/sys"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Read(PathBuf),
    Write(PathBuf),
    /// A host and its port, where one is known.
    Connect(Option<(String, u16)>),
    /// More than a limit allows, in the launcher's words.
    More(String),
}

/// What the sandbox kept a server from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub wanted: Wanted,
    server: String,
    /// Seawall's own: nothing allows it.
    is_own: bool,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |path: &Path| text::quote(&path.display().to_string(), 300);
        if let Wanted::More(what) = &self.wanted {
            return write!(f, "{ENDED}{}", text::quote(what, 200));
        }
        f.write_str("blocked by the sandbox: ")?;
        let (key, entry) = match &self.wanted {
            Wanted::Read(path) => {
                write!(f, "read of {}", quoted(path))?;
                ("read", quoted(path))
            }
            Wanted::Write(path) => {
                write!(f, "write to {}", quoted(path))?;
                // What is not there yet cannot be named.
                let named = if path.exists() { path } else { path.parent().unwrap_or(path) };
                ("write", quoted(named))
            }
            Wanted::Connect(Some((host, port))) => {
                write!(f, "connection to {}:{port}", text::quote(host, 100))?;
                ("network.allow", format!("{}:{port}", text::quote(host, 100)))
            }
            Wanted::Connect(None) | Wanted::More(_) => {
                f.write_str("the network")?;
                ("network.allow", "HOST:443".to_owned())
            }
        };
        if self.is_own {
            return f.write_str(", which is seawall's own: no server gets it");
        }
        write!(f, "; to allow: add \"{entry}\" to {key} under [servers.{}.sandbox]", self.server)
    }
}

impl Denial {
    /// Of a tree that was ended for using too much: the last of its last words, the
    /// launcher's own. One who forges them blames himself.
    pub fn of_end(last_words: &str, server: &str) -> Option<Self> {
        let what = last_words.lines().next_back()?.strip_prefix("seawall: ")?.strip_prefix(ENDED)?;
        Some(Denial { wanted: Wanted::More(what.to_owned()), server: server.to_owned(), is_own: false })
    }
}

/// What a running program was given.
#[derive(Clone, Debug)]
pub struct Reach {
    plan: Plan,
    /// What was not given is not there at all.
    has_own_root: bool,
    protected: Vec<PathBuf>,
}

/// Whether a line is worth a look; cheap, and with no look at the machine.
pub fn complains(line: &str) -> bool {
    reading::complaint(line).is_some()
}

impl Reach {
    /// `tier` as the report has it.
    pub fn new(plan: Plan, tier: &str, protected: &[PathBuf]) -> Self {
        let protected = protected.iter().filter_map(|path| path.canonicalize().ok()).collect();
        Reach { plan, has_own_root: tier == "full", protected }
    }

    pub fn server(&self) -> &str {
        &self.plan.server
    }

    pub fn is_unbounded(&self) -> bool {
        self.plan.is_off()
    }

    /// What `text` complains of that the sandbox is the reason for. `asked` are words of
    /// the request, for complaints that name nothing themselves. Looks at the machine's
    /// files: not for a thread that must not wait.
    pub fn denials(&self, text: &str, asked: &[String]) -> Vec<Denial> {
        let mut found: Vec<Denial> = Vec::new();
        if self.is_unbounded() {
            return found;
        }
        for complaint in reading::complaints(text) {
            let own = self.wanted(&complaint, complaint.line);
            let names_nothing = own.is_none();
            let mut wanted = own.unwrap_or_else(|| {
                asked.iter().filter_map(|word| self.wanted(&complaint, word)).flatten().take(1).collect()
            });
            if wanted.is_empty() && names_nothing && complaint.trouble == Trouble::Forbidden {
                wanted.extend(self.forbidden_place(complaint.line, asked));
            }
            if wanted.is_empty() && complaint.trouble == Trouble::Unreachable && self.plan.network == Network::None {
                wanted.push(Wanted::Connect(None));
            }
            for wanted in wanted {
                let is_own = matches!(&wanted, Wanted::Read(path) | Wanted::Write(path)
                    if is_within(path, &self.protected));
                let denial = Denial { wanted, server: self.plan.server.clone(), is_own };
                if !found.contains(&denial) {
                    found.push(denial);
                }
            }
            if found.len() >= DENIALS_MAX {
                break;
            }
        }
        found.truncate(DENIALS_MAX);
        found
    }

    /// Of what `line` names; `None` where it names nothing.
    fn wanted(&self, complaint: &Complaint<'_>, line: &str) -> Option<Vec<Wanted>> {
        if complaint.trouble == Trouble::Unreachable {
            let hosts = reading::hosts(line);
            let denied = hosts.iter().filter_map(|(host, port)| self.host_denied(host, *port));
            return (!hosts.is_empty()).then(|| denied.collect());
        }
        let named = reading::paths(line);
        let denied = named
            .iter()
            .filter_map(|ways| ways.iter().find_map(|path| self.path_denied(Path::new(path), complaint)))
            .collect();
        (!named.is_empty()).then_some(denied)
    }

    /// A connection that seccomp forbids ends in the words of a file that one has no right
    /// to. Only what can be nothing but a place on the network is taken for one.
    fn forbidden_place(&self, line: &str, asked: &[String]) -> Option<Wanted> {
        let words = std::iter::once(line).chain(asked.iter().map(String::as_str));
        words.flat_map(reading::places).find_map(|(host, port)| self.host_denied(&host, port))
    }

    fn host_denied(&self, host: &str, port: Option<u16>) -> Option<Wanted> {
        let is_listed = match &self.plan.network {
            Network::Open => true,
            Network::None | Network::Loopback => false,
            Network::Allow(allowed) => allowed.iter().any(|allowed| match allowed.host.strip_prefix('*') {
                Some(suffix) => host.ends_with(suffix),
                None => allowed.host == host,
            }),
        };
        (!is_listed).then(|| Wanted::Connect(Some((host.to_owned(), port.unwrap_or(443)))))
    }

    fn path_denied(&self, written: &Path, complaint: &Complaint<'_>) -> Option<Wanted> {
        let path = settled(written)?;
        if OWN.iter().any(|own| path.starts_with(own)) {
            return None;
        }
        let exists = path.symlink_metadata().is_ok();
        let has_folder = path.parent().is_some_and(Path::is_dir);
        let is_written = is_within(&path, &self.plan.write);
        let is_masked = is_within(&path, &self.plan.masked) && !is_within(&path, &self.plan.shown);
        let is_read = is_written || is_within(&path, &self.plan.read) && !is_masked;
        let trouble = complaint.trouble;
        // Where it has files of its own, only what is there outside can be missed.
        let is_its_own = !is_read && self.is_private(&path) && !(exists && self.has_own_root);
        if is_written || is_its_own {
            return None;
        }
        if is_read {
            // Also without a sandbox it would have to have the right.
            let could = trouble != Trouble::Absent && (exists || has_folder) && self.could_write(&path, exists);
            return could.then_some(Wanted::Write(path));
        }
        let creates = complaint.changes || trouble != Trouble::Absent;
        match trouble {
            Trouble::Absent if !self.has_own_root => None,
            _ if exists && (complaint.changes || trouble == Trouble::ReadOnly) => Some(Wanted::Write(path)),
            _ if exists => Some(Wanted::Read(path)),
            _ if has_folder && creates => Some(Wanted::Write(path)),
            _ => None,
        }
    }

    fn is_private(&self, path: &Path) -> bool {
        use super::Tier;
        let (home, tmp) = self.plan.private_folders(if self.has_own_root { Tier::Full } else { Tier::Core });
        path.starts_with(home) || path.starts_with(tmp)
    }

    /// By the file system's own rules.
    fn could_write(&self, path: &Path, exists: bool) -> bool {
        let (uid, gid) = match &self.plan.identity {
            Some(user) => (user.uid, user.gid),
            None => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        };
        let place = if exists { Some(path) } else { path.parent() };
        let Some(data) = place.and_then(|place| place.metadata().ok()) else { return false };
        let is_mounted_to_read = rustix::fs::statvfs(place.unwrap_or(path))
            .is_ok_and(|system| system.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        let bits = match (data.uid() == uid, data.gid() == gid) {
            (true, _) => data.mode() >> 6,
            (_, true) => data.mode() >> 3,
            _ => data.mode(),
        };
        !is_mounted_to_read && bits & 0o2 != 0 && (!exists || bits & 0o4 != 0)
    }
}

/// Without links as far as it exists, and without `..`; `None` for what is no such path.
fn settled(written: &Path) -> Option<PathBuf> {
    let is_plain = written.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !is_plain || !written.is_absolute() || written.as_os_str().len() > PATH_MAX_BYTES {
        return None;
    }
    if let Ok(path) = written.canonicalize() {
        return (path != Path::new("/")).then_some(path);
    }
    let folder = written.parent()?.canonicalize().ok()?;
    Some(folder.join(written.file_name()?))
}

#[cfg(test)]
mod tests;
