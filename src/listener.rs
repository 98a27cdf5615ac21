//! What every listener of seawall's has in common, whatever it serves: connections are
//! bounded, heads and bodies arrive in time, and one guard says who may speak.
//!
//! Knows nothing of what is served: that is a service handed to [`converse`].

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body as _, Incoming},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

pub mod body;
pub mod guard;
mod impatient;
mod lingering;
#[cfg(target_os = "linux")]
mod owner;
mod reception;
pub mod reply;

use impatient::Impatient;
use lingering::{Lingering, Unread};
pub use reception::Reception;

/// The head of a request must have arrived by then. The clock runs while a kept
/// connection is idle too: longer than clients keep theirs, or they would meet closed ones.
pub const KEEP_ALIVE: Duration = Duration::from_secs(120);

/// A connection that was let in, with its place among all of them.
pub struct Arrival {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub place: OwnedSemaphorePermit,
}

/// The next connection for which there is a place; others are closed at once.
pub async fn next(listener: &TcpListener, places: &Arc<Semaphore>) -> Arrival {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others may give some back.
                tracing::warn!("accepting a connection failed: {error}");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                // Without it an event waits up to 40 ms for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                return Arrival { stream, peer, place };
            }
            Err(_) => tracing::warn!(%peer, "refused: all connections that may be open are open"),
        }
    }
}

/// Answers the requests of a connection until it ends, or after `shutdown` until the
/// request that it is at has been answered.
pub async fn converse<S, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    service: S,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error = Infallible> + 'static,
{
    converse_for(KEEP_ALIVE, stream, peer, service, shutdown).await;
}

/// The same, where a connection may be idle for `keep_alive`.
pub async fn converse_for<S, B>(
    keep_alive: Duration,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    service: S,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error = Infallible> + 'static,
{
    let unread = Unread::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (has_body, unread) = (!request.body().is_end_stream(), unread.clone());
        let answered = service.call(request);
        async move {
            let answered = answered.await;
            unread.set(has_body && answered.as_ref().is_ok_and(|response| !response.status().is_success()));
            answered
        }
    });
    let stream = Lingering::new(Impatient::new(stream), unread.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%peer, "connection ended: {error}");
    }
}
