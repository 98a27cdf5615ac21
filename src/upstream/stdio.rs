//! A server that is a child process: JSON-RPC lines over its stdin and stdout.
//!
//! Its death is noticed by the exit of the process and by the end of its output,
//! whichever comes first; the other is waited for briefly, so that answers still
//! in the pipe are delivered and the exit status can be told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::{
    call::{Answer, BoxFuture, Message, Method, Payload, Trail},
    egress::Egress,
    link::{Answerer, Connector, Gone, Inbox, Link, LinkError, StartError, Vitals},
    packages::Packages,
    process::{self, Child, Command, SpawnError, tail::Tail},
    sandbox::denial::Reach,
    wire::peer::{End, Guilty, Limits, Listener, Peer},
};

pub use super::denials::OnDenied;
use super::denials::{Denials, Watch};

/// How long the end of the output waits for the exit of the process. One that has ended is
/// noticed within a few milliseconds unless the machine has no time for it; one that lives
/// on without an output is broken anyway.
const EXIT_WAIT: Duration = Duration::from_millis(500);
/// How long the exit of the process waits for the end of its output: a grandchild may hold it.
const OUTPUT_END_WAIT: Duration = Duration::from_millis(50);
/// How long the end of its stderr is waited for once it has exited.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(40);
/// How long a process that broke off its connection may live on.
const BROKEN_GRACE: Duration = Duration::from_secs(2);

pub struct StdioConnector {
    pub command: Command,
    /// The way out, for a server that has a list of places.
    pub egress: Option<Egress>,
    /// Where what it runs is to be found out first.
    pub packages: Option<Packages>,
    pub limits: Limits,
    pub tasks: TaskTracker,
    denials: Denials,
}

impl StdioConnector {
    /// Runs what of `packages` the command asks for, instead of the command.
    #[must_use]
    pub fn with_packages(self, packages: Option<Packages>) -> Self {
        StdioConnector { packages, ..self }
    }

    /// `on_denied` hears what the sandbox kept the server from.
    pub fn new(
        command: Command,
        egress: Option<Egress>,
        limits: Limits,
        tasks: TaskTracker,
        on_denied: OnDenied,
    ) -> Self {
        StdioConnector { command, egress, packages: None, limits, tasks, denials: Denials::new(on_denied) }
    }
}

impl Connector for StdioConnector {
    fn connect(&self, number: u64, inbox: Arc<dyn Inbox>) -> BoxFuture<'_, Result<Arc<dyn Link>, StartError>> {
        Box::pin(async move {
            let prepared = match &self.packages {
                Some(packages) => Some(packages.prepared().await?),
                None => None,
            };
            let command = prepared.as_ref().unwrap_or(&self.command);
            let (child, pipes) = command.spawn(&self.tasks).await.map_err(|error| match error {
                SpawnError::Refused(_) => StartError::Refused(error.to_string()),
                error if error.is_permanent() => StartError::Permanent(error.to_string()),
                error => StartError::Transient(error.to_string()),
            })?;
            if let Some(egress) = self.egress.clone() {
                let ended = child.clone();
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = egress.serve(pipes.listeners) => {}
                        _ = ended.exited() => {}
                    }
                });
            }
            let reach = Reach::new(child.plan().clone(), &child.report().tier, &self.command.protected);
            let watch = self.denials.watch(reach);
            let tail = Tail::hiding(self.command.told());
            self.tasks.spawn(tail.clone().follow_lines(pipes.stderr, watch.on_line(&self.tasks)));
            let streams = (pipes.stdout, pipes.stdin);
            let peer = Peer::start(number, streams, Arc::new(Upwards(inbox)), self.limits, &self.tasks);
            let link = StdioLink { peer, child, tail, watch, closing: Arc::default() };
            self.tasks.spawn(link.clone().watch());
            Ok(Arc::new(link) as Arc<dyn Link>)
        })
    }

    fn preparation(&self) -> Option<BoxFuture<'_, Result<(), StartError>>> {
        let packages = self.packages.as_ref().filter(|packages| packages.ready().is_none())?;
        Some(Box::pin(async { packages.prepared().await.map(drop) }))
    }
}

#[derive(Clone, Debug)]
struct StdioLink {
    peer: Peer,
    child: Child,
    tail: Tail,
    watch: Watch,
    /// Somebody stops it politely already.
    closing: Arc<AtomicBool>,
}

impl StdioLink {
    /// Waits for the end, tells everybody, and sees to it that nothing is left.
    async fn watch(self) {
        let (end, exit) = tokio::select! {
            end = self.peer.ended() => (Some(end), timeout(EXIT_WAIT, self.child.exited()).await.ok()),
            exit = self.child.exited() => (timeout(OUTPUT_END_WAIT, self.peer.ended()).await.ok(), Some(exit)),
        };
        if exit.is_some() {
            // What it said last tells why.
            let _ = timeout(LAST_WORDS_WAIT, self.tail.ended()).await;
        }
        let (mut gone, guilty) = self.explain(end, exit);
        let last_words = gone.stderr_tail.clone().unwrap_or_default();
        // A program that was stopped has said all it had to say.
        if let Some(why) = self.watch.end(&last_words) {
            gone.reason = format!("it was {why}");
        } else if !self.closing.load(Ordering::Relaxed)
            && let Some(why) = self.watch.why(last_words, Vec::new()).await
        {
            gone.reason = format!("{} (it was {why})", gone.reason);
        }
        self.peer.fail(&gone, guilty);
        if !self.closing.load(Ordering::Relaxed) {
            self.child.stop(BROKEN_GRACE).await;
        }
    }

    fn explain(&self, end: Option<End>, exit: Option<process::Exit>) -> (Gone, Guilty) {
        let guilty = end.as_ref().map_or(Guilty::None, |end| end.guilty);
        let reason = match (&exit, &end) {
            (_, Some(end)) if end.guilty != Guilty::None => end.reason.clone(),
            (Some(exit), _) => format!("its process ended with {exit}"),
            (None, Some(end)) => end.reason.clone(),
            (None, None) => "its connection ended".to_owned(),
        };
        let exit_status = exit.map(|exit| exit.to_string());
        (Gone { reason, exit_status, stderr_tail: self.tail.text() }, guilty)
    }
}

impl Link for StdioLink {
    fn ask(
        &self,
        method: Method,
        params: Option<Payload>,
        trail: Arc<Trail>,
    ) -> BoxFuture<'_, Result<Answer, LinkError>> {
        Box::pin(async move {
            let answer = self.peer.ask(method, params.clone(), trail.clone()).await?;
            let (answer, remark) = self.watch.explained(answer, params.as_ref()).await;
            if let Some(remark) = remark {
                trail.remark(remark);
            }
            Ok(answer)
        })
    }

    fn tell(&self, method: Method, params: Option<Payload>) -> Result<(), LinkError> {
        self.peer.tell(&method, params)
    }

    fn gone(&self) -> BoxFuture<'_, Gone> {
        Box::pin(self.peer.gone())
    }

    fn close(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.closing.store(true, Ordering::Relaxed);
            // Ends the writer too, which closes the child's stdin.
            self.peer.fail(&Gone::because("it was stopped"), Guilty::None);
            self.child.stop(grace).await;
        })
    }

    fn vitals(&self) -> Vitals {
        let stray = self.peer.stray();
        Vitals {
            pid: Some(self.child.pid()),
            memory_bytes: self.child.memory_bytes(),
            stray_lines: stray.lines,
            last_stray_line: stray.last.map(|line| self.tail.hide(&line)),
            stderr_tail: self.tail.text(),
            sandbox: Some(self.child.report().clone()),
        }
    }
}

/// Hands what the server says on its own up to the inbox.
struct Upwards(Arc<dyn Inbox>);

impl Listener for Upwards {
    fn on(&self, peer: &Peer, message: Message) {
        let answerer = match &message {
            Message::Notification { .. } => None,
            Message::Request { id, .. } => {
                let (peer, id) = (peer.clone(), id.clone());
                Some(Answerer::new(move |answer| {
                    if peer.try_respond(&id, answer).is_err() {
                        tracing::debug!("an answer to the server was dropped: it does not read its input");
                    }
                }))
            }
        };
        self.0.on(message, answerer);
    }
}
