//! `<database>.spill.jsonl`: rows that found no room in memory while the database
//! could not be written, one JSON object a line, replayed when it can again.
//!
//! Several processes may share it: each holds its lock while it writes or replays.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    database::{Trouble, beside},
    row::Record,
};

const SPILL_MAX_BYTES: u64 = 16 << 20;
const REPLAY_ROWS: usize = 256;
/// How often, ten milliseconds apart, an urgent row asks for the file's lock.
const URGENT_TRIES: u32 = 50;

pub(super) struct Spill {
    path: PathBuf,
}

/// Whether the rows must be on the disk itself before going on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    No,
    Yes,
}

impl Spill {
    pub(super) fn of(database: &Path) -> Self {
        Spill { path: beside(database, ".spill.jsonl") }
    }

    /// One in another place, of a process that keeps its rows apart.
    pub(super) fn at(path: &Path) -> Self {
        Spill { path: path.to_owned() }
    }

    /// The rows that wait, left where they are.
    pub(super) fn waiting(&self) -> Vec<Record> {
        let mut text = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(SPILL_MAX_BYTES).read_to_end(&mut text));
        let lines = text.split(|byte| *byte == b'\n').filter(|_| read.is_ok());
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    pub(super) fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Appends all of `rows` or none.
    pub(super) fn append<'a>(&self, rows: impl IntoIterator<Item = &'a Record>, sync: Sync) -> io::Result<()> {
        let mut lines = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut lines, row)?;
            lines.push(b'\n');
        }
        let mut options = fs::OpenOptions::new();
        let options = options.create(true);
        let mut file = match sync {
            Sync::Yes => self.locked_patiently(options)?,
            Sync::No => self.locked(options)?,
        };
        let length = file.metadata()?.len();
        if length + lines.len() as u64 > SPILL_MAX_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if ends_in_mid_line(&file, length)? {
            lines.insert(0, b'\n');
        }
        let written = file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(&lines)).and_then(|()| match sync {
            Sync::Yes => file.sync_all(),
            Sync::No => Ok(()),
        });
        if written.is_err() {
            // Half a row helps nobody, and replay would have to skip it.
            let _ = file.set_len(length);
        }
        written
    }

    /// Hands all rows to `commit`, a few at a time, and removes them when it took all.
    /// Cut short, it hands them out again next time.
    pub(super) fn replay(&self, commit: impl FnMut(&[Record]) -> Result<(), Trouble>) -> Result<(), Trouble> {
        self.replay_and(commit, |file| file.set_len(0).and_then(|()| fs::remove_file(&self.path)))
    }

    /// The same, where they are removed by `empty`.
    pub(super) fn replay_and(
        &self,
        mut commit: impl FnMut(&[Record]) -> Result<(), Trouble>,
        empty: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), Trouble> {
        if self.bytes() == 0 {
            return Ok(());
        }
        let mut file = match self.locked(&mut fs::OpenOptions::new()) {
            Ok(file) => file,
            // Another process is at it, or will be.
            Err(_) => return Ok(()),
        };
        let mut text = Vec::new();
        if let Err(error) = (&mut file).take(SPILL_MAX_BYTES).read_to_end(&mut text) {
            return Err(Trouble::Unusable(format!("{} cannot be read: {error}", self.path.display())));
        }
        let mut rows = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        loop {
            let batch: Vec<Record> = rows.by_ref().take(REPLAY_ROWS).collect();
            if batch.is_empty() {
                break;
            }
            commit(&batch)?;
        }
        // The lock is held until here, so nobody has appended since.
        let _ = empty(&file);
        Ok(())
    }

    /// The file under its lock, waited for as long as an urgent row may be.
    pub(super) fn locked_patiently(&self, options: &mut fs::OpenOptions) -> io::Result<File> {
        for _ in 1..URGENT_TRIES {
            match self.locked(options) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                known => return known,
            }
        }
        self.locked(options)
    }

    /// The file under its lock; an error when another process has it.
    fn locked(&self, options: &mut fs::OpenOptions) -> io::Result<File> {
        let file = options.read(true).write(true).mode(0o600).open(&self.path)?;
        file.try_lock().map_err(io::Error::from)?;
        // Whoever had the lock before may have replayed and removed it.
        if file.metadata()?.nlink() == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(file)
    }
}

/// A process that died while it wrote left half a line.
fn ends_in_mid_line(file: &File, length: u64) -> io::Result<bool> {
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    Ok(last != [b'\n'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{failure::Class, store::testing::failure};

    fn rows(count: usize) -> Vec<Record> {
        (0..count).map(|_| Record::Failure(failure(Class::Lost, "read").into_record())).collect()
    }

    fn replayed(spill: &Spill) -> Vec<Record> {
        let mut all = Vec::new();
        spill
            .replay(|batch| {
                all.extend_from_slice(batch);
                Ok(())
            })
            .expect("replay");
        all
    }

    #[test]
    fn what_was_spilled_comes_back_once() {
        let folder = tempfile::tempdir().expect("folder");
        let spill = Spill::of(&folder.path().join("a.db"));
        let rows = rows(600);
        spill.append(&rows[..300], Sync::No).expect("append");
        spill.append(&rows[300..], Sync::Yes).expect("append");
        assert_eq!(replayed(&spill), rows);
        assert!(replayed(&spill).is_empty());
        assert!(!spill.path.exists());
    }

    #[test]
    fn a_replay_cut_short_begins_anew() {
        let folder = tempfile::tempdir().expect("folder");
        let spill = Spill::of(&folder.path().join("a.db"));
        let rows = rows(300);
        spill.append(&rows, Sync::No).expect("append");
        let mut left = 1;
        spill
            .replay(|_| {
                left -= 1;
                if left < 0 { Err(Trouble::Full) } else { Ok(()) }
            })
            .expect_err("the second batch fails");
        assert_eq!(replayed(&spill), rows);
    }

    #[test]
    fn half_a_line_costs_that_line_only() {
        let folder = tempfile::tempdir().expect("folder");
        let spill = Spill::of(&folder.path().join("a.db"));
        let rows = rows(2);
        spill.append(&rows[..1], Sync::No).expect("append");
        let mut file = fs::OpenOptions::new().append(true).open(&spill.path).expect("open");
        file.write_all(b"{\"failure\":{\"id\":").expect("half a line");
        spill.append(&rows[1..], Sync::No).expect("append");
        assert_eq!(replayed(&spill), rows);
    }

    #[test]
    fn the_file_has_a_bound() {
        let folder = tempfile::tempdir().expect("folder");
        let spill = Spill::of(&folder.path().join("a.db"));
        let mut row = failure(Class::Lost, "read").into_record();
        row.message = "x".repeat(1 << 20);
        let row = [Record::Failure(row)];
        let fitted = (0..100).take_while(|_| spill.append(&row, Sync::No).is_ok()).count();
        assert_eq!(fitted, 15);
        assert!(spill.bytes() <= SPILL_MAX_BYTES);
    }
}
