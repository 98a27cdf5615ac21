//! The task that owns one server: starts it, notices its end, starts it again.
//!
//! Single flight: nobody else ever starts anything. A ready instance that had proven
//! itself is replaced at once; each start that fails, and each instance that dies
//! unproven, climbs one rung of the ladder. It never gives up; what will not heal by
//! itself is parked and tried again on use.

use std::{
    ops::ControlFlow,
    sync::{Arc, PoisonError, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Order, STOP_GRACE, Shared, State, handshake, inflight::InFlight, instance::Instance, intake::Intake,
    ladder::Ladder, next_instance_number, offer::Offer, subscriptions,
};
use crate::{
    call::{BoxFuture, Method, Payload, Trail},
    era::Era,
    link::{Gone, Link, StartError},
    store::{Event, EventType},
};

/// Reading all lists of a server may take so long.
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);
/// Bursts of list_changed are merged into one reading.
const LISTING_DELAY: Duration = Duration::from_millis(100);

pub(super) async fn run(shared: Arc<Shared>, orders: mpsc::Receiver<Order>) {
    let stop = shared.stop.clone();
    let mut task = Reconnect { shared: shared.clone(), orders, ladder: Ladder::default(), link: None };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = task.live() => {}
    }
    task.close_link(STOP_GRACE).await;
    shared.set(State::Stopped);
}

struct Reconnect {
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    ladder: Ladder,
    /// Whatever was started last, to be ended before anything else is started.
    link: Option<Arc<dyn Link>>,
}

/// Why an instance is no more.
enum End {
    Died(Gone),
    Restart,
    Parked(String),
}

impl Reconnect {
    /// Lives until dropped.
    async fn live(&mut self) {
        loop {
            let end = match self.begin().await {
                Ok(instance) => (self.attend(&instance).await, Some(instance)),
                Err(StartError::Permanent(reason)) => (End::Parked(reason), None),
                Err(StartError::Refused(reason)) => {
                    self.shared.event(EventType::SandboxRefused, serde_json::json!({ "reason": reason }));
                    (End::Parked(reason), None)
                }
                Err(StartError::Transient(reason)) => (End::Died(Gone::because(reason)), None),
            };
            self.shared.current.store(None);
            match end {
                (End::Parked(reason), _) => self.park(reason).await,
                (End::Died(gone), instance) => self.mourn(gone, instance).await,
                (End::Restart, _) => {
                    self.ladder.reset();
                    self.shared.set(State::Spawning);
                    self.close_link(STOP_GRACE).await;
                }
            }
            self.shared.restarts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Starts an instance and makes it the current one.
    async fn begin(&mut self) -> Result<Arc<Instance>, StartError> {
        self.close_link(STOP_GRACE).await;
        self.shared.set(State::Spawning);
        let began = Instant::now();
        let number = next_instance_number();
        let inflight = Arc::new(InFlight::default());
        let inbox = Arc::new(Intake::new(inflight.clone(), &self.shared));
        let link = timeout(handshake::TIMEOUT, self.shared.connector.connect(number, inbox))
            .await
            .unwrap_or_else(|_| Err(StartError::Transient("it could not be reached in time".to_owned())))?;
        self.link = Some(link.clone());
        self.shared.set(State::Handshaking);
        let (era, hello) = self.greet(&*link).await?;
        if self.shared.offer.load().is_none() {
            let offer =
                read_offer(link.clone(), (era, hello.clone()), Duration::ZERO).await.map_err(StartError::Transient)?;
            self.shared.learn(offer);
        }
        let instance = Arc::new(Instance {
            number,
            link,
            era,
            hello,
            inflight,
            ready_since: Instant::now(),
            answers: AtomicU64::new(0),
            streams: Default::default(),
        });
        self.shared.current.store(Some(instance.clone()));
        self.shared.set(State::Ready(instance.clone()));
        self.shared.tell_ready(&instance, began.elapsed());
        replay_log_level(self.shared.clone(), instance.clone()).await;
        Ok(instance)
    }

    /// In the era that it was last found to be of, if any.
    async fn greet(&self, link: &dyn Link) -> Result<(Era, Payload), StartError> {
        let remember = |era| *self.shared.era.lock().unwrap_or_else(PoisonError::into_inner) = Some(era);
        let remembered = *self.shared.era.lock().unwrap_or_else(PoisonError::into_inner);
        match handshake::greet(link, remembered.or_else(|| self.shared.connector.era())).await {
            Ok((era, hello)) => {
                remember(era);
                Ok((era, hello))
            }
            Err(broken) => {
                if broken.at_probe {
                    remember(Era::Legacy);
                }
                Err(broken.error)
            }
        }
    }

    /// Attends to a ready instance until it ends.
    async fn attend(&mut self, instance: &Arc<Instance>) -> End {
        // What is known may be of an earlier instance, or of an earlier run.
        let mut listing = Some(self.listing(instance, Duration::ZERO));
        let listening = std::pin::pin!(subscriptions::list_changes(instance.clone()));
        let mut listening = listening;
        let mut list_again = false;
        loop {
            tokio::select! {
                gone = instance.link.gone() => return End::Died(gone),
                () = listening.as_mut() => {}
                read = async { listing.as_mut().expect("guarded").await }, if listing.is_some() => {
                    match read {
                        Ok(offer) => self.shared.learn(offer),
                        Err(reason) => tracing::warn!(server = %self.shared.name, "its lists could not be read: {reason}"),
                    }
                    listing = std::mem::take(&mut list_again).then(|| self.listing(instance, LISTING_DELAY));
                }
                Some(order) = self.orders.recv() => match order {
                    Order::Restart => return End::Restart,
                    Order::Park(reason) => return End::Parked(reason),
                    Order::Relist if listing.is_some() => list_again = true,
                    Order::Relist => listing = Some(self.listing(instance, LISTING_DELAY)),
                    Order::Wake => {}
                },
            }
        }
    }

    fn listing(&self, instance: &Instance, delay: Duration) -> BoxFuture<'static, Result<Offer, String>> {
        Box::pin(read_offer(instance.link.clone(), (instance.era, instance.hello.clone()), delay))
    }

    /// An instance has died, or could not be started: wait as the ladder says.
    async fn mourn(&mut self, gone: Gone, instance: Option<Arc<Instance>>) {
        if let Some(instance) = &instance {
            self.shared.deaths.lock().unwrap_or_else(PoisonError::into_inner).note(instance.number);
        }
        let proven = instance.as_ref().is_some_and(|instance| instance.is_proven());
        let delay = if proven {
            self.ladder.reset();
            Duration::ZERO
        } else {
            self.ladder.climb()
        };
        self.shared.tell_down(&gone, instance.as_deref(), self.ladder.rung(), delay);
        if delay.is_zero() {
            return;
        }
        let until = Instant::now() + delay;
        self.shared.set(State::Backoff { until, reason: gone.reason });
        self.wait(Some(until)).await;
    }

    /// The cause will not heal by itself: wait until somebody asks.
    async fn park(&mut self, reason: String) {
        tracing::warn!(server = %self.shared.name, "parked: {reason}");
        self.shared.event(EventType::ServerParked, serde_json::json!({ "reason": reason }));
        self.close_link(STOP_GRACE).await;
        self.shared.set(State::Parked { since: Instant::now(), reason });
        self.wait(None).await;
    }

    /// Waits for the time, or for an order that makes waiting pointless.
    async fn wait(&mut self, until: Option<Instant>) {
        loop {
            let time = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let flow = tokio::select! {
                            () = time => ControlFlow::Break(()),
                            order = self.orders.recv() => match order {
                                Some(Order::Restart) => {
             self.ladder.reset();
             ControlFlow::Break(())
            }
                                Some(Order::Wake) if until.is_none() => ControlFlow::Break(()),
                                _ => ControlFlow::Continue(()),
                            },
                        };
            if flow.is_break() {
                return;
            }
        }
    }

    async fn close_link(&mut self, grace: Duration) {
        if let Some(link) = &self.link {
            link.close(grace).await;
        }
        self.link = None;
    }
}

async fn read_offer(link: Arc<dyn Link>, (era, hello): (Era, Payload), delay: Duration) -> Result<Offer, String> {
    sleep(delay).await;
    let waited = crate::text::duration(LISTING_TIMEOUT);
    timeout(LISTING_TIMEOUT, Offer::read(&*link, era, hello))
        .await
        .unwrap_or_else(|_| Err(format!("its lists could not be read within {waited}")))
}

/// Tells a new instance the log level that clients want.
pub(super) async fn replay_log_level(shared: Arc<Shared>, instance: Arc<Instance>) {
    let level = shared.log_level.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(level) = level else { return };
    // In the modern era each request says its own.
    let logs = instance.era == Era::Legacy
        && instance.hello.member("capabilities").is_some_and(|has| has.member("logging").is_some());
    if logs {
        let params = Payload::of(&serde_json::json!({ "level": level }));
        let ask = instance.link.ask(Method::of("logging/setLevel"), Some(params), Arc::new(Trail::new()));
        let _ = timeout(Duration::from_secs(5), ask).await;
    }
}

impl Shared {
    pub(super) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    fn learn(&self, offer: Offer) {
        let known = self.offer.load();
        if known.as_deref() == Some(&offer) {
            return;
        }
        self.offer.store(Some(Arc::new(offer)));
        self.audience.offer_changed(&self.name);
    }

    fn tell_ready(&self, instance: &Instance, took: Duration) {
        let pid = instance.link.vitals().pid;
        tracing::info!(server = %self.name, instance = instance.number, pid, "ready after {}", crate::text::duration(took));
        self.event(
            EventType::ServerReady,
            serde_json::json!({
                "instance": instance.number,
                "pid": pid,
                "protocol": instance.hello.text("protocolVersion"),
                "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            }),
        );
    }

    fn tell_down(&self, gone: &Gone, instance: Option<&Instance>, attempt: u32, delay: Duration) {
        let reason = crate::text::quote(&gone.reason, 300);
        tracing::warn!(server = %self.name, attempt, "down: {reason}; next start in {}", crate::text::duration(delay));
        self.event(
            EventType::ServerDown,
            serde_json::json!({
                "instance": instance.map(|instance| instance.number),
                "reason": reason,
                "exit_status": gone.exit_status,
                "stderr_tail": gone.stderr_tail,
                "restart_attempt": attempt,
                "retry_in_ms": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            }),
        );
    }

    fn event(&self, event_type: EventType, metadata: serde_json::Value) {
        self.store.event(Event { category: "server", event_type, service_name: self.name.to_string(), metadata });
    }
}
