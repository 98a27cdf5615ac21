//! A listener that stands for itself: connections are let in up to a number, answered, and at
//! the end given time to get what they asked for.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Arrival, converse_for,
    guard::{Guard, Strangers},
    next,
};

pub struct Reception {
    pub guard: Arc<Guard>,
    pub connections_max: usize,
    /// How long a connection may be idle.
    pub keep_alive: Duration,
    /// What was taken has so long to be answered when it closes.
    pub drain: Duration,
}

impl Reception {
    /// Answers until `shutdown`, and then what it has taken; false if that could not be done in
    /// time. `answer` hears who asks, and whether that is another user of this machine.
    pub async fn serve<A, F, B>(self, listener: TcpListener, shutdown: &CancellationToken, answer: A) -> bool
    where
        A: Fn(Request<Incoming>, SocketAddr, bool) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send,
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(self.connections_max));
        let strangers = Arc::new(Strangers::default());
        loop {
            let arrival = tokio::select! {
                () = shutdown.cancelled() => break,
                arrival = next(&listener, &places) => arrival,
            };
            let (guard, strangers, answer) = (self.guard.clone(), strangers.clone(), answer.clone());
            let (keep_alive, shutdown) = (self.keep_alive, shutdown.clone());
            connections.spawn(async move {
                let Arrival { stream, peer, place } = arrival;
                let is_stranger = strangers.is_one(&guard, &stream, peer).await;
                let service = service_fn(|request| {
                    let answered = answer(request, peer, is_stranger);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                converse_for(keep_alive, stream, peer, service, shutdown).await;
                drop(place);
            });
        }
        drop(listener);
        connections.close();
        timeout(self.drain, connections.wait()).await.is_ok()
    }
}
