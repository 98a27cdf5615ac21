//! The commands that files are handed to: so many at once, each for so long, and its
//! whole tree ended with it. An argument is a path, absolute, and never a shell's word.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::Duration,
};

use tokio::{runtime::Handle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    hints::Hints,
    settings::{Handling, PLACE},
};
use crate::{
    process::{Command, Exit, Pipes, tail::Tail},
    sandbox::{Policy, Profile},
    store::watch::Due,
};

/// From SIGTERM to SIGKILL of one that took too long.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Its last words may be held open by what it started.
const LAST_WORDS: Duration = Duration::from_millis(200);

pub(super) struct Handlers {
    runtime: Handle,
    concurrency: usize,
    hints: Hints,
    sender: SyncSender<Done>,
    receiver: Receiver<Done>,
    /// Events under way, and their paths: no path is handled twice at once.
    events: HashMap<i64, Vec<u8>>,
    paths: HashSet<Vec<u8>>,
    commands: usize,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

/// One command that has ended.
pub(super) struct Done {
    pub(super) events: Vec<Due>,
    pub(super) retries: u32,
    pub(super) how: How,
}

pub(super) enum How {
    Handled,
    Failed(String),
    /// The watcher stopped first: as if it had not begun.
    BrokenOff,
}

impl Handlers {
    pub(super) fn new(runtime: Handle, concurrency: usize, hints: Hints) -> Self {
        let (sender, receiver) = sync_channel(concurrency);
        Handlers {
            runtime,
            concurrency,
            hints,
            sender,
            receiver,
            events: HashMap::new(),
            paths: HashSet::new(),
            commands: 0,
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// How many more commands may run.
    pub(super) fn free(&self) -> usize {
        self.concurrency.saturating_sub(self.commands)
    }

    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    pub(super) fn events(&self) -> usize {
        self.events.len()
    }

    /// Whether this event, or another one of the same file, is under way.
    pub(super) fn is_busy_with(&self, due: &Due) -> bool {
        self.events.contains_key(&due.id) || self.paths.contains(&due.path)
    }

    pub(super) fn start(&mut self, handling: &Handling, events: Vec<Due>) {
        for due in &events {
            self.events.insert(due.id, due.path.clone());
            self.paths.insert(due.path.clone());
        }
        self.commands += 1;
        let (handling, cancel, tasks) = (handling.clone(), self.cancel.clone(), self.tasks.clone());
        let (sender, hints) = (self.sender.clone(), self.hints.clone());
        let work = async move {
            let paths: Vec<&OsStr> = events.iter().map(|due| OsStr::from_bytes(&due.path)).collect();
            let how = run(&handling, &paths, &cancel, &tasks).await;
            // There is room for one of each command.
            let _ = sender.try_send(Done { retries: handling.retries, events, how });
            hints.wake();
        };
        self.runtime.spawn(self.tasks.track_future(work));
    }

    /// Those that have ended since.
    pub(super) fn ended(&mut self) -> Vec<Done> {
        let ended: Vec<Done> = self.receiver.try_iter().collect();
        for due in ended.iter().flat_map(|done| &done.events) {
            if let Some(path) = self.events.remove(&due.id) {
                self.paths.remove(&path);
            }
        }
        self.commands -= ended.len();
        ended
    }

    /// All that still run are to end.
    pub(super) fn break_off(&self) {
        self.cancel.cancel();
    }
}

async fn run(handling: &Handling, paths: &[&OsStr], cancel: &CancellationToken, tasks: &TaskTracker) -> How {
    let (child, pipes) = match command(handling, paths).spawn(tasks).await {
        Ok(started) => started,
        Err(error) => return How::Failed(handling.veil.hide(&error.to_string())),
    };
    let Pipes { stdin, stdout, stderr, .. } = pipes;
    drop(stdin);
    let words = Tail::under(handling.veil.clone());
    tasks.spawn(words.clone().follow(stderr));
    tasks.spawn(Tail::default().follow(stdout));
    let exit = tokio::select! {
        exit = timeout(handling.timeout, child.exited()) => exit,
        () = cancel.cancelled() => {
            child.stop(STOP_GRACE).await;
            return How::BrokenOff;
        }
    };
    match exit {
        Ok(Exit::Code(0)) => How::Handled,
        Ok(exit) => {
            let _ = timeout(LAST_WORDS, words.ended()).await;
            let words = words.text().map(|words| format!(": {words}")).unwrap_or_default();
            How::Failed(format!("{exit}{words}"))
        }
        Err(_) => {
            child.stop(STOP_GRACE).await;
            How::Failed(format!("it ran for more than {} and was ended", crate::text::duration(handling.timeout)))
        }
    }
}

fn command(handling: &Handling, paths: &[&OsStr]) -> Command {
    let (program, words) = handling.argv.split_first().map_or((String::new(), &[][..]), |(p, w)| (p.clone(), w));
    Command {
        program,
        args: arguments(words, paths),
        // It is the user's own program, not a server's: it gets what the watcher has.
        env: std::env::vars_os()
            // That is about the watcher's own heap.
            .filter(|(name, _)| name != crate::heap::SAMPLING.0)
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        cwd: handling.cwd.clone(),
        name: "file-watcher".to_owned(),
        sandbox: Policy { profile: Profile::Off, ..Policy::default() },
        protected: Vec::new(),
        ledger: None,
    }
}

/// The words with the paths in their place: an argument that is the place becomes all
/// of them; one that holds it, the first.
fn arguments(words: &[String], paths: &[&OsStr]) -> Vec<OsString> {
    let has_place = words.iter().any(|word| word.contains(PLACE));
    let mut arguments = Vec::new();
    for word in words {
        match word.split_once(PLACE) {
            Some(("", "")) => arguments.extend(paths.iter().map(OsString::from)),
            Some((before, after)) => {
                let mut argument = OsString::from(before);
                argument.push(paths.first().copied().unwrap_or_default());
                argument.push(after);
                arguments.push(argument);
            }
            None => arguments.push(word.into()),
        }
    }
    if !has_place {
        arguments.extend(paths.iter().map(OsString::from));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_where_they_are_wanted_byte_by_byte() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let strange = OsStr::from_bytes(b"/a/-\xff $(x)");
        let paths = [strange, OsStr::new("/a/b")];
        assert_eq!(arguments(&words(&["--in"]), &paths), [OsStr::new("--in"), paths[0], paths[1]]);
        assert_eq!(arguments(&words(&["{path}", "end"]), &paths), [paths[0], paths[1], OsStr::new("end")]);
        assert_eq!(arguments(&words(&["file={path}.x"]), &paths[1..]), [OsStr::new("file=/a/b.x")]);
    }
}
