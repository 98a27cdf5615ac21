//! The bounded queue from every handle to the one writer, and what both ends share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    clock::Clock,
    drops::{Drops, Kind},
    lock,
    row::{EventRecord, EventType, FailureRow},
};
use crate::{
    failure::Recording,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
};

/// Rows under way to the writer. With their texts at the bound that is 64 MiB.
pub(super) const QUEUE_ROWS: usize = 8192;
/// Places beside those of the rows, so that a full queue can still be flushed and closed.
const CONTROL_SLOTS: usize = 64;
/// A handle that has counted its row in puts it into the queue right after. After the
/// close the writer waits for such rows, but no longer than this.
const LAST_ROWS_WAIT: Duration = Duration::from_millis(100);
const LAST_ROWS_LOOK: Duration = Duration::from_millis(1);
/// Beside the count of the rows that are under way: no more are taken.
const CLOSED: usize = 1 << (usize::BITS - 1);

pub(super) enum Parcel {
    Failure(Box<FailureRow>, Recording),
    Event(EventType, Box<EventRecord>),
    /// Write all that came before, and say whether that worked.
    Flush(SyncSender<bool>),
    /// The same, then stop; give up at `until`.
    Close {
        until: Instant,
        done: SyncSender<bool>,
    },
}

pub(super) fn new(clock: &Clock) -> (Queue, Inbox) {
    let (sender, receiver) = sync_channel(QUEUE_ROWS + CONTROL_SLOTS);
    let shared = Arc::new(Shared::default());
    (Queue { sender, shared: shared.clone() }, Inbox { receiver, shared, clock: clock.clone() })
}

/// The sending end.
#[derive(Debug)]
pub(super) struct Queue {
    sender: SyncSender<Parcel>,
    shared: Arc<Shared>,
}

impl Queue {
    /// Takes a row if there is room for one of its kind, else counts it as lost.
    pub(super) fn offer(&self, kind: Kind, parcel: Parcel) {
        if self.shared.queued.load(Ordering::Relaxed) & CLOSED != 0 {
            return self.shared.drops.count(kind);
        }
        let held = self.shared.queued.fetch_add(1, Ordering::Relaxed);
        let open = held & CLOSED == 0;
        if !(open && kind.fits(held, QUEUE_ROWS) && self.sender.try_send(parcel).is_ok()) {
            self.shared.drops.count(kind);
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes a question for the writer; false if there is none to ask.
    pub(super) fn control(&self, parcel: Parcel) -> bool {
        self.sender.try_send(parcel).is_ok()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// The receiving end.
pub(super) struct Inbox {
    receiver: Receiver<Parcel>,
    shared: Arc<Shared>,
    clock: Clock,
}

/// Why there is no parcel.
pub(super) enum Nothing {
    Yet,
    /// Every handle is gone.
    EverAgain,
}

impl Inbox {
    /// The next parcel; waits until `deadline`, or for ever without one.
    pub(super) fn next(&self, deadline: Option<Instant>) -> Result<Parcel, Nothing> {
        let received = match deadline {
            Some(at) => self.receiver.recv_timeout(at.saturating_duration_since(self.clock.now())),
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(parcel) => {
                if matches!(parcel, Parcel::Failure(..) | Parcel::Event(..)) {
                    self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                }
                Ok(parcel)
            }
            Err(RecvTimeoutError::Timeout) => Err(Nothing::Yet),
            Err(RecvTimeoutError::Disconnected) => Err(Nothing::EverAgain),
        }
    }

    /// After the close: what is still in the queue, or on its way into it. Count and
    /// close are one number, so that a row is counted here or finds it closed.
    pub(super) fn last(&self) -> Option<Parcel> {
        let until = Instant::now() + LAST_ROWS_WAIT;
        loop {
            let is_awaited = self.shared.queued() > 0 && Instant::now() < until;
            let wait = if is_awaited { LAST_ROWS_LOOK } else { Duration::ZERO };
            match self.next(Some(self.clock.now() + wait)) {
                Ok(parcel) => return Some(parcel),
                Err(Nothing::Yet) if is_awaited => {}
                Err(_) => return None,
            }
        }
    }
}

/// What the writer knows and the handles may ask without waiting for it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) drops: Drops,
    /// Rows in the queue and on their way into it, and whether it is [`CLOSED`].
    queued: AtomicUsize,
    backlog: AtomicUsize,
    spilled_bytes: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Shared {
    /// No more rows: so that closing comes to an end under load.
    pub(super) fn close(&self) {
        self.queued.fetch_or(CLOSED, Ordering::Relaxed);
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *lock(&self.trouble) = trouble;
    }

    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    pub(super) fn set_waiting(&self, backlog_rows: usize, spilled_bytes: u64) {
        self.backlog.store(backlog_rows, Ordering::Relaxed);
        self.spilled_bytes.store(spilled_bytes, Ordering::Relaxed);
    }

    pub(super) fn pending(&self) -> usize {
        self.queued() + self.backlog.load(Ordering::Relaxed)
    }

    fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed) & !CLOSED
    }

    pub(super) fn spilled_bytes(&self) -> u64 {
        self.spilled_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        failure::Class,
        store::{row::Event, testing::failure},
    };

    #[test]
    fn a_queue_that_nobody_empties_takes_what_fits_and_counts_the_rest() {
        const PRODUCED: usize = 3 * QUEUE_ROWS;
        let (queue, inbox) = new(&Clock::default());
        let row = failure(Class::Lost, "read");
        for _ in 0..PRODUCED {
            let parcel = Parcel::Failure(Box::new(row.clone()), Recording::Row);
            queue.offer(Kind::Failure(Class::Lost), parcel);
        }
        // A crash still finds room, and so does a question.
        let crash = EventRecord::now(Event {
            category: "service",
            event_type: EventType::ServiceCrash,
            service_name: "gateway".to_owned(),
            metadata: serde_json::json!({}),
        });
        queue.offer(Kind::Event(EventType::ServiceCrash), Parcel::Event(EventType::ServiceCrash, Box::new(crash)));
        assert!(queue.control(Parcel::Flush(sync_channel(1).0)));

        let shared = queue.shared().clone();
        let held = shared.pending();
        assert_eq!(held, QUEUE_ROWS / 8 * 7 + 1);
        drop(queue);
        let mut rows = 0;
        while let Ok(parcel) = inbox.next(None) {
            rows += usize::from(matches!(parcel, Parcel::Failure(..)));
        }
        let lost = usize::try_from(shared.drops.by_name()["lost"]).expect("few");
        assert_eq!(rows + lost, PRODUCED);
        assert_eq!(shared.pending(), 0);
    }
}
