//! One client: a kept connection with a session, one call at a time.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::http::{Connection, Response};

/// Longer than any deadline of a gateway here: a call that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(90);
/// A gateway closes a connection that is idle for two minutes: a client that rested for so
/// long takes another, for the same session.
const IDLE_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Lane {
    address: SocketAddr,
    connection: Connection,
    used: Instant,
    head: String,
    last_id: u64,
}

impl Lane {
    pub(crate) async fn open(address: SocketAddr, path: &str) -> io::Result<Lane> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json, text/event-stream\r\n\
             Content-Type: application/json\r\n"
        );
        let mut lane =
            Lane { address, connection: Connection::open(address).await?, used: Instant::now(), head, last_id: 0 };
        let hello = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"},
        });
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello});
        let welcome = lane.say(&hello).await?;
        let session = welcome.header("mcp-session-id").ok_or_else(|| io::Error::other(welcome.text()))?;
        lane.head += &format!("Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: 2025-11-25\r\n");
        lane.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        Ok(lane)
    }

    /// Ends the session, as a client does that leaves in order.
    pub(crate) async fn leave(mut self) -> io::Result<()> {
        let head = format!("{}\r\n", self.head.replacen("POST", "DELETE", 1));
        timeout(PATIENCE, self.connection.request(&head, b"")).await??;
        Ok(())
    }

    async fn say(&mut self, message: &Value) -> io::Result<Response> {
        let body = message.to_string();
        let head = format!("{}Content-Length: {}\r\n\r\n", self.head, body.len());
        if self.used.elapsed() > IDLE_MAX {
            self.connection = Connection::open(self.address).await?;
        }
        let response = timeout(PATIENCE, self.connection.request(&head, body.as_bytes())).await??;
        self.used = Instant::now();
        match response.status() {
            200..300 => Ok(response),
            status => Err(io::Error::other(format!("status {status}: {}", response.text()))),
        }
    }

    /// The reply to a `tools/call`: exactly one, and its own, or an error.
    pub(crate) async fn call(&mut self, tool: &str, arguments: &Value) -> io::Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let params = json!({"name": tool, "arguments": arguments});
        let response = self.say(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})).await?;
        let mut replies: Vec<Value> = response.messages();
        replies.retain(|message| message.get("method").is_none());
        match replies.pop() {
            Some(reply) if replies.is_empty() && reply["id"] == id => Ok(reply),
            other => Err(io::Error::other(format!("not the one reply to {id}: {other:?} after {replies:?}"))),
        }
    }
}
