//! How a call can end: the one list of classes, and what each means to the
//! breaker and to the store. What each means to the client is in `respond.rs`.
//!
//! This file decides; layers only ask. It knows nothing of any layer.

use std::{fmt, time::Duration};

use crate::{
    call::{Answer, Payload},
    id::Id,
};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A result, `input_required` included.
    Ok,
    /// The server answered `isError: true`: its own word, passed on untouched.
    ToolError,
    /// A correct answer to a bad request: -32600, -32601, -32602, MCP's reserved codes.
    Rejected,
    /// Any other JSON-RPC error, or `Err` of an in-process handler.
    ServerError,
    /// An in-process handler panicked.
    Panic,
    /// Silence for `timeout`, or longer than `max_duration`.
    Timeout,
    /// A malformed answer, an oversized line, a stream of garbage.
    Protocol,
    /// 5xx, connect, reset or TLS failure of a `url` server.
    Http,
    /// 429 of a `url` server.
    HttpBusy,
    /// 401 or 403 of a `url` server.
    Auth,
    /// The server died, or its connection was lost, with the call in flight.
    Lost,
    /// The server is in backoff, parked or still starting; nothing was sent.
    Unavailable,
    BreakerOpen,
    RateLimited,
    Overloaded,
    Draining,
    /// The client gave up, disconnected or closed the stream.
    Cancelled,
    /// A bug of ours, caught by the boundary.
    Internal,
}

/// What an outcome means to the tool's breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Success,
    /// Counts against the tool.
    Failure,
    /// Neither counts nor resets, and hands a probe's permit back.
    Neutral,
}

/// What an outcome means to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    No,
    /// A row of its own.
    Row,
    /// One row for many of the same server within a minute.
    Coalesced,
    /// A count a minute: seawall's own refusals.
    Counted,
}

impl Class {
    pub const ALL: [Class; 18] = [
        Class::Ok,
        Class::ToolError,
        Class::Rejected,
        Class::ServerError,
        Class::Panic,
        Class::Timeout,
        Class::Protocol,
        Class::Http,
        Class::HttpBusy,
        Class::Auth,
        Class::Lost,
        Class::Unavailable,
        Class::BreakerOpen,
        Class::RateLimited,
        Class::Overloaded,
        Class::Draining,
        Class::Cancelled,
        Class::Internal,
    ];

    /// The name in SQLite, in `_meta["seawall/failure"]` and in the docs.
    pub fn name(self) -> &'static str {
        match self {
            Class::Ok => "ok",
            Class::ToolError => "tool_error",
            Class::Rejected => "rejected",
            Class::ServerError => "server_error",
            Class::Panic => "panic",
            Class::Timeout => "timeout",
            Class::Protocol => "protocol",
            Class::Http => "http",
            Class::HttpBusy => "http_busy",
            Class::Auth => "auth",
            Class::Lost => "lost",
            Class::Unavailable => "unavailable",
            Class::BreakerOpen => "breaker_open",
            Class::RateLimited => "rate_limited",
            Class::Overloaded => "overloaded",
            Class::Draining => "draining",
            Class::Cancelled => "cancelled",
            Class::Internal => "internal",
        }
    }

    pub fn recording(self) -> Recording {
        match self {
            Class::Ok | Class::Cancelled => Recording::No,
            Class::Unavailable => Recording::Coalesced,
            Class::BreakerOpen | Class::RateLimited | Class::Overloaded | Class::Draining => Recording::Counted,
            Class::ToolError
            | Class::Rejected
            | Class::ServerError
            | Class::Panic
            | Class::Timeout
            | Class::Protocol
            | Class::Http
            | Class::HttpBusy
            | Class::Auth
            | Class::Lost
            | Class::Internal => Recording::Row,
        }
    }

    /// The verdict of the class alone; [`Failure::verdict`] adds the poison rule.
    pub fn verdict(self) -> Verdict {
        match self {
            Class::Ok | Class::ToolError | Class::Rejected => Verdict::Success,
            Class::ServerError | Class::Panic | Class::Timeout | Class::Protocol | Class::Http => Verdict::Failure,
            Class::HttpBusy
            | Class::Auth
            | Class::Lost
            | Class::Unavailable
            | Class::BreakerOpen
            | Class::RateLimited
            | Class::Overloaded
            | Class::Draining
            | Class::Cancelled
            | Class::Internal => Verdict::Neutral,
        }
    }

    /// The class of a server's own answer.
    pub fn of_answer(answer: &Answer) -> Class {
        match answer {
            Answer::Result(result) if result.says_is_error() => Class::ToolError,
            Answer::Result(_) => Class::Ok,
            Answer::Error(error) if is_rejection(error.error_code()) => Class::Rejected,
            Answer::Error(_) => Class::ServerError,
        }
    }
}

/// Codes that say "the request was wrong", not "the server is broken": JSON-RPC's
/// own three, and those that MCP reserves: -32002 (resource not found, before
/// 2026-07-28), -32042 (URL elicitation required, 2025-11-25) and -32020..-32022
/// (2026-07-28: header mismatch, missing capability, unsupported version).
fn is_rejection(code: Option<i64>) -> bool {
    matches!(code, Some(-32600 | -32601 | -32602 | -32002 | -32042 | -32022..=-32020))
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A call that did not end well, with all that is known of it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {}", .0.class, .0.message)]
pub struct Failure(Box<Facts>);

/// What is known of a failure. `class` and `message` always; the rest if so.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The row in SQLite, where there is one.
    pub id: Id,
    pub class: Class,
    /// What happened, as a clause: "it did not answer within 50 s".
    pub message: String,
    pub retry_after: Option<Duration>,
    /// The call was sent and may have taken effect.
    pub outcome_unknown: bool,
    /// The server's own `{code, message, data}`.
    pub error: Option<Payload>,
    /// The tool was in flight at each of its server's last three deaths.
    pub poison: bool,
    pub exit_status: Option<String>,
    pub stderr_tail: Option<String>,
}

impl Failure {
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Failure(Box::new(Facts {
            id: Id::now(),
            class,
            message: message.into(),
            retry_after: None,
            outcome_unknown: false,
            error: None,
            poison: false,
            exit_status: None,
            stderr_tail: None,
        }))
    }

    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    pub fn outcome_unknown(mut self) -> Self {
        self.0.outcome_unknown = true;
        self
    }

    pub fn error(mut self, error: Payload) -> Self {
        self.0.error = Some(error);
        self
    }

    pub fn poison(mut self, poison: bool) -> Self {
        self.0.poison = poison;
        self
    }

    pub fn last_words(mut self, exit_status: Option<String>, stderr_tail: Option<String>) -> Self {
        self.0.exit_status = exit_status;
        self.0.stderr_tail = stderr_tail;
        self
    }

    pub fn verdict(&self) -> Verdict {
        match self.0.class {
            Class::Lost if self.0.poison => Verdict::Failure,
            class => class.verdict(),
        }
    }
}

impl std::ops::Deref for Failure {
    type Target = Facts;
    fn deref(&self) -> &Facts {
        &self.0
    }
}
