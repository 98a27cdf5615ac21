//! What the kernel is asked to tell: inotify a folder at a time, FSEvents a tree at a
//! time. It only makes hints; where it cannot, the folders are looked through more often.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::hints::Hints;

/// FSEvents watches trees, and is set up anew for each of them.
const TREES: bool = cfg!(target_os = "macos");

pub(super) struct Eyes {
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
    /// Why not everything is told; said once.
    trouble: Option<String>,
}

impl Eyes {
    pub(super) fn open(hints: Hints) -> Self {
        match notify::recommended_watcher(move |told| hints.take_in(told)) {
            Ok(watcher) => Eyes { watcher: Some(watcher), watched: HashSet::new(), trouble: None },
            Err(error) => {
                let mut blind = Eyes { watcher: None, watched: HashSet::new(), trouble: None };
                blind.complain(format!("the system tells of no changes: {error}"));
                blind
            }
        }
    }

    /// A folder that is watched, or one below it. Asked for again, it is watched anew:
    /// what was watched may have gone, and another may be in its place.
    pub(super) fn watch(&mut self, folder: &Path, is_root: bool, is_recursive: bool) {
        // FSEvents goes by the path, whatever is there; asked twice it would tell twice.
        let is_told = TREES && (!is_root || self.watched.contains(folder));
        let Some(watcher) = self.watcher.as_mut().filter(|_| !is_told) else { return };
        let mode = if TREES && is_recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        match watcher.watch(folder, mode) {
            Ok(()) => {
                self.watched.insert(folder.to_owned());
            }
            Err(error) => match error.kind {
                ErrorKind::MaxFilesWatch => self.complain(
                    "the system watches no more folders for this user; raise fs.inotify.max_user_watches".to_owned(),
                ),
                // Gone again, or not to be read, which reading it will tell.
                ErrorKind::PathNotFound | ErrorKind::Io(_) => {}
                _ => self.complain(format!("{} is not watched: {error}", folder.display())),
            },
        }
    }

    /// A path that is gone; true where it was a folder that was watched.
    pub(super) fn forget(&mut self, path: &Path) -> bool {
        if !self.watched.contains(path) {
            return false;
        }
        let watcher = &mut self.watcher;
        let forgotten = self.watched.extract_if(|watched| watched.starts_with(path)).inspect(|watched| {
            // It may have been forgotten there already.
            let _ = watcher.as_mut().map(|watcher| watcher.unwatch(watched));
        });
        forgotten.count() > 0
    }

    /// Why folders have to be looked through often.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn complain(&mut self, why: String) {
        if self.trouble.as_ref() != Some(&why) {
            tracing::warn!("{why}; until then the folders are looked through every {:?}", super::warden::POLL_EVERY);
            self.trouble = Some(why);
        }
    }
}
