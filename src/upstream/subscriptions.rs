//! A modern server tells of changes only on streams that were asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::AbortHandle, time::sleep};
use tokio_util::task::TaskTracker;

use super::{handshake::own_params, instance::Instance};
use crate::{
    call::{Answer, Call, Method, Payload, Trail},
    era::Era,
    link::LinkError,
};

/// A stream that ended is opened again after so long.
const REOPEN_DELAY: Duration = Duration::from_secs(5);

const LIST_CHANGES: &str =
    r#"{"notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}}"#;

/// Hears of changed lists for as long as the instance lives. Never ends by itself.
pub(super) async fn list_changes(instance: Arc<Instance>) {
    if instance.era == Era::Modern {
        keep_open(&instance, &Payload::literal(LIST_CHANGES)).await;
    }
    std::future::pending().await
}

/// Returns once the server refuses.
async fn keep_open(instance: &Instance, wanted: &Payload) {
    loop {
        let listen =
            instance.link.ask(Method::of("subscriptions/listen"), Some(own_params(wanted)), Arc::new(Trail::new()));
        match listen.await {
            Ok(Answer::Result(_)) => {}
            Ok(Answer::Error(_)) | Err(LinkError::NotSent(_) | LinkError::Auth(_)) => return,
            Err(_) => {}
        }
        sleep(REOPEN_DELAY).await;
    }
}

/// `resources/subscribe` and its reverse, which a modern server does not know: a stream
/// for each resource instead. `None` for all other requests, and for legacy servers.
pub(super) fn instead_of(tasks: &TaskTracker, instance: &Arc<Instance>, call: &Call) -> Option<Answer> {
    if instance.era == Era::Legacy {
        return None;
    }
    let uri = || call.params.text("uri").unwrap_or_default();
    match call.method.as_str() {
        "resources/subscribe" => instance.streams.open(tasks, instance, uri()),
        "resources/unsubscribe" => instance.streams.close(&uri()),
        _ => return None,
    }
    Some(Answer::Result(Payload::literal("{}")))
}

/// The streams for single resources; they end with the instance.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<HashMap<String, AbortHandle>>);

/// Of one instance.
const STREAMS_MAX: usize = 1000;

impl Streams {
    fn streams(&self) -> MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, tasks: &TaskTracker, instance: &Arc<Instance>, uri: String) {
        let mut open = self.streams();
        if open.contains_key(&uri) || open.len() >= STREAMS_MAX {
            return;
        }
        let wanted = Payload::of(&serde_json::json!({ "notifications": { "resourceSubscriptions": [uri] } }));
        // Weak: the streams must not keep the instance that they are of.
        let instance = Arc::downgrade(instance);
        let task = tasks.spawn(async move {
            if let Some(instance) = instance.upgrade() {
                let gone = instance.link.gone();
                tokio::select! {
                    () = keep_open(&instance, &wanted) => {}
                    _ = gone => {}
                }
            }
        });
        open.insert(uri, task.abort_handle());
    }

    pub(super) fn close(&self, uri: &str) {
        if let Some(stream) = self.streams().remove(uri) {
            stream.abort();
        }
    }
}
