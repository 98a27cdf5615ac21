//! Room that is taken while there is some: a file of blank lines, into which the rows of a
//! process that is about to end are written when the disk has no room for one more byte.
//!
//! It never grows. Where a file system writes nothing in place, as those do that copy on
//! write, it helps as little as any other file.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    database::{Trouble, beside},
    row::Record,
    spill::Spill,
};

/// A crash with its last words is up to 3 KiB.
const RESERVE_BYTES: usize = 64 << 10;
const BLANK: u8 = b'\n';

pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// The one of those who put their rows into `aside`.
    pub(super) fn of(aside: &Path) -> Self {
        Reserve { path: beside(aside, ".reserve") }
    }

    /// Takes the room up, if it is not yet and the disk has it.
    pub(super) fn take_room(&self) {
        if fs::metadata(&self.path).is_ok_and(|file| file.len() >= RESERVE_BYTES as u64) {
            return;
        }
        let half = beside(&self.path, ".half");
        let made = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half);
        let taken = made.and_then(|mut file| {
            file.write_all(&[BLANK; RESERVE_BYTES])?;
            // Not over one that another process has made, and written into, meanwhile.
            fs::hard_link(&half, &self.path)
        });
        let _ = fs::remove_file(&half);
        if let Err(error) = taken {
            tracing::debug!(%error, "no room is held for a full disk");
        }
    }

    /// Writes rows behind those that are there, all of them or none.
    pub(super) fn append<'a>(&self, rows: impl IntoIterator<Item = &'a Record>) -> io::Result<()> {
        let mut lines = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut lines, row)?;
            lines.push(BLANK);
        }
        let file = self.as_spill().locked_patiently(&mut fs::OpenOptions::new())?;
        let text = read(&file)?;
        let used = used_bytes(&text);
        // The blank that ends the last row stays.
        let at = if used == 0 { 0 } else { used + 1 };
        if at + lines.len() > text.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all_at(&lines, at as u64)?;
        file.sync_all()
    }

    /// The rows that wait, left where they are.
    pub(super) fn waiting(&self) -> Vec<Record> {
        self.as_spill().waiting()
    }

    /// Hands all rows to `commit`, and has room for others when it took them: that is not let
    /// go of, since there may be no other.
    pub(super) fn replay(&self, commit: impl FnMut(&[Record]) -> Result<(), Trouble>) -> Result<(), Trouble> {
        self.as_spill().replay_and(commit, |file| file.write_all_at(&[BLANK; RESERVE_BYTES], 0))
    }

    pub(super) fn is_used(&self) -> bool {
        File::open(&self.path).and_then(|file| read(&file)).is_ok_and(|text| used_bytes(&text) > 0)
    }

    /// A spill file in which there are blank lines, too.
    fn as_spill(&self) -> Spill {
        Spill::at(&self.path)
    }
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(RESERVE_BYTES as u64).read_to_end(&mut text)?;
    Ok(text)
}

fn used_bytes(text: &[u8]) -> usize {
    text.iter().rposition(|byte| *byte != BLANK).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{failure::Class, store::testing::failure};

    fn rows(count: usize) -> Vec<Record> {
        (0..count).map(|_| Record::Failure(failure(Class::Lost, "read").into_record())).collect()
    }

    #[test]
    fn rows_find_the_room_that_was_taken_and_no_more() {
        let folder = tempfile::tempdir().expect("folder");
        let reserve = Reserve::of(&folder.path().join("crash.jsonl"));
        reserve.append(&rows(1)).expect_err("no room was taken");
        reserve.take_room();
        assert!(!reserve.is_used());
        let rows = rows(3);
        reserve.append(&rows[..1]).expect("room");
        reserve.take_room();
        reserve.append(&rows[1..]).expect("room");
        assert!(reserve.is_used());
        assert_eq!(reserve.waiting(), rows, "what was there stays");
        let fitted = (0..10_000).take_while(|_| reserve.append(&rows[..1]).is_ok()).count();
        assert_eq!(fs::metadata(&reserve.path).expect("there").len(), RESERVE_BYTES as u64);
        let mut replayed = Vec::new();
        let all = |batch: &[Record]| {
            replayed.extend_from_slice(batch);
            Ok(())
        };
        reserve.replay(all).expect("replay");
        assert_eq!(replayed.len(), 3 + fitted);
        assert!(!reserve.is_used(), "and there is room for others");
        reserve.append(&rows).expect("room");
        assert_eq!(reserve.waiting(), rows);
        assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 1, "nothing beside it");
    }
}
