//! The seam between a server and whatever carries its messages: a child's pipes,
//! Streamable HTTP, or a handler in this process.

use std::{sync::Arc, time::Duration};

use crate::{
    call::{Answer, BoxFuture, Message, Method, Payload, Trail},
    era::Era,
    sandbox::Report,
};

/// How to reach one server; asked for a new [`Link`] at each start.
pub trait Connector: Send + Sync + 'static {
    /// `number` is the instance's number, unique within the gateway's run. What the
    /// server says on its own goes to `inbox`, in wire order. Whoever gave up waiting
    /// lets it run on for a while and closes what it then brings; dropped after that,
    /// it must leave no process behind.
    fn connect(&self, number: u64, inbox: Arc<dyn Inbox>) -> BoxFuture<'_, Result<Arc<dyn Link>, StartError>>;

    /// What must be done once before a start can be tried, and takes as long as it takes:
    /// an installation. `None` where there is nothing of the kind, or no more.
    fn preparation(&self) -> Option<BoxFuture<'_, Result<(), StartError>>> {
        None
    }

    /// The era of its servers, where that is known without asking.
    fn era(&self) -> Option<Era> {
        None
    }
}

/// One connection to a running server. Knows nothing of MCP beyond JSON-RPC.
pub trait Link: Send + Sync + 'static {
    /// Sends a request, once, and waits for its answer. `trail` learns when the bytes
    /// were handed over. Dropping the future tells the server `cancelled`.
    fn ask(
        &self,
        method: Method,
        params: Option<Payload>,
        trail: Arc<Trail>,
    ) -> BoxFuture<'_, Result<Answer, LinkError>>;

    /// Sends a notification; `Err` if the connection is gone or its queue is full.
    fn tell(&self, method: Method, params: Option<Payload>) -> Result<(), LinkError>;

    /// Resolves when the connection has ended, and at once if it already has.
    fn gone(&self) -> BoxFuture<'_, Gone>;

    /// Ends the connection politely within `grace`, then by force. Returns when
    /// nothing of it is left.
    fn close(&self, grace: Duration) -> BoxFuture<'_, ()>;

    fn vitals(&self) -> Vitals;
}

/// Why a request got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// No byte of it left.
    #[error("{0}")]
    NotSent(String),
    /// It left, and the connection ended before the answer.
    #[error("{}", .0.reason)]
    Lost(Gone),
    /// The answer broke the protocol; the connection is being replaced.
    #[error("{0}")]
    Protocol(String),
    /// The in-process handler panicked.
    #[error("{0}")]
    Panicked(String),
    /// A `url` server could not be reached or answered 5xx.
    #[error("{reason}")]
    Http { reason: String, sent: bool },
    /// A `url` server answered 429.
    #[error("it answered 429 Too Many Requests")]
    Busy { retry_after: Option<Duration> },
    /// A `url` server answered 401 or 403.
    #[error("{0}")]
    Auth(String),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// A clause: "its process exited with code 1".
    pub reason: String,
    /// "exit code 1", "signal 9 (SIGKILL)"; `None` where there is no process.
    pub exit_status: Option<String>,
    /// The last lines of its stderr.
    pub stderr_tail: Option<String>,
}

impl Gone {
    pub fn because(reason: impl Into<String>) -> Self {
        Gone { reason: reason.into(), exit_status: None, stderr_tail: None }
    }
}

/// Why a server could not be started.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// Will not heal by itself: no such command, 401, a variable that is not set.
    #[error("{0}")]
    Permanent(String),
    /// The sandbox that it is to run in cannot be had.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Transient(String),
}

/// What `status` shows of a connection.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    pub pid: Option<u32>,
    /// Resident memory of the process tree.
    pub memory_bytes: Option<u64>,
    /// Lines on stdout that were no JSON-RPC.
    pub stray_lines: u64,
    pub last_stray_line: Option<String>,
    pub stderr_tail: Option<String>,
    /// What really holds for its process; `None` where there is none.
    pub sandbox: Option<Report>,
}

/// What a link hands up. Called in wire order and must not block.
pub trait Inbox: Send + Sync + 'static {
    /// For a request, `answerer` sends the answer; dropped unused, it answers -32601.
    fn on(&self, message: Message, answerer: Option<Answerer>);

    /// The same where the message came on the stream of one call, and so belongs to it:
    /// the one whose [`Link::ask`] was given this trail.
    fn on_stream_of(&self, _: &Arc<Trail>, message: Message, answerer: Option<Answerer>) {
        self.on(message, answerer);
    }
}

/// Sends the answer to one question of the server's.
pub struct Answerer(Option<Box<dyn FnOnce(Answer) + Send>>);

impl Answerer {
    pub fn new(send: impl FnOnce(Answer) + Send + 'static) -> Self {
        Answerer(Some(Box::new(send)))
    }

    pub fn answer(mut self, answer: Answer) {
        if let Some(send) = self.0.take() {
            send(answer);
        }
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        if let Some(send) = self.0.take() {
            send(Answer::Error(Payload::literal(
                r#"{"code":-32601,"message":"seawall has no client to answer this"}"#,
            )));
        }
    }
}
