//! What is known of the present life of a service and of the one before, in a file: it
//! is written at the start and at the end, so that a life without an end is one that
//! was cut short without a word. A file, since no lock of another process delays it.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};

use super::moment::Moment;

/// One life, from the start of the process to its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Life {
    pub wrapper_pid: u32,
    /// When the wrapper began, as `moment::began` says it, and the folder that it keeps this in:
    /// a copy of the folder is not its own.
    pub wrapper_began: Option<String>,
    pub state_folder: Option<String>,
    pub pid: u32,
    /// When the process began, as `moment::began` says it.
    pub began: Option<String>,
    pub boot_id: Option<String>,
    pub started_ms: i64,
    pub uptime_ms: u64,
    /// How often it was started again after it had ended by itself, in a row.
    pub restart_attempt: u32,
    /// When it was last seen alive.
    pub seen_ms: i64,
    pub memory_bytes: Option<u64>,
    pub growth_bytes_per_hour: Option<f64>,
    /// What the last probe found; `None` where there is no probe.
    pub health: Option<String>,
    pub end: Option<End>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub how: How,
    pub at_ms: i64,
    pub duration_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// On request, or by its own decision with exit code 0.
    Stopped,
    /// It asked to be started again: exit code 75.
    Planned,
    Crashed,
    /// It hung and was killed for it.
    Hung,
    /// Nobody saw it end.
    Vanished,
}

/// Of stat(2), whatever the file system's own are.
const BLOCK_BYTES: u64 = 512;
/// A life that lasted so long pays for the crashes before it.
pub const PROVEN_MS: u64 = 60_000;

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marker {
    pub life: Option<Life>,
    /// What the last life carries in the environment of all its processes.
    pub mark: Option<String>,
    /// Of a scheduled service: up to then all slots are settled, run or left out.
    pub settled_ms: Option<i64>,
    /// The slot at which it was last said that runs were missed.
    pub missed_told_ms: Option<i64>,
    /// Of a scheduled service: when it first was.
    pub known_since_ms: Option<i64>,
    /// Of the gateway: since when each scheduled service is known to it.
    pub tasks_since_ms: BTreeMap<String, i64>,
}

/// The file, held by the one `seawall run` of this service.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    /// Nothing can be kept there, and why.
    problem: Option<String>,
    /// Such a problem is said once.
    is_said: AtomicBool,
    _lock: Option<File>,
}

/// Another process has it.
#[derive(Debug, thiserror::Error)]
#[error("{name} is running already{}", of_process(*pid))]
pub struct RunningAlready {
    pub name: String,
    /// `None` where it has not said so yet, or could not.
    pub pid: Option<u32>,
}

fn of_process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(": process {pid}"))
}

fn path_of(state: &Path, name: &str) -> PathBuf {
    state.join("services").join(format!("{name}.json"))
}

/// Where the process of a scheduled service may say how its steps went: an object with its
/// `pid` and its `steps`.
pub fn steps_path(state: &Path, name: &str) -> PathBuf {
    state.join("services").join(format!("{name}.steps.json"))
}

/// What the process `pid` said there.
pub(super) fn steps_of(state: &Path, name: &str, pid: u32) -> Option<serde_json::Value> {
    let text = fs::read(steps_path(state, name)).ok()?;
    let mut report: serde_json::Value = serde_json::from_slice(&text).ok()?;
    (report["pid"] == pid).then(|| report["steps"].take())
}

/// Waits until no other process tells anything of this service; until the file is dropped.
pub(super) fn turn_to_tell(state: &Path, name: &str) -> io::Result<File> {
    let path = state.join("services").join(format!("{name}.telling.lock"));
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

/// Reads it without holding it; an unreadable one counts as none.
pub fn read(state: &Path, name: &str) -> Marker {
    let text = fs::read(path_of(state, name)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Notes that a scheduled service is there from now on, where that is not known: its first
/// slot may pass before it is started.
pub fn note_first_seen(state: &Path, name: &str) {
    let Ok(held) = Held::take(state, name) else { return };
    let mut marker = held.read();
    if held.problem().is_none() && marker.known_since_ms.is_none() {
        marker.known_since_ms = Some(Moment::now().wall_ms);
        held.write(&marker);
    }
}

/// Why what is known of a service cannot be read, where it cannot.
pub fn unreadable(state: &Path, name: &str) -> Option<String> {
    let path = path_of(state, name);
    let why = match fs::read(&path) {
        Ok(text) => serde_json::from_slice::<Marker>(&text).err()?.to_string(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => error.to_string(),
    };
    Some(format!("what is known of it, {}, cannot be read: {why}", path.display()))
}

/// Which folder it is, wherever it is moved to.
pub(super) fn folder_id(state: &Path) -> Option<String> {
    let folder = fs::metadata(state).ok()?;
    Some(format!("{}:{}", folder.dev(), folder.ino()))
}

impl Life {
    /// The `seawall run` that lives it, where that is there: a pid alone is used again.
    pub(super) fn living_wrapper(&self, boot: Option<&str>) -> Option<u32> {
        let is_there = self.end.is_none()
            && self.wrapper_pid != 0
            && self.wrapper_pid != std::process::id()
            && self.boot_id.as_deref() == boot
            && self.wrapper_began.is_some()
            && super::moment::began(self.wrapper_pid) == self.wrapper_began;
        is_there.then_some(self.wrapper_pid)
    }
}

impl Held {
    /// Takes the file of a service for as long as this process lives. A folder in which
    /// nothing can be kept is no reason for a service not to run.
    pub fn take(state: &Path, name: &str) -> Result<Self, RunningAlready> {
        let path = path_of(state, name);
        let (lock, problem) = match lock(&path) {
            Ok(lock) => (Some(lock), None),
            Err(TryLockError::WouldBlock) => {
                // The life on record may be the one of before.
                let pid = fs::read_to_string(lock_of(&path)).ok().and_then(|pid| pid.trim().parse().ok());
                return Err(RunningAlready { name: name.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => {
                let folder = path.parent().unwrap_or(state).display();
                (None, Some(format!("the state of {name} cannot be kept in {folder}: {error}")))
            }
        };
        Ok(Held { path, problem, is_said: AtomicBool::new(false), _lock: lock })
    }

    /// Why nothing is kept.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub fn read(&self) -> Marker {
        let text = fs::read(&self.path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Puts it in place whole, on the disk itself.
    pub fn write(&self, marker: &Marker) {
        let written = serde_json::to_vec(marker).map_err(io::Error::other).and_then(|text| {
            self.replace(&text).or_else(|error| match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.overwrite(&text).map_err(|_| error),
                _ => Err(error),
            })
        });
        match written {
            Ok(()) => self.is_said.store(false, Ordering::Relaxed),
            // The service matters more than what is known of it.
            Err(error) if !self.is_said.swap(true, Ordering::Relaxed) => {
                say!("{} cannot be written: {error}", self.path.display());
            }
            Err(_) => {}
        }
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let half = self.path.with_extension("half-written");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
        let replaced = file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&half, &self.path));
        if replaced.is_err() {
            let _ = fs::remove_file(&half);
        }
        replaced
    }

    /// On a disk without room for a second one: into the room that the file has. One write, with
    /// blanks over what is left of a longer one, so that a kill finds the one or the other.
    fn overwrite(&self, text: &[u8]) -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(&self.path)?;
        let known = file.metadata()?;
        if text.len() as u64 > known.blocks() * BLOCK_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut text = text.to_vec();
        text.resize(text.len().max(usize::try_from(known.len()).unwrap_or(0)), b' ');
        file.write_all_at(&text, 0)?;
        file.sync_all()
    }
}

fn lock(path: &Path) -> Result<File, TryLockError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(TryLockError::Error)?;
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(0o600);
    let mut lock = options.open(lock_of(path)).map_err(TryLockError::Error)?;
    lock.try_lock()?;
    // For whoever finds it taken. On a full disk it stays unsaid.
    let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    Ok(lock)
}

fn lock_of(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

impl Marker {
    /// The attempt that a start after this life is.
    pub fn next_attempt(&self) -> u32 {
        let Some(life) = &self.life else { return 0 };
        let (how, duration_ms) = match &life.end {
            Some(end) => (end.how, end.duration_ms),
            None => (How::Vanished, u64::try_from(life.seen_ms.saturating_sub(life.started_ms)).unwrap_or(0)),
        };
        match how {
            How::Stopped | How::Planned => 0,
            How::Crashed | How::Hung | How::Vanished if duration_ms >= PROVEN_MS => 1,
            How::Crashed | How::Hung | How::Vanished => life.restart_attempt.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_count_crashes_in_a_row() {
        let after = |how: How, duration_ms: u64, restart_attempt: u32| {
            let end = Some(End { how, at_ms: 0, duration_ms });
            Marker { life: Some(Life { restart_attempt, end, ..Life::default() }), ..Marker::default() }.next_attempt()
        };
        assert_eq!(Marker::default().next_attempt(), 0);
        assert_eq!(after(How::Crashed, 500, 0), 1);
        assert_eq!(after(How::Hung, 500, 4), 5);
        assert_eq!(after(How::Crashed, PROVEN_MS, 4), 1, "it had been well");
        assert_eq!(after(How::Stopped, 500, 4), 0);
        assert_eq!(after(How::Planned, 500, 4), 0);
        let vanished = Life { restart_attempt: 2, started_ms: 1000, seen_ms: 2000, ..Life::default() };
        assert_eq!(Marker { life: Some(vanished), ..Marker::default() }.next_attempt(), 3);
    }

    #[test]
    fn one_process_holds_it_and_half_a_file_is_none() {
        let state = tempfile::tempdir().expect("a folder");
        let held = Held::take(state.path(), "gateway").expect("the first");
        let life = Life { wrapper_pid: 42, ..Life::default() };
        held.write(&Marker { life: Some(life), settled_ms: Some(7), ..Marker::default() });
        assert_eq!(held.read().settled_ms, Some(7));
        let second = Held::take(state.path(), "gateway").expect_err("the second");
        // Not the one of the life that was before.
        assert_eq!(second.to_string(), format!("gateway is running already: process {}", std::process::id()));
        assert_eq!(unreadable(state.path(), "gateway"), None);
        fs::write(path_of(state.path(), "gateway"), "{\"life\":").expect("written");
        assert_eq!(held.read(), Marker::default());
        assert!(unreadable(state.path(), "gateway").is_some_and(|why| why.contains("gateway.json, cannot be read")));
        assert_eq!(unreadable(state.path(), "another"), None);
    }
}
