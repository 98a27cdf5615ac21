//! Attending to a ready instance until it ends: its lists, its health, its age.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    instance::Instance,
    lane::{Lane, Role},
    launch,
    lifecycle::Lifecycle,
    offer::Offer,
    orders::Order,
    pulse,
    reconnect::{End, Reconnect},
    renewal::{self, Cause},
    replay, subscriptions,
};
use crate::{call::BoxFuture, link::StartError};

/// Bursts of list_changed are merged into one reading.
const LISTING_DELAY: Duration = Duration::from_millis(100);

/// What is being done about the instance that serves.
pub(super) struct Care {
    instance: Arc<Instance>,
    listing: Option<BoxFuture<'static, Result<Offer, String>>>,
    list_again: bool,
    /// Telling it what its predecessor was told.
    replay: Option<BoxFuture<'static, ()>>,
    /// Asking a suspect whether it lives.
    check: Option<BoxFuture<'static, bool>>,
    too_large: Option<BoxFuture<'static, ()>>,
    /// A modern server tells of changed lists only on a stream that was asked for.
    list_changes: BoxFuture<'static, ()>,
}

impl Care {
    pub(super) fn of(lane: &Arc<Lane>, instance: Arc<Instance>, is_listed: bool) -> Self {
        let is_for_calls = !matches!(lane.role, Role::Listing);
        let replay = is_for_calls.then(|| Box::pin(replay::everything(lane.clone(), instance.clone())) as BoxFuture<_>);
        let list_changes = Box::pin(subscriptions::list_changes(instance.clone()));
        let mut care =
            Care { instance, listing: None, list_again: false, replay, check: None, too_large: None, list_changes };
        // What is known may be of an earlier instance, or of an earlier run.
        if lane.is_listed() && !is_listed {
            care.listing = Some(care.read_lists(Duration::ZERO));
        }
        care.obey(lane, &lane.common.lifecycle.borrow());
        care
    }

    /// These limits hold from now on.
    fn obey(&mut self, lane: &Lane, rules: &Lifecycle) {
        lane.limit_calls(renewal::calls_limit(rules.recycle.calls));
        self.weigh(rules, renewal::MEMORY_INTERVAL);
    }

    fn weigh(&mut self, rules: &Lifecycle, first_look: Duration) {
        self.too_large = rules.recycle.memory_bytes.map(|limit_bytes| {
            Box::pin(renewal::too_large(self.instance.clone(), limit_bytes, first_look)) as BoxFuture<_>
        });
    }

    fn read_lists(&self, delay: Duration) -> BoxFuture<'static, Result<Offer, String>> {
        let instance = &self.instance;
        Box::pin(launch::read_offer(instance.link.clone(), (instance.era, instance.hello.clone()), delay))
    }

    fn lists_changed(&mut self, lane: &Lane) {
        match &lane.role {
            Role::Session { listing, .. } => listing.order(Order::Wake),
            _ if self.listing.is_some() => self.list_again = true,
            _ => self.listing = Some(self.read_lists(LISTING_DELAY)),
        }
    }

    fn lists_read(&mut self, lane: &Lane, read: Result<Offer, String>) {
        match read {
            Ok(offer) => lane.common.learn(offer),
            Err(reason) => tracing::warn!(server = %lane.common.name, "its lists could not be read: {reason}"),
        }
        if std::mem::take(&mut self.list_again) {
            self.listing = Some(self.read_lists(LISTING_DELAY));
        }
    }

    fn is_busy(&self) -> bool {
        self.listing.is_some() || self.replay.is_some() || self.check.is_some()
    }
}

impl Reconnect {
    /// Returns the instance that ended: it may be a successor of the one given.
    pub(super) async fn attend(&mut self, mut care: Care) -> (End, Arc<Instance>) {
        let lane = self.lane.clone();
        let mut lifecycle = lane.common.lifecycle.subscribe();
        loop {
            let instance = care.instance.clone();
            let rules = lifecycle.borrow_and_update().clone();
            let may_rest = !care.is_busy() && !self.renewal.is_launching() && lane.subscriptions.is_empty();
            let end = tokio::select! {
                biased;
                gone = instance.link.gone() => Some(End::Died(gone)),
                fresh = self.renewal.fresh(&lane) => match fresh {
                    Ok(fresh) => {
                        care = self.switch(&instance, fresh);
                        None
                    }
                    Err(error) => self.not_renewed(&error),
                },
                is_hung = due(&mut care.check) => is_hung.then_some(End::Hung),
                read = due(&mut care.listing) => {
                    care.lists_read(&lane, read);
                    None
                }
                () = due(&mut care.replay) => None,
                () = care.list_changes.as_mut() => None,
                // Before its age is looked at: nobody needs a fresh one of what is idle.
                () = unused(&lane, &instance), if may_rest => {
                    // The last call may have been one that subscribed.
                    let may_rest = lane.subscriptions.is_empty() && !self.renewal.is_launching();
                    (may_rest && instance.inflight.seal_if_idle()).then_some(End::Idle)
                }
                () = renewal::too_old(&instance, rules.recycle.age), if !self.renewal.is_wanted() => {
                    self.renewal.want(Cause::Age);
                    None
                }
                () = due(&mut care.too_large) => {
                    self.renewal.want(Cause::Memory);
                    None
                }
                Ok(()) = lifecycle.changed() => {
                    care.obey(&lane, &lane.common.lifecycle.borrow());
                    // It may have taken too many calls under the new limit already.
                    lane.order(Order::Renew(instance.number));
                    None
                }
                // Last: a server may give cause for orders as fast as it can write.
                order = lane.orders.next() => self.obey(order, &mut care),
            };
            if let Some(end) = end {
                return (end, instance);
            }
        }
    }

    fn obey(&mut self, order: Order, care: &mut Care) -> Option<End> {
        let number = care.instance.number;
        match order {
            Order::Restart => self.renewal.want(Cause::Asked),
            Order::Park(of, reason) if of == number => return Some(End::Parked(reason)),
            Order::Suspect(of) if of == number && care.check.is_none() => {
                care.check = Some(Box::pin(pulse::hangs(care.instance.clone())));
            }
            Order::Renew(of) if of == number && self.lane.is_beyond_limit(care.instance.inflight.admitted()) => {
                self.renewal.want(Cause::Calls);
            }
            Order::Relist(of) if of == number => care.lists_changed(&self.lane),
            // About an instance that is no more, or nothing to do here.
            _ => {}
        }
        None
    }

    /// From here on calls go to the new instance.
    fn switch(&mut self, old: &Arc<Instance>, fresh: launch::Fresh) -> Care {
        if old.is_proven() {
            self.ladder.reset();
        }
        let mut care = self.serve_with(fresh);
        let cause = self.renewal.succeeded(&self.lane, old.clone(), &care.instance);
        if cause == Cause::Memory {
            care.weigh(&self.lane.common.lifecycle.borrow(), renewal::MEMORY_RESPITE);
        }
        care
    }

    /// The old one goes on; but whoever asked for a new one gets it the hard way.
    fn not_renewed(&mut self, error: &StartError) -> Option<End> {
        let name = &self.lane.common.name;
        if self.renewal.is_asked_for() {
            tracing::warn!(server = %name, "no second instance could be started beside it: {error}");
            drop(self.renewal.take_launch());
            return Some(End::Restart);
        }
        let delay = crate::text::duration(self.renewal.failed());
        tracing::warn!(server = %name, "its replacement could not be started, it goes on; next try in {delay}: {error}");
        None
    }
}

/// The outcome of what is under way; never, where nothing is. Cancel-safe.
async fn due<T>(under_way: &mut Option<BoxFuture<'static, T>>) -> T {
    let Some(future) = under_way else { return pending().await };
    let outcome = future.await;
    *under_way = None;
    outcome
}

/// Resolves when nobody has used the instance for as long as it may be unused.
async fn unused(lane: &Lane, instance: &Instance) {
    let Some(idle) = lane.idle_stop() else { return pending().await };
    loop {
        instance.inflight.idle().await;
        let due = lane.last_use().max(instance.ready_since) + idle;
        if due <= Instant::now() {
            return;
        }
        sleep_until(due).await;
    }
}
