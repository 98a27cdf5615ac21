//! A server of your own inside the gateway: any rmcp `ServerHandler` gets the same
//! stack, limits and records as every other server, and threads of its own.
//!
//! `cargo run --example in_process`, then `curl` as the last line says.

use rmcp::{
    ServerHandler, handler::server::wrapper::Parameters, model::ServerCapabilities, model::ServerConfig, schemars,
    tool, tool_handler, tool_router,
};
use seawall::gateway::Gateway;
use tokio::net::TcpListener;

struct Dice;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Throw {
    /// How many sides the die has.
    sides: u32,
}

#[tool_router]
impl Dice {
    /// Throws one die. A die without sides panics, and only this call notices.
    #[tool]
    fn throw(&self, Parameters(Throw { sides }): Parameters<Throw>) -> String {
        (rand::random::<u32>() % sides + 1).to_string()
    }
}

#[tool_handler]
impl ServerHandler for Dice {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let gateway = Gateway::builder().in_process("mine", Dice).start();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/mcp", listener.local_addr()?);
    gateway.serve_http(listener);
    tokio::signal::ctrl_c().await?;
    gateway.shutdown().await;
    Ok(())
}
