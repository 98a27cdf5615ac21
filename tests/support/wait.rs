//! Waiting for a condition, for a bounded time.

use std::{
    thread,
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_millis(10);

/// Asks `probe` again and again until it has something, and panics with `what`
/// when `within` is over.
pub async fn wait_until<T>(within: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + within;
    loop {
        // A probe that hangs must not outlive the wait either.
        let left = until.saturating_duration_since(Instant::now()).max(PAUSE);
        if let Ok(Some(found)) = tokio::time::timeout(left, probe()).await {
            return found;
        }
        assert!(Instant::now() < until, "waited {within:?} in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same where there is no runtime. `None` when the time is over.
pub fn poll<T>(within: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + within;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= until {
            return None;
        }
        thread::sleep(PAUSE);
    }
}
