//! A program of somebody's own with a gateway and a server inside it, for the calls
//! that leave no process.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
};

use rmcp::{
    ErrorData, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject, ListToolsResult,
        PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    },
    service::{RequestContext, RoleServer},
};
use seawall::{gateway::Gateway, layer::rate_limit};
use serde_json::{Value, json};
use tokio::{net::TcpListener, signal::unix::SignalKind};

/// Answers its arguments, and how many calls there were.
#[derive(Default)]
struct Echo {
    calls: AtomicU64,
}

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = ["echo", "counter"].map(|name| Tool::new(name, "", JsonObject::default()));
        Ok(ListToolsResult { tools: tools.into(), ..ListToolsResult::default() })
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let structured = match &*call.name {
            "echo" => Value::Object(call.arguments.unwrap_or_default()),
            _ => json!({ "calls": calls }),
        };
        let mut result = CallToolResult::success(vec![ContentBlock::text(structured.to_string())]);
        result.structured_content = Some(structured);
        Ok(result.into())
    }
}

#[tokio::main]
pub(crate) async fn serve() -> ExitCode {
    let gateway = Gateway::builder().in_process("soak", Echo::default()).start();
    let mut config = gateway.config();
    for server in &mut config.servers {
        server.policy.rate_limit = Some(rate_limit::Settings { per_minute: 60_000_000, burst: 1_000_000 });
    }
    gateway.apply(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    println!("listening on http://{}/mcp", listener.local_addr().expect("a listener has an address"));
    gateway.serve_http(listener);
    let mut told = tokio::signal::unix::signal(SignalKind::terminate()).expect("SIGTERM can be heard");
    told.recv().await;
    let unfinished = gateway.shutdown().await;
    eprintln!("not finished: {unfinished:?}; {} tasks are left", gateway.tasks().len());
    if unfinished.is_empty() && gateway.tasks().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
