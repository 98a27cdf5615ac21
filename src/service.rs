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

pub mod health;
pub mod memory;
pub mod own;
pub mod schedule;
