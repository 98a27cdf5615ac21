//! One request: find whose it is, and hand it to that tool's or server's stack.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout_at;
use tower::Service;

use super::{Inner, Kind, hello, names};
use crate::{
    call::{Answer, Back, Call, Caller, Edit, Method, Payload, Reply, ServerName, Stack, ToolName},
    session::{Scope, Session},
    text,
    wire::envelope::{INVALID_PARAMS, METHOD_NOT_FOUND, rpc_error},
};

/// Lists wait for a server's first start, counted from when it began.
const FIRST_START_WAIT: Duration = Duration::from_secs(5);
/// MCP's code for a resource that nobody has, before 2026-07-28.
const RESOURCE_NOT_FOUND: i64 = -32002;

pub(super) struct Request {
    pub(super) session: Arc<Session>,
    pub(super) request_id: Payload,
    pub(super) method: Method,
    pub(super) params: Option<Payload>,
    pub(super) back: Back,
}

/// A request that leads nowhere: the JSON-RPC error that it gets.
type Refusal = Payload;

pub(super) async fn dispatch(router: Arc<Inner>, request: Request) -> Answer {
    let method = request.method.clone();
    let answer = match method.as_str() {
        "tools/call" => router.call_tool(request).await,
        "ping" => Ok(Answer::Result(Payload::literal("{}"))),
        "prompts/get" => router.get_prompt(request).await,
        "resources/read" => router.of_resource(request).await,
        "resources/subscribe" | "resources/unsubscribe" => router.subscription(request).await,
        "completion/complete" => router.complete(request).await,
        "logging/setLevel" => router.set_log_level(&request),
        "server/discover" => hello::discover(&router, &request.session.scope).await.map(Answer::Result),
        method => match Kind::of_method(method) {
            Some(kind) => router.list(kind, &request).await.map(Answer::Result),
            None => router.unknown(request).await,
        },
    };
    answer.unwrap_or_else(Answer::Error)
}

impl Request {
    fn text(&self, key: &str) -> Result<String, Refusal> {
        self.params.as_ref().and_then(|params| params.sole_text(key)).ok_or_else(|| {
            let method = &self.method;
            rpc_error(INVALID_PARAMS, format!("seawall: {method} needs one string \"{key}\" in its params"))
        })
    }

    fn params(&self) -> Payload {
        self.params.clone().unwrap_or(Payload::literal("{}"))
    }

    fn into_call(self, server: ServerName, tool: Option<ToolName>, params: Payload) -> Call {
        let caller = Caller { session: self.session, request_id: self.request_id, back: self.back };
        Call::new(server, tool, self.method, params, Arc::new(caller))
    }
}

async fn through(mut stack: Stack, call: Call) -> Answer {
    // Layers are always ready, and a whole stack cannot fail.
    let Ok(Reply { answer, .. }) = stack.call(call).await;
    answer
}

impl Inner {
    async fn call_tool(&self, request: Request) -> Result<Answer, Refusal> {
        let name = request.text("name")?;
        let (stack, call) = match request.session.scope.clone() {
            Scope::All => self.by_public_name(request, &name)?,
            Scope::One(server) => self.by_own_name(request, server, &name)?,
        };
        Ok(through(stack, call).await)
    }

    fn by_public_name(&self, request: Request, name: &str) -> Result<(Stack, Call), Refusal> {
        let catalog = self.catalog.load();
        if let Some((shelf, item)) = catalog.tool(name) {
            let Some((tool, stack)) = shelf.stacks.get_key_value(&*item.own) else {
                return Err(self.no_such_tool(name));
            };
            let (tool, stack) = (tool.clone(), stack.clone());
            let params = request.params().edit(&[("name", Edit::Set(Payload::of(&*item.own)))]);
            return Ok((stack, request.into_call(shelf.server.clone(), Some(tool), params)));
        }
        // A server whose list is not known yet: it may well have the tool.
        let unlisted = names::server_of(name).zip(names::own_of(name)).and_then(|(server, own)| {
            let route = self.route(server).filter(|_| catalog.shelf(server).is_none())?;
            Some((route, own))
        });
        let Some((route, own)) = unlisted else { return Err(self.no_such_tool(name)) };
        let params = request.params().edit(&[("name", Edit::Set(Payload::of(own)))]);
        let server = route.upstream.name().clone();
        Ok((route.stack, request.into_call(server, Some(ToolName::from(own)), params)))
    }

    fn by_own_name(&self, request: Request, server: ServerName, name: &str) -> Result<(Stack, Call), Refusal> {
        let params = request.params();
        let catalog = self.catalog.load();
        let shelf = catalog.shelf(&server);
        let listed = shelf.and_then(|shelf| shelf.stacks.get_key_value(name));
        let (tool, stack) = match (listed, shelf) {
            (Some((tool, stack)), _) => (tool.clone(), stack.clone()),
            // Switched off in servers.toml, though the server has it.
            (None, Some(shelf)) if shelf.offer.tool(name).is_some() => return Err(self.no_such_tool(name)),
            // The list may be old, or not be there yet; the server knows best. No state is
            // made for it.
            (None, _) => {
                let route = self.route(&server).ok_or_else(|| no_such_server(&server))?;
                (ToolName::from(name), route.stack)
            }
        };
        Ok((stack, request.into_call(server, Some(tool), params)))
    }

    fn no_such_tool(&self, name: &str) -> Refusal {
        let catalog = self.catalog.load();
        let nearest = text::nearest(name, catalog.each_tool().map(|(_, tool)| &*tool.public));
        let hint = nearest.map(|known| format!("; did you mean \"{known}\"?")).unwrap_or_default();
        rpc_error(INVALID_PARAMS, format!("Unknown tool: {}{hint}", text::quote(name, 100)))
    }

    async fn list(&self, kind: Kind, request: &Request) -> Result<Payload, Refusal> {
        self.first_starts(&request.session.scope).await;
        let cursor = request.params.as_ref().and_then(|params| params.text("cursor"));
        self.catalog.load().page(kind, &request.session.scope, cursor.as_deref())
    }

    /// Waits for servers that are in their first start and whose list nobody knows.
    async fn first_starts(&self, scope: &Scope) {
        // Not by its offer: that is there a moment before the catalog has it.
        let catalog = self.catalog.load();
        let starting = self.in_scope(scope).into_iter().filter(|upstream| catalog.shelf(upstream.name()).is_none());
        join_all(starting.map(|upstream| async move {
            let _ = timeout_at(upstream.began() + FIRST_START_WAIT, upstream.settled()).await;
        }))
        .await;
    }

    async fn get_prompt(&self, request: Request) -> Result<Answer, Refusal> {
        let name = request.text("name")?;
        let (server, own) = match request.session.scope.clone() {
            Scope::One(server) => (server, name),
            Scope::All => self.prompt(&name)?,
        };
        let params = request.params().edit(&[("name", Edit::Set(Payload::of(&own)))]);
        self.ask_server(server, request, params).await
    }

    fn prompt(&self, public: &str) -> Result<(ServerName, String), Refusal> {
        let catalog = self.catalog.load();
        let found = catalog.prompt(public).map(|(shelf, item)| (shelf.server.clone(), item.own.to_string()));
        found.ok_or_else(|| rpc_error(INVALID_PARAMS, format!("Unknown prompt: {}", text::quote(public, 100))))
    }

    async fn of_resource(&self, request: Request) -> Result<Answer, Refusal> {
        let uri = request.text("uri")?;
        let server = self.owner_of(&request.session.scope, &uri)?;
        let params = request.params();
        self.ask_server(server, request, params).await
    }

    fn owner_of(&self, scope: &Scope, uri: &str) -> Result<ServerName, Refusal> {
        match scope {
            Scope::One(server) => Ok(server.clone()),
            Scope::All => {
                self.catalog.load().owner_of(uri).cloned().ok_or_else(|| {
                    rpc_error(RESOURCE_NOT_FOUND, format!("Resource not found: {}", text::quote(uri, 200)))
                })
            }
        }
    }

    async fn subscription(&self, request: Request) -> Result<Answer, Refusal> {
        let uri = request.text("uri")?;
        let server = self.owner_of(&request.session.scope, &uri)?;
        let session = request.session.clone();
        let subscribes = request.method.as_str() == "resources/subscribe";
        let is_news = if subscribes {
            self.subscribe(&session, &server, &uri)
        } else {
            self.unsubscribe(&session, &server, &uri)
        };
        // What one session's own instance was told, another's was not.
        let is_own = self.route(&server).is_some_and(|route| route.upstream.is_per_session());
        if !is_news && !is_own {
            return Ok(Answer::Result(Payload::literal("{}")));
        }
        let params = request.params();
        let answer = self.ask_server(server.clone(), request, params).await?;
        if subscribes && matches!(answer, Answer::Error(_)) {
            self.unsubscribe(&session, &server, &uri);
        }
        Ok(answer)
    }

    async fn complete(&self, request: Request) -> Result<Answer, Refusal> {
        let params = request.params();
        let (server, params) = match &request.session.scope {
            Scope::One(server) => (server.clone(), params),
            Scope::All => self.completion(&params)?,
        };
        self.ask_server(server, request, params).await
    }

    /// Whose completion it is, and the params with that server's own names.
    fn completion(&self, params: &Payload) -> Result<(ServerName, Payload), Refusal> {
        let reference = params.member("ref").unwrap_or(Payload::literal("{}"));
        match reference.text("type").as_deref() {
            Some("ref/prompt") => {
                let (server, own) = self.prompt(&reference.text("name").unwrap_or_default())?;
                let reference = reference.edit(&[("name", Edit::Set(Payload::of(&own)))]);
                Ok((server, params.edit(&[("ref", Edit::Set(reference))])))
            }
            Some("ref/resource") => {
                let uri = reference.text("uri").unwrap_or_default();
                let listed = self.catalog.load().owner_of_template(&uri).cloned();
                let server = listed.map_or_else(|| self.owner_of(&Scope::All, &uri), Ok)?;
                Ok((server, params.clone()))
            }
            _ => Err(rpc_error(
                INVALID_PARAMS,
                "seawall: completion/complete needs a \"ref\" of type ref/prompt or ref/resource",
            )),
        }
    }

    fn set_log_level(&self, request: &Request) -> Result<Answer, Refusal> {
        let level = request.text("level")?;
        if !request.session.log_level.set(&level) {
            let level = text::quote(&level, 40);
            return Err(rpc_error(INVALID_PARAMS, format!("seawall: \"{level}\" is no log level of MCP's")));
        }
        self.spread_log_level();
        Ok(Answer::Result(Payload::literal("{}")))
    }

    /// A method that seawall does not know: the server of `/mcp/NAME` may.
    async fn unknown(&self, request: Request) -> Result<Answer, Refusal> {
        match request.session.scope.clone() {
            Scope::One(server) => {
                let route = self.route(&server).ok_or_else(|| no_such_server(&server))?;
                let params = request.params();
                Ok(through(route.stack, request.into_call(server, None, params)).await)
            }
            Scope::All => Err(rpc_error(
                METHOD_NOT_FOUND,
                format!("Method not found: {}", text::quote(request.method.as_str(), 100)),
            )),
        }
    }

    async fn ask_server(&self, server: ServerName, request: Request, params: Payload) -> Result<Answer, Refusal> {
        let route = self.route(&server).ok_or_else(|| no_such_server(&server))?;
        Ok(through(route.stack, request.into_call(server, None, params)).await)
    }
}

fn no_such_server(server: &ServerName) -> Refusal {
    rpc_error(INVALID_PARAMS, format!("seawall: there is no server \"{server}\" any more"))
}
