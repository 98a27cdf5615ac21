//! After the shutdown no task of the gateway is left, whatever was under way: none on
//! the tracker, and none beside it. The library in one process, with real sockets.

use std::{path::Path, sync::Arc, time::Duration};

use rmcp::{
    ServerHandler,
    model::{ServerCapabilities, ServerConfig},
    tool, tool_handler, tool_router,
};
use seawall::{
    downstream,
    gateway::{Gateway, reload},
    session::Scope,
};
use serde_json::json;
use tokio::{io::split, net::TcpListener, sync::mpsc};

mod support;

use support::{Client, Hello, failure_of, poll, scratch::Scratch, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// A server with a call that never ends.
struct Rascal(mpsc::UnboundedSender<()>);

#[tool_router]
impl Rascal {
    /// Says that it was called, and nothing more.
    #[tool]
    async fn wait_for_ever(&self) -> String {
        self.0.send(()).expect("the test waits for it");
        std::future::pending().await
    }
}

#[tool_handler]
impl ServerHandler for Rascal {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

fn gateway(folder: &Scratch, rascal: Rascal) -> Gateway {
    // One that cannot be started, one that is of this process, one that nobody answers for.
    let text = "[gateway]\ndrain = \"300ms\"\n[servers.seawall]\nbuiltin = \"seawall\"\n[servers.events]\nbuiltin = \"events\"\n\
                [servers.gone]\ncommand = [\"/no/such/program\"]\n[servers.deaf]\nurl = \"http://127.0.0.1:1/mcp\"\n";
    let path = folder.write("servers.toml", text);
    let config = reload::parse(text, Path::new(&path)).expect("it is a good file");
    Gateway::builder().config(config).in_process("rascal", rascal).start()
}

async fn lives_and_ends(folder: &Scratch) {
    let (called, mut calls) = mpsc::unbounded_channel();
    let gateway = gateway(folder, Rascal(called));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    gateway.serve_http(listener);

    // A call that never ends, a stream that stays open, a client on pipes, half a request.
    let client = Arc::new(Client::connect(address, "/mcp/rascal", Hello::default()).await);
    let hanging = {
        let client = client.clone();
        tokio::spawn(async move { client.call_tool("wait_for_ever", json!({})).await })
    };
    tokio::time::timeout(SOON, calls.recv()).await.expect("it is called").expect("it lives");
    let listening = client.listen().await;
    let (theirs, ours) = tokio::io::duplex(1 << 16);
    let (gate, limits, farewell) = (gateway.gate(), gateway.limits(), gateway.farewell_signal());
    let front = {
        let tasks = gateway.tasks().clone();
        let serve = async move {
            let drain = Duration::from_secs(1);
            downstream::stdio::serve(split(ours), gate, Scope::All, limits, drain, farewell, &tasks).await;
        };
        tokio::spawn(serve)
    };
    let mut half = support::Connection::open(address).await.expect("the gateway takes connections");
    half.send(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n").await.expect("half a request");
    wait_until(SOON, "sessions", async || (gateway.status().gateway.sessions >= 1).then_some(())).await;
    assert!(!gateway.tasks().is_empty());

    assert_eq!(gateway.shutdown().await, Vec::<&str>::new(), "everything ends in time");
    assert!(gateway.tasks().is_empty(), "{} tasks are left on the tracker", gateway.tasks().len());
    let reply = hanging.await.expect("a call does not panic");
    assert_eq!(failure_of(&reply)["class"], "draining", "{reply}");
    front.await.expect("a front does not panic");
    drop((listening, theirs, half));
}

#[test]
fn no_task_is_left_on_the_tracker_or_beside_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let folder = Scratch::new();
    runtime.block_on(lives_and_ends(&folder));
    // One that has ended is let go of a moment later.
    let left = || runtime.metrics().num_alive_tasks();
    assert!(poll(SOON, || (left() == 0).then_some(())).is_some(), "{} tasks nobody tracks", left());
}
