//! Who is connected: the vocabulary between the fronts and the router.
//!
//! Era, headers and session ids are a front's own business; the router sees a
//! [`Session`] and the messages that it sends.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use crate::{
    call::{Answer, Back, BoxFuture, Method, Payload, ServerName},
    era::Era,
};

/// Which servers a client sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `/mcp`: all servers, names prefixed.
    All,
    /// `/mcp/NAME`: one server, names untouched.
    One(ServerName),
}

/// One connected client.
pub struct Session {
    /// Unique within this process.
    pub number: u64,
    pub scope: Scope,
    pub era: Era,
    /// The client's own name and version, for people: `claude-code 2.1.0`.
    pub client: Arc<str>,
    /// The protocol version that this client speaks.
    pub protocol: Arc<str>,
    /// The client's capabilities as it sent them.
    pub capabilities: Payload,
    /// The client's `clientInfo` as it sent it.
    pub client_info: Payload,
    /// The way to the client when no call is there to answer on.
    pub back: Back,
    pub log_level: LogLevel,
}

/// The least severe log message that a session wants to hear; all of them at first.
#[derive(Debug)]
pub struct LogLevel(AtomicU8);

/// MCP's levels are those of syslog (RFC 5424), most severe last.
const LOG_LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

impl Default for LogLevel {
    fn default() -> Self {
        LogLevel(AtomicU8::new(0))
    }
}

/// A level above all others.
const SILENT: u8 = u8::MAX;

impl LogLevel {
    /// Hears nothing, until a level is set.
    pub fn silent() -> Self {
        LogLevel(AtomicU8::new(SILENT))
    }

    /// False if there is no such level.
    pub fn set(&self, level: &str) -> bool {
        let known = LOG_LEVELS.iter().position(|name| *name == level).and_then(|at| u8::try_from(at).ok());
        known.inspect(|at| self.0.store(*at, Ordering::Relaxed)).is_some()
    }

    pub fn name(&self) -> &'static str {
        LOG_LEVELS[usize::from(self.0.load(Ordering::Relaxed)) % LOG_LEVELS.len()]
    }

    /// Whether a `notifications/message` with these params is wanted. A level that MCP
    /// does not know is.
    pub fn hears(&self, params: Option<&Payload>) -> bool {
        let least = self.0.load(Ordering::Relaxed);
        if least == 0 || least == SILENT {
            return least == 0;
        }
        let level = params.and_then(|params| params.text("level"));
        let known = level.and_then(|level| LOG_LEVELS.iter().position(|name| *name == level));
        known.is_none_or(|at| at >= usize::from(least))
    }

    /// The most verbose of several.
    pub fn most_verbose<'a>(levels: impl Iterator<Item = &'a LogLevel>) -> &'static str {
        let set = levels.map(|level| level.0.load(Ordering::Relaxed)).filter(|level| *level != SILENT);
        let least = set.min().unwrap_or(0);
        LOG_LEVELS[usize::from(least) % LOG_LEVELS.len()]
    }
}

/// What a client says of itself, capabilities and `clientInfo` together: it is kept as long
/// as its session.
const SELF_MAX_BYTES: usize = 64 * 1024;

impl Session {
    /// What a client may not say of itself, as a sentence.
    pub fn check(capabilities: &Payload, client_info: &Payload) -> Result<(), String> {
        if capabilities.len() + client_info.len() <= SELF_MAX_BYTES {
            return Ok(());
        }
        let max = crate::text::bytes(SELF_MAX_BYTES as u64);
        Err(format!("seawall: a client's capabilities and clientInfo may take {max} together"))
    }

    /// Numbers are unique within this process.
    pub fn next_number() -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        LAST.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The same client, to be changed in part.
    pub fn like(other: &Session) -> Session {
        Session {
            number: Self::next_number(),
            scope: other.scope.clone(),
            era: other.era,
            client: other.client.clone(),
            protocol: other.protocol.clone(),
            // The message that they came in is not kept with them.
            capabilities: other.capabilities.apart(),
            client_info: other.client_info.apart(),
            back: other.back.clone(),
            log_level: LogLevel(AtomicU8::new(other.log_level.0.load(Ordering::Relaxed))),
        }
    }

    /// Name and version for people, harmless whatever the client sent.
    pub fn client_name(client_info: &Payload) -> String {
        let text_of = |key| client_info.text(key).unwrap_or_default();
        crate::text::quote(format!("{} {}", text_of("name"), text_of("version")).trim(), 100)
    }

    /// The capability that the client would have to declare to be asked this, as an
    /// object like `{"sampling":{}}`; `None` if it has.
    pub fn lacks(&self, method: &str, params: Option<&Payload>) -> Option<Payload> {
        let (capability, missing) = match method {
            "sampling/createMessage" => ("sampling", r#"{"sampling":{}}"#),
            "elicitation/create" => ("elicitation", r#"{"elicitation":{}}"#),
            "roots/list" => ("roots", r#"{"roots":{}}"#),
            // A question that MCP does not know: the client may.
            _ => return None,
        };
        let Some(declared) = self.capabilities.member(capability) else { return Some(Payload::literal(missing)) };
        // A form is what an elicitation without a mode is, and what a client that names
        // no mode can do.
        let by_url = params.and_then(|params| params.text("mode")).as_deref() == Some("url");
        (by_url && declared.member("url").is_none()).then(|| Payload::literal(r#"{"elicitation":{"url":{}}}"#))
    }

    /// The client behind this session hears this notification if it wants to.
    pub fn wants(&self, method: &Method, params: Option<&Payload>) -> bool {
        method.as_str() != "notifications/message" || self.log_level.hears(params)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("number", &self.number)
            .field("scope", &self.scope)
            .field("client", &self.client)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// A client that wants in: what its `initialize` or its first stateless request said.
pub struct Hello {
    pub scope: Scope,
    /// The params of `initialize`: protocolVersion, capabilities, clientInfo.
    pub params: Payload,
    pub back: Back,
}

/// What a front calls. Answers are JSON-RPC results or errors, ready to be sent.
pub trait Gate: Send + Sync + 'static {
    /// The scope behind `/mcp/NAME`; `None` if there is no such server.
    fn scope(&self, server: &str) -> Option<Scope>;
    /// The names that [`Gate::scope`] knows, for the error that lists them.
    fn names(&self) -> Vec<ServerName>;
    /// `initialize`: the session and the result, or the JSON-RPC error.
    fn open(&self, hello: Hello) -> BoxFuture<'static, Result<(Arc<Session>, Payload), Payload>>;
    /// One request of an open session. Dropping the future cancels the call.
    fn ask(
        &self,
        session: &Arc<Session>,
        request_id: Payload,
        method: Method,
        params: Option<Payload>,
        back: Back,
    ) -> BoxFuture<'static, Answer>;
    /// One notification of an open session.
    fn told(&self, session: &Arc<Session>, method: Method, params: Option<Payload>);
    /// Joins the notifications that `wanted` asks for (the `notifications` member of
    /// `subscriptions/listen`), told to the session's back until it is closed; returns
    /// those that are granted.
    fn listen(&self, session: &Arc<Session>, wanted: Payload) -> BoxFuture<'static, Result<Payload, Payload>>;
    /// The definition of a tool that wants some of its arguments repeated in HTTP headers.
    fn tool_with_headers(&self, scope: &Scope, name: &str) -> Option<Payload>;
    /// The session is over.
    fn close(&self, session: &Arc<Session>);
}
