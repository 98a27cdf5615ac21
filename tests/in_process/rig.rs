//! A handler that misbehaves on demand, and an inbox that writes down what it hears.

#![expect(deprecated, reason = "logging and roots are deprecated, and servers use them all the same")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rmcp::{
    ErrorData, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode, LoggingLevel,
        LoggingMessageNotificationParam, ProgressNotificationParam, ServerCapabilities, ServerConfig,
    },
    service::{RequestContext, RoleServer},
};
use seawall::{
    call::{Answer, Message, Method, Payload},
    link::{Answerer, Connector, Inbox, Link, LinkError},
    upstream::local::LocalConnector,
};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

/// Steps of progress that the tool `talk` reports.
pub(crate) const PROGRESS: u32 = 30;
pub(crate) const INSTANCE: u64 = 7;

#[derive(Clone)]
pub(crate) struct Rascal {
    pub(crate) gate: Arc<Notify>,
    pub(crate) spin: Arc<AtomicBool>,
    seen: mpsc::UnboundedSender<&'static str>,
}

impl Rascal {
    /// The handler, and what it says about how far it has come.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<&'static str>) {
        let (seen, told) = mpsc::unbounded_channel();
        (Rascal { gate: Arc::default(), spin: Arc::new(AtomicBool::new(true)), seen }, told)
    }

    fn say(&self, what: &'static str) {
        let _ = self.seen.send(what);
    }

    async fn run(&self, call: CallToolRequestParams, context: RequestContext<RoleServer>) -> Result<String, ErrorData> {
        match &*call.name {
            "hello" => Ok("hello".to_owned()),
            "panic" => {
                tokio::task::yield_now().await;
                panic_as(&kind_of(&call))
            }
            "wait_for_gate" => {
                self.say("wait_for_gate");
                self.gate.notified().await;
                Ok("the gate opened".to_owned())
            }
            "wait_for_ever" => {
                let _dropped = SayOnDrop(self);
                self.say("wait_for_ever");
                std::future::pending().await
            }
            "wait_for_cancel" => {
                self.say("wait_for_cancel");
                context.ct.cancelled().await;
                self.say("cancelled");
                Ok(String::new())
            }
            "spin" => {
                self.say("spin");
                while self.spin.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                Ok("spun".to_owned())
            }
            "talk" => talk(&context).await,
            "ask_for_roots" => Ok(ask_for_roots(&context).await),
            _ => Err(ErrorData::new(ErrorCode(-32050), "not today", Some(json!({ "why": "tired" })))),
        }
    }
}

struct SayOnDrop<'a>(&'a Rascal);

impl Drop for SayOnDrop<'_> {
    fn drop(&mut self) {
        self.0.say("dropped");
    }
}

fn kind_of(call: &CallToolRequestParams) -> String {
    let arguments = call.arguments.as_ref();
    arguments.and_then(|them| them.get("kind")).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn panic_as(kind: &str) -> ! {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload panics once more");
        }
    }
    match kind {
        "literal" => panic!("a literal"),
        "formatted" => panic!("formatted {}", 40 + kind.len() - 7),
        "value" => std::panic::panic_any(42),
        "bomb" => std::panic::panic_any(Bomb),
        _ => panic!("after an await"),
    }
}

async fn talk(context: &RequestContext<RoleServer>) -> Result<String, ErrorData> {
    let token = context.meta.get_progress_token().ok_or_else(|| ErrorData::invalid_params("no token", None))?;
    let lost = |error| ErrorData::internal_error(format!("{error}"), None);
    // All at once: nothing but the link itself keeps them in order.
    let steps = (1..=PROGRESS).map(|step| {
        let progress = ProgressNotificationParam::new(token.clone(), f64::from(step));
        context.peer.notify_progress(progress)
    });
    futures_util::future::join_all(steps).await.into_iter().collect::<Result<(), _>>().map_err(lost)?;
    let line = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!("talking"));
    context.peer.notify_logging_message(line).await.map_err(lost)?;
    context.peer.notify_tool_list_changed().await.map_err(lost)?;
    Ok("talked".to_owned())
}

async fn ask_for_roots(context: &RequestContext<RoleServer>) -> String {
    match context.peer.list_roots().await {
        Ok(roots) => roots.roots.into_iter().map(|root| root.uri).collect(),
        Err(error) => error.to_string(),
    }
}

impl ServerHandler for Rascal {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    // No `async fn`: what runs here runs before the first poll.
    fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> impl Future<Output = Result<CallToolResponse, ErrorData>> + Send + '_ {
        if kind_of(&call) == "before_first_poll" {
            panic!("before the first poll");
        }
        async move {
            let said = self.run(call, context).await?;
            Ok(CallToolResult::success(vec![ContentBlock::text(said)]).into())
        }
    }
}

/// An inbox that keeps a line for everything it hears.
pub(crate) struct Record {
    heard: Mutex<Vec<String>>,
    answer: Option<Payload>,
}

impl Record {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Record { heard: Mutex::default(), answer: None })
    }

    pub(crate) fn answering(result: &'static str) -> Arc<Self> {
        Arc::new(Record { heard: Mutex::default(), answer: Some(Payload::literal(result)) })
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.lock().expect("no holder panics"))
    }
}

impl Inbox for Record {
    fn on(&self, message: Message, answerer: Option<Answerer>) {
        let line = match message {
            Message::Notification { method, params } if method.as_str() == "notifications/progress" => {
                let params = params.expect("progress has params");
                let progress: f64 = params.member("progress").expect("progress").read().expect("a number");
                format!("{method} {} {progress}", params.member("progressToken").expect("a token").as_str())
            }
            Message::Notification { method, .. } | Message::Request { method, .. } => method.to_string(),
        };
        self.heard.lock().expect("no holder panics").push(line);
        if let Some(result) = &self.answer
            && let Some(answerer) = answerer
        {
            answerer.answer(Answer::Result(result.clone()));
        }
    }
}

/// A connection with its handshake done.
pub(crate) async fn connect(connector: &LocalConnector, inbox: Arc<Record>) -> Arc<dyn Link> {
    let link = connector.connect(INSTANCE, inbox).await.expect("threads can be started");
    let hello = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": { "roots": {} },
        "clientInfo": { "name": "test", "version": "1" },
    });
    let answer = link.ask(Method::of("initialize"), Some(Payload::of(&hello)), Arc::default());
    match tokio::time::timeout(Duration::from_secs(20), answer).await.expect("a handshake") {
        Ok(Answer::Result(result)) => assert_eq!(result.text("protocolVersion").as_deref(), Some("2025-11-25")),
        other => panic!("{other:?}"),
    }
    link.tell(Method::of("notifications/initialized"), None).expect("room in the queue");
    link
}

pub(crate) async fn tool(link: &dyn Link, name: &str) -> Result<Answer, LinkError> {
    tool_with(link, name, json!({})).await
}

pub(crate) async fn tool_with(link: &dyn Link, name: &str, arguments: Value) -> Result<Answer, LinkError> {
    let params = Payload::of(&json!({ "name": name, "arguments": arguments }));
    link.ask(Method::of(Method::TOOLS_CALL), Some(params), Arc::default()).await
}

/// The text of a tool's result.
pub(crate) fn text(answer: Result<Answer, LinkError>) -> String {
    let Ok(Answer::Result(result)) = answer else { panic!("{answer:?}") };
    let content = result.items("content").expect("content");
    content[0].text("text").expect("a text block")
}
