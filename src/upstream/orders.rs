//! What a server's task is asked to do: a board with one place for each kind of
//! order, so that a flood of one kind never crowds out another and nothing waits.

use crate::sync::{Mutex, Notify, PoisonError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Replace the instance; start a parked, idle or waiting server now.
    Restart,
    /// The credentials of this instance were refused.
    Park(u64, String),
    /// Calls of this instance time out, one after the other.
    Suspect(u64),
    /// This instance has taken as many calls as it may.
    Renew(u64),
    /// This instance says that its lists have changed.
    Relist(u64),
    /// A parked or idle server is wanted.
    Wake,
    /// Something has changed that may make a running one idle.
    Look,
}

#[derive(Debug, Default)]
pub(super) struct Orders {
    board: Mutex<Board>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Board {
    restart: bool,
    park: Option<(u64, String)>,
    suspect: Option<u64>,
    renew: Option<u64>,
    relist: Option<u64>,
    wake: bool,
    look: bool,
}

impl Orders {
    /// An order that is on the board already is not put there twice.
    pub(super) fn put(&self, order: Order) {
        {
            let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            match order {
                Order::Restart => board.restart = true,
                Order::Park(number, reason) => board.park = Some((number, reason)),
                Order::Suspect(number) => board.suspect = Some(number),
                Order::Renew(number) => board.renew = Some(number),
                Order::Relist(number) => board.relist = Some(number),
                Order::Wake => board.wake = true,
                Order::Look => board.look = true,
            }
        }
        self.news.notify_one();
    }

    /// Takes the most pressing order, waiting for one. Cancel-safe.
    pub(super) async fn next(&self) -> Order {
        loop {
            if let Some(order) = self.take() {
                return order;
            }
            self.news.notified().await;
        }
    }

    /// What a start satisfies is off the board once one begins.
    pub(super) fn start_begins(&self) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.restart = false;
        board.wake = false;
    }

    fn take(&self) -> Option<Order> {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut board.restart) {
            return Some(Order::Restart);
        }
        if let Some((number, reason)) = board.park.take() {
            return Some(Order::Park(number, reason));
        }
        let numbered = board.suspect.take().map(Order::Suspect).or_else(|| board.renew.take().map(Order::Renew));
        numbered
            .or_else(|| board.relist.take().map(Order::Relist))
            .or_else(|| std::mem::take(&mut board.wake).then_some(Order::Wake))
            .or_else(|| std::mem::take(&mut board.look).then_some(Order::Look))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_of_one_kind_crowds_out_no_other() {
        let orders = Orders::default();
        for number in 0..10_000 {
            orders.put(Order::Relist(number));
        }
        orders.put(Order::Restart);
        orders.put(Order::Park(3, "401".to_owned()));
        assert_eq!(orders.next().await, Order::Restart);
        assert_eq!(orders.next().await, Order::Park(3, "401".to_owned()));
        assert_eq!(orders.next().await, Order::Relist(9_999));
        assert!(orders.take().is_none());
    }
}
