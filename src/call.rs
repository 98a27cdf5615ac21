//! The vocabulary of a call: what every room hands to the next one.
//!
//! A message is an id, a method and a [`Payload`]: one JSON value kept as the
//! bytes it came as. Only this file looks inside a payload, so that what seawall
//! has no reason to change leaves equal to the last digit.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{failure::Class, failure::Failure, session::Session};

mod payload;
mod trail;

pub(crate) use payload::is_key;
pub use payload::{Edit, Payload};
pub use trail::{Asking, Trail};

/// What every layer of a tool's stack is, seen from outside.
pub type CallService<E> = tower::util::BoxCloneSyncService<Call, Reply, E>;

/// A whole stack: whatever happens below, a [`Reply`] leaves.
pub type Stack = CallService<std::convert::Infallible>;

pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One request travelling through the gateway.
#[derive(Clone, Debug)]
pub struct Call {
    pub server: ServerName,
    /// The server's own name of the tool; `None` for requests that name no tool.
    pub tool: Option<ToolName>,
    pub method: Method,
    /// The params as the server shall receive them.
    pub params: Payload,
    pub caller: Arc<Caller>,
    pub trail: Arc<Trail>,
    /// How long this call may wait for an instance to become ready.
    pub patience: Duration,
    /// May be sent a second time after its connection was lost.
    pub replay: Replay,
}

impl Call {
    /// The longest that a call waits for an instance, whatever its timeout is.
    pub const PATIENCE: Duration = Duration::from_secs(5);

    pub fn new(
        server: ServerName,
        tool: Option<ToolName>,
        method: Method,
        params: Payload,
        caller: Arc<Caller>,
    ) -> Self {
        Call {
            server,
            tool,
            method,
            params,
            caller,
            trail: Arc::new(Trail::new()),
            patience: Self::PATIENCE,
            replay: Replay::Unsent,
        }
    }

    pub fn is_tool_call(&self) -> bool {
        self.method.as_str() == Method::TOOLS_CALL
    }
}

/// What may be sent again after a lost connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Replay {
    Never,
    /// Only what certainly never left.
    #[default]
    Unsent,
    /// Also what was sent, for tools marked `readOnlyHint` or `idempotentHint`.
    Annotated,
}

/// Who asked, and the way back to them.
pub struct Caller {
    pub session: Arc<Session>,
    /// The client's own request id, as the text it came as.
    pub request_id: Payload,
    pub back: Back,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("session", &self.session)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

/// A call that ended with an answer of the server.
#[derive(Clone, Debug)]
pub struct Reply {
    pub answer: Answer,
    /// `Ok`, `ToolError` or `Rejected` from the upstream; any class once the
    /// boundary has turned a failure into its answer.
    pub class: Class,
}

/// What a peer answers to a request; an error stays the object it came as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Result(Payload),
    Error(Payload),
}

impl Answer {
    /// The same without raw line breaks; see [`Payload::on_one_line`].
    pub fn on_one_line(self) -> Answer {
        match self {
            Answer::Result(result) => Answer::Result(result.on_one_line()),
            Answer::Error(error) => Answer::Error(error.on_one_line()),
        }
    }
}

/// What a peer sends on its own.
#[derive(Clone, Debug)]
pub enum Message {
    Request { id: Payload, method: Method, params: Option<Payload> },
    Notification { method: Method, params: Option<Payload> },
}

/// The way back to one call's client: its own stream first, the session's else.
pub trait Wire: Send + Sync {
    /// Never blocks; what does not fit a bounded queue is dropped.
    fn tell(&self, method: Method, params: Option<Payload>);
    /// A question of the server to the client (sampling, elicitation, roots).
    fn ask(&self, method: Method, params: Option<Payload>) -> BoxFuture<'_, Answer>;
    /// The client was asked to come back with an answer. Whether it will, nobody knows.
    fn is_away(&self) -> bool {
        false
    }
}

pub type Back = Arc<dyn Wire>;

/// A JSON-RPC method.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Method(std::borrow::Cow<'static, str>);

impl Method {
    pub const TOOLS_CALL: &'static str = "tools/call";

    pub const fn of(name: &'static str) -> Self {
        Method(std::borrow::Cow::Borrowed(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Method {
    fn from(name: &str) -> Self {
        // The one method that is called all day costs no allocation.
        if name == Self::TOOLS_CALL {
            return Method::of(Self::TOOLS_CALL);
        }
        Method(std::borrow::Cow::Owned(name.to_owned()))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<T: Into<Arc<str>>> From<T> for $name {
            fn from(name: T) -> Self {
                $name(name.into())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::ops::Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name_type! {
    /// The name of a `[servers.NAME]` table.
    ServerName
}
name_type! {
    /// A tool as its own server calls it.
    ToolName
}

/// The result of a service at the bottom and in the middle of a stack.
pub type Outcome = Result<Reply, Failure>;

impl From<Payload> for Bytes {
    fn from(payload: Payload) -> Bytes {
        payload.into_bytes()
    }
}
