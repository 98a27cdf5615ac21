//! A real emit server on a port of its own, and what it has on record.

use std::{
    ops::{Deref, DerefMut},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use serde_json::Value;

pub use super::listening::json;
use super::{Connection, Response, database, listening::Listening, scratch::Scratch};

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
        Emit(Listening::start(command, WITHIN, "seawall: events at http://", "/events"))
    }

    /// The rows of a query of emit.db.
    pub fn rows(&self, sql: &str) -> Vec<Value> {
        database::rows(&self.database(), sql).expect("emit.db can be read")
    }

    pub fn count(&self) -> i64 {
        self.rows("SELECT count(*) AS n FROM events")[0]["n"].as_i64().expect("a number")
    }
}

pub struct Emit(Listening);

impl Deref for Emit {
    type Target = Listening;

    fn deref(&self) -> &Listening {
        &self.0
    }
}

impl DerefMut for Emit {
    fn deref_mut(&mut self) -> &mut Listening {
        &mut self.0
    }
}

impl Emit {
    /// One request with a body of JSON.
    pub async fn post(&self, body: &str) -> Response {
        post(&mut self.connect().await, "application/json", &[], body).await.expect("an answer")
    }

    pub async fn post_lines(&self, headers: &[(&str, &str)], body: &str) -> Response {
        post(&mut self.connect().await, "application/x-ndjson", headers, body).await.expect("an answer")
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
