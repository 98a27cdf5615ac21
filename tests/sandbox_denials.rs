//! What the sandbox keeps a server from is no riddle: the answer, `status` and the
//! database say what it was and what to write to allow it, and say so only where the
//! policy does.

#![cfg(target_os = "linux")]

use serde_json::{Value, json};

mod support;

use support::{Gateway, Launch, confined, machine::Machine, scratch::Scratch, text_of, wait_until};

struct World {
    folder: std::sync::Arc<Scratch>,
    gateway: Gateway,
}

/// `given` may be read, and by its own rights anybody may write there.
async fn world(machine: Machine) -> World {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Scratch::new();
    folder.write("given/file", "x");
    folder.write("kept/secret", "SECRET");
    machine.settle(folder.path());
    std::fs::set_permissions(folder.file("given"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let config = confined("fix", "{ read = [\"./given\"] }");
    let wrapper = machine.wrapper();
    let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let folder = std::sync::Arc::new(folder);
    let gateway = Launch::with_folder(folder.clone(), &config).through(&words).start().await;
    gateway.ready().await;
    World { folder, gateway }
}

fn texts(reply: &Value) -> Vec<&str> {
    reply["result"]["content"].as_array().unwrap().iter().map(|item| item["text"].as_str().unwrap()).collect()
}

async fn denied_rows(gateway: &Gateway) -> Vec<Value> {
    let sql = "select metadata from events where event_type = 'sandbox_denied' and service_name = 'fix'";
    let rows = gateway.rows("the denials", sql).await;
    rows.iter().map(|row| serde_json::from_str(row["metadata"].as_str().unwrap()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_path_is_named_with_what_allows_it() {
    for machine in Machine::all() {
        let World { folder, gateway } = world(machine).await;
        let client = gateway.client("/mcp/fix").await;
        let secret = folder.file("kept/secret").display().to_string();
        // One names the path in its complaint, the other only in what it was asked.
        for (tool, arguments) in [
            ("run", json!({"command": ["/bin/sh", "-c", format!("cat {secret} 2>&1; exit 1")]})),
            ("read", json!({"path": secret})),
        ] {
            let reply = client.call_tool(tool, arguments).await;
            let expected = format!(
                "seawall: blocked by the sandbox: read of {secret}; to allow: add \"{secret}\" to read under \
                 [servers.fix.sandbox] (the server has said that it wants this; whether it shall have it is for the \
                 user to decide, not for you)"
            );
            assert_eq!(texts(&reply)[1..], [expected.as_str()], "{machine:?} {tool}: {reply}");
            assert_eq!(reply["result"]["isError"], true);
        }
        let given = folder.file("given/new").display().to_string();
        let reply = client.call_tool("write", json!({"path": given, "text": "x"})).await;
        let told = texts(&reply)[1..].concat();
        let entry = folder.file("given").display().to_string();
        assert!(
            told.contains(&format!("write to {given}; to allow: add \"{entry}\" to write")),
            "{machine:?}: {reply}"
        );

        let rows = denied_rows(&gateway).await;
        let seen: Vec<_> = rows.iter().map(|row| (row["access"].as_str(), row["path"].as_str())).collect();
        assert_eq!(seen[0], (Some("read"), Some(&*secret)), "{machine:?}: told once for two calls: {rows:?}");
        assert!(rows[0]["message"].as_str().unwrap().contains("to allow: add"), "{rows:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_is_not_the_sandboxs_is_left_as_it_came() {
    for machine in Machine::all() {
        let World { folder, gateway } = world(machine).await;
        let client = gateway.client("/mcp/fix").await;
        let missing = folder.file("given/missing").display().to_string();
        for (tool, arguments) in [
            ("read", json!({"path": missing})),
            ("fail", json!({"text": format!("ENOENT: no such file or directory, open '{missing}'")})),
            ("fail", json!({"text": "EACCES: permission denied, open '/no/such/folder/x'"})),
            ("fail", json!({"text": "it failed, as asked"})),
        ] {
            let reply = client.call_tool(tool, arguments).await;
            assert_eq!(texts(&reply).len(), 1, "{machine:?}: {reply}");
        }
    }
}

#[tokio::test]
async fn a_json_rpc_error_and_a_death_say_so_too() {
    let machine = Machine { is_root: rustix::process::geteuid().is_root(), has_namespaces: true };
    let folder = Scratch::new();
    let secret = folder.write("kept/secret", "SECRET").display().to_string();
    machine.settle(folder.path());
    let script = format!("cat {secret}; exit 3");
    let config = confined("fix", "\"standard\"")
        + &format!("\n[servers.dies]\ncommand = {}\n", json!(["/bin/sh", "-c", script]));
    let gateway = Launch::with_folder(folder, &config).start().await;
    gateway.server_is_ready("fix").await;
    let client = gateway.client("/mcp/fix").await;
    let message = format!("EACCES: permission denied, open '{secret}'");
    let reply = client.call_tool("rpc_error", json!({"code": -32050, "message": message})).await;
    let expected = format!("blocked by the sandbox: read of {secret}; to allow: add");
    assert!(text_of(&reply).contains(&expected), "{reply}");
    assert_eq!(support::failure_of(&reply)["error"]["message"], json!(message), "verbatim: {reply}");

    let reason = wait_until(std::time::Duration::from_secs(20), "the reason of its death", async || {
        gateway.server("dies")["reason"].as_str().filter(|reason| reason.contains("exit code 3")).map(str::to_owned)
    })
    .await;
    assert!(reason.contains(&format!("(it was {expected}")), "{reason}");
    let sql = "select metadata from events where event_type = 'sandbox_denied' and service_name = 'dies'";
    assert!(gateway.rows("its denial", sql).await[0]["metadata"].as_str().unwrap().contains(&secret));
}

#[tokio::test]
async fn a_host_that_was_not_allowed_is_named() {
    let gateway = Gateway::start(&confined("fix", "\"standard\"")).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let script =
        "getent hosts api.name-of-nobody.invalid || echo 'getaddrinfo EAI_AGAIN api.name-of-nobody.invalid'; exit 1";
    let reply = client.call_tool("run", json!({"command": ["/bin/sh", "-c", script]})).await;
    let expected = "connection to api.name-of-nobody.invalid:443; to allow: add \"api.name-of-nobody.invalid:443\" to \
                    network.allow";
    assert!(texts(&reply)[1].contains(expected), "{reply}");
    assert_eq!(denied_rows(&gateway).await[0]["host"], "api.name-of-nobody.invalid");
}

#[tokio::test]
async fn a_connection_that_the_kernel_forbids_is_told_by_the_address_that_was_asked_for() {
    for machine in Machine::all() {
        let World { gateway, .. } = world(machine).await;
        let client = gateway.client("/mcp/fix").await;
        let reply = client.call_tool("connect", json!({"address": "192.0.2.1:443"})).await;
        assert!(texts(&reply)[0].contains("ermitted") && !texts(&reply)[0].contains("192.0.2.1"), "{reply}");
        let expected = "connection to 192.0.2.1:443; to allow: add \"192.0.2.1:443\" to network.allow";
        assert!(texts(&reply)[1..].concat().contains(expected), "{machine:?}: {reply}");
        assert_eq!(denied_rows(&gateway).await[0]["host"], "192.0.2.1", "{machine:?}");
    }
}
