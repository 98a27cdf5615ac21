//! Servers in this process: any rmcp `ServerHandler` behind the same [`Link`] as a
//! child or a URL.
//!
//! Handlers run on a runtime of their own, so that one that never yields stops
//! neither the gateway nor another server. A panic ends the request that caused
//! it and nothing else. What the handler sends is handed up in the order in which
//! it was sent. rmcp's types are between the two ends: what they cannot hold does
//! not survive, which a handler of typed values cannot notice.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rmcp::{
    ServerHandler,
    model::ClientJsonRpcMessage,
    service::{DynService, QuitReason, RoleServer, serve_server_with_ct},
};
use tokio::sync::mpsc::{self, OwnedPermit, error::TrySendError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{desk::Desk, guarded::Guarded, home::Homes, pipe::Pipe};
use crate::link::{Connector, Gone, Inbox, Link, LinkError, StartError, Vitals};
use crate::{
    call::{Answer, BoxFuture, Method, Payload, ServerName, Trail},
    era::Era,
    text,
};

mod desk;
mod guarded;
mod home;
mod pipe;
mod typed;

/// Messages on their way to one handler. Each call under way keeps a second place
/// for its cancellation, so this bounds the calls under way as well.
const QUEUE_MESSAGES: usize = 4096;

/// How long handlers that were told to stop may take to reach an `await`.
const FORCED_STOP: Duration = Duration::from_secs(1);

/// A handler in this process that can be connected to again and again.
pub struct LocalConnector {
    handler: Arc<dyn DynService<RoleServer>>,
    homes: Mutex<Homes>,
}

impl LocalConnector {
    /// `name` names the threads that the handler runs on.
    pub fn new(name: impl Into<ServerName>, handler: impl ServerHandler) -> Self {
        LocalConnector { handler: Arc::new(handler), homes: Mutex::new(Homes::new(name.into())) }
    }

    fn open(&self, number: u64, inbox: Arc<dyn Inbox>) -> Result<Arc<dyn Link>, StartError> {
        let home = self.homes.lock().unwrap_or_else(PoisonError::into_inner).current()?;
        let (inlet, outlet) = mpsc::channel(QUEUE_MESSAGES);
        let desk = Arc::new(Desk::default());
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let pipe = Pipe { outlet, inlet: inlet.clone(), desk: desk.clone(), inbox };
        let service =
            Guarded { handler: self.handler.clone(), desk: desk.clone(), stop: stop.clone(), tasks: tasks.clone() };
        let serving = serve(service, pipe, stop.clone(), desk.clone());
        home.handle().spawn(tasks.track_future(serving));
        tasks.close();
        Ok(Arc::new(LocalLink { number, next_id: AtomicU64::new(1), inlet, desk, stop, tasks, home }))
    }
}

impl Connector for LocalConnector {
    fn connect(&self, number: u64, inbox: Arc<dyn Inbox>) -> BoxFuture<'_, Result<Arc<dyn Link>, StartError>> {
        Box::pin(async move { self.open(number, inbox) })
    }

    /// rmcp speaks both; in this one a handler may ask its client in mid-call.
    fn era(&self) -> Option<Era> {
        Some(Era::Legacy)
    }
}

/// Runs rmcp's service loop until it ends, and says why it did.
async fn serve(service: Guarded, pipe: Pipe, stop: CancellationToken, desk: Arc<Desk>) {
    // Said when this task is dropped or panics, unless the end below came first.
    let _fallback = EndOnDrop(desk.clone());
    let reason = match serve_server_with_ct(service, pipe, stop).await {
        Ok(running) => match running.waiting().await {
            Ok(QuitReason::Cancelled) => "it was stopped".to_owned(),
            Ok(_) => "it closed its connection".to_owned(),
            Err(_) => "its service loop panicked".to_owned(),
        },
        Err(error) => format!("its handshake failed: {}", text::quote(&error.to_string(), 200)),
    };
    desk.end(&reason);
}

struct EndOnDrop(Arc<Desk>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end("its service loop ended unexpectedly");
    }
}

/// One connection to the handler.
struct LocalLink {
    number: u64,
    next_id: AtomicU64,
    inlet: mpsc::Sender<ClientJsonRpcMessage>,
    desk: Arc<Desk>,
    stop: CancellationToken,
    /// The service loop and every request that it has under way.
    tasks: TaskTracker,
    home: Arc<home::Home>,
}

impl LocalLink {
    fn place(&self) -> Result<OwnedPermit<ClientJsonRpcMessage>, LinkError> {
        self.inlet.clone().try_reserve_owned().map_err(|refused| {
            LinkError::NotSent(match refused {
                TrySendError::Full(_) => format!("{QUEUE_MESSAGES} messages already wait for it"),
                TrySendError::Closed(_) => "its connection has ended".to_owned(),
            })
        })
    }

    fn stop_now(&self) {
        // The desk first: what handlers answer while they are torn down is no answer.
        self.desk.end("it was stopped");
        self.stop.cancel();
    }

    async fn ask(&self, method: Method, params: Option<Payload>, trail: Arc<Trail>) -> Result<Answer, LinkError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = match typed::request(id, &method, params.as_ref()) {
            Ok(request) => request,
            Err(refusal) => return Ok(refusal),
        };
        let answer = self.desk.enter(id)?;
        let mut asked = Asked { desk: &self.desk, id, cancellation: None };
        let place = self.place()?;
        asked.cancellation = Some(self.place()?);
        place.send(request);
        trail.sent_to(self.number);
        answer.await.unwrap_or_else(|_| Err(LinkError::Lost(gone("its connection ended"))))
    }
}

impl Link for LocalLink {
    fn ask(
        &self,
        method: Method,
        params: Option<Payload>,
        trail: Arc<Trail>,
    ) -> BoxFuture<'_, Result<Answer, LinkError>> {
        Box::pin(self.ask(method, params, trail))
    }

    fn tell(&self, method: Method, params: Option<Payload>) -> Result<(), LinkError> {
        let notification = typed::notification(&method, params.as_ref())
            .map_err(|error| LinkError::NotSent(format!("it cannot read the params of {method}: {error}")))?;
        self.place()?.send(notification);
        Ok(())
    }

    fn gone(&self) -> BoxFuture<'_, Gone> {
        Box::pin(self.desk.gone())
    }

    /// Lets the calls under way end within `grace`, then drops the rest of them. A
    /// handler that never yields cannot be dropped: it keeps its thread, and the
    /// next connection gets a new runtime.
    fn close(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.desk.refuse("it is being stopped");
            let _ = tokio::time::timeout(grace, self.desk.idle()).await;
            self.stop_now();
            if tokio::time::timeout(FORCED_STOP, self.tasks.wait()).await.is_err() {
                self.home.give_up();
            }
        })
    }

    fn vitals(&self) -> Vitals {
        Vitals::default()
    }
}

impl Drop for LocalLink {
    fn drop(&mut self) {
        self.stop_now();
    }
}

/// A request under way; dropped before its answer, it tells the handler so.
struct Asked<'a> {
    desk: &'a Desk,
    id: u64,
    /// `None` until the request itself has been sent.
    cancellation: Option<OwnedPermit<ClientJsonRpcMessage>>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.desk.leave(self.id)
            && let Some(place) = self.cancellation.take()
        {
            place.send(typed::cancelled(self.id));
        }
    }
}

fn gone(reason: &str) -> Gone {
    Gone { reason: reason.to_owned(), exit_status: None, stderr_tail: None }
}
