//! seawall: one gateway between MCP clients and MCP servers.

pub mod builtin;
pub mod call;
pub mod command;
pub mod config;
pub mod control;
pub mod downstream;
pub mod failure;
pub mod gateway;
pub mod id;
pub mod layer;
pub mod link;
pub mod process;
pub mod respond;
pub mod route;
pub mod session;
pub mod stack;
pub mod store;
#[doc(hidden)]
pub mod testing;
pub mod text;
pub mod upstream;
pub mod wire;
