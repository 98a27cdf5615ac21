//! What stands outside a sandbox for the attempts to get at, and the table of attempts.

use std::{
    net::{TcpListener, UdpSocket},
    os::unix::{
        fs::{DirBuilderExt as _, PermissionsExt as _},
        net::UnixListener,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::Context as _;

use super::network_gives;
use crate::{
    process::Command,
    sandbox::{Bounds, Identity, Plan},
};

pub(super) struct Row {
    pub(super) number: &'static str,
    pub(super) attempt: &'static str,
    arguments: &'static [&'static str],
    pub(super) needs_namespaces: bool,
    /// Whether it may be tried without a sandbox: it then harms nothing of anybody's.
    is_harmless: bool,
}

const fn row(number: &'static str, attempt: &'static str, arguments: &'static [&'static str]) -> Row {
    Row { number, attempt, arguments, needs_namespaces: false, is_harmless: true }
}

impl Row {
    const fn by_namespaces(self) -> Row {
        Row { needs_namespaces: true, ..self }
    }

    /// Proven by nothing but the limit itself, or not to be done to the user's machine.
    const fn inside_only(self) -> Row {
        Row { is_harmless: false, ..self }
    }

    pub(super) fn is_given(&self, plan: &Plan, arguments: &[String]) -> bool {
        let granted = |list: &[PathBuf]| {
            let paths = arguments.iter().map(Path::new).filter(|path| path.is_absolute());
            paths.clone().count() > 0 && paths.into_iter().all(|path| list.iter().any(|given| path.starts_with(given)))
        };
        let is_root = plan.given_up.iter().any(|part| part.contains("runs as root"));
        match self.attempt {
            "read" | "list" | "stat" | "by-symlink" | "by-hard-link" => granted(&plan.read) || granted(&plan.write),
            "write" | "append" | "truncate" | "rename" | "remove" => granted(&plan.write),
            "change-mode" | "change-owner" | "change-times" | "change-attributes" => granted(&plan.write),
            "become-root" => is_root,
            attempt => network_gives(plan, attempt),
        }
    }
}

/// Numbers as in docs/sandbox.md.
pub(super) const TABLE: &[Row] = &[
    row("01", "read", &["{secret}"]),
    row("01", "list", &["{folder}"]),
    row("01", "stat", &["{secret}"]).by_namespaces(),
    row("02", "read", &["/etc/shadow"]),
    row("03", "read", &["/proc/{victim}/environ"]),
    row("04", "read", &["/proc/{victim}/cmdline"]),
    row("05", "write", &["{folder}/planted"]),
    row("05", "append", &["{secret}"]),
    row("05", "truncate", &["{expendable}"]),
    row("05", "rename", &["{expendable}", "{folder}/moved"]),
    row("05", "remove", &["{expendable}"]),
    row("05", "change-mode", &["{secret}"]),
    row("05", "change-owner", &["{secret}"]),
    row("05", "change-times", &["{secret}"]),
    row("05", "change-attributes", &["{secret}"]),
    row("06", "by-symlink", &["{secret}"]),
    row("07", "by-hard-link", &["{secret}"]),
    row("08", "read", &["/proc/self/root{secret}"]),
    row("09", "connect", &["{tcp}"]),
    row("11", "fast-open", &["{tcp}"]),
    row("12", "mptcp", &["{tcp}"]),
    row("13", "udp", &["{udp}"]),
    row("14", "socket", &["2", "3", "1"]),
    row("14", "socket", &["40", "1", "0"]),
    row("14", "socket", &["16", "3", "0"]),
    row("14", "socket", &["17", "3", "768"]),
    row("15", "listen", &["0.0.0.0:0"]),
    row("16", "abstract-unix", &["{abstract}"]),
    row("17", "unix", &["{unix}"]),
    row("18", "ptrace", &["{victim}"]),
    row("18", "take-fd", &["{victim}"]),
    row("18", "read-memory", &["{victim}"]),
    row("18", "shared-memory", &["{segment}"]),
    row("19", "signal", &["{victim}", "9"]),
    row("19", "tkill", &["{victim}"]),
    row("19", "pidfd-signal", &["{victim}"]),
    row("20", "limit-others", &["{victim}"]),
    row("20", "renice", &["{victim}"]),
    row("20", "renice-all", &[]),
    row("20", "io-priority-all", &[]),
    row("20", "schedule", &["{victim}"]),
    row("21", "forks", &["{processes}"]).by_namespaces().inside_only(),
    row("22", "reserve", &["{memory}"]).inside_only(),
    row("23", "room", &["/tmp", "{tmp}"]).by_namespaces().inside_only(),
    row("24", "descriptors", &[]).inside_only(),
    row("26", "type-ahead", &[]).inside_only(),
    row("27", "keyctl", &[]),
    row("27", "userfaultfd", &[]),
    row("27", "io-uring", &[]),
    row("28", "unshare", &[]),
    row("28", "clone", &[]),
    row("28", "clone3", &[]),
    row("28", "setns", &[]),
    row("29", "mount", &[]),
    row("29", "chroot", &[]),
    row("29", "mknod", &[]),
    row("29", "bpf", &[]),
    row("29", "perf", &[]),
    row("30", "by-handle", &["{secret}"]),
    row("31", "x32", &[]),
    row("31", "i386", &[]),
    row("34", "setuid-bit", &[]),
    row("34", "setuid-bit-at-creation", &[]),
    row("34", "become-root", &[]),
    row("40", "append", &["{config}"]).inside_only(),
    row("40", "read", &["{config}"]),
    row("40", "list", &["{state}"]),
];

/// More children than this are not started to see whether there is a limit.
const FORKS_MAX: u32 = 1024;

pub(super) struct World {
    folder: PathBuf,
    exe: PathBuf,
    identity: Option<Identity>,
    limits: Bounds,
    config: Option<PathBuf>,
    state: Option<PathBuf>,
    tcp: TcpListener,
    udp: UdpSocket,
    /// Shared memory of this process, open to all; none where the machine has no such thing.
    segment: Option<i64>,
    _unix: [UnixListener; 2],
}

/// Somebody of the same user, for the attempts on other processes.
pub(super) struct Victim(std::cell::RefCell<Child>);

impl Victim {
    pub(super) fn id(&self) -> u32 {
        self.0.borrow().id()
    }

    pub(super) fn lives(&self) -> bool {
        matches!(self.0.borrow_mut().try_wait(), Ok(None))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.get_mut().kill();
        let _ = self.0.get_mut().wait();
    }
}

impl World {
    pub(super) fn new(command: &Command, plan: &Plan) -> anyhow::Result<Self> {
        use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};
        let folder = std::env::temp_dir().canonicalize()?.join(format!("seawall-check-{}", crate::id::Id::now()));
        std::fs::DirBuilder::new().mode(0o700).create(&folder).context("a folder for the attempts cannot be made")?;
        // Nothing but the sandbox keeps the server out of here.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
        let by_path = UnixListener::bind(folder.join("socket"))?;
        std::fs::set_permissions(folder.join("socket"), std::fs::Permissions::from_mode(0o777))?;
        let by_name = UnixListener::bind_addr(&SocketAddr::from_abstract_name(folder.as_os_str().as_encoded_bytes())?)?;
        let protected = |is: fn(&Path) -> bool| command.protected.iter().find(|path| is(path)).cloned();
        Ok(World {
            folder,
            exe: std::env::current_exe()?.canonicalize()?,
            identity: plan.identity.clone(),
            limits: plan.limits.clone(),
            config: protected(|path| path.extension().is_some_and(|end| end == "toml")),
            state: protected(Path::is_dir),
            tcp: TcpListener::bind("127.0.0.1:0")?,
            udp: UdpSocket::bind("127.0.0.1:0")?,
            segment: crate::sandbox::attempts::segment().ok(),
            _unix: [by_path, by_name],
        })
    }

    pub(super) fn exe(&self) -> String {
        self.exe.display().to_string()
    }

    /// The server's own, with one file more: the program that makes the attempts.
    pub(super) fn command(&self, server: &Command) -> Command {
        let mut command = server.clone();
        command.sandbox.read.push(self.exe.clone());
        command
    }

    /// `None` where there is nothing to be tried here.
    pub(super) fn arguments(&self, row: &Row, _: &Plan) -> Option<Vec<String>> {
        for name in ["id_rsa", "expendable"] {
            let file = self.folder.join(name);
            let _ = std::fs::write(&file, "SECRET");
            let _ = std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666));
            if let Some(user) = &self.identity {
                let _ = std::os::unix::fs::chown(&file, Some(user.uid), Some(user.gid));
            }
        }
        row.arguments.iter().map(|word| self.filled(word)).collect()
    }

    fn filled(&self, word: &str) -> Option<String> {
        let show = |path: &Path| path.display().to_string();
        let missing = |name: &str| word.contains(name);
        let or_skip = |name: &str, value: Option<String>| match value {
            Some(value) => Some(value),
            None if missing(name) => None,
            None => Some(String::new()),
        };
        let limits = &self.limits;
        let forks = limits.processes.filter(|limit| *limit <= FORKS_MAX).map(|limit| (limit + 1).to_string());
        let places = [
            ("{secret}", Some(show(&self.folder.join("id_rsa")))),
            ("{expendable}", Some(show(&self.folder.join("expendable")))),
            ("{folder}", Some(show(&self.folder))),
            ("{abstract}", Some(show(&self.folder))),
            ("{unix}", Some(show(&self.folder.join("socket")))),
            ("{tcp}", self.tcp.local_addr().ok().map(|at| at.to_string())),
            ("{udp}", self.udp.local_addr().ok().map(|at| at.to_string())),
            ("{processes}", forks),
            ("{memory}", limits.memory_bytes.map(|limit| (limit + (64 << 20)).to_string())),
            ("{tmp}", Some(limits.tmp_bytes.to_string())),
            ("{segment}", self.segment.map(|number| number.to_string())),
            ("{config}", self.config.as_deref().map(show)),
            ("{state}", self.state.as_deref().map(show)),
        ];
        let mut filled = word.to_owned();
        for (name, value) in places {
            filled = filled.replace(name, &or_skip(name, value)?);
        }
        Some(filled)
    }

    pub(super) fn victim(&self) -> anyhow::Result<Victim> {
        let mut command = self.free("/bin/sleep".as_ref());
        let child = command.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Victim(child.context("a process for the attempts cannot be started")?.into()))
    }

    /// As the user that the server is, without a sandbox.
    fn free(&self, program: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        if let Some(user) = &self.identity {
            command.uid(user.uid).gid(user.gid);
        }
        command.current_dir("/").stderr(Stdio::null());
        command
    }

    pub(super) fn succeeds_without(&self, row: &Row, words: &[String]) -> bool {
        if !row.is_harmless {
            return true;
        }
        // What root can do without a sandbox is not tried on the user's machine.
        let is_root = rustix::process::geteuid().is_root() && self.identity.is_none();
        if is_root {
            return false;
        }
        let Ok(mut child) = self.free(words[0].as_ref()).args(&words[1..]).stdout(Stdio::piped()).spawn() else {
            return false;
        };
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while std::time::Instant::now() < until && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = child.kill();
        let output = child.wait_with_output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with("got through"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(super) fn with_victim(arguments: Vec<String>, victim: u32) -> Vec<String> {
    arguments.into_iter().map(|word| word.replace("{victim}", &victim.to_string())).collect()
}
