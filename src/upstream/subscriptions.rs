//! A modern server tells of changes only on streams that were asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{handshake::own_params, instance::Instance};
use crate::{
    call::{Answer, Call, Method, Payload, Trail},
    era::Era,
    link::LinkError,
    wire::envelope::{INVALID_PARAMS, rpc_error},
};

/// A stream that ended is opened again after so long.
const REOPEN_DELAY: Duration = Duration::from_secs(5);

/// A server that grants a stream says so. One that does not say it is believed after this.
const GRANT_TIMEOUT: Duration = Duration::from_secs(2);

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
pub(super) async fn instead_of(tasks: &TaskTracker, instance: &Arc<Instance>, call: &Call) -> Option<Answer> {
    if instance.era == Era::Legacy {
        return None;
    }
    let uri = || call.params.text("uri").unwrap_or_default();
    match call.method.as_str() {
        "resources/subscribe" => {
            let Some(standing) = instance.streams.open(tasks, instance, uri()) else {
                let why = format!("seawall: {STREAMS_MAX} resources of this server are subscribed to already");
                return Some(Answer::Error(rpc_error(INVALID_PARAMS, why)));
            };
            // Not before: an update that follows at once would be missed.
            if granted(standing).await == Standing::Refused {
                let why = "seawall: the server does not tell of changes of this resource";
                return Some(Answer::Error(rpc_error(INVALID_PARAMS, why)));
            }
        }
        "resources/unsubscribe" => instance.streams.close(&uri()),
        _ => return None,
    }
    Some(Answer::Result(Payload::literal("{}")))
}

async fn granted(mut standing: watch::Receiver<Standing>) -> Standing {
    let decided = standing.wait_for(|standing| *standing != Standing::Asked);
    match timeout(GRANT_TIMEOUT, decided).await {
        Ok(Ok(standing)) => *standing,
        // Its task is gone, and so is the instance: what is subscribed to is told to the next one.
        Ok(Err(_)) | Err(_) => Standing::Granted,
    }
}

/// The streams for single resources; they end with the instance.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<HashMap<String, Stream>>);

#[derive(Debug)]
struct Stream {
    task: AbortHandle,
    standing: watch::Sender<Standing>,
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Asked,
    Granted,
    Refused,
}

/// Of one instance.
const STREAMS_MAX: usize = 1000;

impl Streams {
    fn streams(&self) -> MutexGuard<'_, HashMap<String, Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if there are too many.
    pub(super) fn open(
        &self,
        tasks: &TaskTracker,
        instance: &Arc<Instance>,
        uri: String,
    ) -> Option<watch::Receiver<Standing>> {
        let mut open = self.streams();
        if let Some(stream) = open.get(&uri).filter(|stream| *stream.standing.borrow() != Standing::Refused) {
            return Some(stream.standing.subscribe());
        }
        if open.len() >= STREAMS_MAX && !open.contains_key(&uri) {
            return None;
        }
        let wanted = Payload::of(&serde_json::json!({ "notifications": { "resourceSubscriptions": [uri] } }));
        let (standing, seen) = watch::channel(Standing::Asked);
        let of_task = standing.clone();
        // Weak: the streams must not keep the instance that they are of.
        let instance = Arc::downgrade(instance);
        let task = tasks.spawn(async move {
            if let Some(instance) = instance.upgrade() {
                let gone = instance.link.gone();
                tokio::select! {
                    () = keep_open(&instance, &wanted) => drop(of_task.send_replace(Standing::Refused)),
                    _ = gone => {}
                }
            }
        });
        open.insert(uri, Stream { task: task.abort_handle(), standing });
        Some(seen)
    }

    /// The server says which of the resources of a stream it tells of.
    pub(super) fn acknowledged(&self, params: &Payload) {
        let granted = params.member("notifications").and_then(|granted| granted.member("resourceSubscriptions"));
        let uris: Vec<String> = granted.and_then(|uris| uris.read().ok()).unwrap_or_default();
        let open = self.streams();
        for stream in uris.iter().filter_map(|uri| open.get(uri)) {
            stream.standing.send_replace(Standing::Granted);
        }
    }

    pub(super) fn close(&self, uri: &str) {
        if let Some(stream) = self.streams().remove(uri) {
            stream.task.abort();
        }
    }
}
