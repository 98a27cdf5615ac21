//! JSON-RPC on a byte stream: envelopes, lines, and one [`Peer`](peer::Peer) that
//! serves both directions. Knows nothing of MCP but the name of its cancellation.

pub mod batch;
pub mod envelope;
pub mod events;
pub mod lines;
pub mod peer;
mod pending;
