//! How many calls of one tool may be under way at once. A call over the limit waits
//! a moment and is then refused: a gateway owes the model an answer.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};
use tower::{Layer, Service};

use crate::{
    call::{BoxFuture, Call, Outcome, Reply},
    failure::{Class, Failure},
};

/// The longest wait for a permit.
pub const WAIT: Duration = Duration::from_millis(100);
/// When a refused call should come back: nobody knows when a permit is free, and
/// asking again costs next to nothing.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// At least 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub calls: u32,
}

/// What all calls of one tool share.
pub struct Permits {
    settings: Settings,
    free: Arc<Semaphore>,
}

impl Permits {
    pub fn new(settings: Settings) -> Self {
        let calls = usize::try_from(settings.calls).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Permits { settings, free: Arc::new(Semaphore::new(calls)) }
    }

    async fn take(&self) -> Result<OwnedSemaphorePermit, Failure> {
        // The common case sets no timer.
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return Ok(permit);
        }
        match time::timeout(WAIT, self.free.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            // Nobody closes the semaphore; if somebody did, no permit would ever be free.
            Ok(Err(_)) | Err(_) => {
                let message = match self.settings.calls {
                    1 => "another call of it is under way".to_owned(),
                    calls => format!("{calls} calls of it are under way"),
                };
                Err(Failure::new(Class::Overloaded, message).retry_after(RETRY_AFTER))
            }
        }
    }
}

#[derive(Clone)]
pub struct ConcurrencyLayer(Arc<Permits>);

impl ConcurrencyLayer {
    pub fn new(permits: Arc<Permits>) -> Self {
        ConcurrencyLayer(permits)
    }
}

impl<S> Layer<S> for ConcurrencyLayer {
    type Service = Concurrency<S>;

    fn layer(&self, inner: S) -> Concurrency<S> {
        Concurrency { inner, permits: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct Concurrency<S> {
    inner: S,
    permits: Arc<Permits>,
}

impl<S> Service<Call> for Concurrency<S>
where
    S: Service<Call, Response = Reply, Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Failure;
    type Future = BoxFuture<'static, Outcome>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let permits = self.permits.clone();
        let under_way = self.inner.call(call);
        Box::pin(async move {
            let _permit = permits.take().await?;
            under_way.await
        })
    }
}
