//! A server inside the gateway that panics: what its callers see, what SQLite has, and
//! that its other tools and other servers go on. With the real front and a real database.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use rmcp::{ServerHandler, model::ServerCapabilities, model::ServerConfig, tool, tool_handler, tool_router};
use seawall::{
    config::{self, Builtins, Surroundings},
    gateway::Gateway,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

mod support;

use support::{Client, Hello, database, failure_of, scratch::Scratch, text_of, wait_until};

const SOON: Duration = Duration::from_secs(30);

#[derive(Clone, Default)]
struct Fragile {
    ledger: Arc<Mutex<u32>>,
}

#[tool_router]
impl Fragile {
    #[tool]
    async fn well(&self) -> String {
        "as always".to_owned()
    }

    #[tool]
    async fn panics(&self) -> String {
        tokio::task::yield_now().await;
        panic!("it fell over");
    }

    /// The lock is poisoned from then on.
    #[tool]
    async fn panics_with_the_lock(&self) -> String {
        let _held = self.ledger.lock();
        panic!("it fell over with the lock");
    }

    #[tool]
    async fn needs_the_lock(&self) -> String {
        self.ledger.lock().expect("nobody panics with it").to_string()
    }
}

#[tool_handler]
impl ServerHandler for Fragile {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

struct Rig {
    gateway: Gateway,
    client: Client,
    other: Client,
    folder: Scratch,
}

impl Rig {
    /// The same handler twice: as the server that fails, and as its neighbour.
    async fn start() -> Rig {
        let folder = Scratch::new();
        let file = folder.file("servers.toml");
        let (env, seawall) = (|_: &str| None, Path::new(env!("CARGO_BIN_EXE_seawall")));
        let builtins = Builtins { servers: &[], services: &[] };
        let around = Surroundings { env: &env, run: None, seawall, builtins };
        let config = config::parse("", &file, &around).expect("an empty servers.toml is good");
        let gateway = Gateway::builder()
            .config(config)
            .in_process("fragile", Fragile::default())
            .in_process("neighbour", Fragile::default())
            .start();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        gateway.serve_http(listener);
        let client = Client::connect(address, "/mcp/fragile", Hello::default()).await;
        let other = Client::connect(address, "/mcp/neighbour", Hello::default()).await;
        Rig { gateway, client, other, folder }
    }

    async fn panics(&self, tool: &str, said: &str) -> String {
        let reply = self.client.call_tool(tool, json!({})).await;
        assert_eq!(failure_of(&reply)["class"], "panic", "{reply}");
        assert!(text_of(&reply).contains(said) && text_of(&reply).contains(tool), "{reply}");
        failure_of(&reply)["id"].as_str().expect("its row").to_owned()
    }

    async fn others_go_on(&self) {
        for client in [&self.client, &self.other] {
            assert_eq!(text_of(&client.call_tool("well", json!({})).await), "as always");
        }
        assert_eq!(text_of(&self.other.call_tool("needs_the_lock", json!({})).await), "0");
    }

    /// The rows of all failures, by the ids that the answers named, and nothing left running.
    async fn ends_with(self, ids: &[String]) {
        let path = self.folder.file("seawall.db");
        let rows = wait_until(SOON, "the rows", async || {
            database::rows(&path, "SELECT * FROM failures ORDER BY id").ok().filter(|rows| rows.len() >= ids.len())
        })
        .await;
        assert_eq!(rows.len(), ids.len(), "{rows:?}");
        for id in ids {
            let row = rows.iter().find(|row| row["id"] == **id).unwrap_or_else(|| panic!("no {id} in {rows:?}"));
            assert_eq!((&row["class"], &row["server"]), (&json!("panic"), &json!("fragile")), "{row}");
            assert!(row["message"].as_str().is_some_and(|message| message.contains("panicked")), "{row}");
        }
        let status = serde_json::to_value(self.gateway.status()).expect("JSON");
        let restarts: Vec<&Value> = ["fragile", "neighbour"].map(|name| &status["servers"][name]["restarts"]).into();
        assert_eq!(restarts, [&json!(0), &json!(0)], "a panic is one call's affair");
        assert_eq!(self.gateway.shutdown().await, Vec::<&str>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_fails_its_own_call_and_no_other() {
    let rig = Rig::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(rig.panics("panics", "it fell over").await);
        rig.others_go_on().await;
    }
    rig.ends_with(&ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_with_a_lock_fails_those_who_need_the_lock_and_no_other() {
    let rig = Rig::start().await;
    let mut ids = vec![rig.panics("panics_with_the_lock", "it fell over with the lock").await];
    rig.others_go_on().await;
    for _ in 0..2 {
        ids.push(rig.panics("needs_the_lock", "nobody panics with it").await);
        rig.others_go_on().await;
    }
    rig.ends_with(&ids).await;
}
