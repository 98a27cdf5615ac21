//! seawall: one gateway between MCP clients and MCP servers.

pub mod command;
pub mod config;
pub mod control;
pub mod gateway;

pub mod builtin;
pub mod downstream;
pub mod layer;
pub mod process;
pub mod route;
pub mod service;
pub mod stack;
pub mod store;
pub mod unit;
pub mod upstream;

pub mod call;
pub mod failure;
pub mod id;
pub mod link;
pub mod respond;
pub mod session;
#[doc(hidden)]
pub mod testing;
pub mod text;
pub mod wire;
