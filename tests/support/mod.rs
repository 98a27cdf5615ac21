//! The one harness of the process tests: the real binary, real children, real
//! sockets on port 0. Waits are for conditions and bounded; nothing here sleeps
//! in the hope that something has happened by then.
//!
//! ```ignore
//! let gateway = Gateway::start(&fixture("fix", &[])).await;
//! let client = gateway.client("/mcp/fix").await;
//! let reply = client.call_tool("echo", json!({"a": 1})).await;
//! ```

// Each test file compiles the whole harness and uses a part of it.
#![allow(dead_code, unused_imports, unreachable_pub)]

pub mod census;
pub mod conformance;
pub mod database;
pub mod disk;
pub mod embedding;
pub mod emit;
pub mod exchange;
pub mod fixture;
pub mod gateway;
pub mod http;
pub mod json_text;
pub mod launchd;
pub mod listening;
pub mod machine;
pub mod mcp;
pub mod process;
pub mod raw;
pub mod registry;
pub mod scratch;
pub mod service;
pub mod stdio;
pub mod tools;
pub mod tree;
pub mod units;
pub mod wait;

pub use exchange::Exchange;
pub use fixture::{Journal, confined, fixture, fixture_server, hostile, loom_models};
pub use gateway::{Gateway, Launch};
pub use http::{Connection, Event, Events, Response};
pub use mcp::{Client, Hello, failure_of, text_of};
pub use registry::Registry;
pub use stdio::StdioClient;
pub use wait::{poll, wait_until};
