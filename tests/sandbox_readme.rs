//! The servers of the README, each with the smallest sandbox that is said to be enough for
//! it, installed and started as they stand there, and a tool of each called.
//!
//! Four packages are installed, which takes a while: `cargo test --test sandbox_readme -- --ignored`.

#![cfg(target_os = "linux")]

use serde_json::json;

mod support;

use support::{Launch, machine::Machine, scratch::Scratch, text_of, tools};

/// The block of TOML that has this server.
fn block_with(server: &str) -> &'static str {
    let readme = include_str!("../README.md");
    let mut blocks = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains(&format!("[servers.{server}]"))).expect("the README has it")
}

#[tokio::test]
#[ignore = "installs four packages"]
async fn the_servers_of_the_readme_work_with_their_smallest_sandboxes() {
    let Some(uv) = tools::uv().filter(|_| tools::npx()) else { return };
    let folder = Scratch::new();
    let machine = Machine { is_root: rustix::process::geteuid().is_root(), has_namespaces: true };
    folder.write("home/notes/a.txt", "hello");
    std::fs::create_dir_all(folder.file("home/mcp/memory")).expect("made");
    // Where the servers are somebody else, what they may write is theirs.
    ["home/notes", "home/notes/a.txt", "home/mcp/memory"].iter().for_each(|path| machine.give(&folder.file(path)));
    let path = format!("{}:{}", uv.display(), std::env::var("PATH").unwrap_or_default());
    let home = folder.file("home").display().to_string();
    let gateway = Launch::beside(&folder, block_with("everything")).env("HOME", &home).env("PATH", &path).start().await;
    gateway.ready().await;
    let client = gateway.client("/mcp").await;
    let notes = folder.file("home/notes");
    let made = json!({"entities": [{"name": "a", "entityType": "b", "observations": []}]});
    for (server, tool, arguments, expected) in [
        ("everything", "echo", json!({"message": "wave"}), "wave"),
        ("filesystem", "read_text_file", json!({"path": notes.join("a.txt")}), "hello"),
        ("filesystem", "write_file", json!({"path": notes.join("b.txt"), "content": "x"}), "b.txt"),
        ("memory", "create_entities", made, "entityType"),
        ("time", "get_current_time", json!({"timezone": "Europe/Paris"}), "Europe/Paris"),
    ] {
        let now = gateway.server(server);
        assert_eq!(now["state"], "ready", "{server}: {now}\n{}", gateway.log.text());
        let sandbox = &now["sandbox"];
        assert_eq!((&sandbox["tier"], &sandbox["network"]), (&json!("full"), &json!("none")), "{server}: {sandbox}");
        let reply = client.call_tool(&format!("{server}__{tool}"), arguments).await;
        assert_ne!(reply["result"]["isError"], true, "{reply}");
        assert!(text_of(&reply).contains(expected), "{server}: {reply}");
    }
    assert!(folder.file("home/mcp/memory/memory.json").is_file() && notes.join("b.txt").is_file());
}
