//! Rows that are not in the database yet: in memory up to a bound, the oldest of
//! them in the spill file beyond it.

use std::{
    collections::{VecDeque, vec_deque::Iter},
    path::Path,
};

use super::{
    database::Trouble,
    drops::Kind,
    row::Record,
    spill::{Spill, Sync},
};

/// One transaction. More brings nothing and holds the lock for longer.
pub(super) const BATCH_ROWS: usize = 256;
/// With their texts at the bound that is 32 MiB.
const MEMORY_ROWS: usize = 4096;

pub(super) struct Backlog {
    rows: VecDeque<Row>,
    spill: Spill,
    spilled_bytes: u64,
    /// The spill file took no more; asking again for each row would cost too much.
    spill_refused: bool,
}

struct Row {
    kind: Kind,
    record: Record,
}

impl Backlog {
    pub(super) fn of(database: &Path) -> Self {
        let spill = Spill::of(database);
        Backlog { rows: VecDeque::new(), spilled_bytes: spill.bytes(), spill, spill_refused: false }
    }

    /// Takes a row in; false if there is no room for one of its kind.
    pub(super) fn take(&mut self, kind: Kind, record: Record) -> bool {
        if self.rows.len() >= MEMORY_ROWS / 2 && !self.spill_refused {
            self.spill_oldest();
        }
        let fits = kind.fits(self.rows.len(), MEMORY_ROWS);
        if fits {
            self.rows.push_back(Row { kind, record });
        }
        fits
    }

    /// The oldest rows, at most [`BATCH_ROWS`].
    pub(super) fn batch(&self) -> impl ExactSizeIterator<Item = &Record> {
        let oldest: Iter<'_, Row> = self.rows.range(..self.rows.len().min(BATCH_ROWS));
        oldest.map(|row| &row.record)
    }

    /// The oldest `count` rows are safe.
    pub(super) fn done(&mut self, count: usize) {
        self.rows.drain(..count);
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn spilled_bytes(&self) -> u64 {
        self.spilled_bytes
    }

    /// Some time has passed: the spill file may be asked again.
    pub(super) fn may_spill_again(&mut self) {
        self.spill_refused = false;
    }

    /// Hands what was spilled, by this process or an earlier one, to `commit`.
    pub(super) fn replay(&mut self, commit: impl FnMut(&[Record]) -> Result<(), Trouble>) -> Result<(), Trouble> {
        let replayed = self.spill.replay(commit);
        self.spilled_bytes = self.spill.bytes();
        replayed
    }

    /// Spills all that is left before the process ends; what finds no room is told to `lost`.
    pub(super) fn abandon(&mut self, mut lost: impl FnMut(Kind)) {
        while !self.rows.is_empty() && self.spill_oldest() {}
        self.rows.drain(..).for_each(|row| lost(row.kind));
    }

    fn spill_oldest(&mut self) -> bool {
        let spilled = self.spill.append(self.batch(), Sync::No).is_ok();
        if spilled {
            self.done(self.rows.len().min(BATCH_ROWS));
        }
        self.spilled_bytes = self.spill.bytes();
        self.spill_refused = !spilled;
        spilled
    }
}
