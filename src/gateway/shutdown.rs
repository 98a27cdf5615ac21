//! The end of a gateway, in the order that loses the least.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::Gateway;
use crate::{store::EventType, upstream::Upstream};

/// The store has so long to write what it holds.
const STORE_CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Tasks that are told to end have so long to do so.
const TASKS_END_TIMEOUT: Duration = Duration::from_secs(2);

impl Gateway {
    /// Takes the gateway down: calls get `drain` to finish, then all servers are
    /// stopped side by side, then the store is closed. Returns what did not end.
    pub async fn shutdown(&self) -> Vec<&'static str> {
        self.0.draining.store(true, Ordering::Relaxed);
        let upstreams = self.upstreams();
        let drain = self.0.current().config.gateway.drain;
        upstreams.iter().for_each(Upstream::close);
        self.0.shutdown.cancel();
        let _ = timeout(drain, join_all(upstreams.iter().map(Upstream::idle))).await;
        join_all(upstreams.iter().map(Upstream::stop)).await;
        self.0.farewell.cancel();
        let reason = self.0.broken.why();
        let metadata = serde_json::json!({ "pid": std::process::id(), "reason": reason });
        self.tell_of_itself(EventType::ServiceStop, metadata);
        self.0.tasks.close();
        let mut unfinished = Vec::new();
        if timeout(TASKS_END_TIMEOUT, self.0.tasks.wait()).await.is_err() {
            unfinished.push("background tasks");
        }
        let store = self.0.store.clone();
        let closed = tokio::task::spawn_blocking(move || {
            let before = store.health().dropped;
            // Rows that are on the disk beside it are not lost: the next start brings them in.
            store.close(STORE_CLOSE_TIMEOUT) || (store.health().pending == 0 && store.health().dropped == before)
        });
        if !closed.await.unwrap_or(false) {
            unfinished.push("the database");
        }
        unfinished
    }
}
