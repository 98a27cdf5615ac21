//! Real servers, seen by the official client: what it sees through seawall is what
//! it sees without.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

mod support;

use support::{Gateway, process, scratch::Scratch, tools};

const RUN: Duration = Duration::from_secs(120);

const NEWEST: &str = "@modelcontextprotocol/sdk";
/// Of August 2025.
const OF_2025: &str = "sdk-2025";

/// One real server and what is done with it.
struct Subject {
    name: &'static str,
    command: Vec<String>,
    env: Vec<(&'static str, String)>,
    /// Where the client's SDK is among the modules.
    sdk: &'static str,
    plan: Value,
    /// Each way to the server begins with the same world.
    reset: Box<dyn Fn()>,
}

impl Subject {
    fn servers_toml(&self) -> String {
        let env: Vec<String> = self.env.iter().map(|(key, value)| format!("{key} = {}", json!(value))).collect();
        format!(
            "[servers.{}]\ncommand = {}\nenv = {{ {} }}\nsandbox = \"off\"\n",
            self.name,
            json!(self.command),
            env.join(", ")
        )
    }

    /// What the official client prints, line by line.
    fn seen_by_client(&self, prefix: &str, target: &[&str]) -> Vec<Value> {
        let mut plan = self.plan.clone();
        plan["prefix"] = json!(prefix);
        plan["sdk"] = json!(self.sdk);
        let mut command = Command::new("node");
        command.arg(tools::interop("client.mjs")).arg(modules().expect("node was there a moment ago"));
        command.arg(plan.to_string()).args(target).envs(self.env.iter().map(|(key, value)| (key, value)));
        json_lines(command)
    }

    async fn is_the_same_through_seawall(&self) {
        (self.reset)();
        let command: Vec<&str> = self.command.iter().map(String::as_str).collect();
        let direct = self.seen_by_client("", &[&["stdio"], &command[..]].concat());
        let calls = self.plan["calls"].as_array().map_or(0, Vec::len);
        assert_eq!(direct.iter().filter(|line| line["what"] == "call").count(), calls);

        let prefix = format!("{}__", self.name);
        for (way, prefix) in [("/mcp/NAME", ""), ("/mcp", &*prefix)] {
            (self.reset)();
            let gateway = Gateway::start(&self.servers_toml()).await;
            // A machine under load takes longer than a client's first list waits.
            gateway.server_is_ready(self.name).await;
            let url = format!("http://{}{}", gateway.address, way.replace("NAME", self.name));
            // One's own server keeps its name and instructions; the merged one is seawall.
            let from = usize::from(way == "/mcp");
            same(way, &direct[from..], &self.seen_by_client(prefix, &["http", &url])[from..]);
        }

        (self.reset)();
        let folder = Scratch::new();
        let config = folder.write("servers.toml", &self.servers_toml());
        let config = config.to_str().expect("a path of ours is UTF-8");
        let seawall = [env!("CARGO_BIN_EXE_seawall"), "stdio", "--own", "--config", config];
        let seen = self.seen_by_client(&prefix, &[&["stdio"], &seawall[..]].concat());
        same("seawall stdio", &direct[1..], &seen[1..]);
    }
}

fn json_lines(command: Command) -> Vec<Value> {
    let what = format!("{command:?}");
    let output = process::run(command, RUN);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} failed: {stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().map(|line| serde_json::from_str(line).expect("the client prints JSON lines")).collect()
}

fn same(way: &str, direct: &[Value], through: &[Value]) {
    // The merged server has every kind of list, be it empty.
    let told =
        |lines: &[Value]| -> Vec<Value> { lines.iter().filter(|line| line["items"] != json!([])).cloned().collect() };
    let (mut direct, mut through) = (told(direct), told(through));
    // A server of both eras is asked in the modern one, where it promises more.
    for line in direct.iter_mut().chain(&mut through).filter(|line| line["what"] == "server") {
        for capability in line["capabilities"].as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
            if let Some(flags) = capability.as_object_mut() {
                flags.retain(|_, value| !value.is_boolean());
            }
        }
    }
    for (direct, through) in direct.iter().zip(&through) {
        assert_eq!(direct, through, "{way}: not what the server said itself");
    }
    assert_eq!(direct.len(), through.len(), "{way}: a line more or less");
}

fn modules() -> Option<PathBuf> {
    Some(tools::npm()?.join("node_modules"))
}

/// A server from npm, run by node.
fn from_npm(package: &str) -> Option<Vec<String>> {
    let entry = modules()?.join("@modelcontextprotocol").join(package).join("dist/index.js");
    Some(vec!["node".to_owned(), entry.to_str().expect("a path of ours is UTF-8").to_owned()])
}

fn call(name: &str, arguments: Value) -> Value {
    json!({"name": name, "arguments": arguments})
}

#[tokio::test]
async fn everything_is_the_same_through_seawall() {
    let Some(command) = from_npm("server-everything") else { return };
    let plan = json!({
        "calls": [
            call("echo", json!({"message": "wave 😀"})),
            call("get-sum", json!({"a": 1, "b": 2.5})),
            call("get-sum", json!({"a": "no number"})),
            call("get-tiny-image", json!({})),
            call("get-annotated-message", json!({"messageType": "error", "includeImage": true})),
            call("get-structured-content", json!({"location": "Chicago"})),
            call("get-resource-links", json!({"count": 3})),
            call("trigger-long-running-operation", json!({"duration": 0.2, "steps": 4})),
            call("trigger-sampling-request", json!({"prompt": "p", "maxTokens": 5})),
            call("trigger-elicitation-request", json!({})),
        ],
        "requests": [
            {"method": "resources/read", "params": {"uri": "demo://resource/static/document/features.md"}},
            {"method": "prompts/get", "params": {"name": "simple-prompt"}},
            {"method": "prompts/get", "params": {"name": "args-prompt", "arguments": {"city": "Rome"}}},
            {"method": "completion/complete", "params": {
                "ref": {"type": "ref/prompt", "name": "completable-prompt"},
                "argument": {"name": "department", "value": "E"}
            }},
        ],
    });
    let subject = Subject { name: "everything", command, env: Vec::new(), sdk: NEWEST, plan, reset: Box::new(|| {}) };
    subject.is_the_same_through_seawall().await;
}

#[tokio::test]
async fn filesystem_is_the_same_through_seawall() {
    let Some(mut command) = from_npm("server-filesystem") else { return };
    let folder = Scratch::new();
    let root = folder.file("root");
    let root_text = root.to_str().expect("a path of ours is UTF-8").to_owned();
    command.push(root_text.clone());
    let path = |name: &str| json!(format!("{root_text}/{name}"));
    let plan = json!({
        "roots": [format!("file://{root_text}")],
        "calls": [
            call("list_allowed_directories", json!({})),
            call("list_directory", json!({"path": root_text})),
            call("read_text_file", json!({"path": path("a.txt")})),
            call("read_text_file", json!({"path": "/etc/hostname"})),
            call("write_file", json!({"path": path("new.txt"), "content": "first\nsecond\n"})),
            call("edit_file", json!({"path": path("new.txt"), "edits": [{"oldText": "second", "newText": "2nd"}]})),
            call("read_multiple_files", json!({"paths": [path("a.txt"), path("new.txt"), path("missing")]})),
            call("create_directory", json!({"path": path("deep/er")})),
            call("move_file", json!({"source": path("new.txt"), "destination": path("deep/er/moved.txt")})),
            call("directory_tree", json!({"path": root_text})),
            call("search_files", json!({"path": root_text, "pattern": "**/*.txt"})),
        ],
    });
    let reset = move || {
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).expect("a folder can be made");
        std::fs::write(root.join("a.txt"), "as it was\n").expect("a file can be written");
    };
    let subject = Subject { name: "files", command, env: Vec::new(), sdk: NEWEST, plan, reset: Box::new(reset) };
    subject.is_the_same_through_seawall().await;
}

#[tokio::test]
async fn memory_is_the_same_through_seawall() {
    let Some(command) = from_npm("server-memory") else { return };
    let folder = Scratch::new();
    let graph = folder.file("graph.jsonl");
    let env = vec![("MEMORY_FILE_PATH", graph.to_str().expect("a path of ours is UTF-8").to_owned())];
    let plan = json!({
        "calls": [
            call("create_entities", json!({"entities": [
                {"name": "Ada", "entityType": "person", "observations": ["wrote programs"]},
                {"name": "Engine", "entityType": "machine", "observations": []},
            ]})),
            call("create_relations", json!({"relations": [{"from": "Ada", "to": "Engine", "relationType": "programmed"}]})),
            call("add_observations", json!({"observations": [{"entityName": "Ada", "contents": ["wrote notes"]}]})),
            call("add_observations", json!({"observations": [{"entityName": "Nobody", "contents": ["x"]}]})),
            call("search_nodes", json!({"query": "program"})),
            call("open_nodes", json!({"names": ["Ada"]})),
            call("delete_entities", json!({"entityNames": ["Engine"]})),
            call("read_graph", json!({})),
        ],
    });
    let reset = move || drop(std::fs::remove_file(&graph));
    let subject = Subject { name: "memory", command, env, sdk: NEWEST, plan, reset: Box::new(reset) };
    subject.is_the_same_through_seawall().await;
}

async fn python_is_the_same_through_seawall(requirements: &str) {
    let (Some(python), Some(_)) = (tools::python(requirements), modules()) else { return };
    let words = [python, tools::interop("python_server.py")];
    let command = words.iter().map(|word| word.to_str().expect("a path of ours is UTF-8").to_owned()).collect();
    let plan = json!({
        "calls": [
            call("add", json!({"a": 1, "b": 2})),
            call("add", json!({"a": "no number"})),
            call("weather", json!({"city": "Paris"})),
            call("table", json!({"rows": 3})),
            call("fails", json!({"reason": "as asked"})),
            call("steps", json!({"count": 3})),
        ],
        "requests": [
            {"method": "resources/read", "params": {"uri": "python://greeting"}},
            {"method": "resources/read", "params": {"uri": "python://square/7"}},
            {"method": "prompts/get", "params": {"name": "review", "arguments": {"code": "x = 1"}}},
        ],
    });
    let subject = Subject { name: "python", command, env: Vec::new(), sdk: NEWEST, plan, reset: Box::new(|| {}) };
    subject.is_the_same_through_seawall().await;
}

#[tokio::test]
async fn a_python_server_of_the_1_x_sdk_is_the_same_through_seawall() {
    python_is_the_same_through_seawall("requirements.txt").await;
}

#[tokio::test]
async fn a_python_server_of_the_2_x_sdk_is_the_same_through_seawall() {
    python_is_the_same_through_seawall("requirements-2.txt").await;
}

/// What the official Python client prints, line by line.
fn seen_by_python(python: &Path, plan: &Value, mode: &str, target: &[&str]) -> Vec<Value> {
    let mut command = Command::new(python);
    command.arg(tools::interop("client.py")).arg(plan.to_string()).arg(mode).args(target);
    json_lines(command)
}

#[tokio::test]
async fn the_python_client_sees_the_same_through_seawall_with_and_without_sessions() {
    let Some(python) = tools::python("requirements-2.txt") else { return };
    let words = [python.clone(), tools::interop("python_server.py")];
    let command: Vec<&str> = words.iter().map(|word| word.to_str().expect("a path of ours is UTF-8")).collect();
    let plan = json!({
        "calls": [
            call("weather", json!({"city": "Paris"})),
            call("table", json!({"rows": 2})),
            call("fails", json!({"reason": "as asked"})),
        ],
        "resources": ["python://greeting", "python://square/7"],
    });
    let config = format!("[servers.python]\ncommand = {}\nsandbox = \"off\"\n", json!(command));
    let gateway = Gateway::start(&config).await;
    let url = format!("http://{}/mcp/python", gateway.address);
    for mode in ["legacy", "2026-07-28"] {
        let direct = seen_by_python(&python, &plan, mode, &command);
        assert_eq!(direct.len(), 8, "{direct:?}");
        same(mode, &direct, &seen_by_python(&python, &plan, mode, &[&url]));
    }
}

#[tokio::test]
async fn the_typescript_client_of_2025_sees_the_same_through_seawall() {
    let Some(command) = from_npm("server-everything") else { return };
    let plan = json!({
        "calls": [
            call("echo", json!({"message": "wave 😀"})),
            call("get-sum", json!({"a": 1, "b": 2.5})),
            call("get-tiny-image", json!({})),
            call("get-structured-content", json!({"location": "Chicago"})),
            call("trigger-long-running-operation", json!({"duration": 0.2, "steps": 4})),
            call("trigger-sampling-request", json!({"prompt": "p", "maxTokens": 5})),
        ],
        "requests": [
            {"method": "resources/read", "params": {"uri": "demo://resource/static/document/features.md"}},
            {"method": "prompts/get", "params": {"name": "args-prompt", "arguments": {"city": "Rome"}}},
        ],
    });
    let subject = Subject { name: "everything", command, env: Vec::new(), sdk: OF_2025, plan, reset: Box::new(|| {}) };
    subject.is_the_same_through_seawall().await;
}

#[tokio::test]
async fn the_python_client_of_2025_sees_the_same_through_seawall() {
    let Some((python, packages)) = tools::python_2025() else { return };
    let (server, client) = (tools::interop("python_server.py"), tools::interop("client_2025.py"));
    let text = |path: &Path| path.to_str().expect("a path of ours is UTF-8").to_owned();
    let server = [text(&python), text(&server)];
    let plan = json!({
        "calls": [
            call("weather", json!({"city": "Paris"})),
            call("table", json!({"rows": 2})),
            call("fails", json!({"reason": "as asked"})),
        ],
        "resources": ["python://greeting", "python://square/7"],
    });
    let seen = |target: &[&str]| {
        let mut command = Command::new(&python);
        command.env("PYTHONPATH", &packages).arg(&client).arg(plan.to_string()).args(target);
        json_lines(command)
    };
    let direct = seen(&[&server[0], &server[1]]);
    assert_eq!((direct.len(), &direct[0]["value"]), (9, &json!("2025-06-18")), "{direct:?}");
    let config = format!("[servers.python]\ncommand = {}\nsandbox = \"off\"\n", json!(server));
    let gateway = Gateway::start(&config).await;
    gateway.server_is_ready("python").await;
    same("HTTP", &direct, &seen(&[&format!("http://{}/mcp/python", gateway.address)]));
    let config = text(&gateway.config());
    let stdio = [env!("CARGO_BIN_EXE_seawall"), "stdio", "python", "--join", "--config", &config];
    same("stdio", &direct, &seen(&stdio));
}
