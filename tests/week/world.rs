//! What servers and clients of the week have in common: who received what, and chance.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use rand::rngs::StdRng;

/// One server's, over all its lives. Clones are the same.
#[derive(Clone)]
pub(crate) struct World(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) chance: Mutex<StdRng>,
    /// How often each call arrived, by its number.
    received: Mutex<HashMap<u64, usize>>,
    live: AtomicUsize,
    pub(crate) lives: AtomicUsize,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics here")
}

impl World {
    pub(crate) fn new(chance: StdRng) -> World {
        let inner = Inner {
            chance: Mutex::new(chance),
            received: Mutex::default(),
            live: AtomicUsize::new(0),
            lives: AtomicUsize::new(0),
        };
        World(Arc::new(inner))
    }

    pub(crate) fn receive(&self, number: u64) {
        *lock(&self.0.received).entry(number).or_default() += 1;
    }

    pub(crate) fn received(&self, number: u64) -> usize {
        lock(&self.0.received).get(&number).copied().unwrap_or_default()
    }

    pub(crate) fn live(&self) -> usize {
        self.0.live.load(Ordering::Relaxed)
    }

    pub(crate) fn lives(&self) -> usize {
        self.0.lives.load(Ordering::Relaxed)
    }

    pub(crate) fn chance(&self) -> MutexGuard<'_, StdRng> {
        lock(&self.0.chance)
    }

    /// Counted until the value goes.
    pub(crate) fn begin(&self) -> Life {
        self.0.lives.fetch_add(1, Ordering::Relaxed);
        self.0.live.fetch_add(1, Ordering::Relaxed);
        Life(self.clone())
    }
}

pub(crate) struct Life(World);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}
