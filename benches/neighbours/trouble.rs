//! The trouble itself, on a thread of its own: begun and ended turn by turn.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use crate::{faults::Trouble, http::Connection, web::HELLO};

/// Between two faults: what is measured is the neighbour, not a full machine.
const PAUSE: Duration = Duration::from_millis(10);
/// A server that has answered so often is replaced at once.
const PROVEN: usize = 20;
/// Longer than the fault's own timeout.
const CALL_MAX: Duration = Duration::from_secs(3);

pub(crate) struct Maker {
    on: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Maker {
    pub(crate) fn start(trouble: &'static Trouble, server: &str, address: SocketAddr, database: PathBuf) -> Maker {
        let (on, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let path = format!("/mcp/{server}");
        let thread = thread::spawn({
            let (on, over) = (on.clone(), over.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let work = make(trouble, address, &path, &database, &on, &over);
                runtime.expect("a runtime can be built").block_on(work);
            }
        });
        Maker { on, over, thread: Some(thread) }
    }

    pub(crate) fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn make(trouble: &Trouble, address: SocketAddr, path: &str, database: &Path, on: &AtomicBool, over: &AtomicBool) {
    let mut lane = None;
    let mut lock = None;
    while !over.load(Ordering::Relaxed) {
        if !on.load(Ordering::Relaxed) {
            // Its lock is let go with it.
            lock = None;
            sleep(Duration::from_millis(1)).await;
            continue;
        }
        let made = match trouble {
            Trouble::Calls(tool, arguments) => once(&mut lane, address, path, tool, arguments).await,
            Trouble::Kills(tool, arguments) => {
                for _ in 0..PROVEN {
                    let _ = once(&mut lane, address, path, "echo", "{}").await;
                }
                let killed = once(&mut lane, address, path, tool, arguments).await;
                // Where it is frozen, calls are what it is found out by.
                killed.and(once(&mut lane, address, path, "echo", "{}").await)
            }
            Trouble::Lives => Ok(()),
            Trouble::DatabaseLocked => {
                if lock.is_none() {
                    lock = rusqlite::Connection::open(database).ok();
                    let _ = lock.as_ref().map(|lock| lock.execute_batch("BEGIN IMMEDIATE"));
                }
                once(&mut lane, address, path, "fail", "{}").await
            }
            Trouble::DatabaseDeleted => {
                let _ = std::fs::remove_file(database);
                once(&mut lane, address, path, "fail", "{}").await
            }
            Trouble::Connections => Connection::open(address).await.map(drop),
        };
        if made.is_err() {
            lane = None;
        }
        if !matches!(trouble, Trouble::Connections) {
            sleep(PAUSE).await;
        }
    }
}

/// One call, whatever its answer.
async fn once(lane: &mut Option<Lane>, address: SocketAddr, path: &str, tool: &str, arguments: &str) -> io::Result<()> {
    let call = async {
        if lane.is_none() {
            *lane = Some(Lane::open(address, path).await?);
        }
        let lane = lane.as_mut().expect("it was just opened");
        let params = format!("{{\"name\":\"{tool}\",\"arguments\":{arguments}}}");
        lane.say(&format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{params}}}")).await
    };
    timeout(CALL_MAX, call).await.unwrap_or_else(|_| Err(io::Error::other("no answer in time")))
}

struct Lane {
    connection: Connection,
    head: String,
}

impl Lane {
    async fn open(address: SocketAddr, path: &str) -> io::Result<Lane> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json, text/event-stream\r\n\
             Content-Type: application/json\r\n"
        );
        let mut lane = Lane { connection: Connection::open(address).await?, head };
        let request = format!("{}Content-Length: {}\r\n\r\n", lane.head, HELLO.len());
        let welcome = lane.connection.request(&request, HELLO.as_bytes()).await?;
        let session = welcome.header("mcp-session-id").unwrap_or_default();
        lane.head += &format!("Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: 2025-11-25\r\n");
        Ok(lane)
    }

    async fn say(&mut self, body: &str) -> io::Result<()> {
        let head = format!("{}Content-Length: {}\r\n\r\n", self.head, body.len());
        self.connection.request(&head, body.as_bytes()).await.map(drop)
    }
}
