//! A server of rmcp's over Streamable HTTP in this process, behind a door that
//! writes down who comes and turns them away when told to.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::{Body, Bytes, to_bytes};
use hyper::{HeaderMap, Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rmcp::{
    ErrorData, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult, PaginatedRequestParams,
        ProgressNotificationParam, ServerCapabilities, ServerConfig, Tool,
    },
    service::{RequestContext, RoleServer},
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

const BODY_MAX_BYTES: usize = 16 << 20;

#[derive(Clone, Default)]
struct Tide {
    extra: Arc<AtomicUsize>,
}

impl ServerHandler for Tide {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let extra = (0..self.extra.load(Ordering::Relaxed)).map(|n| format!("extra_{n}"));
        let names = ["echo", "steps", "grow", "wait"].map(str::to_owned).into_iter().chain(extra);
        let tool = |name: String| Tool::new(name, "one of the tide's", Arc::new(serde_json::Map::new()));
        Ok(ListToolsResult::with_all_items(names.map(tool).collect()))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(call.arguments.unwrap_or_default());
        match &*call.name {
            "steps" => {
                let token = context.meta.get_progress_token();
                for step in 1..=10 {
                    if let Some(token) = token.clone() {
                        let progress = ProgressNotificationParam::new(token, f64::from(step));
                        let _ = context.peer.notify_progress(progress).await;
                    }
                }
            }
            "grow" => {
                self.extra.fetch_add(1, Ordering::Relaxed);
                let _ = context.peer.notify_tool_list_changed().await;
            }
            "wait" => tokio::time::sleep(Duration::from_secs(60)).await,
            _ => {}
        }
        Ok(CallToolResult::success(vec![ContentBlock::text(arguments.to_string())]).into())
    }
}

/// One request as the door saw it.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) verb: String,
    /// Of the JSON-RPC message.
    pub(crate) method: String,
    pub(crate) body: Value,
    pub(crate) headers: HeaderMap,
}

/// What the door answers in the server's place.
#[derive(Clone)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    /// Only requests with this JSON-RPC method.
    pub(crate) method: Option<&'static str>,
}

#[derive(Clone, Default)]
struct Door {
    visits: Arc<Mutex<Vec<Visit>>>,
    refusal: Arc<Mutex<Option<Refusal>>>,
}

pub(crate) struct Shore {
    pub(crate) address: SocketAddr,
    door: Door,
    sessions: Arc<LocalSessionManager>,
    tasks: JoinSet<()>,
}

impl Shore {
    /// Answers with streams; with `json`, and then without sessions, with plain JSON.
    pub(crate) async fn open(json: bool) -> Shore {
        Self::open_at("127.0.0.1:0".parse().unwrap(), json).await
    }

    pub(crate) async fn open_at(address: SocketAddr, json: bool) -> Shore {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().unwrap();
        let (tide, door, sessions) = (Tide::default(), Door::default(), Arc::new(LocalSessionManager::default()));
        let config = StreamableHttpServerConfig::default().with_json_response(json).with_legacy_session_mode(!json);
        let service = StreamableHttpService::new(move || Ok(tide.clone()), sessions.clone(), config);
        let mut tasks = JoinSet::new();
        let entered = door.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (service, door) = (service.clone(), entered.clone());
                connections.spawn(async move {
                    let service = service_fn(|request| {
                        let (service, door) = (service.clone(), door.clone());
                        async move {
                            Ok::<_, Infallible>(match door.admit(request).await {
                                Ok(request) => service.handle(request).await.map(Body::new),
                                Err(refused) => refused,
                            })
                        }
                    });
                    // The other side may go away at any time.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Shore { address, door, sessions, tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    pub(crate) fn refuse(&self, refusal: Option<Refusal>) {
        *self.door.refusal.lock().unwrap() = refusal;
    }

    pub(crate) fn visits(&self, method: &str) -> Vec<Visit> {
        self.door.visits.lock().unwrap().iter().filter(|visit| visit.method == method).cloned().collect()
    }

    pub(crate) fn verbs(&self, verb: &str) -> usize {
        self.door.visits.lock().unwrap().iter().filter(|visit| visit.verb == verb).count()
    }

    /// As a restart of the server would.
    pub(crate) async fn forget_sessions(&self) {
        self.sessions.sessions.write().await.clear();
    }

    /// Nobody listens here any more, and connections are cut.
    pub(crate) async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Door {
    async fn admit(&self, request: Request<hyper::body::Incoming>) -> Result<Request<Body>, Response<Body>> {
        let (parts, body) = request.into_parts();
        let body: Bytes = to_bytes(Body::new(body), BODY_MAX_BYTES).await.unwrap_or_default();
        let message: Value = serde_json::from_slice(&body).unwrap_or_default();
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        // A server of the legacy era does not know the question of the modern one.
        if method == "server/discover" {
            return Err(Response::builder().status(400).body(Body::from("session required")).expect("a response"));
        }
        self.visits.lock().unwrap().push(Visit {
            verb: parts.method.to_string(),
            method: method.clone(),
            body: message,
            headers: parts.headers.clone(),
        });
        let refusal = self.refusal.lock().unwrap().clone();
        match refusal.filter(|refusal| refusal.method.is_none_or(|only| only == method)) {
            None => Ok(Request::from_parts(parts, Body::from(body))),
            Some(refusal) => {
                let mut response = Response::builder().status(refusal.status);
                for (name, value) in refusal.headers {
                    response = response.header(name, value);
                }
                Err(response.body(Body::from(json!("no").to_string())).expect("a response"))
            }
        }
    }
}
