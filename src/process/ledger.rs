//! What is running is noted down in the state folder, so that a seawall that comes
//! after one that was killed can end what that one left behind.
//!
//! Each note names the launcher by pid and start time, and the mark that every process
//! of the tree carries in its environment: a daemon that got away from a launcher which
//! was killed as well is found by it.

use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::mark;

/// The variable that marks every process of a tree.
pub(super) const MARK_VARIABLE: &str = "SEAWALL_INSTANCE";

/// The folder of the notes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger(PathBuf);

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Unique among all trees of all gateways.
    mark: String,
    launcher: Named,
    /// The gateway: while it lives this is its business.
    owner: Named,
    boot: String,
}

/// A process, by more than a number that is used again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    pid: u32,
    start: u64,
}

/// A note that is taken out with this value.
#[derive(Debug)]
pub(super) struct Entry(Option<PathBuf>);

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Home and temporary files of a tree that cannot have a file system of its own.
pub(super) fn private_folder(mark: &str) -> PathBuf {
    std::env::temp_dir().join(format!("seawall-{mark}"))
}

impl Ledger {
    pub fn in_folder(state: &Path) -> Self {
        Ledger(state.join("processes"))
    }

    pub(super) fn note(&self, launcher: u32, mark: &str) -> Entry {
        let note = (|| {
            Some(Note {
                mark: mark.to_owned(),
                launcher: Named::of(launcher)?,
                owner: Named::of(std::process::id())?,
                boot: boot(),
            })
        })();
        let path = self.0.join(mark);
        let written = note.map(|note| self.write(&path, &note));
        if let Some(Err(error)) = written {
            tracing::warn!("{} cannot be written, so that nobody will clear up after a crash: {error}", path.display());
            return Entry(None);
        }
        Entry(Some(path))
    }

    fn write(&self, path: &Path, note: &Note) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.0)?;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&serde_json::to_vec(note)?)
    }

    /// Ends what gateways that are no more have left behind; how many processes.
    pub fn sweep(&self) -> usize {
        let Ok(notes) = std::fs::read_dir(&self.0) else { return 0 };
        let mut ended = 0;
        for path in notes.flatten().map(|note| note.path()) {
            let Ok(text) = std::fs::read(&path) else { continue };
            let Ok(note) = serde_json::from_slice::<Note>(&text) else {
                // Broken off while it was written: nothing had been started by then.
                let _ = std::fs::remove_file(&path);
                continue;
            };
            let is_of_this_boot = note.boot == boot();
            if is_of_this_boot && note.owner.lives() {
                continue;
            }
            if is_of_this_boot {
                ended += note.end_all();
            }
            super::private::remove(&private_folder(&note.mark));
            let _ = std::fs::remove_file(&path);
        }
        ended
    }
}

impl Note {
    fn end_all(&self) -> usize {
        let launcher = || self.launcher.lives().then_some(self.launcher.pid);
        mark::end_all(|| marked(&self.mark).into_iter().chain(launcher()).collect())
    }
}

impl Named {
    fn of(pid: u32) -> Option<Self> {
        Some(Named { pid, start: start_time(pid)? })
    }

    fn lives(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

/// In clock ticks since the machine was started; `None` for one that is dead.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// All processes with this mark in their environment.
fn marked(mark: &str) -> Vec<u32> {
    let wanted = format!("{MARK_VARIABLE}={mark}");
    mark::carriers(|variable| variable == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_whose_gateway_lives_is_left_alone_and_its_note_goes_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::in_folder(folder.path());
        let entry = ledger.note(std::process::id(), "mark");
        assert_eq!(ledger.sweep(), 0);
        let note = folder.path().join("processes/mark");
        assert!(note.exists());
        drop(entry);
        assert!(!note.exists());
    }

    #[test]
    fn what_a_dead_gateway_left_is_found_by_its_mark() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::in_folder(folder.path());
        // Nobody else's, of another run of this test.
        let mark = mark::unique();
        let mut child =
            std::process::Command::new("sleep").arg("60").env(MARK_VARIABLE, &mark).spawn().expect("sleep is there");
        // The kernel shows a new program's environment a moment after it has begun.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while marked(&mark).is_empty() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        let dead = Named { pid: u32::MAX - 1, start: 1 };
        let note = Note { mark: mark.clone(), launcher: dead.clone(), owner: dead, boot: boot() };
        ledger.write(&ledger.0.join(&mark), &note).expect("written");
        assert_eq!(ledger.sweep(), 1);
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(child.wait().expect("ended").signal(), Some(9));
        assert!(!ledger.0.join(&mark).exists());
    }
}
