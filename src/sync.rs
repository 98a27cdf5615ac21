//! The locks and atomics of what is synchronised by hand. `fixtures/loom.rs` compiles
//! the same files with loom's in this place, and tries every order in which threads meet.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, atomic, mpsc};

pub(crate) use tokio::sync::Notify;
