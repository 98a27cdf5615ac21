//! The misbehaving server of fixtures/: where its binary is, how it stands in
//! servers.toml, and what its journal tells.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

use serde_json::Value;

/// The built example. `cargo test` builds it; `cargo test --test NAME` does not,
/// so that it is built here where it is missing or older than its source.
pub fn fixture_server() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("fixture-server", "server")).clone()
}

/// The program that tries to get out of a sandbox, beside the server.
pub fn hostile() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("hostile", "hostile")).clone()
}

/// The models of `fixtures/loom`.
pub fn loom_models() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("loom-models", "loom")).clone()
}

fn built(example: &str, source: &str) -> PathBuf {
    let path = beside_tests(&format!("examples/{example}"));
    if modified(&path) < newest_source(source) {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--locked", "--example", example]);
        let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(status.is_ok_and(|status| status.success()), "{example} does not build");
    }
    path
}

/// `[servers.NAME]` that runs the fixture server, confined as a sandbox key says.
pub fn confined(name: &str, sandbox: &str) -> String {
    fixture(name, &[]).replace("sandbox = \"off\"", &format!("sandbox = {sandbox}"))
}

/// `[servers.NAME]` that runs the fixture server with these flags, unconfined:
/// what is tested is the gateway and not the sandbox. Keys of the table may follow.
pub fn fixture(name: &str, flags: &[&str]) -> String {
    let program = fixture_server();
    let words: Vec<String> = std::iter::once(program.to_str().expect("a path of ours is UTF-8"))
        .chain(flags.iter().copied())
        .map(|word| serde_json::to_string(word).expect("a string is JSON"))
        .collect();
    // A JSON string is a TOML basic string.
    format!("\n[servers.{name}]\ncommand = [{}]\nsandbox = \"off\"\n", words.join(", "))
}

/// A path in the target folder that this test was built into.
fn beside_tests(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its path");
    let profile = own.parent().and_then(Path::parent).expect("a test lives in target/PROFILE/deps");
    profile.join(name)
}

fn newest_source(source: &str) -> SystemTime {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let rooms = std::fs::read_dir(folder.join(source)).expect("a fixture has its rooms");
    let rooms = rooms.map(|room| room.expect("a folder can be read").path());
    rooms
        .chain([folder.join(format!("{source}.rs"))])
        .map(|path| modified(&path))
        .max()
        .expect("there is at least one file")
}

fn modified(path: &Path) -> SystemTime {
    path.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What a fixture server with `--journal FILE` received, over all its lives.
pub struct Journal(pub PathBuf);

impl Journal {
    pub fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("the journal is JSON lines")).collect()
    }

    pub fn events(&self, event: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["event"] == event).collect()
    }

    pub fn received(&self, method: &str) -> Vec<Value> {
        self.events("received").into_iter().filter(|line| line["method"] == method).collect()
    }

    /// How often each call arrived whose arguments have this key, by its value:
    /// at most once each is the promise.
    pub fn calls_by(&self, key: &str) -> std::collections::BTreeMap<String, usize> {
        let mut calls = std::collections::BTreeMap::new();
        for line in self.received("tools/call") {
            if let Some(value) = line["params"]["arguments"].get(key) {
                *calls.entry(value.to_string()).or_default() += 1;
            }
        }
        calls
    }
}
