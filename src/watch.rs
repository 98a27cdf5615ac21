//! The file watcher: what appears or changes in a few folders is recorded once, and
//! handed to a command at least once.
//!
//! ```text
//! kernel ─ Eyes ─ Hints ─┐
//! start, overflow,       ├─ Warden ─ Settling ─ watch.db ─ Handlers ─ command
//! sleep, folder back ─ Survey
//! ```
//!
//! What the kernel tells is a hint and no more: it says where to look. What holds is
//! the difference between the folder and watch.db, and a survey of the whole folder
//! finds it whenever hints may have been lost. Nothing here follows a link out of a
//! folder unless it is told to, and nothing runs a shell.

use std::{
    fs::File,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::store::watch::WatchDb;

mod eyes;
mod folder;
mod handler;
mod hints;
mod nap;
mod select;
mod settings;
mod settle;
mod survey;
mod warden;

pub use crate::store::watch::WatchDbError;
pub use select::Select;
pub use settings::{FolderSettings, Handling, PLACE, Settings};

use hints::Hints;
use warden::Warden;

/// A predecessor that was killed may still be on its way out.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("another file-watcher uses {}; give this one a file of its own: options = {{ database = \"…\" }}", .0.display())]
    InUse(PathBuf),
    #[error("{} cannot be locked: {source}", path.display())]
    Lock { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Database(#[from] WatchDbError),
    #[error("the file-watcher has no thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("the file-watcher broke down, which is a bug")]
    Panicked,
}

/// Watches until `stop`, and then until the commands under way have ended, for
/// `settings.drain` at most.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), WatchError> {
    let _lock = lock(&settings.database)?;
    let (db, aside) = WatchDb::open(&settings.database, settings.max_bytes)?;
    if let Some(aside) = aside {
        tracing::error!(
            "watch.db was damaged and lies at {} now; what is in the folders counts as known",
            aside.display()
        );
    }
    let hints = Hints::default();
    let stopping = Arc::new(AtomicBool::new(false));
    let warden = Warden::new(settings, db, hints.clone(), stopping.clone(), tokio::runtime::Handle::current());
    let (ended, has_ended) = tokio::sync::oneshot::channel();
    let thread = thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || {
            // Whoever waits is told by the drop, also of a panic.
            let _ended = ended;
            warden.run()
        })
        .map_err(WatchError::Thread)?;
    tokio::pin!(has_ended);
    tokio::select! {
        () = stop.cancelled() => {
            stopping.store(true, std::sync::atomic::Ordering::Release);
            hints.wake();
            let _: Result<(), _> = has_ended.await;
        }
        _ = &mut has_ended => {}
    }
    thread.join().map_err(|_| WatchError::Panicked)?.map_err(WatchError::Database)
}

/// One watcher a database: two would hand every file over twice.
fn lock(database: &Path) -> Result<File, WatchError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let io = |source| WatchError::Lock { path: path.clone(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
    let until = std::time::Instant::now() + LOCK_WAIT;
    while file.try_lock().is_err() {
        if std::time::Instant::now() >= until {
            return Err(WatchError::InUse(database.to_owned()));
        }
        thread::sleep(LOCK_LOOK_EVERY);
    }
    Ok(file)
}
