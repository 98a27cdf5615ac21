//! An MCP client of any version, over HTTP or the pipes of a program, that sends text and
//! keeps the text that comes. It answers questions with what it is told to.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

use super::{
    http::{Connection, Events},
    json_text::{self, Member},
};

const PATIENCE: Duration = Duration::from_secs(60);
const CLIENT_INFO: &str = r#"{"name":"raw","version":"1.0"}"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    Legacy,
    Modern,
}

/// What a client says of itself.
#[derive(Clone, Debug)]
pub struct Who {
    pub version: &'static str,
    /// As JSON text.
    pub capabilities: String,
}

impl Who {
    pub fn new(version: &'static str, capabilities: &str) -> Who {
        Who { version, capabilities: capabilities.to_owned() }
    }

    pub fn era(&self) -> Era {
        if self.version == "2026-07-28" { Era::Modern } else { Era::Legacy }
    }

    /// What says in `_meta` who asks, since 2026-07-28.
    pub fn members(&self) -> Vec<Member> {
        let keys = [
            ("protocolVersion", format!("\"{}\"", self.version)),
            ("clientInfo", CLIENT_INFO.to_owned()),
            ("clientCapabilities", self.capabilities.clone()),
            ("logLevel", "\"debug\"".to_owned()),
        ];
        keys.map(|(key, value)| (format!("\"io.modelcontextprotocol/{key}\""), value)).into()
    }
}

/// One client, connected.
pub struct RawClient {
    pub who: Who,
    carrier: Carrier,
    last_id: u64,
    /// What was told on no request's behalf, and not asked for yet.
    told: Vec<String>,
}

enum Carrier {
    Pipe {
        child: Child,
        stdin: ChildStdin,
        lines: Receiver<String>,
    },
    Http {
        /// Boxed: it is large.
        runtime: Box<Runtime>,
        address: SocketAddr,
        path: String,
        session: Option<String>,
        idle: Option<Connection>,
        /// Of the stream that belongs to no request.
        events: Option<Receiver<String>>,
        /// Of a request that is not waited for.
        begun: Option<Connection>,
    },
}

impl RawClient {
    pub fn over_pipe(who: Who, mut command: Command) -> RawClient {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program can be started");
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        RawClient { who, carrier: Carrier::Pipe { child, stdin, lines }, last_id: 0, told: Vec::new() }.greeted()
    }

    pub fn over_http(who: Who, address: SocketAddr, path: &str) -> RawClient {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (runtime, path) = (Box::new(runtime), path.to_owned());
        let carrier = Carrier::Http { runtime, address, path, session: None, idle: None, events: None, begun: None };
        RawClient { who, carrier, last_id: 0, told: Vec::new() }.greeted()
    }

    fn greeted(mut self) -> RawClient {
        if self.who.era() == Era::Legacy {
            let Who { version, capabilities } = &self.who;
            let hello = format!(
                "{{\"protocolVersion\":\"{version}\",\"capabilities\":{capabilities},\"clientInfo\":{CLIENT_INFO}}}"
            );
            let welcome = self.exchange("initialize", &hello, "");
            assert!(welcome.last().is_some_and(|welcome| welcome.contains("\"result\"")), "{welcome:?}");
            self.notify("notifications/initialized", "{}");
        }
        self
    }

    /// Opens the stream of what belongs to no request: the standing one, or, since
    /// 2026-07-28, that of `subscriptions/listen` with these params.
    pub fn listen(&mut self, params: &str) {
        let is_modern = self.who.era() == Era::Modern;
        let body = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":\"listen\",\"method\":\"subscriptions/listen\",\"params\":{params}}}"
        );
        let head = match is_modern {
            true => self.head("POST", Some(("subscriptions/listen", params)), body.len()),
            false => self.head("GET", None, 0),
        };
        match &mut self.carrier {
            Carrier::Pipe { stdin, .. } if is_modern => {
                writeln!(stdin, "{body}").and_then(|()| stdin.flush()).expect("its reader is there");
            }
            Carrier::Pipe { .. } => return,
            Carrier::Http { address, events, .. } => {
                let body = if is_modern { body } else { String::new() };
                *events = Some(stream(*address, head + &body));
            }
        }
        if is_modern {
            self.told("notifications/subscriptions/acknowledged");
        }
    }

    /// Waits until it is told this, for no request, and returns the whole message.
    pub fn told(&mut self, method: &str) -> String {
        let is_it = |line: &String| matches!(Kind::of(line), Kind::Notification(one) if one == method);
        if let Some(at) = self.told.iter().position(is_it) {
            return self.told.remove(at);
        }
        let lines = match &self.carrier {
            Carrier::Pipe { lines, .. } => lines,
            Carrier::Http { events, .. } => events.as_ref().expect("it listens"),
        };
        loop {
            let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("never told {method}"));
            if is_it(&line) {
                return line;
            }
            self.told.push(line);
        }
    }

    /// Whether it was told this by now, and has not asked for it.
    pub fn was_told(&self, method: &str) -> bool {
        self.told.iter().any(|line| matches!(Kind::of(line), Kind::Notification(one) if one == method))
    }

    pub fn notify(&mut self, method: &str, params: &str) {
        let body = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{params}}}");
        self.put(&body);
    }

    /// All that came until the answer, which is the last. A question gets `reply`.
    pub fn exchange(&mut self, method: &str, params: &str, reply: &str) -> Vec<String> {
        self.last_id += 1;
        // A direct client and seawall may speak to one server: their ids differ.
        let id = format!("\"own-{}\"", self.last_id);
        let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}");
        match &mut self.carrier {
            Carrier::Pipe { .. } => self.exchange_over_pipe(&body, reply),
            Carrier::Http { .. } => self.exchange_over_http(method, params, &body, reply),
        }
    }

    /// Sends a request whose answer is not waited for, and returns its id as JSON text.
    pub fn begin(&mut self, method: &str, params: &str) -> String {
        self.last_id += 1;
        let id = format!("\"own-{}\"", self.last_id);
        let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}");
        let head = self.head("POST", Some((method, params)), body.len());
        match &mut self.carrier {
            Carrier::Pipe { .. } => self.put(&body),
            Carrier::Http { runtime, address, begun, .. } => {
                *begun = Some(runtime.block_on(async {
                    let mut connection = Connection::open(*address).await.expect("it takes connections");
                    connection.send(&[head.as_bytes(), body.as_bytes()].concat()).await.expect("it reads");
                    connection
                }));
            }
        }
        id
    }

    /// Takes a request back, as its version does it.
    pub fn cancel(&mut self, id: &str) {
        let is_closed = matches!(self.carrier, Carrier::Http { .. }) && self.who.era() == Era::Modern;
        if !is_closed {
            self.notify("notifications/cancelled", &format!("{{\"requestId\":{id}}}"));
        }
        if let Carrier::Http { begun, .. } = &mut self.carrier {
            *begun = None;
        }
    }

    fn exchange_over_pipe(&mut self, body: &str, reply: &str) -> Vec<String> {
        self.put(body);
        let mut seen = Vec::new();
        loop {
            let Carrier::Pipe { lines, .. } = &self.carrier else { unreachable!("it is a pipe") };
            let line = lines.recv_timeout(PATIENCE).expect("an answer comes in time");
            let kind = Kind::of(&line);
            seen.push(line);
            match kind {
                Kind::Question(id) => self.put(&answer(&id, reply)),
                Kind::Notification(method) if is_of_no_request(&method) => self.told.extend(seen.pop()),
                Kind::Notification(_) => {}
                Kind::Answer => return seen,
            }
        }
    }

    fn exchange_over_http(&mut self, method: &str, params: &str, body: &str, reply: &str) -> Vec<String> {
        let head = self.head("POST", Some((method, params)), body.len());
        let mut idle = match &mut self.carrier {
            Carrier::Http { idle, .. } => idle.take(),
            Carrier::Pipe { .. } => None,
        };
        let reply_head = |id: &str| {
            let body = answer(id, reply);
            (self.head("POST", None, body.len()), body)
        };
        let Carrier::Http { runtime, address, session, .. } = &self.carrier else { unreachable!("it is HTTP") };
        let (seen, new_session, connection) = runtime.block_on(async {
            let exchange = async {
                let mut connection = match idle.take() {
                    Some(connection) => connection,
                    None => Connection::open(*address).await.expect("it takes connections"),
                };
                connection.send(&[head.as_bytes(), body.as_bytes()].concat()).await.expect("it reads");
                let head = connection.head().await.expect("it answers");
                let session = head.header("mcp-session-id").map(str::to_owned);
                if !head.is_event_stream() {
                    let body = connection.rest(&head).await.expect("a whole body");
                    return (vec![String::from_utf8(body.to_vec()).expect("UTF-8")], session, connection);
                }
                let (mut events, mut seen) = (Events::default(), Vec::new());
                while let Some(piece) = connection.piece(&head).await.expect("a whole stream") {
                    for event in events.feed(&piece).into_iter().filter(|event| !event.data.is_empty()) {
                        if let Kind::Question(id) = Kind::of(&event.data) {
                            let (head, body) = reply_head(&id);
                            let mut other = Connection::open(*address).await.expect("it takes connections");
                            other.request(&head, body.as_bytes()).await.expect("it takes an answer");
                        }
                        seen.push(event.data);
                    }
                }
                (seen, session, connection)
            };
            tokio::time::timeout(PATIENCE, exchange).await.expect("an answer comes in time")
        });
        assert!(seen.last().is_some_and(|last| matches!(Kind::of(last), Kind::Answer)), "{seen:?}");
        let new_session = new_session.or_else(|| session.clone());
        if let Carrier::Http { session, idle, .. } = &mut self.carrier {
            (*session, *idle) = (new_session, Some(connection));
        }
        seen
    }

    /// What nobody answers.
    fn put(&mut self, body: &str) {
        let head = self.head("POST", None, body.len());
        match &mut self.carrier {
            Carrier::Pipe { stdin, .. } => {
                writeln!(stdin, "{body}").and_then(|()| stdin.flush()).expect("its reader is there");
            }
            Carrier::Http { runtime, address, .. } => {
                let taken = runtime.block_on(async {
                    let mut connection = Connection::open(*address).await.expect("it takes connections");
                    connection.request(&head, body.as_bytes()).await.expect("it answers")
                });
                assert_eq!(taken.status(), 202, "{}", taken.text());
            }
        }
    }

    fn head(&self, verb: &str, request: Option<(&str, &str)>, length: usize) -> String {
        let Carrier::Http { address, path, session, .. } = &self.carrier else { return String::new() };
        let mut head = format!(
            "{verb} {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json, text/event-stream\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n"
        );
        if let Some(session) = session {
            head += &format!("Mcp-Session-Id: {session}\r\n");
        }
        if self.who.era() == Era::Modern || session.is_some() {
            head += &format!("MCP-Protocol-Version: {}\r\n", self.who.version);
        }
        if let Some((method, params)) = request.filter(|_| self.who.era() == Era::Modern) {
            head += &format!("Mcp-Method: {method}\r\n");
            let params = json_text::taken_apart(&json_text::compact(params));
            if let Some(name) = json_text::member(&params, "name").or_else(|| json_text::member(&params, "uri")) {
                head += &format!("Mcp-Name: {}\r\n", name.trim_matches('"'));
            }
        }
        format!("{head}\r\n")
    }
}

impl Drop for RawClient {
    fn drop(&mut self) {
        if let Carrier::Pipe { child, .. } = &mut self.carrier {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Changes are told to all who listen.
fn is_of_no_request(method: &str) -> bool {
    method.ends_with("/list_changed") || method.ends_with("/updated") || method.ends_with("/acknowledged")
}

/// The events of one long answer, for as long as somebody wants them.
fn stream(address: SocketAddr, request: String) -> Receiver<String> {
    let (sender, events) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut connection = Connection::open(address).await.expect("it takes connections");
            connection.send(request.as_bytes()).await.expect("it reads");
            let head = connection.head().await.expect("it answers");
            let mut events = Events::default();
            while let Ok(Some(piece)) = connection.piece(&head).await {
                for event in events.feed(&piece).into_iter().filter(|event| !event.data.is_empty()) {
                    if sender.send(event.data).is_err() {
                        return;
                    }
                }
            }
        });
    });
    events
}

fn answer(id: &str, result: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")
}

enum Kind {
    Notification(String),
    /// With its id as JSON text.
    Question(String),
    Answer,
}

impl Kind {
    fn of(line: &str) -> Kind {
        #[derive(serde::Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow)]
            id: Option<&'a RawValue>,
            method: Option<String>,
            #[serde(rename = "params")]
            _params: Option<IgnoredAny>,
        }
        let envelope: Envelope<'_> = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        match (envelope.method, envelope.id) {
            (Some(method), None) => Kind::Notification(method),
            (Some(_), Some(id)) => Kind::Question(id.get().to_owned()),
            (None, _) => Kind::Answer,
        }
    }
}
