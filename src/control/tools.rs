//! `tools` and `call`: the gateway as a client of its own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    call::{Answer, BoxFuture, Method, Payload, Wire},
    gateway::Gateway,
    session::{Hello, Scope},
    wire::envelope::{METHOD_NOT_FOUND, rpc_error},
};

/// One tool as `seawall tools` lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToolLine {
    /// The name at `/mcp`.
    pub name: String,
    pub server: String,
    /// As the server says it.
    pub own_name: String,
    pub tool: Payload,
}

/// The call did not reach a tool.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CallError(String);

/// All tools of all servers, once their first start has ended.
pub async fn list_tools(gateway: &Gateway) -> Vec<ToolLine> {
    gateway.first_starts(None).await;
    let line = |tool: crate::route::Tool| ToolLine {
        name: tool.public.to_string(),
        server: tool.server.to_string(),
        own_name: tool.own.to_string(),
        tool: tool.json,
    };
    gateway.router().tools().into_iter().map(line).collect()
}

/// Calls a tool as a client at `/mcp` would, and returns its result.
pub async fn call_tool(gateway: &Gateway, tool: &str, arguments: &Payload) -> Result<Payload, CallError> {
    gateway.first_starts(tool.split_once("__").map(|(server, _)| server)).await;
    let gate = gateway.gate();
    let back = Arc::new(Silent);
    let params = Payload::of(&serde_json::json!({
        "protocolVersion": crate::era::LEGACY_VERSIONS[0],
        "capabilities": {},
        "clientInfo": { "name": "seawall-cli", "version": env!("CARGO_PKG_VERSION") },
    }));
    let hello = Hello { scope: Scope::All, params, back: back.clone() };
    let (session, _) = gate.open(hello).await.map_err(|error| refused(&error))?;
    let params = Payload::of(&CallParams { name: tool, arguments });
    let answer = gate.ask(&session, Payload::literal("1"), Method::of(Method::TOOLS_CALL), Some(params), back).await;
    gate.close(&session);
    match answer {
        Answer::Result(result) => Ok(result),
        Answer::Error(error) => Err(refused(&error)),
    }
}

#[derive(Serialize)]
struct CallParams<'a> {
    name: &'a str,
    arguments: &'a Payload,
}

fn refused(error: &Payload) -> CallError {
    CallError(crate::text::quote(&error.text("message").unwrap_or_else(|| error.as_str().to_owned()), 500))
}

/// A terminal answers no questions of servers and shows no progress.
struct Silent;

impl Wire for Silent {
    fn tell(&self, _: Method, _: Option<Payload>) {}

    fn ask(&self, _: Method, _: Option<Payload>) -> BoxFuture<'_, Answer> {
        Box::pin(std::future::ready(Answer::Error(rpc_error(METHOD_NOT_FOUND, "seawall call answers no questions"))))
    }
}
