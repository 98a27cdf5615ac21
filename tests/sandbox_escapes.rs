//! The table of escapes: each row a real attempt, by a user who could make it without
//! the sandbox. Made as root (servers are nobody) and as an ordinary user, with
//! namespaces and without. A row whose attempt fails without the sandbox as well is
//! printed as not attributable; it must fail inside all the same.

#![cfg(target_os = "linux")]

use std::{
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Stdio},
};

use serde_json::json;

mod support;

use support::{Client, Gateway, Launch, confined, hostile, machine::Machine, scratch::Scratch, text_of};

/// Number in docs/sandbox.md, attempt, arguments, and whether only namespaces stop it.
type Row = (&'static str, &'static str, &'static [&'static str], Needs);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Namespaces,
}
use Needs::{Namespaces, Nothing};

const TABLE: &[Row] = &[
    ("01", "read", &["{secret}"], Nothing),
    ("01", "list", &["{folder}"], Nothing),
    ("01", "stat", &["{secret}"], Namespaces),
    ("02", "read", &["/etc/shadow"], Nothing),
    ("03", "read", &["/proc/{victim}/environ"], Nothing),
    ("04", "read", &["/proc/{victim}/cmdline"], Nothing),
    ("05", "write", &["{folder}/planted"], Nothing),
    ("05", "append", &["{secret}"], Nothing),
    ("05", "truncate", &["{expendable}"], Nothing),
    ("05", "rename", &["{expendable}", "{folder}/moved"], Nothing),
    ("05", "remove", &["{expendable}"], Nothing),
    ("05", "change-mode", &["{secret}"], Nothing),
    ("05", "change-owner", &["{secret}"], Nothing),
    ("05", "change-times", &["{secret}"], Nothing),
    ("05", "change-attributes", &["{secret}"], Nothing),
    ("06", "by-symlink", &["{secret}"], Nothing),
    ("07", "by-hard-link", &["{secret}"], Nothing),
    ("08", "read", &["/proc/self/root{secret}"], Nothing),
    ("08", "read", &["/proc/{victim}/root{secret}"], Nothing),
    ("09", "connect", &["{tcp}"], Nothing),
    ("11", "fast-open", &["{tcp}"], Nothing),
    ("12", "mptcp", &["{tcp}"], Nothing),
    ("13", "udp", &["{udp}"], Nothing),
    ("14", "socket", &["2", "3", "1"], Nothing),
    ("14", "socket", &["40", "1", "0"], Nothing),
    ("14", "socket", &["16", "3", "0"], Nothing),
    ("14", "socket", &["17", "3", "768"], Nothing),
    ("15", "listen", &["0.0.0.0:0"], Nothing),
    ("16", "abstract-unix", &["{abstract}"], Nothing),
    ("17", "unix", &["{unix}"], Nothing),
    ("18", "ptrace", &["{victim}"], Nothing),
    ("18", "take-fd", &["{victim}"], Nothing),
    ("18", "read-memory", &["{victim}"], Nothing),
    ("18", "shared-memory", &["{segment}"], Nothing),
    ("19", "signal", &["{victim}", "9"], Nothing),
    ("19", "tkill", &["{victim}"], Nothing),
    ("19", "pidfd-signal", &["{victim}"], Nothing),
    ("19", "signal", &["{gateway}", "0"], Nothing),
    ("20", "limit-others", &["{victim}"], Nothing),
    ("20", "renice", &["{victim}"], Nothing),
    ("20", "renice-all", &[], Nothing),
    ("20", "io-priority-all", &[], Nothing),
    ("20", "schedule", &["{victim}"], Nothing),
    ("21", "forks", &["100"], Namespaces),
    ("22", "memory", &["400"], Nothing),
    ("23", "fill", &["/tmp", "48"], Namespaces),
    ("24", "descriptors", &[], Nothing),
    ("26", "type-ahead", &[], Nothing),
    ("27", "keyctl", &[], Nothing),
    ("27", "userfaultfd", &[], Nothing),
    ("27", "io-uring", &[], Nothing),
    ("28", "unshare", &[], Nothing),
    ("28", "clone", &[], Nothing),
    ("28", "clone3", &[], Nothing),
    ("28", "setns", &[], Nothing),
    ("29", "mount", &[], Nothing),
    ("29", "chroot", &[], Nothing),
    ("29", "mknod", &[], Nothing),
    ("29", "bpf", &[], Nothing),
    ("29", "perf", &[], Nothing),
    ("30", "by-handle", &["{secret}"], Nothing),
    ("31", "x32", &[], Nothing),
    ("31", "i386", &[], Nothing),
    ("34", "setuid-bit", &[], Nothing),
    ("34", "setuid-bit-at-creation", &[], Nothing),
    ("34", "become-root", &[], Nothing),
    ("37", "spin", &[], Nothing),
    ("40", "write", &["{hostile}"], Nothing),
    ("40", "append", &["{config}"], Nothing),
    ("40", "read", &["{config}"], Nothing),
    ("40", "read", &["{database}"], Nothing),
    ("40", "list", &["{state}"], Nothing),
    ("42", "read", &["{neighbours}"], Nothing),
    ("42", "signal", &["{neighbour}", "0"], Nothing),
];

/// What stands outside, for somebody to get at.
struct World {
    machine: Machine,
    folder: Scratch,
    outside: Scratch,
    tcp: TcpListener,
    udp: UdpSocket,
    name: String,
    /// Of the gateway and of another server of its, and a file in the private home of that.
    others: [String; 3],
    /// Shared memory of this process, open to all.
    segment: i64,
    _unix: [std::os::unix::net::UnixListener; 2],
}

impl World {
    fn new(machine: Machine) -> World {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::{SocketAddr, UnixListener};
        let (folder, outside) = (Scratch::new(), Scratch::new());
        machine.settle(folder.path());
        std::fs::create_dir(folder.file("out")).unwrap();
        machine.give(&folder.file("out"));
        // Nothing but the sandbox keeps anybody out of here.
        std::fs::set_permissions(outside.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let secret = outside.write("id_rsa", "SECRET");
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o666)).unwrap();
        machine.give(&secret);
        let by_path = UnixListener::bind(outside.file("socket")).unwrap();
        std::fs::set_permissions(outside.file("socket"), std::fs::Permissions::from_mode(0o777)).unwrap();
        let name = format!("{}", outside.path().display());
        let by_name = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        World {
            machine,
            folder,
            outside,
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            name,
            others: Default::default(),
            segment: seawall::sandbox::attempts::segment().expect("shared memory can be had"),
            _unix: [by_path, by_name],
        }
    }

    fn arguments(&self, arguments: &[&str], victim: &Child) -> Vec<String> {
        let expendable = self.outside.write("expendable", "x");
        std::fs::set_permissions(&expendable, std::fs::Permissions::from_mode(0o666)).unwrap();
        let show = |path: std::path::PathBuf| path.display().to_string();
        let places = [
            ("{secret}", show(self.outside.file("id_rsa"))),
            ("{expendable}", show(expendable)),
            ("{folder}", show(self.outside.path().to_owned())),
            ("{tcp}", self.tcp.local_addr().unwrap().to_string()),
            ("{udp}", self.udp.local_addr().unwrap().to_string()),
            ("{unix}", show(self.outside.file("socket"))),
            ("{abstract}", self.name.clone()),
            ("{segment}", self.segment.to_string()),
            ("{victim}", victim.id().to_string()),
            ("{hostile}", show(hostile())),
            ("{config}", show(self.folder.file("servers.toml"))),
            ("{database}", show(self.folder.file("seawall.db"))),
            ("{state}", show(self.folder.file(".seawall"))),
            ("{gateway}", self.others[0].clone()),
            ("{neighbour}", self.others[1].clone()),
            ("{neighbours}", self.others[2].clone()),
        ];
        let fill =
            |word: &&str| places.iter().fold((*word).to_owned(), |word, (name, place)| word.replace(name, place));
        arguments.iter().map(fill).collect()
    }

    fn victim(&self) -> Child {
        let mut command = self.machine.free("/bin/sleep".as_ref());
        command.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("sleep is there")
    }

    /// Whether the attempt succeeds for the same user without a sandbox.
    fn succeeds_without(&self, attempt: &str, arguments: &[&str]) -> bool {
        if attempt == "spin" || attempt == "descriptors" {
            return true;
        }
        let mut victim = self.victim();
        let arguments = self.arguments(arguments, &victim);
        let mut command = self.machine.free(&hostile());
        command.arg(attempt).args(arguments);
        let said = command.output().expect("it can be run");
        let _ = victim.kill();
        let _ = victim.wait();
        String::from_utf8_lossy(&said.stdout).contains("got through")
    }

    async fn attempt(&self, client: &Client, attempt: &str, arguments: &[&str]) -> Result<(), String> {
        let mut victim = self.victim();
        let words: Vec<String> = [hostile().display().to_string(), attempt.to_owned()]
            .into_iter()
            .chain(self.arguments(arguments, &victim))
            .collect();
        let reply = client.call_tool("run", json!({"command": words})).await;
        let lives = victim.try_wait().expect("a child can be asked").is_none();
        let _ = victim.kill();
        let _ = victim.wait();
        let said = reply.to_string();
        // The watch over the whole tree may be faster than the limit of one process.
        if attempt == "memory" && said.contains("\"class\":\"lost\"") {
            return Ok(());
        }
        let ran = said.contains("kept out") || said.contains("signal") || said.contains("Resource temporarily");
        match (ran && !said.contains("got through"), lives) {
            (true, true) => Ok(()),
            (_, false) => Err(format!("the victim is dead: {said}")),
            (false, true) => Err(said),
        }
    }
}

fn policy(machine: Machine, profile: &str, folder: &Scratch) -> String {
    let of_namespaces = if machine.has_namespaces { ", processes = 32, tmp = \"32MiB\"" } else { "" };
    format!(
        "{{ profile = \"{profile}\", write = [{}], limits = {{ memory = \"256MiB\", open_files = 64, \
         file_size = \"8MiB\", cpu_seconds = 1{of_namespaces} }} }}",
        json!(folder.file("out"))
    )
}

/// See [`World::others`].
async fn others(machine: Machine, gateway: &Gateway) -> [String; 3] {
    let client = gateway.client("/mcp/neighbour").await;
    let told = client.call_tool("environment", json!({})).await;
    let told: serde_json::Value = serde_json::from_str(text_of(&told)).expect("JSON");
    let file = format!("{}/kept", told["env"]["HOME"].as_str().expect("it has a home"));
    let wrote = client.call_tool("write", json!({"path": file, "text": "SECRET"})).await;
    assert_eq!(text_of(&wrote), "written");
    let neighbour = machine.status_of("neighbour", &gateway.config())["pid"].to_string();
    // With a file system of its own it is not where it says.
    let file = if machine.has_namespaces { format!("/proc/{neighbour}/root{file}") } else { file };
    [gateway.pid().to_string(), neighbour, file]
}

async fn nothing_gets_through(machine: Machine, profile: &str) {
    let mut world = World::new(machine);
    let config = confined("caged", &policy(machine, profile, &world.folder)) + &confined("neighbour", "\"standard\"");
    let wrapper = machine.wrapper();
    let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    std::fs::write(world.folder.file("servers.toml"), &config).unwrap();
    let launch = Launch::beside(&world.folder, &config).through(&words);
    let gateway = launch.start().await;
    gateway.ready().await;
    let status = machine.sandbox_of("caged", &gateway.config()).await;
    assert_eq!((&status["profile"], &status["tier"]), (&json!(profile), &json!(machine.tier())), "{status}");
    assert_eq!(status["network"], "none");
    assert_eq!(status["not_enforced"].as_array().unwrap().is_empty(), machine.has_namespaces, "{status}");

    world.others = others(machine, &gateway).await;
    let client = gateway.client("/mcp/caged").await;
    let mut escapes = Vec::new();
    for (number, attempt, arguments, needs) in TABLE {
        if *needs == Namespaces && !machine.has_namespaces {
            println!("{machine:?} {number} {attempt}: open without namespaces");
            continue;
        }
        if !world.succeeds_without(attempt, arguments) {
            println!("{machine:?} {number} {attempt}: not attributable, it fails without a sandbox too");
        }
        if let Err(said) = world.attempt(&client, attempt, arguments).await {
            escapes.push(format!("{number} {attempt} {arguments:?}: {said}"));
        }
    }
    assert_eq!(escapes, Vec::<String>::new(), "{machine:?} {profile}");

    // A harmless thing works: so the attempts were made and were refused by rules.
    let out = world.folder.file("out/file").display().to_string();
    let wrote = client.call_tool("run", json!({"command": [hostile(), "write", out]})).await;
    assert!(wrote.to_string().contains("got through"), "{wrote}");
    files_are_copied_as_ever(machine, &client, &world).await;
    // Last, for it ends the server's own processes: everybody else lives.
    let mut victim = world.victim();
    let _ = client.call_tool("run", json!({"command": [hostile(), "signal-all"]})).await;
    assert!(victim.try_wait().unwrap().is_none(), "kill(-1) reached somebody outside");
    let _ = victim.kill();
    let _ = victim.wait();
}

/// Of its own files it is told that a mode is set, and without namespaces it is not; what is
/// done by descriptor is done.
async fn files_are_copied_as_ever(machine: Machine, client: &Client, world: &World) {
    use std::os::unix::fs::MetadataExt as _;
    let [from, to] = ["from", "to"].map(|name| world.folder.file(&format!("out/{name}")));
    let (shown, copied) = (from.display(), to.display());
    let script = format!(
        "umask 077; echo x > {shown} && touch -d @1 {shown} && chmod 640 {shown} && cp -p {shown} {copied} && echo copied"
    );
    let said = client.call_tool("run", json!({"command": ["/bin/sh", "-c", script]})).await;
    assert!(said.to_string().contains("copied\\n"), "{said}");
    let mode = if machine.has_namespaces { 0o640 } else { 0o600 };
    for file in [from, to] {
        let data = std::fs::metadata(&file).unwrap();
        assert_eq!((data.mode() & 0o777, data.mtime()), (mode, 1), "{machine:?} {}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_through_as_root_with_namespaces() {
    of(true, true, "standard").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_through_as_root_without_namespaces() {
    of(true, false, "standard").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_through_as_an_ordinary_user_with_namespaces() {
    of(false, true, "standard").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_through_as_an_ordinary_user_without_namespaces() {
    of(false, false, "standard").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_through_the_strict_profile() {
    for is_root in [true, false] {
        of(is_root, true, "strict").await;
    }
}

async fn of(is_root: bool, has_namespaces: bool, profile: &str) {
    let machine = Machine { is_root, has_namespaces };
    if !Machine::all().contains(&machine) {
        println!("skipped: only root can be {machine:?}");
        return;
    }
    nothing_gets_through(machine, profile).await;
}
