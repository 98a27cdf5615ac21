//! A seawall that stands on a port of its own, until it is told to stop or the value goes.

use std::{
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use super::{Connection, Response, process::Log, service::send, wait::poll};

pub struct Listening {
    child: Child,
    within: Duration,
    pub log: Log,
    pub address: SocketAddr,
}

impl Listening {
    /// Starts it, and waits until it says its URL: the address is between `before` and `after`.
    pub fn start(mut command: Command, within: Duration, before: &str, after: &str) -> Listening {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("seawall can be started");
        let log = Log::default();
        log.follow(child.stdout.take().expect("stdout is piped"));
        log.follow(child.stderr.take().expect("stderr is piped"));
        let address = poll(within, || {
            let lines = log.lines();
            let url = lines.iter().find_map(|line| line.strip_prefix(before))?;
            url.strip_suffix(after)?.parse().ok()
        });
        let address = address.unwrap_or_else(|| panic!("it does not say where it listens\n{}", log.text()));
        Listening { child, within, log, address }
    }

    pub async fn connect(&self) -> Connection {
        Connection::open(self.address).await.expect("it listens")
    }

    pub async fn get(&self, target: &str) -> Response {
        let head = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        self.connect().await.request(&head, b"").await.expect("an answer")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    pub fn end(&mut self) -> ExitStatus {
        let child = &mut self.child;
        poll(self.within, || child.try_wait().expect("a child can be asked"))
            .unwrap_or_else(|| panic!("it does not end\n{}", self.log.text()))
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- what it said\n{}\n----", self.log.text());
        }
    }
}

/// The one answer as JSON.
pub fn json(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {}", response.text()))
}
