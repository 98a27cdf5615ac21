//! From a [`Policy`] to a [`Plan`]: paths are looked up, what the runtime needs is
//! added, and what contradicts itself, or this host, is refused with a sentence.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    Refusal, base,
    plan::{Bounds, Identity, Plan, is_within},
    planted,
    policy::{Network, Policy, Profile, WantedTier},
};

/// What a policy is resolved against.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    pub server: &'a str,
    /// The file that is run.
    pub program: &'a Path,
    pub args: &'a [OsString],
    pub cwd: &'a Path,
    /// Where programs are looked up.
    pub path: &'a str,
    /// Where whoever runs seawall looks programs up, and seawall itself.
    pub own_path: &'a str,
    /// The user's own, and others that are not given away as a whole.
    pub homes: &'a [PathBuf],
    /// Seawall's own files and folders, which no server may see.
    pub protected: &'a [PathBuf],
    /// Whose seawall is.
    pub uid: u32,
    /// The text of /etc/passwd.
    pub passwd: &'a str,
}

/// Variables that change what a program is: passing them on would hand the server's
/// behaviour to whoever set them for something else.
const NEVER_PASSED: [&str; 14] = [
    "GLIBC_TUNABLES",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PYTHONSTARTUP",
    "PYTHONPATH",
    "PYTHONHOME",
    "BASH_ENV",
    "ENV",
    "PERL5OPT",
    "PERL5LIB",
    "RUBYOPT",
    "RUBYLIB",
    "JAVA_TOOL_OPTIONS",
    "IFS",
];

impl Policy {
    pub fn plan(&self, around: &Around<'_>) -> Result<Plan, Refusal> {
        let homes = self.homes(around);
        let around = &Around { homes: &homes, ..*around };
        let refuse = |why: String| Err(Refusal(why));
        if let Some(name) = self.env.iter().find(|name| is_never_passed(name)) {
            return refuse(format!(
                "env: {name} changes what programs load and is never passed through; where this server needs it, \
                 write its value under [servers.{}.env]",
                around.server
            ));
        }
        let (identity, mut given_up) = self.identity(around)?;
        if self.profile == Profile::Off {
            return Ok(Plan { identity, ..Plan::off(around.server) });
        }
        let write = self.writable(around)?;
        let mut read = self.readable(around, &write)?;
        let named = read.clone();
        let base = base::files(self.profile == Profile::Strict, &write, self.package.as_deref(), around);
        read.extend(base.files);
        read.retain(|path| path.exists());
        if let Some(led) = base.doubtful.iter().find(|led| !is_within(led, &read) && !is_within(led, &write)) {
            return refuse(format!(
                "what it runs lies in a folder that it may write, or in its package, and leads to {}, as the server \
                 itself could have arranged; where that is as it should be, add \"{0}\" to read under [servers.{}.sandbox]",
                led.display(),
                around.server
            ));
        }
        simplify(&mut read);
        let masked: Vec<PathBuf> = around.protected.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let masked: Vec<PathBuf> = masked.into_iter().filter(|path| is_within(path, &read)).collect();
        let is_below = |path: &PathBuf| masked.iter().any(|own| path != own && path.starts_with(own));
        let shown = named.into_iter().filter(is_below).collect();
        let cwd = around.cwd.canonicalize().unwrap_or_else(|_| around.cwd.to_owned());
        let keeps_cwd = is_within(&cwd, &read) || is_within(&cwd, &write);
        let written = [around.program, around.cwd].into_iter().map(Path::to_owned);
        let written = written.chain(self.read.iter().chain(&self.write).cloned()).collect();
        if self.unix_sockets {
            given_up.push("unix sockets in paths that it can see".to_owned());
        }
        Ok(Plan {
            profile: self.profile,
            server: around.server.to_owned(),
            identity,
            needs_full: self.needs_full(&masked),
            read,
            write,
            written,
            masked,
            shown,
            keeps_cwd,
            network: self.network.clone(),
            unix_sockets: self.unix_sockets,
            limits: Bounds::of(self.profile, &self.limits),
            given_up,
            observed: false,
            laid: self.laid.clone(),
            private: PathBuf::new(),
        })
    }

    /// Everything that is asked for in so many words and that only namespaces can give.
    fn needs_full(&self, masked: &[PathBuf]) -> Vec<String> {
        let mut needs = Vec::new();
        match self.profile {
            Profile::Strict => needs.push("profile = \"strict\"".to_owned()),
            _ if self.tier == WantedTier::Full => needs.push("tier = \"full\"".to_owned()),
            _ => {}
        }
        if matches!(self.network, Network::Loopback | Network::Allow(_)) {
            needs.push(format!("network = {}", self.network.name()));
        }
        if self.limits.processes.is_some() {
            needs.push("limits.processes".to_owned());
        }
        if self.limits.tmp_bytes.is_some() {
            needs.push("limits.tmp".to_owned());
        }
        if !self.laid.is_empty() {
            needs.push("files in a home of its own".to_owned());
        }
        if let Some(path) = masked.first() {
            needs.push(format!("read of a folder with seawall's own {} in it", path.display()));
        }
        needs
    }

    /// Also that of whoever the server runs as, and one that HOME does not say.
    fn homes(&self, around: &Around<'_>) -> Vec<PathBuf> {
        let is_meant = |name: &str, uid: &str| {
            uid.parse() == Ok(around.uid) || around.uid == 0 && self.user.as_deref() == Some(name)
        };
        let known = around.passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, _, _, home, ..] = fields[..] else { return None };
            is_meant(name, uid).then(|| PathBuf::from(home))
        });
        around.homes.iter().cloned().chain(known).filter(|home| home.is_absolute()).collect()
    }

    fn identity(&self, around: &Around<'_>) -> Result<(Option<Identity>, Vec<String>), Refusal> {
        if around.uid != 0 {
            return match &self.user {
                None => Ok((None, Vec::new())),
                Some(user) => Err(Refusal(format!(
                    "user = \"{user}\" means something only where seawall runs as root; take it out"
                ))),
            };
        }
        let name = match (&self.user, self.profile) {
            (Some(user), _) => user.as_str(),
            (None, Profile::Off) => return Ok((None, Vec::new())),
            (None, _) => "nobody",
        };
        let Some(identity) = find_user(around.passwd, name) else {
            return Err(Refusal(format!(
                "there is no user \"{name}\" in /etc/passwd; make one, or write user = \"NAME\" for another"
            )));
        };
        if identity.uid != 0 {
            return Ok((Some(identity), Vec::new()));
        }
        if self.profile == Profile::Strict {
            return Err(Refusal("profile = \"strict\" does not run a server as root; write another user".to_owned()));
        }
        Ok((None, vec!["a user of its own: it runs as root".to_owned()]))
    }

    fn readable(&self, around: &Around<'_>, write: &[PathBuf]) -> Result<Vec<PathBuf>, Refusal> {
        self.read
            .iter()
            .map(|path| {
                not_led("read", path, write, around)?;
                existing("read", path, around)
            })
            .collect()
    }

    fn writable(&self, around: &Around<'_>) -> Result<Vec<PathBuf>, Refusal> {
        let all: Vec<PathBuf> =
            self.write.iter().map(|path| self.writable_one(path, around)).collect::<Result<_, _>>()?;
        for (at, path) in self.write.iter().enumerate() {
            let mut others = all.clone();
            others.remove(at);
            not_led("write", path, &others, around)?;
        }
        Ok(all)
    }

    fn writable_one(&self, written: &Path, around: &Around<'_>) -> Result<PathBuf, Refusal> {
        let path = existing("write", written, around)?;
        let mut homes = around.homes.iter().filter_map(|home| home.canonicalize().ok());
        if path == Path::new("/") || homes.any(|home| home.starts_with(&path)) {
            return Err(Refusal(format!(
                "write: {} is too much to give away; name the folders in it that the server needs",
                written.display()
            )));
        }
        let mut protected = around.protected.iter().filter_map(|path| path.canonicalize().ok());
        if let Some(own) = protected.find(|own| own.starts_with(&path) || path.starts_with(own)) {
            return Err(Refusal(format!(
                "write: {} would let the server change seawall's own {}; name a folder without it",
                written.display(),
                own.display()
            )));
        }
        // What it puts there would be run for its name, outside: by the user, and as the npm or
        // uv that installs packages. A folder that is not there yet the server could make.
        let mut on_path = std::env::split_paths(around.own_path).filter_map(|folder| std::path::absolute(folder).ok());
        let written_to = std::slice::from_ref(&path);
        if let Some(folder) = on_path.find(|folder| planted::on_the_way(folder, written_to).is_some()) {
            return Err(Refusal(format!(
                "write: {} has {} in it, which is on PATH, so that what the server puts there would be run outside of \
                 its sandbox; name a folder without it",
                written.display(),
                folder.display()
            )));
        }
        Ok(path)
    }
}

/// A link that the server itself may have made does not say what it is given.
fn not_led(key: &str, path: &Path, write: &[PathBuf], around: &Around<'_>) -> Result<(), Refusal> {
    match planted::leads_out(&around.cwd.join(path), write) {
        None => Ok(()),
        Some(led) => Err(Refusal(format!(
            "{key}: {} leads to {} by a link in a folder that the server may write, and that it could have made \
             itself; name {1} in its place (under [servers.{}.sandbox])",
            path.display(),
            led.display(),
            around.server
        ))),
    }
}

fn existing(key: &str, path: &Path, around: &Around<'_>) -> Result<PathBuf, Refusal> {
    path.canonicalize().map_err(|error| {
        let what = match error.kind() {
            std::io::ErrorKind::NotFound => "does not exist; make it, or take it out".to_owned(),
            _ => format!("cannot be used: {error}"),
        };
        Refusal(format!("{key}: {} {what} (under [servers.{}.sandbox])", path.display(), around.server))
    })
}

fn is_never_passed(name: &str) -> bool {
    name.starts_with("LD_") || name.starts_with("DYLD_") || NEVER_PASSED.contains(&name)
}

/// Without what lies below another.
fn simplify(paths: &mut Vec<PathBuf>) {
    paths.sort();
    paths.dedup();
    let all = paths.clone();
    paths.retain(|path| !all.iter().any(|other| other != path && path.starts_with(other)));
}

/// A line of /etc/passwd.
fn find_user(passwd: &str, name: &str) -> Option<Identity> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        found.then(|| Identity { name: name.to_owned(), uid, gid })
    })
}

#[cfg(test)]
mod tests;
