//! One running gateway: the real binary with its own servers.toml and database
//! in a folder of its own, stopped by its pid when the value goes.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::{
    database,
    http::{Connection, Response},
    mcp::{Client, Hello},
    process::{Log, run},
    scratch::Scratch,
    wait::{poll, wait_until},
};

const START: Duration = Duration::from_secs(60);
/// What a gateway without a call under way may take to end.
const STOP: Duration = Duration::from_secs(20);
const COMMAND: Duration = Duration::from_secs(60);
const CONFIG: &str = "servers.toml";

/// How a gateway is started.
pub struct Launch {
    folder: Arc<Scratch>,
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
    /// Without any argument of the harness's own.
    bare: bool,
    config: PathBuf,
    /// A program that becomes the gateway, with its arguments.
    wrapper: Vec<String>,
}

impl Launch {
    pub fn new(servers_toml: &str) -> Launch {
        Launch::with_folder(Scratch::new(), servers_toml)
    }

    /// The folder exists before the gateway does; configs may name it.
    pub fn with_folder(folder: impl Into<Arc<Scratch>>, servers_toml: &str) -> Launch {
        let folder = folder.into();
        let config = folder.write(CONFIG, servers_toml);
        Launch { folder, variables: Vec::new(), arguments: Vec::new(), bare: false, config, wrapper: Vec::new() }
    }

    /// `seawall` and nothing else: servers.toml must say `listen = "127.0.0.1:0"`.
    pub fn bare(mut self) -> Launch {
        self.bare = true;
        self
    }

    /// A servers.toml elsewhere.
    pub fn config_at(mut self, path: &Path) -> Launch {
        self.config = path.to_owned();
        self
    }

    /// In a folder that its owner keeps.
    pub fn beside(folder: &Scratch, servers_toml: &str) -> Launch {
        Launch::with_folder(folder.again(), servers_toml)
    }

    pub fn env(mut self, name: &str, value: &str) -> Launch {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn arg(mut self, argument: &str) -> Launch {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts it through a program that becomes it: the gateway's own command line follows.
    pub fn through(mut self, wrapper: &[&str]) -> Launch {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub async fn start(self) -> Gateway {
        let words: Vec<String> = self.wrapper.into_iter().chain([env!("CARGO_BIN_EXE_seawall").to_owned()]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if !self.bare {
            command.arg("serve").arg("--config").arg(&self.config).args(["--listen", "127.0.0.1:0"]);
        }
        command.args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the gateway can be started");
        let log = Log::default();
        log.follow(child.stdout.take().expect("stdout is piped"));
        log.follow(child.stderr.take().expect("stderr is piped"));
        let mut gateway =
            Gateway { folder: self.folder, config: self.config, child, log, address: ([127, 0, 0, 1], 0).into() };
        gateway.learn_address().await;
        gateway
    }
}

/// A running gateway.
pub struct Gateway {
    pub folder: Arc<Scratch>,
    config: PathBuf,
    child: Child,
    pub log: Log,
    pub address: SocketAddr,
}

impl Gateway {
    pub async fn start(servers_toml: &str) -> Gateway {
        Launch::new(servers_toml).start().await
    }

    async fn learn_address(&mut self) {
        let log = self.log.clone();
        let child = &mut self.child;
        self.address = wait_until(START, "the gateway to say where it listens", async || {
            let ended = child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "the gateway ended at once: {ended:?}\n{}", log.text());
            log.lines().iter().find_map(|line| {
                let address = line.split("listening on http://").nth(1)?;
                address.split(|end: char| !end.is_ascii_digit() && !".:[]".contains(end)).next()?.parse().ok()
            })
        })
        .await;
        wait_until(START, "/healthz to answer", async || {
            let alive = self.get("/healthz").await.ok()?;
            (alive.status() == 200).then_some(())
        })
        .await;
    }

    /// Until every server is up, or is known not to come up.
    pub async fn ready(&self) {
        wait_until(START, "every server's first start to have ended", async || {
            let ready = self.get("/readyz").await.ok()?;
            let states: serde_json::Value = serde_json::from_slice(&ready.body).ok()?;
            let states = states["servers"].as_object()?;
            states
                .values()
                .all(|state| state != "installing" && state != "spawning" && state != "handshaking")
                .then_some(())
        })
        .await;
    }

    pub async fn server_is_ready(&self, name: &str) {
        wait_until(START, "the server to be ready", async || {
            let ready = self.get("/readyz").await.ok()?;
            let states: serde_json::Value = serde_json::from_slice(&ready.body).ok()?;
            (states["servers"][name] == "ready").then_some(())
        })
        .await;
    }

    pub async fn client(&self, path: &str) -> Client {
        self.client_as(path, Hello::default()).await
    }

    pub async fn client_as(&self, path: &str, hello: Hello) -> Client {
        Client::connect(self.address, path, hello).await
    }

    pub async fn connection(&self) -> Connection {
        Connection::open(self.address).await.expect("the gateway takes connections")
    }

    pub async fn get(&self, path: &str) -> std::io::Result<Response> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        Connection::open(self.address).await?.request(&head, b"").await
    }

    /// A POST with exactly these headers besides Host (where none is given) and Content-Length.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut head = format!("POST {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        self.connection().await.request(&head, body.as_bytes()).await.expect("the gateway answers")
    }

    /// Runs `seawall WORDS --config …` beside this gateway, as its user would.
    pub fn seawall(&self, words: &[&str]) -> Output {
        run_seawall(words, &self.config(), COMMAND)
    }

    /// The standard output of `seawall WORDS` as JSON.
    pub fn seawall_json(&self, words: &[&str]) -> Value {
        let output = self.seawall(words);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{words:?} is no JSON: {error}: {output:?}"))
    }

    pub fn config(&self) -> PathBuf {
        self.config.clone()
    }

    /// What `status --json` says of one server.
    pub fn server(&self, name: &str) -> Value {
        self.seawall_json(&["status", "--json"])["servers"][name].clone()
    }

    /// A new servers.toml, put in place whole.
    pub fn edit(&self, servers_toml: &str) {
        self.folder.write(CONFIG, servers_toml);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid fits");
        rustix::process::kill_process(Pid::from_raw(pid).expect("a pid is not zero"), signal)
            .expect("a child can be signalled");
    }

    pub fn exited(&mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        let status = poll(within, || child.try_wait().expect("a child can be asked"));
        status.unwrap_or_else(|| panic!("the gateway still runs after {within:?}\n{}", self.log.text()))
    }

    /// SIGTERM, and its exit status.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.exited(Duration::from_secs(45))
    }

    /// SIGKILL; the folder stays.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// Rows of the gateway's database, one object each.
    pub fn sqlite(&self, sql: &str) -> Vec<Value> {
        self.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Waits until a query has rows: records are written behind the calls.
    pub async fn rows(&self, what: &str, sql: &str) -> Vec<Value> {
        wait_until(Duration::from_secs(10), what, async || self.query(sql).ok().filter(|rows| !rows.is_empty())).await
    }

    fn query(&self, sql: &str) -> rusqlite::Result<Vec<Value>> {
        database::rows(&self.folder.file("seawall.db"), sql)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Asked first: a gateway that is killed cannot clear up after itself.
            self.signal(Signal::TERM);
            let child = &mut self.child;
            if poll(STOP, || child.try_wait().ok().flatten()).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if thread::panicking() {
            eprintln!("---- the gateway's log\n{}\n----", self.log.text());
        }
    }
}

/// Runs the binary to its end, for `within` at most.
pub fn run_seawall(words: &[&str], config: &Path, within: Duration) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(words).arg("--config").arg(config).current_dir(config.parent().expect("a file has a folder"));
    run(command, within)
}
