//! An MCP client over Streamable HTTP that shows what really arrived: replies are
//! whole JSON-RPC messages, and what came before them can be looked at.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    exchange::Exchange,
    http::{Connection, Response},
};

/// Longer than any deadline that a test configures.
pub const PATIENCE: Duration = Duration::from_secs(90);
const PAGES_MAX: usize = 1000;
const STATELESS: &str = "2026-07-28";

/// What a client says of itself.
#[derive(Clone, Debug)]
pub struct Hello {
    /// `2026-07-28` speaks without a session, an older one opens one.
    pub version: String,
    pub capabilities: Value,
    pub name: String,
    pub headers: Vec<(String, String)>,
    /// What it takes as the reply to a POST.
    pub accept: &'static str,
}

impl Default for Hello {
    fn default() -> Self {
        Hello {
            version: "2025-11-25".into(),
            capabilities: json!({}),
            name: "harness".into(),
            headers: Vec::new(),
            accept: "application/json, text/event-stream",
        }
    }
}

impl Hello {
    pub fn version(version: &str) -> Hello {
        Hello { version: version.to_owned(), ..Hello::default() }
    }

    pub fn stateless() -> Hello {
        Hello::version(STATELESS)
    }

    pub fn capabilities(mut self, capabilities: Value) -> Hello {
        self.capabilities = capabilities;
        self
    }

    pub fn accept(mut self, accept: &'static str) -> Hello {
        self.accept = accept;
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Hello {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Usable from many tasks at once: each request under way has its own connection.
pub struct Client {
    address: SocketAddr,
    path: String,
    hello: Hello,
    session: Option<String>,
    /// The whole reply to `initialize`; null where there is no session.
    pub welcome: Value,
    next_id: AtomicU64,
    idle: Mutex<Vec<Connection>>,
    /// Notifications and requests that came before replies, in their order.
    seen: Mutex<Vec<Value>>,
}

impl Client {
    pub async fn connect(address: SocketAddr, path: &str, hello: Hello) -> Client {
        let mut client = Client {
            address,
            path: path.to_owned(),
            hello,
            session: None,
            welcome: Value::Null,
            next_id: AtomicU64::new(1),
            idle: Mutex::default(),
            seen: Mutex::default(),
        };
        if client.hello.version != STATELESS {
            client.open_session().await;
        }
        client
    }

    async fn open_session(&mut self) {
        let hello = json!({
            "protocolVersion": self.hello.version,
            "capabilities": self.hello.capabilities,
            "clientInfo": {"name": self.hello.name, "version": "1.0.0"},
        });
        let body = message(Some(json!(0)), "initialize", &hello);
        let response = self.post(&body).await;
        assert_eq!(response.status(), 200, "initialize was refused: {}", response.text());
        self.session = response.header("mcp-session-id").map(str::to_owned);
        self.welcome = response.messages().pop().expect("initialize has an answer");
        assert_eq!(self.notify("notifications/initialized", json!({})).await, 202);
    }

    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The whole JSON-RPC reply to `tools/call`.
    pub async fn call_tool(&self, name: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({"name": name, "arguments": arguments})).await
    }

    /// The whole JSON-RPC reply; what came before it is kept in [`seen`](Self::seen).
    pub async fn request(&self, method: &str, params: Value) -> Value {
        self.start(method, params).await.reply().await
    }

    /// The reply as the text it came as, for what no JSON value type can hold.
    pub async fn request_text(&self, method: &str, params: Value) -> String {
        self.start(method, params).await.reply_text().await
    }

    pub async fn list_tools(&self) -> Vec<Value> {
        self.list("tools/list", "tools").await
    }

    /// All pages of a list.
    pub async fn list(&self, method: &str, key: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut params = json!({});
        for _ in 0..PAGES_MAX {
            let reply = self.request(method, params).await;
            let result = reply.get("result").unwrap_or_else(|| panic!("{method} was refused: {reply}"));
            items.extend(result[key].as_array().expect("a list is an array").iter().cloned());
            let Some(cursor) = result.get("nextCursor") else { return items };
            params = json!({"cursor": cursor});
        }
        panic!("{method} has more than {PAGES_MAX} pages");
    }

    /// Sends a request and hands over whatever comes back, message by message.
    pub async fn start(&self, method: &str, params: Value) -> Exchange<'_> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let params = self.in_era(params);
        let name = ["name", "uri"].iter().find_map(|key| params[*key].as_str()).map(str::to_owned);
        let mut extra = String::new();
        if self.hello.version == STATELESS {
            extra = format!("Mcp-Method: {method}\r\n");
            if let Some(name) = name {
                extra += &format!("Mcp-Name: {name}\r\n");
            }
        }
        let body = message(Some(json!(id)), method, &params);
        self.exchange(id, &self.head("POST", &extra, Some(body.len())), body.as_bytes()).await
    }

    /// The stream of what belongs to no request.
    pub async fn listen(&self) -> Exchange<'_> {
        self.exchange(0, &self.head("GET", "", None), b"").await
    }

    /// The stream that an event was on, after that event.
    pub async fn resume(&self, last_event_id: &str) -> Exchange<'_> {
        let extra = format!("Last-Event-ID: {last_event_id}\r\n");
        self.exchange(0, &self.head("GET", &extra, None), b"").await
    }

    /// The status of the answer: 202 when it was taken.
    pub async fn notify(&self, method: &str, params: Value) -> u16 {
        self.post(&message(None, method, &params)).await.status()
    }

    pub async fn cancel(&self, id: u64) -> u16 {
        self.notify("notifications/cancelled", json!({"requestId": id, "reason": "no longer needed"})).await
    }

    /// Answers a question of the server.
    pub async fn respond(&self, id: &Value, result: Value) -> u16 {
        self.post(&json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()).await.status()
    }

    /// Ends the session.
    pub async fn end(&self) -> u16 {
        self.send(&self.head("DELETE", "", None), b"").await.status()
    }

    /// Any body, with the headers that this client always sends.
    pub async fn post(&self, body: &str) -> Response {
        self.send(&self.head("POST", "", Some(body.len())), body.as_bytes()).await
    }

    /// What came before replies since this was last asked.
    pub fn seen(&self) -> Vec<Value> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    pub(super) fn keep(&self, connection: Option<Connection>) {
        self.idle.lock().unwrap().extend(connection);
    }

    pub(super) fn saw(&self, message: Value) {
        self.seen.lock().unwrap().push(message);
    }

    async fn send(&self, head: &str, body: &[u8]) -> Response {
        let mut connection = self.connection().await;
        let response = timeout(PATIENCE, connection.request(head, body)).await;
        let response = response.expect("the gateway answers in time").expect("the gateway answers");
        self.keep(Some(connection));
        response
    }

    async fn exchange(&self, id: u64, head: &str, body: &[u8]) -> Exchange<'_> {
        let mut connection = self.connection().await;
        connection.send(&[head.as_bytes(), body].concat()).await.expect("the request can be sent");
        let head = timeout(PATIENCE, connection.head()).await;
        let head = head.expect("the gateway answers in time").expect("the gateway answers");
        Exchange::new(id, self, connection, head)
    }

    async fn connection(&self) -> Connection {
        let idle = self.idle.lock().unwrap().pop();
        match idle {
            Some(connection) => connection,
            None => Connection::open(self.address).await.expect("the gateway takes connections"),
        }
    }

    fn head(&self, verb: &str, extra: &str, body: Option<usize>) -> String {
        let Client { address, path, .. } = self;
        let mut head = format!("{verb} {path} HTTP/1.1\r\nHost: {address}\r\n");
        let accept = if verb == "GET" { "text/event-stream" } else { self.hello.accept };
        head += &format!("Accept: {accept}\r\n");
        if let Some(length) = body {
            head += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        }
        if let Some(session) = &self.session {
            head += &format!("Mcp-Session-Id: {session}\r\n");
        }
        // Not with `initialize`: the version is agreed on by then only.
        if self.session.is_some() || self.hello.version == STATELESS {
            let agreed = self.welcome["result"]["protocolVersion"].as_str().unwrap_or(&self.hello.version);
            head += &format!("MCP-Protocol-Version: {agreed}\r\n");
        }
        for (name, value) in &self.hello.headers {
            head += &format!("{name}: {value}\r\n");
        }
        format!("{head}{extra}\r\n")
    }

    /// Without a session every request says who asks.
    fn in_era(&self, mut params: Value) -> Value {
        if self.hello.version == STATELESS {
            let meta = &mut params["_meta"];
            meta["io.modelcontextprotocol/protocolVersion"] = json!(STATELESS);
            meta["io.modelcontextprotocol/clientInfo"] = json!({"name": self.hello.name, "version": "1.0.0"});
            meta["io.modelcontextprotocol/clientCapabilities"] = self.hello.capabilities.clone();
        }
        params
    }
}

fn message(id: Option<Value>, method: &str, params: &Value) -> String {
    let mut message = json!({"jsonrpc": "2.0"});
    if let Some(id) = id {
        message["id"] = id;
    }
    message["method"] = json!(method);
    message["params"] = params.clone();
    message.to_string()
}

/// The text of a reply's first content block.
pub fn text_of(reply: &Value) -> &str {
    reply["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {reply}"))
}

/// What seawall says of a failure: `{class, retryAfterMs, outcomeUnknown, id, error}`.
pub fn failure_of(reply: &Value) -> &Value {
    assert_eq!(reply["result"]["isError"], true, "not a failure: {reply}");
    &reply["result"]["_meta"]["seawall/failure"]
}
