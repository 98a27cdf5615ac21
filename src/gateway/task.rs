//! The gateway's own tasks. One that panics is a bug that nobody caught: a gateway that
//! went on without it would look well and not be. So it ends, with a code other than 0, and its
//! supervisor starts it again.

use std::{any::Any, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;
use tokio::sync::watch;

use super::{Gateway, Inner};

/// Why the gateway must not go on; `None` while it may.
#[derive(Debug)]
pub(super) struct Broken(watch::Sender<Option<String>>);

impl Default for Broken {
    fn default() -> Self {
        Broken(watch::Sender::new(None))
    }
}

impl Broken {
    /// The first reason is the one that counts.
    fn tell(&self, why: String) {
        tracing::error!("{why}");
        self.0.send_if_modified(|current| current.is_none() && current.replace(why).is_none());
    }

    pub(super) fn why(&self) -> Option<String> {
        self.0.borrow().clone()
    }
}

impl Gateway {
    /// Runs a task until the shutdown.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.0.shutdown.clone();
        self.0.keep(async move {
            let _ = shutdown.run_until_cancelled(task).await;
        });
    }

    /// Runs a task until the shutdown is done: it can still say that one is under way.
    pub fn spawn_to_the_end(&self, task: impl Future<Output = ()> + Send + 'static) {
        let farewell = self.0.farewell.clone();
        self.0.keep(async move {
            let _ = farewell.run_until_cancelled(task).await;
        });
    }

    /// Resolves when one of its own tasks has panicked, with what there is to say of it.
    pub async fn broken(&self) -> String {
        let mut broken = self.0.broken.0.subscribe();
        match broken.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The sender lives in `self`.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Inner {
    /// Tracks a task that the gateway needs.
    pub(super) fn keep(&self, task: impl Future<Output = ()> + Send + 'static) {
        let broken = self.broken.clone();
        self.tasks.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                broken.tell(format!("a task of the gateway panicked: {}", words(&*panic)));
            }
        });
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a word")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_breaks_the_gateway_and_one_that_ends_does_not() {
        let gateway = Gateway::builder().start();
        gateway.spawn(async {});
        let number = 7;
        gateway.spawn(async move { panic!("number {number}") });
        assert_eq!(gateway.broken().await, "a task of the gateway panicked: number 7");
        gateway.spawn_to_the_end(async { panic!("later") });
        assert!(gateway.shutdown().await.is_empty(), "all else ends as it should");
        assert!(gateway.broken().await.ends_with("number 7"), "the first reason stays");
    }
}
