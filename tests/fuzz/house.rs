//! A whole gateway in this process, and clients that send it anything: a connection to
//! the HTTP front, and one to the control socket. Each is answered or closed, and the
//! next client is served as if nothing had been.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use seawall::{
    control,
    downstream::http::{Front, Settings},
    gateway::{Gateway, reload},
    listener::guard::Guard,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
    runtime::Runtime,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// After so long without an answer a client of ours says that it has no more to say.
const PATIENCE: Duration = Duration::from_millis(20);
/// A connection that is still there then hangs: this bounds a wait and measures nothing.
const HANGS: Duration = Duration::from_secs(60);
/// Streams whose client is gone; a comment every 15 s tells the server.
const LEAVING_MAX: usize = 64;
/// Stands for the id of a session that is open.
const SESSION: &[u8] = b"$SESSION";

pub(crate) const HTTP_WORDS: &[&str] = &[
    "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n",
    "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n",
    "DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n",
    "Mcp-Session-Id: $SESSION\r\n",
    "Mcp-Protocol-Version: 2025-11-25\r\n",
    "Mcp-Protocol-Version: 2026-07-28\r\n",
    "Mcp-Method: tools/call\r\n",
    "Mcp-Name: journal__events\r\n",
    "Mcp-Name: =?base64?",
    "Mcp-Param-A: 1\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "Connection: Upgrade\r\nUpgrade: h2c\r\n",
    "Origin: http://evil.example\r\n",
    "Host: a\r\n",
    "\r\n\r\n",
    "0\r\n\r\n",
    "ffffffffffffffff\r\n",
    "/mcp/journal",
    "/healthz",
    "/readyz",
    "%00",
    "HTTP/1.0",
    "HTTP/2.0",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":",
    "\"tools/list\"",
    "\"resources/read\",\"params\":{\"uri\":\"a{+b}\"}",
    "\"logging/setLevel\"",
    "\"_meta\":{\"progressToken\":1}",
    "[",
    "null",
];

pub(crate) const CONTROL_WORDS: &[&str] = &[
    "{\"op\":\"status\"}",
    "{\"op\":\"tools\"}",
    "{\"op\":\"call\",\"tool\":\"journal__events\",\"arguments\":\"{}\"}",
    "{\"op\":\"restart\",\"server\":\"journal\"}",
    "{\"op\":\"reload\"}",
    "{\"op\":\"reset_breaker\",\"tool\":\"journal__events\"}",
    "{\"op\":\"stdio\",\"server\":null}",
    "{\"op\":\"stdio\",\"server\":\"journal\"}",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
    "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}",
    "\"arguments\":",
    "\"op\":",
    "\n",
    "\0",
    "1e400",
    "\\ud800",
];

const TOML: &str = "[servers.journal]\nbuiltin = \"events\"\n[servers.seawall]\nbuiltin = \"seawall\"\n";

struct House {
    runtime: Runtime,
    front: Arc<Front>,
    socket: std::path::PathBuf,
    session: Mutex<String>,
    leaving: Mutex<VecDeque<JoinHandle<()>>>,
    _folder: tempfile::TempDir,
}

fn house() -> &'static House {
    static HOUSE: OnceLock<House> = OnceLock::new();
    HOUSE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let toml = folder.path().join("servers.toml");
        std::fs::write(&toml, TOML).expect("a folder of our own");
        let reloader = Arc::new(reload::Reloader::new(&toml, reload::Overrides::default()));
        let config = reloader.load().expect("a good file");
        let state = config.gateway.state.clone();
        std::fs::create_dir_all(&state).expect("a folder of our own");
        let _inside = runtime.enter();
        let gateway = Gateway::builder().config(config).start();
        runtime.block_on(gateway.settled());
        let settings = Settings { guard: Guard::default(), max_message_bytes: 64 * 1024 };
        let readiness = Arc::new(|| (true, seawall::call::Payload::literal("{}")));
        let front = Front::new(settings, gateway.gate(), readiness, gateway.tasks());
        let socket = control::socket_path(&state);
        let listener = control::bind(&state).expect("a socket");
        runtime.spawn(async move { control::serve(listener, &state, gateway, reloader).await });
        House { runtime, front, socket, session: Mutex::default(), leaving: Mutex::default(), _folder: folder }
    })
}

/// Says all of `input`, and what came back until the other side closed.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, input: &[u8], patience: Duration) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut heard = Vec::new();
    let (sent, closed) = tokio::join!(
        // Who closes before it has heard all of it may.
        async { timeout(patience, write.write_all(input)).await },
        async { timeout(patience, read.read_to_end(&mut heard)).await.is_ok() },
    );
    drop(sent);
    if !closed {
        let _ = write.shutdown().await;
        let mut piece = [0; 1024];
        // A stream of events may go on: who has half closed still listens.
        while !is_stream(&heard) {
            let n = timeout(HANGS, read.read(&mut piece)).await;
            let n = n.unwrap_or_else(|_| panic!("neither answered nor closed; so far: {}", heard.escape_ascii()));
            match n {
                Ok(0) | Err(_) => break,
                Ok(n) => heard.extend_from_slice(&piece[..n]),
            }
        }
    }
    heard
}

fn is_stream(heard: &[u8]) -> bool {
    memchr::memmem::find(heard, b"text/event-stream").is_some()
}

impl House {
    async fn http(&self, input: &[u8], patience: Duration) -> Vec<u8> {
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let served = tokio::spawn(self.front.clone().serve_stream(theirs, CancellationToken::new()));
        let heard = converse(ours, input, patience).await;
        if !is_stream(&heard) {
            return timeout(HANGS, served).await.expect("its task ends").map(|()| heard).expect("no panic");
        }
        // That nobody listens any more is noticed when the stream is written next.
        let oldest = {
            let mut leaving = self.leaving.lock().expect("no panic");
            leaving.push_back(served);
            if leaving.len() > LEAVING_MAX { leaving.pop_front() } else { None }
        };
        if let Some(served) = oldest {
            timeout(HANGS, served).await.expect("its task ends").expect("no panic");
        }
        heard
    }

    /// The id of a session that is open, as far as one knows.
    async fn session(&self) -> String {
        let known = self.session.lock().expect("no panic").clone();
        let ping = post(&known, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        if !known.is_empty() && self.http(ping.as_bytes(), HANGS).await.starts_with(b"HTTP/1.1 200") {
            return known;
        }
        let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"f","version":"1"}}}"#;
        let heard = self.http(post("", hello).as_bytes(), HANGS).await;
        let heard = String::from_utf8_lossy(&heard).into_owned();
        let id = heard.lines().find_map(|line| line.strip_prefix("mcp-session-id: "));
        let id = id.unwrap_or_else(|| panic!("no session: {heard}")).trim().to_owned();
        self.session.lock().expect("no panic").clone_from(&id);
        id
    }
}

fn post(session: &str, body: &str) -> String {
    let session = if session.is_empty() { String::new() } else { format!("Mcp-Session-Id: {session}\r\n") };
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{session}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) fn http(input: &[u8]) {
    let house = house();
    house.runtime.block_on(async {
        let mut said = input.to_vec();
        if let Some(at) = memchr::memmem::find(input, SESSION) {
            let id = house.session().await;
            said.splice(at..at + SESSION.len(), id.bytes());
        }
        let heard = house.http(&said, PATIENCE).await;
        assert!(heard.is_empty() || heard.starts_with(b"HTTP/1."), "no HTTP: {}", heard.escape_ascii());
        assert!(memchr::memmem::find(&heard, b"HTTP/1.1 500").is_none(), "{}", heard.escape_ascii());
        // A session is asked for as a client does that has just come.
        house.session.lock().expect("no panic").clear();
        house.session().await;
    });
}

pub(crate) fn control(input: &[u8]) {
    let house = house();
    house.runtime.block_on(async {
        let connect = async || UnixStream::connect(&house.socket).await.expect("it listens");
        let heard = converse(connect().await, input, PATIENCE).await;
        assert!(heard.is_empty() || heard.ends_with(b"\n"), "half a line: {}", heard.escape_ascii());
        let heard = converse(connect().await, b"{\"op\":\"status\"}\n", HANGS).await;
        assert!(heard.starts_with(b"{\"ok\":{\"gateway\""), "{}", heard.escape_ascii());
    });
}
