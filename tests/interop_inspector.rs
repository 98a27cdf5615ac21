//! The MCP Inspector's command line as one more client: what it sees of a server
//! through seawall is what it sees without.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};

mod support;

use support::{Gateway, conformance::Suite, process, scratch::Scratch};

const RUN: Duration = Duration::from_secs(60);
/// What the Inspector speaks: sessions, whatever it finds by asking first, or 2026-07-28 alone.
const ERAS: [&str; 3] = ["legacy", "auto", "modern"];

/// One run of the Inspector: what it prints, and its exit code.
fn inspect(suite: &Suite, era: &str, server: &[&str], request: &[&str]) -> (Value, Option<i32>) {
    let home = Scratch::new();
    let inspector = suite.modules().join("@modelcontextprotocol/inspector/clients/launcher/build/index.js");
    let mut command = Command::new(suite.node());
    command.arg(inspector).arg("--cli").args(server).args(["--protocol-era", era, "--format", "json"]).args(request);
    // It keeps a catalog of servers there.
    command.env("HOME", home.path()).current_dir(home.path());
    let output = process::run(command, RUN);
    let printed = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    (printed, output.status.code())
}

#[tokio::test]
async fn the_inspector_sees_the_same_through_seawall() {
    let Some(suite) = Suite::installed() else { return };
    let served = suite.serve("both").await;
    let command = json!(suite.server("stdio", "both"));
    let gateway = Gateway::start(&format!("[servers.known]\ncommand = {command}\nsandbox = \"off\"\n")).await;
    let through = format!("http://{}/mcp/known", gateway.address);

    let requests: [(&[&str], &str); 4] = [
        (&["--method", "tools/list"], "tools"),
        (&["--method", "tools/call", "--tool-name", "test_multiple_content_types"], "content"),
        (&["--method", "tools/call", "--tool-name", "test_error_handling"], "content"),
        (&["--method", "resources/read", "--uri", "test://template/7/data"], "contents"),
    ];
    for era in ERAS {
        for (request, key) in requests {
            let (direct, direct_code) = inspect(&suite, era, &[&served.url, "--transport", "http"], request);
            let (seen, code) = inspect(&suite, era, &[&through, "--transport", "http"], request);
            assert!(direct["result"][key].is_array(), "{era}, {request:?}: {direct}");
            assert_eq!(seen["result"][key], direct["result"][key], "{era}, {request:?}: not what the server said");
            assert_eq!(code, direct_code, "{era}, {request:?}: ends in another way");
        }
    }
}

#[tokio::test]
async fn the_inspector_finds_a_tool_at_the_merged_server_too() {
    let Some(suite) = Suite::installed() else { return };
    let command = json!(suite.server("stdio", "both"));
    let gateway = Gateway::start(&format!("[servers.known]\ncommand = {command}\nsandbox = \"off\"\n")).await;
    let merged = format!("http://{}/mcp", gateway.address);
    for era in ERAS {
        let request = ["--method", "tools/call", "--tool-name", "known__test_simple_text"];
        let (seen, code) = inspect(&suite, era, &[&merged, "--transport", "http"], &request);
        let text = &seen["result"]["content"][0]["text"];
        assert_eq!((text.as_str(), code), (Some("This is a simple text response for testing."), Some(0)), "{era}");
    }
}
