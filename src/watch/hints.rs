//! Where to look: what the kernel tells, gathered and bounded. Beyond the bound there
//! is one hint left, which is to look everywhere.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// More of them than this at once, and the folders are looked through instead.
const PATHS_MAX: usize = 16_384;

#[derive(Clone, Debug, Default)]
pub(super) struct Hints(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    gathered: Mutex<Gathered>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) paths: HashSet<PathBuf>,
    /// Why hints may be missing: everything is to be looked at.
    pub(super) lost: Option<String>,
    woken: bool,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.lost.is_none() && !self.woken
    }
}

impl Hints {
    /// Takes what the kernel tells. Never waits for anything but the short lock.
    pub(super) fn take_in(&self, told: notify::Result<notify::Event>) {
        match told {
            Ok(event) if event.need_rescan() => self.lost("more happened than the kernel could tell"),
            Ok(event) if is_read_only(&event.kind) => {}
            Ok(event) => self.paths(event.paths),
            Err(error) => self.lost(&error.to_string()),
        }
    }

    pub(super) fn paths(&self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut gathered = self.lock();
        for path in paths {
            if gathered.paths.len() == PATHS_MAX {
                gathered.paths.clear();
                gathered.lost = Some(format!("more than {PATHS_MAX} paths changed at once"));
            }
            if gathered.lost.is_none() {
                gathered.paths.insert(path);
            }
        }
        drop(gathered);
        self.0.changed.notify_one();
    }

    pub(super) fn lost(&self, why: &str) {
        self.lock().lost.get_or_insert_with(|| why.to_owned());
        self.0.changed.notify_one();
    }

    /// Something else is to be looked at.
    pub(super) fn wake(&self) {
        self.lock().woken = true;
        self.0.changed.notify_one();
    }

    /// Waits until there is something, for `within` at most, and takes all of it.
    pub(super) fn wait(&self, within: Duration) -> Gathered {
        let until = Instant::now() + within;
        let mut gathered = self.lock();
        while gathered.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            gathered = self.0.changed.wait_timeout(gathered, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut gathered)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Gathered> {
        self.0.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody has looked at it, perhaps we.
fn is_read_only(kind: &notify::EventKind) -> bool {
    use notify::event::{AccessKind, AccessMode};
    matches!(kind, notify::EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use notify::event::{AccessKind, AccessMode, CreateKind, Event, EventKind, Flag};

    use super::*;

    fn event(kind: EventKind) -> Event {
        Event::new(kind).add_path("/a/x".into())
    }

    #[test]
    fn a_queue_of_the_kernel_that_ran_over_means_looking_everywhere() {
        let hints = Hints::default();
        hints.take_in(Ok(event(EventKind::Other).set_flag(Flag::Rescan)));
        assert!(hints.wait(Duration::ZERO).lost.is_some());
        hints.take_in(Err(notify::Error::generic("broken")));
        assert!(hints.wait(Duration::ZERO).lost.is_some());
        assert!(hints.wait(Duration::ZERO).is_empty(), "told once");
    }

    #[test]
    fn more_than_can_be_remembered_means_looking_everywhere() {
        let hints = Hints::default();
        hints.paths((0..PATHS_MAX).map(|n| PathBuf::from(format!("/a/{n}"))));
        let gathered = hints.wait(Duration::ZERO);
        assert_eq!((gathered.paths.len(), gathered.lost), (PATHS_MAX, None));
        hints.paths((0..=PATHS_MAX).map(|n| PathBuf::from(format!("/a/{n}"))));
        let gathered = hints.wait(Duration::ZERO);
        assert!(gathered.lost.is_some() && gathered.paths.is_empty());
    }

    #[test]
    fn reading_is_no_hint_and_the_end_of_writing_is_one() {
        let hints = Hints::default();
        hints.take_in(Ok(event(EventKind::Access(AccessKind::Open(AccessMode::Any)))));
        hints.take_in(Ok(event(EventKind::Access(AccessKind::Close(AccessMode::Read)))));
        assert!(hints.wait(Duration::ZERO).is_empty());
        hints.take_in(Ok(event(EventKind::Access(AccessKind::Close(AccessMode::Write)))));
        hints.take_in(Ok(event(EventKind::Create(CreateKind::File))));
        assert_eq!(hints.wait(Duration::ZERO).paths.len(), 1, "many hints about one path are one");
    }
}
