//! seawall: one gateway between MCP clients and MCP servers.
//!
//! # The life of one `tools/call`
//!
//! 1. A front reads it: [`downstream`], over Streamable HTTP or a byte stream. The guard
//!    has let the client in, and its session is known. From here on it is an id, a method
//!    and a [`Payload`](call::Payload), one JSON value as the bytes it came as.
//! 2. The front hands it to the [`Gate`](session::Gate), behind which stands the router.
//!    [`route`] finds whose tool it is, gives the name back its server's own form, and
//!    makes it a [`Call`](call::Call).
//! 3. The call goes down the [`stack`] of that one tool, through the rooms of [`layer`]:
//!    boundary, record, memory, rate limit, breaker, concurrency, deadline.
//! 4. [`upstream`] carries it to the instance that is ready, or waits for one for a bounded
//!    time. It goes out over a [`Link`](link::Link): the pipes of a child of [`process`],
//!    Streamable HTTP, or a handler in this process.
//! 5. The answer comes back the same way. Each layer sees a [`Reply`](call::Reply) or a
//!    typed [`Failure`](failure::Failure); the record layer hands what is worth a row to
//!    the [`store`], and waits for nothing; the boundary makes of a failure, by the table
//!    in [`respond`], the answer that the client gets.
//!
//! # What holds
//!
//! - Every call gets one answer, whatever the server, a layer or a handler does. Only the
//!   client itself can end it without one, by cancelling.
//! - A call is sent at most once, unless its bytes never left or the config allows more.
//! - What seawall has no reason to change leaves equal to the last digit.
//! - One task owns each server: nobody else starts, stops or replaces an instance.
//! - A stack is built in one function. State of a tool (breaker, limiter, permits) outlives
//!   a reload that does not concern it, and exists for tools of the catalog only.
//! - How a call can end is decided in [`failure`] and nowhere else.
//! - The database slows no call: a full, locked or lost one costs rows, which are counted.
//! - Every queue, retry, buffer and wait has a bound, and its unit is in its name.
//! - Inner rooms know nothing of outer ones; `tests/rooms.rs` reads the imports.
//!
//! `ARCHITECTURE.md` is the longer map, and says where to add things.
//!
//! # A gateway of one's own
//!
//! ```
//! use seawall::gateway::{Gateway, reload};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let toml = "[servers.journal]\nbuiltin = \"events\"";
//! let config = reload::parse(toml, &folder.path().join("servers.toml"))?;
//! let gateway = Gateway::builder().config(config).start();
//! gateway.settled().await;
//! assert_eq!(gateway.router().tools().len(), 2);
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! gateway.serve_http(listener);
//! assert!(gateway.shutdown().await.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! `examples/in_process.rs` adds a server of one's own, with
//! [`Builder::in_process`](gateway::Builder::in_process).

// Outside: what a person types, what speaks to a running gateway, and what puts it
// together from servers.toml.
pub mod command;

pub mod control;

pub mod gateway;

pub mod config;

// The processes of the user's machine that seawall describes to launchd and systemd, and
// watches.
pub mod service;

pub mod watch;

pub mod unit;

pub mod emit;

pub mod embedding;

pub mod tasks;

// The way of a call, from the client to the server.
pub mod downstream;

pub mod listener;

pub mod route;

pub mod stack;

pub mod layer;

pub mod upstream;

// What an upstream may turn out to be, beside a URL, and what confines its processes and
// lets them out.
pub mod builtin;

pub mod packages;

pub mod process;

pub mod egress;

pub mod sandbox;

// Where failures and events are kept, beside the way.
pub mod store;

// The vocabulary, which every room may speak: what a call is, how it can end and what
// the client is then told; who asks, in which era, and over what; text and ids.
pub mod call;

pub mod failure;

pub mod respond;

pub mod session;

pub mod era;

#[doc(hidden)]
pub mod mcp_param;

pub mod link;

pub mod wire;

pub mod heap;

pub mod id;

pub mod text;

pub mod say;

mod sync;

#[doc(hidden)]
pub mod testing;
