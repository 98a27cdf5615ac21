//! A real emit server on a port of its own, and what it has on record.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use super::{Connection, Response, database, process::Log, scratch::Scratch, service::send, wait::poll};

const WITHIN: Duration = Duration::from_secs(60);

/// The folder of a servers.toml with one emit server.
pub struct Place {
    pub folder: Scratch,
}

impl Place {
    /// `options` are those beside `listen`.
    pub fn new(options: &str) -> Self {
        let folder = Scratch::new();
        folder.write(
            "servers.toml",
            &format!("[services.emit-server]\nbuiltin = \"emit\"\noptions = {{ listen = \"127.0.0.1:0\"{options} }}\n"),
        );
        Place { folder }
    }

    pub fn database(&self) -> PathBuf {
        self.folder.file("emit.db")
    }

    /// Starts it, and waits until it says where it listens.
    pub fn start(&self) -> Emit {
        self.start_as(&["emit-server"])
    }

    pub fn start_as(&self, words: &[&str]) -> Emit {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.args(words).arg("--config").arg(self.folder.file("servers.toml")).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("seawall can be started");
        let log = Log::default();
        log.follow(child.stdout.take().expect("stdout is piped"));
        log.follow(child.stderr.take().expect("stderr is piped"));
        let address = poll(WITHIN, || {
            let lines = log.lines();
            let url = lines.iter().find_map(|line| line.strip_prefix("seawall: events at http://"))?;
            url.strip_suffix("/events")?.parse().ok()
        });
        let address = address.unwrap_or_else(|| panic!("it does not say where it listens\n{}", log.text()));
        Emit { child, log, address }
    }

    /// The rows of a query of emit.db.
    pub fn rows(&self, sql: &str) -> Vec<Value> {
        database::rows(&self.database(), sql).expect("emit.db can be read")
    }

    pub fn count(&self) -> i64 {
        self.rows("SELECT count(*) AS n FROM events")[0]["n"].as_i64().expect("a number")
    }
}

pub struct Emit {
    child: Child,
    pub log: Log,
    pub address: SocketAddr,
}

impl Emit {
    pub async fn connect(&self) -> Connection {
        Connection::open(self.address).await.expect("it listens")
    }

    /// One request with a body of JSON.
    pub async fn post(&self, body: &str) -> Response {
        post(&mut self.connect().await, "application/json", &[], body).await.expect("an answer")
    }

    pub async fn post_lines(&self, headers: &[(&str, &str)], body: &str) -> Response {
        post(&mut self.connect().await, "application/x-ndjson", headers, body).await.expect("an answer")
    }

    pub async fn get(&self, target: &str) -> Response {
        let head = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        self.connect().await.request(&head, b"").await.expect("an answer")
    }

    pub fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    pub fn end(&mut self) -> ExitStatus {
        let child = &mut self.child;
        poll(WITHIN, || child.try_wait().expect("a child can be asked"))
            .unwrap_or_else(|| panic!("it does not end\n{}", self.log.text()))
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }
}

impl Drop for Emit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- what the emit server said\n{}\n----", self.log.text());
        }
    }
}

pub async fn post(
    connection: &mut Connection,
    kind: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Response> {
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{more}\r\n",
        body.len()
    );
    connection.request(&head, body.as_bytes()).await
}

/// The one answer as JSON.
pub fn json(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {}", response.text()))
}
