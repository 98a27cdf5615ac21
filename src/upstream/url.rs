//! A server that is reached over Streamable HTTP: raw envelopes, like the pipe.
//!
//! Each request is a POST whose reply is the answer, or a stream that ends with it.
//! What the server says of its own accord comes on a standing GET stream, where it
//! offers one. A session that the server has forgotten (404) ends the link; the
//! reconnect then begins a new one, and the call, which was never taken, goes there.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use reqwest::{
    Client, Response,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::reply::causes;
use crate::{
    call::{Answer, BoxFuture, Method, Payload, Trail},
    era,
    link::{Connector, Gone, Inbox, Link, LinkError, StartError, Vitals},
    mcp_param::Mirrored,
    wire::envelope::Parts,
};

mod events;
mod headers;
mod reply;
mod resume;
mod standing;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that nobody waits for: notifications, answers, cancellations, DELETE.
const ASIDE_TIMEOUT: Duration = Duration::from_secs(5);
const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

pub struct UrlSettings {
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub max_message_bytes: usize,
    pub tasks: TaskTracker,
}

pub struct UrlConnector(UrlSettings);

impl UrlConnector {
    pub fn new(settings: UrlSettings) -> Self {
        UrlConnector(settings)
    }
}

impl Connector for UrlConnector {
    fn connect(&self, number: u64, inbox: Arc<dyn Inbox>) -> BoxFuture<'_, Result<Arc<dyn Link>, StartError>> {
        let link = UrlLink::new(&self.0, number, inbox).map(|link| Arc::new(link) as Arc<dyn Link>);
        Box::pin(std::future::ready(link))
    }
}

/// Clones are the same link.
#[derive(Clone)]
struct UrlLink(Arc<Shared>);

struct Shared {
    client: Client,
    url: String,
    number: u64,
    inbox: Arc<dyn Inbox>,
    max_message_bytes: usize,
    last_id: AtomicU64,
    /// The arguments that tools want repeated in headers, learned from their list.
    mirrored: Mutex<HashMap<String, Vec<Mirrored>>>,
    /// What `initialize` brought: the session's id and the version.
    agreed: Mutex<HeaderMap>,
    gone: watch::Sender<Option<Gone>>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl UrlLink {
    fn new(settings: &UrlSettings, number: u64, inbox: Arc<dyn Inbox>) -> Result<Self, StartError> {
        let permanent = |what: String| StartError::Permanent(what);
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let header =
                name.parse::<HeaderName>().map_err(|_| permanent(format!("header {name:?} is no header name")))?;
            let mut value = HeaderValue::from_str(value).map_err(|_| {
                permanent(format!("the value of header {name:?} has characters that no header may have"))
            })?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        let client = Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirect would carry the user's headers to a host that they never named.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| StartError::Transient(format!("no HTTP client: {}", causes(&error))))?;
        Ok(UrlLink(Arc::new(Shared {
            client,
            url: settings.url.clone(),
            number,
            inbox,
            max_message_bytes: settings.max_message_bytes,
            last_id: AtomicU64::new(0),
            mirrored: Mutex::default(),
            agreed: Mutex::default(),
            gone: watch::Sender::new(None),
            closed: CancellationToken::new(),
            tasks: settings.tasks.clone(),
        })))
    }

    async fn exchange(&self, method: Method, params: Option<Payload>, trail: Arc<Trail>) -> Result<Answer, LinkError> {
        if let Some(gone) = self.0.gone.borrow().clone() {
            return Err(LinkError::NotSent(gone.reason));
        }
        let id = self.0.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let is_initialize = method.as_str() == "initialize";
        let modern = era::is_modern(params.as_ref()).then(|| self.modern_headers(&method, params.as_ref()));
        let lists_tools = modern.is_some() && method.as_str() == "tools/list";
        let body = Parts::request(id, &method, params).joined();
        trail.sent_to(self.0.number);
        // In the modern era the closed stream is what cancels.
        let cancel = CancelOnDrop { link: self, id: (!is_initialize && modern.is_none()).then_some(id) };
        let answered =
            self.0.closed.run_until_cancelled(self.post_and_read(body, modern, id, is_initialize, &trail)).await;
        cancel.disarm();
        let answer = answered.unwrap_or_else(|| Err(LinkError::Lost(Gone::because("it was stopped"))))?;
        Ok(match answer {
            Answer::Result(tools) if lists_tools => Answer::Result(self.learn_tools(&tools)),
            answer => answer,
        })
    }

    async fn post_and_read(
        &self,
        body: bytes::Bytes,
        modern: Option<HeaderMap>,
        id: u64,
        is_initialize: bool,
        trail: &Arc<Trail>,
    ) -> Result<Answer, LinkError> {
        let response = self.post(body, modern).await?;
        let session = response.headers().get(&MCP_SESSION_ID).cloned();
        let answer = self.read_answer(response, id, trail).await?;
        if is_initialize && let Answer::Result(hello) = &answer {
            self.agree(session, hello);
        }
        Ok(answer)
    }

    /// Every request of this link carries these from now on.
    fn agree(&self, session: Option<HeaderValue>, hello: &Payload) {
        let mut agreed = HeaderMap::new();
        if let Some(session) = session {
            agreed.insert(MCP_SESSION_ID, session);
        }
        if let Some(version) = hello.text("protocolVersion").and_then(|version| version.parse().ok()) {
            agreed.insert(MCP_PROTOCOL_VERSION, version);
        }
        *self.0.agreed.lock().unwrap_or_else(PoisonError::into_inner) = agreed;
    }

    fn agreed(&self) -> HeaderMap {
        self.0.agreed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends one message; `Ok` if the server took it.
    async fn post(&self, body: bytes::Bytes, modern: Option<HeaderMap>) -> Result<Response, LinkError> {
        let request = self
            .0
            .client
            .post(&self.0.url)
            .headers(modern.unwrap_or_else(|| self.agreed()))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .body(body);
        let response = request.send().await.map_err(|error| LinkError::Http {
            reason: format!("the request failed: {}", causes(&error)),
            sent: !error.is_connect() && !error.is_builder(),
        })?;
        self.taken(response).await
    }

    /// Sends what nobody waits for.
    fn aside(&self, parts: Parts) {
        let link = self.clone();
        self.0.tasks.spawn(async move {
            let sent = timeout(ASIDE_TIMEOUT, link.post(parts.joined(), None)).await;
            if !matches!(sent, Ok(Ok(_))) {
                tracing::debug!(url = link.0.url, "a notification was not taken");
            }
        });
    }

    fn end(&self, reason: &str) {
        self.0.gone.send_if_modified(|gone| {
            let first = gone.is_none();
            if first {
                *gone = Some(Gone::because(reason));
            }
            first
        });
    }
}

impl Link for UrlLink {
    fn ask(
        &self,
        method: Method,
        params: Option<Payload>,
        trail: Arc<Trail>,
    ) -> BoxFuture<'_, Result<Answer, LinkError>> {
        self.exchange(method, params, trail).boxed()
    }

    fn tell(&self, method: Method, params: Option<Payload>) -> Result<(), LinkError> {
        if let Some(gone) = self.0.gone.borrow().clone() {
            return Err(LinkError::NotSent(gone.reason));
        }
        self.aside(Parts::notification(&method, params));
        if method.as_str() == "notifications/initialized" {
            self.0.tasks.spawn(standing::listen(self.clone()));
        }
        Ok(())
    }

    fn gone(&self) -> BoxFuture<'_, Gone> {
        async {
            let mut gone = self.0.gone.subscribe();
            let ended = gone.wait_for(Option::is_some).await.ok().and_then(|gone| gone.clone());
            ended.unwrap_or_else(|| Gone::because("it was closed"))
        }
        .boxed()
    }

    fn close(&self, grace: Duration) -> BoxFuture<'_, ()> {
        async move {
            self.end("it was stopped");
            self.0.closed.cancel();
            let agreed = self.agreed();
            if agreed.contains_key(&MCP_SESSION_ID) {
                let goodbye = self.0.client.delete(&self.0.url).headers(agreed).send();
                let _ = timeout(grace.min(ASIDE_TIMEOUT), goodbye).await;
            }
        }
        .boxed()
    }

    fn vitals(&self) -> Vitals {
        Vitals::default()
    }
}

struct CancelOnDrop<'a> {
    link: &'a UrlLink,
    id: Option<u64>,
}

impl CancelOnDrop<'_> {
    fn disarm(mut self) {
        self.id = None;
    }
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let params = format!(r#"{{"requestId":{id},"reason":"the caller no longer waits"}}"#);
            let method = Method::of("notifications/cancelled");
            self.link.aside(Parts::notification(&method, Payload::from_json(params).ok()));
        }
    }
}
