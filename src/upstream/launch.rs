//! Starting one instance: reach it, shake hands, read its lists.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use super::{
    handshake,
    inflight::InFlight,
    instance::Instance,
    intake::Intake,
    lane::{Lane, Role, STOP_GRACE},
    next_instance_number,
    offer::Offer,
    subscriptions::Streams,
};
use crate::{
    call::{BoxFuture, Payload},
    era::Era,
    link::{Inbox, Link, StartError},
};

/// Reading all lists of a server may take so long.
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);
/// A connector that nobody waits for any more may still bring its link so much later,
/// to have it closed.
const LATE_LINK_WAIT: Duration = Duration::from_secs(30);

/// An instance that could serve now.
pub(super) struct Fresh {
    pub(super) instance: Arc<Instance>,
    /// Its lists, if they were read.
    pub(super) offer: Option<Offer>,
    pub(super) took: Duration,
}

/// A link to a process that has not said a word yet.
pub(super) struct Connected {
    number: u64,
    link: Arc<dyn Link>,
    inflight: Arc<InFlight>,
    streams: Arc<Streams>,
    began: Instant,
}

/// How far a new instance must have come before it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Its lists are read only if nobody knows them yet.
    Known,
    Listed,
}

pub(super) type Launch = BoxFuture<'static, Result<Fresh, StartError>>;

/// The whole start of an instance beside the one that serves. What failed is closed.
pub(super) fn replacement(lane: Arc<Lane>) -> Launch {
    Box::pin(async move {
        let connected = connect(&lane).await?;
        let number = connected.number;
        let fresh = greet(&lane, connected, Until::Listed).await;
        if fresh.is_err() {
            lane.links.close(number, STOP_GRACE).await;
        }
        fresh
    })
}

pub(super) async fn connect(lane: &Arc<Lane>) -> Result<Connected, StartError> {
    // An earlier start that nobody waits for any more may still be on its way: there is
    // never one beside another.
    let turn = lane.starting.clone().acquire_owned().await;
    let began = Instant::now();
    let number = next_instance_number();
    let inflight = Arc::new(InFlight::default());
    let streams = Arc::new(Streams::default());
    let inbox = Arc::new(Intake::new(number, inflight.clone(), streams.clone(), lane));
    let (hand_over, handed_over) = oneshot::channel();
    let reaching = reach(lane.clone(), number, inbox, hand_over);
    lane.common.tasks.spawn(async move {
        reaching.await;
        drop(turn);
    });
    let link = match timeout(handshake::TIMEOUT, handed_over).await {
        Ok(Ok(reached)) => reached?,
        Ok(Err(_)) => return Err(StartError::Transient("its start was broken off".to_owned())),
        Err(_) => return Err(StartError::Transient("it could not be reached in time".to_owned())),
    };
    Ok(Connected { number, link, inflight, streams, began })
}

/// A task of its own, so that a start that nobody waits for any more, be it late or be
/// the server at its end, leaves no process behind.
async fn reach(
    lane: Arc<Lane>,
    number: u64,
    inbox: Arc<dyn Inbox>,
    mut hand_over: oneshot::Sender<Result<Arc<dyn Link>, StartError>>,
) {
    let too_late = async {
        hand_over.closed().await;
        sleep(LATE_LINK_WAIT).await;
    };
    let reached = tokio::select! {
        biased;
        reached = lane.common.connector.connect(number, inbox) => reached,
        () = too_late => return,
    };
    if let Ok(link) = &reached {
        lane.links.add(number, link.clone());
    }
    if hand_over.send(reached).is_err() {
        lane.links.close(number, STOP_GRACE).await;
    }
}

/// First words, and the lists if they are wanted. What fails is left to be closed.
pub(super) async fn greet(lane: &Lane, connected: Connected, until: Until) -> Result<Fresh, StartError> {
    let Connected { number, link, inflight, streams, began } = connected;
    let (era, hello) = match handshake::greet(&*link, lane.common.era()).await {
        Ok(greeted) => greeted,
        Err(broken) => {
            if broken.at_probe {
                lane.common.set_era(Era::Legacy);
            }
            return Err(broken.error);
        }
    };
    lane.common.set_era(era);
    let is_unknown = lane.common.offer.load().is_none();
    let offer = if is_unknown || (until == Until::Listed && lane.is_listed()) {
        let read = read_offer(link.clone(), (era, hello.clone()), Duration::ZERO).await;
        Some(read.map_err(StartError::Transient)?)
    } else {
        None
    };
    let ready_since = Instant::now();
    let instance = Instance { number, link, era, hello, inflight, ready_since, streams, sentence: OnceLock::new() };
    Ok(Fresh { instance: Arc::new(instance), offer, took: began.elapsed() })
}

pub(super) async fn read_offer(
    link: Arc<dyn Link>,
    (era, hello): (Era, Payload),
    delay: Duration,
) -> Result<Offer, String> {
    sleep(delay).await;
    let waited = crate::text::duration(LISTING_TIMEOUT);
    timeout(LISTING_TIMEOUT, Offer::read(&*link, era, hello))
        .await
        .unwrap_or_else(|_| Err(format!("its lists could not be read within {waited}")))
}

impl Lane {
    /// What one session's own instance offers is not everybody's catalog.
    pub(super) fn is_listed(&self) -> bool {
        !matches!(self.role, Role::Session { .. })
    }
}
