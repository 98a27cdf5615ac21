//! The subcommands.

pub mod mcp;
