//! What all instances of one server share, one after the other or side by side.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::TaskTracker;

use super::{Audience, drift, lifecycle::Lifecycle, offer::Offer, poison::Deaths};
use crate::{
    call::ServerName,
    era::Era,
    link::Connector,
    store::{Event, EventType, Store},
};

pub(super) struct Common {
    pub(super) name: ServerName,
    pub(super) fingerprint: String,
    pub(super) connector: Arc<dyn Connector>,
    pub(super) audience: Arc<dyn Audience>,
    pub(super) store: Store,
    pub(super) tasks: TaskTracker,
    pub(super) began: Instant,
    pub(super) offer: ArcSwapOption<Offer>,
    pub(super) lifecycle: watch::Sender<Lifecycle>,
    /// Starts after something went wrong.
    pub(super) restarts: AtomicU64,
    /// Healthy instances that were replaced.
    pub(super) recycled: AtomicU64,
    /// One token for each call under way, those that wait for an instance included.
    pub(super) calls: TaskTracker,
    deaths: Mutex<Deaths>,
    /// The era that the server was last found to be of.
    era: Mutex<Option<Era>>,
    /// The most verbose log level that any client asked for.
    log_level: Mutex<Option<String>>,
    /// No new calls.
    closed: AtomicBool,
    /// Calls that are still under way are failed as draining.
    aborted: AtomicBool,
}

impl Common {
    pub(super) fn new(
        settings: super::Settings,
        audience: Arc<dyn Audience>,
        store: Store,
        tasks: &TaskTracker,
    ) -> Self {
        Common {
            name: settings.name,
            fingerprint: settings.fingerprint,
            connector: settings.connector,
            audience,
            store,
            tasks: tasks.clone(),
            began: Instant::now(),
            offer: ArcSwapOption::from_pointee(settings.known),
            lifecycle: watch::Sender::new(settings.lifecycle),
            restarts: AtomicU64::new(0),
            recycled: AtomicU64::new(0),
            calls: TaskTracker::new(),
            deaths: Mutex::default(),
            era: Mutex::default(),
            log_level: Mutex::default(),
            closed: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    pub(super) fn deaths(&self) -> MutexGuard<'_, Deaths> {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of its era before it is greeted.
    pub(super) fn era(&self) -> Option<Era> {
        self.era.lock().unwrap_or_else(PoisonError::into_inner).or_else(|| self.connector.era())
    }

    pub(super) fn set_era(&self, era: Era) {
        *self.era.lock().unwrap_or_else(PoisonError::into_inner) = Some(era);
    }

    pub(super) fn log_level(&self) -> Option<String> {
        self.log_level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_log_level(&self, level: &str) {
        *self.log_level.lock().unwrap_or_else(PoisonError::into_inner) = Some(level.to_owned());
    }

    /// The server's lists have been read. Says what changed since they were last.
    pub(super) fn learn(&self, offer: Offer) {
        let known = self.offer.load_full();
        if known.as_deref() == Some(&offer) {
            return;
        }
        if let Some(known) = &known {
            drift::between(known, &offer).for_each(|drift| self.event(EventType::ToolChanged, drift));
        }
        self.offer.store(Some(Arc::new(offer)));
        self.audience.offer_changed(&self.name);
    }

    /// What goes into an event is of seawall's making: never a payload of the server's.
    pub(super) fn event(&self, event_type: EventType, metadata: serde_json::Value) {
        self.store.event(Event { category: "server", event_type, service_name: self.name.to_string(), metadata });
    }
}
