//! The server `files`, as `seawall mcp files` serves it: useful inside its
//! directories, and unable to reach anything outside of them.

use std::{fs, os::unix::fs::symlink, path::Path, process::ExitCode};

use clap::Parser;
use rmcp::{
    RoleClient, ServiceExt,
    model::{CallToolRequestParams, CallToolResult},
    service::RunningService,
};
use seawall::command::mcp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const PIPE_BYTES: usize = 64 * 1024;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: mcp::Args,
}

/// A client of `seawall mcp files ARGUMENTS…`, and what the command ends with.
struct Client {
    client: RunningService<RoleClient, ()>,
    command: JoinHandle<anyhow::Result<ExitCode>>,
}

impl Client {
    async fn of(arguments: &[&str]) -> Client {
        let cli = Cli::try_parse_from(["mcp", "files"].iter().chain(arguments)).expect("arguments");
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (input, output) = tokio::io::split(theirs);
        let command = tokio::spawn(mcp::serve(cli.args, input, output));
        Client { client: ().serve(ours).await.expect("a handshake"), command }
    }

    async fn call(&self, tool: &'static str, arguments: Value) -> CallToolResult {
        let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
        let params = CallToolRequestParams::new(tool).with_arguments(arguments);
        self.client.call_tool(params).await.expect("a result and no protocol error")
    }

    /// The structured content of a call that goes well.
    async fn told(&self, tool: &'static str, arguments: Value) -> Value {
        let result = self.call(tool, arguments).await;
        assert_ne!(result.is_error, Some(true), "{result:?}");
        result.structured_content.expect("structured content")
    }

    async fn text(&self, tool: &'static str, arguments: Value) -> String {
        let result = self.call(tool, arguments).await;
        assert_ne!(result.is_error, Some(true), "{result:?}");
        texts(&result)
    }

    /// The sentence of a call that is refused.
    async fn refusal(&self, tool: &'static str, arguments: Value) -> String {
        let result = self.call(tool, arguments).await;
        assert_eq!(result.is_error, Some(true), "{result:?}");
        texts(&result)
    }

    async fn tools(&self) -> Vec<String> {
        let tools = self.client.list_all_tools().await.expect("a list");
        tools.into_iter().map(|tool| tool.name.into_owned()).collect()
    }
}

fn texts(result: &CallToolResult) -> String {
    let texts = result.content.iter().filter_map(|block| block.as_text());
    texts.map(|block| block.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// `inside` to be served, and `outside/secret` not to be.
fn playground() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir_all(dir.path().join("inside/deep")).expect("directories");
    fs::create_dir(dir.path().join("outside")).expect("a directory");
    fs::write(dir.path().join("outside/secret"), "secret").expect("a file");
    fs::write(dir.path().join("inside/a.txt"), "one\ntwo\nthree\n").expect("a file");
    fs::write(dir.path().join("inside/deep/b.md"), "Needle in a haystack\nstraw\nneedle\n").expect("a file");
    fs::write(dir.path().join("inside/deep/c.bin"), b"\x00needle\xff").expect("a file");
    dir
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

#[tokio::test]
async fn every_tool_does_its_work() {
    let dir = playground();
    let client = Client::of(&[utf8(&dir.path().join("inside"))]).await;
    let expected = ["append_file", "file_info", "list_directory", "read_file", "search", "write_file"];
    assert_eq!(client.tools().await, expected);

    let listing = client.told("list_directory", json!({})).await;
    let entries = json!([{ "name": "a.txt", "kind": "file", "bytes": 14 }, { "name": "deep", "kind": "directory" }]);
    assert_eq!(listing, json!({ "path": ".", "entries": entries, "left_out": 0 }));

    assert_eq!(client.text("read_file", json!({ "path": "a.txt" })).await, "one\ntwo\nthree\n");
    let some = client.text("read_file", json!({ "path": "a.txt", "offset": 2, "limit": 1 })).await;
    assert_eq!(some, "two\n\n[lines 2 to 2 of the file; go on with offset=3]");
    let refusal = client.refusal("read_file", json!({ "path": "a.txt", "offset": 9 })).await;
    assert_eq!(refusal, "\"a.txt\" has only 3 lines");
    let refusal = client.refusal("read_file", json!({ "path": "deep/c.bin" })).await;
    assert!(refusal.contains("base64"), "{refusal}");
    let binary = client.text("read_file", json!({ "path": "deep/c.bin", "encoding": "base64" })).await;
    assert_eq!(
        binary.parse::<Value>().expect("JSON"),
        json!({ "path": "deep/c.bin", "bytes": 8, "encoding": "base64", "data": "AG5lZWRsZf8=" })
    );

    let new = json!({ "path": "new/er/d.txt", "content": "d", "create_directories": true });
    assert_eq!(client.told("write_file", new).await, json!({ "path": "new/er/d.txt", "bytes": 1, "created": true }));
    let added = client.told("append_file", json!({ "path": "new/er/d.txt", "content": "é" })).await;
    assert_eq!(added, json!({ "path": "new/er/d.txt", "bytes": 2, "created": false }));
    assert_eq!(client.text("read_file", json!({ "path": "new/er/d.txt" })).await, "dé");
    let left: Vec<_> = fs::read_dir(dir.path().join("inside/new/er")).expect("a directory").collect();
    assert_eq!(left.len(), 1, "nothing unfinished is left: {left:?}");

    let about = client.told("file_info", json!({ "path": "a.txt" })).await;
    assert_eq!((&about["kind"], &about["bytes"]), (&json!("file"), &json!(14)));
    assert!(about["modified"].as_str().is_some_and(|time| time.ends_with('Z')), "{about}");
}

#[tokio::test]
async fn search_finds_by_name_by_content_and_by_both() {
    let dir = playground();
    let client = Client::of(&[utf8(&dir.path().join("inside"))]).await;
    let paths = |found: &Value| -> Vec<String> {
        let matches = found["matches"].as_array().expect("matches").iter();
        matches.map(|found| found["path"].as_str().expect("a path").to_owned()).collect()
    };

    assert_eq!(paths(&client.told("search", json!({ "name": "*.md" })).await), ["deep/b.md"]);
    let found = client.told("search", json!({ "content": "needle" })).await;
    assert_eq!(paths(&found), ["deep/b.md"], "a binary file is not text");
    assert_eq!(found["matches"][0]["lines"], json!([{ "number": 3, "text": "needle" }]));
    let found = client.told("search", json!({ "content": "NEEDLE", "ignore_case": true, "path": "deep" })).await;
    assert_eq!(found["matches"][0]["lines"].as_array().map(Vec::len), Some(2));
    assert_eq!(paths(&client.told("search", json!({ "name": "*.txt", "content": "needle" })).await), [""; 0]);
    let found = client.told("search", json!({ "name": "*", "limit": 2 })).await;
    assert_eq!(paths(&found), ["a.txt", "deep"]);
    assert_eq!(found["stopped_early"], "as many were found as were asked for");
    assert!(client.refusal("search", json!({})).await.contains("give a name pattern"));
}

#[tokio::test]
async fn no_tool_reaches_outside() {
    let dir = playground();
    let inside = dir.path().join("inside");
    let outside = dir.path().join("outside");
    symlink(outside.join("secret"), inside.join("link")).expect("a link");
    symlink(&outside, inside.join("door")).expect("a link");
    symlink(outside.join("new"), inside.join("dangling")).expect("a link");
    let client = Client::of(&[utf8(&inside)]).await;
    let absolute = outside.join("secret");

    for path in
        ["../outside/secret", "deep/../../outside/secret", utf8(&absolute), "/etc/passwd", "link", "door/secret"]
    {
        for (tool, arguments) in [
            ("read_file", json!({ "path": path })),
            ("read_file", json!({ "path": path, "encoding": "base64" })),
            ("write_file", json!({ "path": path, "content": "overwritten" })),
            ("append_file", json!({ "path": path, "content": "added" })),
            ("list_directory", json!({ "path": path })),
            ("search", json!({ "path": path, "name": "*" })),
        ] {
            let refusal = client.refusal(tool, arguments).await;
            assert!(refusal.contains(path), "{tool} {path}: {refusal}");
        }
    }
    for path in ["dangling", "door/new", "door/deep/new"] {
        for tool in ["write_file", "append_file"] {
            client.refusal(tool, json!({ "path": path, "content": "new", "create_directories": true })).await;
        }
    }
    client.refusal("list_directory", json!({ "path": "door" })).await;
    client.refusal("file_info", json!({ "path": "door/secret" })).await;

    // A link is told of as what it is, and a search passes it by.
    assert_eq!(client.told("file_info", json!({ "path": "link" })).await["kind"], "symlink");
    assert_eq!(client.told("search", json!({ "content": "secret" })).await["matches"], json!([]));
    assert_eq!(fs::read_to_string(outside.join("secret")).expect("a file"), "secret");
    assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 1, "nothing was made outside");
}

#[tokio::test]
async fn what_is_no_plain_file_is_refused_and_not_waited_for() {
    let dir = playground();
    let inside = dir.path().join("inside");
    let pipe = rustix::fs::CWD;
    rustix::fs::mknodat(pipe, inside.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
    fs::write(inside.join("protected"), "old").expect("a file");
    let client = Client::of(&[utf8(&inside)]).await;

    let refusal = client.refusal("read_file", json!({ "path": "pipe" })).await;
    assert_eq!(refusal, "\"pipe\" is no regular file");
    for tool in ["write_file", "append_file"] {
        let refusal = client.refusal(tool, json!({ "path": "pipe", "content": "x" })).await;
        assert_eq!(refusal, "\"pipe\" is no regular file");
        let refusal = client.refusal(tool, json!({ "path": "deep", "content": "x" })).await;
        assert_eq!(refusal, "\"deep\" is a directory");
        let refusal = client.refusal(tool, json!({ "path": "missing/x", "content": "x" })).await;
        assert_eq!(refusal, "\"missing/x\" does not exist");
    }
    let refusal = client.refusal("read_file", json!({ "path": "deep" })).await;
    assert_eq!(refusal, "\"deep\" is a directory: use list_directory");
    let too_much = "x".repeat(10 * 1024 * 1024 + 1);
    let refusal = client.refusal("write_file", json!({ "path": "protected", "content": too_much })).await;
    assert!(refusal.contains("10 MiB"), "{refusal}");
    assert_eq!(fs::read_to_string(inside.join("protected")).expect("a file"), "old");
}

#[tokio::test]
async fn a_replaced_file_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;

    let dir = playground();
    let file = dir.path().join("inside/a.txt");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("a file of ours");
    let client = Client::of(&[utf8(&dir.path().join("inside"))]).await;
    client.told("write_file", json!({ "path": "a.txt", "content": "new" })).await;
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_to_string(&file).expect("a file"), "new");
}

#[tokio::test]
async fn read_only_offers_nothing_that_writes() {
    let dir = playground();
    let client = Client::of(&["--read-only", utf8(&dir.path().join("inside"))]).await;
    assert_eq!(client.tools().await, ["file_info", "list_directory", "read_file", "search"]);
    for tool in client.client.list_all_tools().await.expect("a list") {
        assert_eq!(tool.annotations.expect("annotations").read_only_hint, Some(true), "{}", tool.name);
        assert!(tool.description.is_some_and(|said| said.len() > 40), "{}", tool.name);
    }
    let params = CallToolRequestParams::new("write_file");
    client.client.call_tool(params).await.expect_err("a tool that is not there");
}

#[tokio::test]
async fn several_directories_are_told_apart_by_name() {
    let dir = playground();
    let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
    let client = Client::of(&[utf8(&inside), utf8(&outside)]).await;
    let listing = client.told("list_directory", json!({})).await;
    assert_eq!(listing["entries"].as_array().map(Vec::len), Some(2));
    assert_eq!(client.text("read_file", json!({ "path": "outside/secret" })).await, "secret");
    let found = client.told("search", json!({ "name": "?*e*" })).await;
    assert_eq!(found["matches"][0]["path"], "inside/deep");
    assert_eq!(found["matches"][1]["path"], "outside/secret");
    let refusal = client.refusal("read_file", json!({ "path": "secret" })).await;
    assert!(refusal.contains("inside") && refusal.contains("outside"), "{refusal}");
}

#[tokio::test]
async fn the_command_ends_well_with_its_input_and_badly_without_its_directory() {
    let dir = playground();
    let client = Client::of(&[utf8(&dir.path().join("inside"))]).await;
    client.client.cancel().await.expect("the client's own task");
    let code = client.command.await.expect("the command's task").expect("the end of input is no error");
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));

    let cli = Cli::try_parse_from(["mcp", "files", "/not/there"]).expect("arguments");
    let error = mcp::serve(cli.args, tokio::io::empty(), tokio::io::sink()).await.expect_err("no such directory");
    assert!(error.to_string().contains("/not/there"), "{error}");
    let cli = Cli::try_parse_from(["mcp", "files", utf8(dir.path())]).expect("arguments");
    mcp::serve(cli.args, tokio::io::empty(), tokio::io::sink()).await.expect("no input at all is no error");
    assert!(Cli::try_parse_from(["mcp", "files"]).is_err(), "a directory must be named");
}

/// What it says last on stderr is what a person reads as its last words.
#[test]
fn a_method_that_it_does_not_have_is_answered_and_not_told_on_stderr() {
    use std::io::Write as _;
    let folder = TempDir::new().expect("a folder");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(["mcp", "files"]).arg(folder.path()).env_remove("RUST_LOG");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("it can be run");
    let hello =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    let asked = [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "subscriptions/listen", "params": {"notifications": {}}}),
        json!({"jsonrpc": "2.0", "id": 3, "method": "resources/templates/list", "params": {}}),
    ];
    let text: String = asked.iter().map(|line| format!("{line}\n")).collect();
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends with its input");
    let answers = String::from_utf8_lossy(&output.stdout);
    assert!(answers.contains("-32601"), "{answers}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
