//! An MCP client over the pipes of `seawall stdio`, line by line.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{process::Log, wait::poll};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct StdioClient {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    pub log: Log,
    last_id: u64,
    /// Notifications and requests that came before replies, in their order.
    pub seen: Vec<Value>,
}

impl StdioClient {
    /// `seawall stdio WORDS --config …`, before its first word.
    pub fn start(config: &Path, words: &[&str]) -> StdioClient {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.arg("stdio").args(words).arg("--config").arg(config);
        command.current_dir(config.parent().expect("a file has a folder"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("seawall can be started");
        let log = Log::default();
        log.follow(child.stderr.take().expect("stderr is piped"));
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        StdioClient { child, stdin, lines, log, last_id: 0, seen: Vec::new() }
    }

    /// Started and initialized.
    pub fn connect(config: &Path, words: &[&str]) -> StdioClient {
        let mut client = StdioClient::start(config, words);
        let hello = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "harness-stdio", "version": "1.0.0"},
        });
        let welcome = client.request("initialize", hello);
        assert!(welcome["result"].is_object(), "initialize was refused: {welcome}");
        client.notify("notifications/initialized", json!({}));
        client
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn send(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("the input is open");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("seawall reads its input");
    }

    pub fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string());
    }

    /// The id of a request that is under way now.
    pub fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}).to_string());
        self.last_id
    }

    pub fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params);
        self.reply(id)
    }

    pub fn call_tool(&mut self, name: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({"name": name, "arguments": arguments}))
    }

    /// The reply to one request; notifications before it are kept in `seen`.
    pub fn reply(&mut self, id: u64) -> Value {
        let text = self.reply_text(id);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The same as the text that came.
    pub fn reply_text(&mut self, id: u64) -> String {
        #[derive(serde::Deserialize)]
        struct Kind {
            method: Option<serde::de::IgnoredAny>,
            id: Option<Value>,
        }
        loop {
            let line = self.line(PATIENCE).unwrap_or_else(|| panic!("no reply to {id}\n{}", self.log.text()));
            let kind: Kind = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if kind.method.is_none() {
                assert_eq!(kind.id, Some(json!(id)), "another reply was due: {line}");
                return line;
            }
            self.seen.push(serde_json::from_str(&line).expect("a message of ours is JSON"));
        }
    }

    /// The next line; `None` at the end of the output, or when `within` is over.
    pub fn line(&mut self, within: Duration) -> Option<String> {
        self.lines.recv_timeout(within).ok()
    }

    /// Waits until it says so on stderr, which arrives beside all else.
    pub fn says(&self, part: &str) -> bool {
        poll(PATIENCE, || self.log.has(part).then_some(())).is_some()
    }

    /// The client has nothing more to say.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    pub fn exited(&mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        let status = poll(within, || child.try_wait().expect("a child can be asked"));
        status.unwrap_or_else(|| panic!("seawall stdio still runs after {within:?}\n{}", self.log.text()))
    }
}

impl Drop for StdioClient {
    fn drop(&mut self) {
        self.close_input();
        let child = &mut self.child;
        if poll(Duration::from_secs(10), || child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("---- what seawall stdio said\n{}\n----", self.log.text());
        }
    }
}
