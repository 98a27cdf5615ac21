//! The rate limit of one tool: never waits, says when to come back.
//!
//! `burst` calls may come at once; each leaves room again a `per_minute`th of a
//! minute later.

use std::{
    num::NonZeroU32,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use governor::{Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, state::InMemoryState, state::NotKeyed};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::whole_ms;
use crate::{
    call::{BoxFuture, Call, Outcome, Reply},
    failure::{Class, Failure},
};

/// Both at least 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub per_minute: u32,
    pub burst: u32,
}

/// What all calls of one tool share.
pub struct Limiter {
    settings: Settings,
    cell: RateLimiter<NotKeyed, InMemoryState, SinceStart, NoOpMiddleware<Duration>>,
}

impl Limiter {
    pub fn new(settings: Settings) -> Self {
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_minute(at_least_one(settings.per_minute)).allow_burst(at_least_one(settings.burst));
        Limiter { settings, cell: RateLimiter::direct_with_clock(quota, SinceStart(Instant::now())) }
    }

    fn check(&self) -> Result<(), Failure> {
        self.cell.check().map_err(|not_until| {
            let wait = not_until.wait_time_from(self.cell.clock().now());
            let Settings { per_minute, burst } = self.settings;
            let message = format!("at most {per_minute} calls a minute, {burst} at once");
            Failure::new(Class::RateLimited, message).retry_after(whole_ms(wait))
        })
    }
}

/// tokio's time, so that a paused clock stops the limiter too.
struct SinceStart(Instant);

impl Clock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[derive(Clone)]
pub struct RateLimitLayer(Arc<Limiter>);

impl RateLimitLayer {
    pub fn new(limiter: Arc<Limiter>) -> Self {
        RateLimitLayer(limiter)
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit { inner, limiter: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct RateLimit<S> {
    inner: S,
    limiter: Arc<Limiter>,
}

impl<S> Service<Call> for RateLimit<S>
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
        let limiter = self.limiter.clone();
        let under_way = self.inner.call(call);
        Box::pin(async move {
            limiter.check()?;
            under_way.await
        })
    }
}
