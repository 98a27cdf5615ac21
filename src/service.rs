//! The services of the user's machine: what `seawall run NAME` does.
//!
//! The supervisor (launchd, systemd) starts, restarts and stops; this room stands
//! between it and the service, and writes down what happened:
//!
//! ```text
//! launchd ─ seawall run NAME ─┬─ the service, in a process group of its own
//!                             ├─ waits, forwards signals, records, ends as it ended
//!                             └─ a second thread: health, memory, alerts that are over
//! ```
//!
//! It restarts nothing: two supervisors of one process multiply each other. There is
//! no async runtime here, so that little can go wrong in what has to see things go wrong.

/// To stderr, whatever became of it: one who watches must not die of a full disk.
macro_rules! say {
    ($($words:tt)*) => { $crate::say::aside(format_args!("seawall: {}", format_args!($($words)*))) };
}

pub mod run;

mod monitor;
mod record;

pub mod alarm;
mod child;
mod errand;
mod escort;
pub mod fault;
pub mod health;
mod http;
mod leftover;
pub mod marker;
pub mod memory;
pub mod moment;
pub mod notify;
pub mod overdue;
pub mod own;
mod probe;
pub mod schedule;

pub use child::{ExecError, exec, is_recorded};
pub use escort::escort;
pub use record::ledger;
