//! Telling people: a command, a webhook, a notification on the desktop. Each is an errand
//! with an end in sight, waited for by a thread of its own: nothing that hangs or breaks in
//! it reaches the one who watches, or the end of the service.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    child::Tail,
    errand::{Errand, Errands, Over},
};
use crate::{
    process::{HELPER, veil::Veil},
    say,
};

/// Whom to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Program and arguments; what happened is JSON on its stdin.
    Command(Vec<String>),
    /// What happened is posted there as JSON.
    Webhook(String),
    Desktop,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Message {
    pub title: String,
    pub text: String,
    /// The same for programs.
    pub json: Value,
}

/// Whoever does not take it by then is given up.
const WITHIN: Duration = Duration::from_secs(10);
/// The supervisor waits for the end of the one who tells: all that is still being told then
/// has so long, together.
const AT_THE_END: Duration = Duration::from_secs(3);
/// And so long to be ended, which is a matter of milliseconds.
const ENDED_WITHIN: Duration = Duration::from_millis(500);
/// More at once are not told: alerts are rare, and those are many.
const AT_ONCE_MAX: usize = 32;

/// One who tells the same sinks again and again.
#[derive(Debug)]
pub(super) struct Teller {
    sinks: Vec<Sink>,
    /// The program that posts to webhooks.
    seawall: PathBuf,
    veil: Veil,
    errands: Errands,
    under_way: Arc<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    count: Mutex<usize>,
    changed: Condvar,
    /// Nobody waits any longer.
    is_over: AtomicBool,
}

impl Teller {
    pub(super) fn new(sinks: Vec<Sink>, seawall: PathBuf, veil: Veil, errands: Errands) -> Self {
        Teller { sinks, seawall, veil, errands, under_way: Arc::default() }
    }

    /// Tells all of them side by side, and waits for none.
    pub(super) fn tell(&self, message: &Message) {
        for sink in &self.sinks {
            let what = match sink {
                Sink::Command(_) => "command",
                Sink::Webhook(_) => "webhook",
                Sink::Desktop => "desktop",
            };
            let started = match self.under_way.enter() {
                true => self.start(sink, message).map(|errand| self.attend(errand, what)),
                false => {
                    say!("the alert is not told by {what}: {AT_ONCE_MAX} others are being told");
                    continue;
                }
            };
            if let Err(error) = started {
                self.under_way.leave();
                say!("the alert could not be told by {what}: {error}");
            }
        }
    }

    /// Gives all that is under way its last few seconds.
    pub(super) fn farewell(&self) {
        if !self.under_way.is_none_within(AT_THE_END) {
            self.under_way.is_over.store(true, Ordering::Relaxed);
            self.under_way.is_none_within(ENDED_WITHIN);
        }
    }

    fn attend(&self, mut errand: Errand, what: &'static str) {
        let under_way = self.under_way.clone();
        // One who cannot tell says why, perhaps with all that it was given, perhaps without end.
        let words = Tail::keep(errand.stderr(), &self.veil);
        let waiting = move || {
            let until = Instant::now() + WITHIN;
            let ended = errand.end_by(until, || under_way.is_over.load(Ordering::Relaxed));
            if let Some(words) = words.last_words() {
                say::pass_on(format!("{words}\n").as_bytes());
            }
            match ended {
                Some(status) if status.success() => {}
                Some(status) => say!("the alert could not be told by {what}: {status}"),
                None if Instant::now() >= until => {
                    say!("the alert could not be told by {what} within {} s", WITHIN.as_secs());
                }
                None => say!(
                    "the alert could not be told by {what}: it had not ended {} s after the service",
                    AT_THE_END.as_secs()
                ),
            }
            under_way.leave();
        };
        if let Err(error) = thread::Builder::new().name("alert".to_owned()).spawn(waiting) {
            // The errand ended with the closure that held it.
            self.under_way.leave();
            say!("the alert could not be told by {what}: {error}");
        }
    }

    fn start(&self, sink: &Sink, message: &Message) -> std::io::Result<Errand> {
        match sink {
            Sink::Command(argv) => {
                let (program, arguments) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
                let mut command = Command::new(program);
                command.args(arguments);
                self.send(command, &format!("{}\n", message.json))
            }
            // The URL goes by stdin too: arguments can be read by everyone on the machine.
            Sink::Webhook(url) => {
                let mut command = Command::new(&self.seawall);
                command.args([HELPER, "post"]);
                self.send(command, &format!("{url}\n{}\n", message.json))
            }
            Sink::Desktop => self.send(desktop(message), ""),
        }
    }

    fn send(&self, command: Command, input: &str) -> std::io::Result<Errand> {
        self.errands.start(command, Stdio::piped(), input, Over::WhenAllAreGone)
    }
}

impl UnderWay {
    /// False where there is no room.
    fn enter(&self) -> bool {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = *count < AT_ONCE_MAX;
        *count += usize::from(has_room);
        has_room
    }

    fn leave(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.changed.notify_all();
    }

    fn is_none_within(&self, time: Duration) -> bool {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(count, time, |count| *count > 0);
        waited.map_or_else(|poisoned| *poisoned.into_inner().0 == 0, |(count, _)| *count == 0)
    }
}

#[cfg(target_os = "macos")]
fn desktop(message: &Message) -> Command {
    // As arguments of the script: nothing in them is ever read as script.
    const SCRIPT: [&str; 6] = [
        "-e",
        "on run argv",
        "-e",
        "display notification (item 2 of argv) with title (item 1 of argv)",
        "-e",
        "end run",
    ];
    let mut command = Command::new("/usr/bin/osascript");
    command.args(SCRIPT).arg("--").args([&message.title, &message.text]);
    command
}

#[cfg(not(target_os = "macos"))]
fn desktop(message: &Message) -> Command {
    let mut command = Command::new("notify-send");
    command.args(["--app-name=seawall", "--", &message.title, &message.text]);
    command
}
