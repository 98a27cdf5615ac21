//! What a new instance must be told again, because the old one took it to the grave:
//! the log level, and what was subscribed to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

use super::{common::Common, instance::Instance, lane::Lane, orders::Order};
use crate::{
    call::{Answer, Call, Method, Payload, Trail},
    era::Era,
};

/// An answer to something that is told again is waited for so long.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(5);
/// More than this of one server is not remembered.
const SUBSCRIPTIONS_MAX: usize = 1000;

const SUBSCRIBE: &str = "resources/subscribe";
const UNSUBSCRIBE: &str = "resources/unsubscribe";

/// What is subscribed to, by URI, with the params that did it.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(Mutex<HashMap<String, Payload>>);

impl Subscriptions {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Payload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }
}

/// All of it, to an instance that has just become the current one.
pub(super) async fn everything(lane: Arc<Lane>, instance: Arc<Instance>) {
    log_level(lane.common.clone(), instance.clone()).await;
    let params: Vec<Payload> = lane.subscriptions.all().values().cloned().collect();
    for params in params {
        if !subscribe(&lane, &instance, params).await {
            return tracing::warn!(server = %lane.common.name, "its subscriptions could not all be renewed");
        }
    }
}

/// As the server's era has it: a request, or a stream.
async fn subscribe(lane: &Lane, instance: &Arc<Instance>, params: Payload) -> bool {
    match instance.era {
        Era::Legacy => ask(instance, SUBSCRIBE, params).await,
        Era::Modern => {
            let uri = params.text("uri").unwrap_or_default();
            instance.streams.open(&lane.common.tasks, instance, uri).is_some()
        }
    }
}

async fn unsubscribe(instance: &Arc<Instance>, uri: &str) {
    match instance.era {
        Era::Legacy => drop(ask(instance, UNSUBSCRIBE, Payload::of(&serde_json::json!({ "uri": uri }))).await),
        Era::Modern => instance.streams.close(uri),
    }
}

pub(super) async fn log_level(common: Arc<Common>, instance: Arc<Instance>) {
    if let Some(level) = common.log_level()
        // In the modern era each request says its own.
        && instance.era == Era::Legacy
        && instance.has("logging")
    {
        ask(&instance, "logging/setLevel", Payload::of(&serde_json::json!({ "level": level }))).await;
    }
}

/// False if nobody answers, and asking on is of no use.
async fn ask(instance: &Instance, method: &'static str, params: Payload) -> bool {
    let ask = instance.link.ask(Method::of(method), Some(params), Arc::new(Trail::new()));
    matches!(timeout(REPLAY_TIMEOUT, ask).await, Ok(Ok(_)))
}

impl Lane {
    /// Keeps what a call that `instance` has answered changed about subscriptions.
    pub(super) fn note_subscription(self: &Arc<Self>, call: &Call, answer: &Answer, instance: &Arc<Instance>) {
        let subscribes = match call.method.as_str() {
            SUBSCRIBE => true,
            UNSUBSCRIBE => false,
            _ => return,
        };
        let Some(uri) = call.params.text("uri").filter(|_| matches!(answer, Answer::Result(_))) else { return };
        if !subscribes {
            return self.forget_subscription(&uri);
        }
        {
            let mut all = self.subscriptions.all();
            if all.len() < SUBSCRIPTIONS_MAX || all.contains_key(&uri) {
                all.insert(uri, call.params.clone());
            }
        }
        // Replaced since it answered: the new one may have begun before this was kept.
        if let Some(current) = self.current.load_full().filter(|current| current.number != instance.number) {
            let params = call.params.clone();
            let lane = self.clone();
            self.common.tasks.spawn(async move { subscribe(&lane, &current, params).await });
        }
    }

    fn forget_subscription(&self, uri: &str) {
        self.subscriptions.all().remove(uri);
        self.order(Order::Look);
    }

    /// Nobody listens to this resource any more.
    pub(super) fn unsubscribe(self: &Arc<Self>, uri: &str) {
        let known = self.subscriptions.all().get(uri).cloned();
        self.forget_subscription(uri);
        let Some((params, instance)) = known.zip(self.current.load_full()) else { return };
        let (lane, uri) = (self.clone(), uri.to_owned());
        self.common.tasks.spawn(async move {
            unsubscribe(&instance, &uri).await;
            // Somebody new may have come in this very moment, and been the first to be heard.
            if lane.subscriptions.all().contains_key(&uri) {
                subscribe(&lane, &instance, params).await;
            }
        });
    }
}
