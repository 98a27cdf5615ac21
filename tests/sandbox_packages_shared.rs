//! Installed packages that several seawalls share: two that want the same at once install
//! it once, and nobody removes what another one uses.

#![cfg(target_os = "linux")]

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use serde_json::json;

mod support;

use support::{Launch, Registry, StdioClient, poll, process, scratch::Scratch, text_of, tools, wait_until};

const COMMAND: Duration = Duration::from_secs(120);
const WHEEL: &str = "/small_server-1.0.0-py3-none-any.whl";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// An index with one small server.
fn index(folder: &Scratch) -> Registry {
    let registry = Registry::start();
    let file = folder.file(&WHEEL[1..]);
    let mut make = Command::new("python3");
    make.arg(tools::fixtures("uvx/wheel.py")).arg("small-server").arg(&file);
    assert!(process::run(make, COMMAND).status.success());
    registry.put(WHEEL, "application/octet-stream", std::fs::read(file).expect("it was made"));
    let page =
        format!("<!DOCTYPE html><html><body><a href=\"{}\">{}</a></body></html>", registry.url(WHEEL), &WHEEL[1..]);
    registry.put("/simple/small-server/", "text/html", page);
    registry
}

fn config(index: &Registry) -> String {
    let command = json!(["uvx", "--default-index", index.url("/simple"), "small-server"]);
    format!("[servers.small]\ncommand = {command}\n")
}

fn path_with(uv: &Path) -> String {
    format!("{}:{}", uv.display(), std::env::var("PATH").unwrap_or_default())
}

/// Prepares the server, tells how, and ends.
fn preparing(folder: &Scratch, uv: &Path) -> (Child, process::Log) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(["sandbox", "show", "small", "--config"]).arg(folder.file("servers.toml"));
    command.current_dir(folder.path()).env("PATH", path_with(uv)).env("RUST_LOG", "info");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("seawall can be started");
    let log = process::Log::default();
    log.follow(child.stdout.take().expect("piped"));
    log.follow(child.stderr.take().expect("piped"));
    (child, log)
}

#[test]
fn two_that_want_the_same_at_once_install_it_once() {
    let Some(uv) = tools::uv() else { return };
    let folder = Scratch::new();
    let index = index(&folder);
    folder.write("servers.toml", &config(&index));
    index.hold(WHEEL);
    let (mut first, first_log) = preparing(&folder, &uv);
    poll(COMMAND, || index.asked().contains(&WHEEL.to_owned()).then_some(()))
        .unwrap_or_else(|| panic!("the first does not install: {}", first_log.text()));
    let (mut second, second_log) = preparing(&folder, &uv);
    poll(COMMAND, || second_log.has("another seawall").then_some(()))
        .unwrap_or_else(|| panic!("the second does not wait: {}", second_log.text()));
    assert!(!first_log.has("another seawall"), "{}", first_log.text());
    index.release();
    for (child, log) in [(&mut first, &first_log), (&mut second, &second_log)] {
        let status = poll(COMMAND, || child.try_wait().expect("a child can be asked")).expect("it ends");
        assert!(status.success(), "{}", log.text());
        poll(COMMAND, || log.has("really enforced").then_some(())).unwrap_or_else(|| panic!("{}", log.text()));
    }
    // The second asks for nothing, and has what the first has installed.
    let pages = index.asked().iter().filter(|path| path.contains("/simple/")).count();
    assert_eq!(pages, 1, "{:?}", index.asked());
    assert!(first_log.has("installing small-server") && !second_log.has("installing small-server"));
    assert_eq!(folders(&folder).len(), 1);
}

/// Those of whole installations.
fn folders(folder: &Scratch) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.file(".seawall/packages")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir() && path.extension().is_none()).collect()
}

fn last_used(place: &Path, ago: Duration) {
    let used = File::options().create(true).truncate(false).write(true).open(place.with_extension("used"));
    used.and_then(|file| file.set_modified(SystemTime::now() - ago)).expect("it is ours");
}

/// One that nobody asks for.
fn forgotten(folder: &Scratch, ago: Duration) -> PathBuf {
    let place = folder.file(".seawall/packages/f0rg0ten");
    std::fs::create_dir_all(place.join("node_modules")).expect("made");
    std::fs::write(place.with_extension("json"), r#"{"packages":["x"],"bin":null,"file":"x","is_script":true}"#)
        .expect("written");
    std::fs::write(place.with_extension("lock"), "").expect("written");
    last_used(&place, ago);
    place
}

#[tokio::test]
async fn what_nobody_uses_is_removed_and_what_another_gateway_uses_is_not() {
    let Some(uv) = tools::uv() else { return };
    let folder = Scratch::new();
    let index = index(&folder);
    let young = forgotten(&folder, DAY * 29);
    let mut gateway = Launch::beside(&folder, &config(&index)).env("PATH", &path_with(&uv)).start().await;
    gateway.ready().await;
    assert_eq!(gateway.server("small")["state"], "ready", "{}", gateway.log.text());
    let whole = folders(&folder);
    let [own] = &whole.iter().filter(|path| **path != young).collect::<Vec<_>>()[..] else { panic!("{whole:?}") };

    // Another gateway of the same state folder, to whom the server means nothing.
    let other = folder.write("other.toml", "[servers.journal]\nbuiltin = \"events\"\n");
    last_used(own, DAY * 31);
    last_used(&young, DAY * 31);
    let mut client = StdioClient::connect(&other, &["--own"]);
    wait_until(COMMAND, "what is old to be removed", async || (!young.exists()).then_some(())).await;
    assert!(!young.with_extension("json").exists() && !young.with_extension("used").exists());
    client.request("ping", json!({}));
    assert!(own.is_dir() && own.with_extension("json").is_file(), "it is in use");
    let reply = gateway.client("/mcp/small").await.call_tool("where", json!({})).await;
    assert!(text_of(&reply).contains("small_server.py"), "{reply}");
    drop(client);
    gateway.stop();

    last_used(own, DAY * 31);
    let _client = StdioClient::connect(&other, &["--own"]);
    wait_until(COMMAND, "what is not used any more to be removed", async || (!own.exists()).then_some(())).await;
}
