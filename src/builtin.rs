//! The MCP servers that seawall brings along, each an ordinary rmcp `ServerHandler`.
//!
//! They know nothing of the gateway that serves them: what they need of it comes in
//! through the traits [`seawall::Introspect`] and [`events::Journal`]. What goes
//! wrong inside a tool is an `isError` result of one sentence, for the model to read.

use rmcp::{
    ServerHandler,
    service::{ServerInitializeError, serve_server},
    transport::async_rw::AsyncRwTransport,
};
use tokio::io::{AsyncRead, AsyncWrite};

pub mod embed;
pub mod events;
pub mod files;
pub mod seawall;

mod untrusted;

/// Why a server over streams ended before its input did.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the client's handshake failed: {0}")]
    Handshake(#[source] Box<ServerInitializeError>),
    #[error("the service loop panicked")]
    Panicked,
}

/// Serves `handler` to one client, a message a line, until the end of `input`.
pub async fn serve(
    handler: impl ServerHandler,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<(), ServeError> {
    match serve_server(handler, AsyncRwTransport::new_server(input, output)).await {
        Ok(running) => running.waiting().await.map(drop).map_err(|_| ServeError::Panicked),
        // A client that leaves before it has said anything is no failure of ours.
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(ServeError::Handshake(Box::new(error))),
    }
}

/// Runs work that blocks where it may; a panic in it stays a panic of its tool.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled: the runtime is ending, and this future with it.
            Err(_) => std::future::pending().await,
        },
    }
}
