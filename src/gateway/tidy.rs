//! What has to be cleared away now and then, at a moment when it disturbs nobody: once all
//! servers have had their first start, and then once a day.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{task::spawn_blocking, time::sleep};

use super::{Gateway, Inner, connect};
use crate::upstream::Upstream;

const EVERY: Duration = Duration::from_secs(24 * 3600);

/// Until the gateway is gone.
pub(super) async fn tidy(inner: Weak<Inner>) {
    loop {
        let Some(upstreams) = inner.upgrade().map(|inner| Gateway(inner).upstreams()) else { return };
        // A server that is being installed has the disk for itself.
        join_all(upstreams.iter().map(Upstream::settled)).await;
        drop(upstreams);
        let Some(gateway) = inner.upgrade() else { return };
        let _ = spawn_blocking(move || gateway.tidy_packages()).await;
        sleep(EVERY).await;
    }
}

impl Inner {
    fn tidy_packages(self: Arc<Self>) {
        let config = self.current().config.clone();
        connect::tidy_packages(&config, &self.own);
    }
}
