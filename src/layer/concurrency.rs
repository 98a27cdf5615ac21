//! How many calls of one tool may be under way at once. A call over the limit waits
//! a moment and is then refused: a gateway owes the model an answer.
//!
//! A call whose server waits for its client counts for nothing meanwhile: nobody works on
//! it, and a client that never answers must not keep others out.

use std::{
    pin::pin,
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
    call::{BoxFuture, Call, Outcome, Reply, Trail},
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
    /// Runs a call that has a permit. While its client is asked something the permit is
    /// free; afterwards the call goes on at once, and takes the next one that is.
    async fn hold(
        &self,
        permit: OwnedSemaphorePermit,
        trail: &Trail,
        under_way: impl Future<Output = Outcome>,
    ) -> Outcome {
        let mut under_way = pin!(under_way);
        let mut held = Some(permit);
        loop {
            let is_due = held.is_none() && !trail.is_asking();
            tokio::select! {
                biased;
                outcome = &mut under_way => return outcome,
                () = trail.question_changed() => {
                    if trail.is_asking() {
                        held = None;
                    }
                }
                permit = self.free.clone().acquire_owned(), if is_due => held = permit.ok(),
            }
        }
    }

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
        let trail = call.trail.clone();
        let under_way = self.inner.call(call);
        Box::pin(async move {
            let permit = permits.take().await?;
            permits.hold(permit, &trail, under_way).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        call::{Answer, Payload},
        testing,
    };

    fn permits(calls: u32) -> Arc<Permits> {
        Arc::new(Permits::new(Settings { calls }))
    }

    fn done() -> Outcome {
        Ok(Reply { answer: Answer::Result(Payload::literal("1")), class: Class::Ok })
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_client_was_asked_keeps_no_permit_until_it_is_answered() {
        let permits = permits(1);
        let trail = testing::call("a", "b").trail;
        let end = Arc::new(tokio::sync::Notify::new());
        let first = {
            let (permits, trail, end) = (permits.clone(), trail.clone(), end.clone());
            tokio::spawn(async move {
                let permit = permits.take().await.expect("it is free");
                permits.hold(permit, &trail, end.notified().map(|()| done())).await
            })
        };
        tokio::task::yield_now().await;
        assert!(permits.take().await.is_err(), "it is at work");

        let asking = trail.asks();
        tokio::task::yield_now().await;
        let other = permits.take().await.expect("the first one waits for its client");
        // Its client comes back: it goes on at once, though no permit is free.
        drop(asking);
        tokio::task::yield_now().await;
        assert!(permits.take().await.is_err());
        drop(other);
        tokio::task::yield_now().await;
        assert!(permits.take().await.is_err(), "it takes the next permit that is free");
        end.notify_one();
        first.await.expect("no panic").expect("an answer");
        assert!(permits.take().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_is_abandoned_keeps_nobody_out() {
        struct Asks;
        impl Service<Call> for Asks {
            type Response = Reply;
            type Error = Failure;
            type Future = BoxFuture<'static, Outcome>;
            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
                Poll::Ready(Ok(()))
            }
            fn call(&mut self, call: Call) -> Self::Future {
                Box::pin(async move {
                    let _asking = call.trail.asks();
                    std::future::pending::<Infallible>().await;
                    done()
                })
            }
        }
        let mut stack = ConcurrencyLayer::new(permits(2)).layer(Asks);
        let rounds: Vec<_> = (0..10).map(|_| tokio::spawn(stack.call(testing::call("a", "b")))).collect();
        time::sleep(WAIT * 2).await;
        assert!(rounds.iter().all(|round| !round.is_finished()), "each of them is with its client");
        rounds.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
