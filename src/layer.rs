//! The layers around one tool, each a room of its own: settings, `FooLayer`,
//! `Foo<S>`, tests. They see [`Call`](crate::call::Call) and
//! [`Reply`](crate::call::Reply) only, and `stack.rs` puts them in order.
//!
//! Two rules bind every service of a stack, the upstream at its bottom included.
//! It is always ready: state lives in an `Arc`, and all waiting is done in the
//! call's future. And `call` only *builds* that future: nothing happens before its
//! first poll. So a layer may build the inner future, decide, and drop it unpolled.

use std::time::Duration;

use crate::{
    call::Replay,
    failure::Recording,
    store::{Event, FailureRow, Store},
};

pub mod boundary;
pub mod breaker;
pub mod concurrency;
pub mod deadline;
pub mod memory;
pub mod rate_limit;
pub mod record;

/// All settings of one tool's stack. `None` is what `"off"` in servers.toml means.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub deadline: deadline::Settings,
    pub breaker: Option<breaker::Settings>,
    pub rate_limit: Option<rate_limit::Settings>,
    pub concurrency: Option<concurrency::Settings>,
    pub replay: Replay,
    pub record: record::Settings,
}

impl Default for Policy {
    /// The `[defaults]` of an empty servers.toml.
    fn default() -> Self {
        Policy {
            deadline: deadline::Settings {
                timeout: Some(Duration::from_secs(50)),
                max_duration: Some(Duration::from_secs(300)),
            },
            breaker: Some(breaker::Settings::default()),
            rate_limit: Some(rate_limit::Settings { per_minute: 6000, burst: 1000 }),
            concurrency: Some(concurrency::Settings { calls: 32 }),
            replay: Replay::Unsent,
            record: record::Settings::default(),
        }
    }
}

/// Where layers hand what is worth keeping: the store, or the list of a test.
/// Never blocks.
pub trait Keeper: Send + Sync {
    fn failure(&self, row: FailureRow, recording: Recording);
    fn event(&self, event: Event);
}

impl Keeper for Store {
    fn failure(&self, row: FailureRow, recording: Recording) {
        Store::failure(self, row, recording);
    }

    fn event(&self, event: Event) {
        Store::event(self, event);
    }
}

/// Rounded up, so that who waits exactly as long as `retryAfterMs` says is not early.
fn whole_ms(wait: Duration) -> Duration {
    let ms = wait.subsec_nanos().div_ceil(1_000_000);
    Duration::from_secs(wait.as_secs()).saturating_add(Duration::from_millis(ms.into()))
}
