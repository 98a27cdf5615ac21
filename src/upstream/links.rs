//! Every connection of one server that may still have something alive behind it:
//! the serving one, one that is starting, one that is draining. Whatever future is
//! dropped, the end of the server finds them all here.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;

use crate::link::Link;

#[derive(Default)]
pub(super) struct Links(Mutex<Vec<(u64, Arc<dyn Link>)>>);

impl Links {
    fn all(&self) -> MutexGuard<'_, Vec<(u64, Arc<dyn Link>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, number: u64, link: Arc<dyn Link>) {
        self.all().push((number, link));
    }

    pub(super) fn open(&self) -> Vec<(u64, Arc<dyn Link>)> {
        self.all().clone()
    }

    /// Returns when nothing of this one is left.
    pub(super) async fn close(&self, number: u64, grace: Duration) {
        let link = self.all().iter().find(|(open, _)| *open == number).map(|(_, link)| link.clone());
        if let Some(link) = link {
            link.close(grace).await;
            self.all().retain(|(open, _)| *open != number);
        }
    }

    /// The same for all but one, side by side.
    pub(super) async fn close_all_but(&self, spared: Option<u64>, grace: Duration) {
        let numbers: Vec<u64> = self.all().iter().map(|(number, _)| *number).filter(|n| Some(*n) != spared).collect();
        join_all(numbers.into_iter().map(|number| self.close(number, grace))).await;
    }
}
