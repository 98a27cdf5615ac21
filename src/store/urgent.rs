//! Rows that must be safe before the process goes on: crashes, restarts, alerts.
//!
//! A connection of its own for each, opened and closed: they are rare, and the process
//! that writes them may not live to close anything.

use std::time::Duration;

use super::{
    Settings,
    database::{Database, Durability, Trouble},
    row::{EventRecord, Record},
    spill::{Spill, Sync},
};

/// The longest wait for other processes that have the database locked.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Where an event went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Database,
    /// Into the spill file; whoever writes to the database next replays it.
    Spilled,
    Lost,
}

pub(super) fn write(settings: &Settings, event: EventRecord) -> Written {
    let event = Record::Event(event);
    let Err(trouble) = to_database(settings, &event) else { return Written::Database };
    match Spill::of(&settings.path).append([&event], Sync::Yes) {
        Ok(()) => {
            tracing::warn!(%trouble, "an event went to the spill file");
            Written::Spilled
        }
        Err(error) => {
            tracing::error!(%trouble, %error, "an event is lost");
            Written::Lost
        }
    }
}

/// A damaged file is left to a writer thread, which may set it aside.
fn to_database(settings: &Settings, event: &Record) -> Result<(), Trouble> {
    Database::open(settings, PATIENCE, Durability::Power)?.commit([event])
}
