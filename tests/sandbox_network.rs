//! The network of a confined server: none, its own, the whole, or a list of places
//! behind seawall's own proxy.

#![cfg(target_os = "linux")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    thread,
};

use serde_json::json;

mod support;

use support::{Client, Gateway, Launch, confined, text_of, wait_until};

/// Answers every line with `echo: LINE`, and HTTP with a page.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(line)) = lines.next() else { return };
                let answer = match line.starts_with("GET ") {
                    true => {
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{line}", line.len())
                    }
                    false => format!("echo: {line}\n"),
                };
                let _ = (&stream).write_all(answer.as_bytes());
            });
        }
    });
    port
}

async fn start(network: &str) -> (Gateway, Client) {
    let gateway = Gateway::start(&confined("fix", &format!("{{ network = {network} }}"))).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    (gateway, client)
}

/// Says a line to an address and reads what comes back.
async fn say(client: &Client, host: &str, port: u16, line: &str) -> String {
    let script = format!("exec 3<>/dev/tcp/{host}/{port} || exit 0; printf '{line}' >&3; timeout 5 cat <&3; true");
    let reply = client.call_tool("run", json!({"command": ["/bin/bash", "-c", script]})).await;
    text_of(&reply).to_owned()
}

#[tokio::test]
async fn an_address_on_the_list_is_reached_and_no_other() {
    let (port, other) = (echo_server(), echo_server());
    let (gateway, client) = start(&format!("{{ allow = [\"127.0.0.1:{port}\"] }}")).await;
    assert_eq!(say(&client, "127.0.0.1", port, "hi\\n").await, "echo: hi\n");
    assert_eq!(say(&client, "127.0.0.1", other, "hi\\n").await, "");
    assert_eq!(gateway.server("fix")["sandbox"]["network"], "allow", "as the launcher has said");
}

#[tokio::test]
async fn the_proxy_connects_to_what_is_on_the_list_and_tells_what_is_not() {
    let (port, other) = (echo_server(), echo_server());
    let (gateway, client) = start(&format!("{{ allow = [\"localhost:{port}\", \"*.example.com:443\"] }}")).await;
    let connect = |to: String| format!("CONNECT {to} HTTP/1.1\\r\\n\\r\\nhi\\n");
    let tunnel = say(&client, "127.0.0.1", 3128, &connect(format!("localhost:{port}"))).await;
    assert!(tunnel.starts_with("HTTP/1.1 200") && tunnel.ends_with("echo: hi\n"), "{tunnel}");
    let page =
        say(&client, "127.0.0.1", 3128, &format!("GET http://localhost:{port}/x HTTP/1.1\\r\\nHost: y\\r\\n\\r\\n"))
            .await;
    assert!(page.ends_with("GET /x HTTP/1.1"), "{page}");

    for to in [format!("localhost:{other}"), format!("127.0.0.1:{port}"), "example.com:443".to_owned()] {
        let denied = say(&client, "127.0.0.1", 3128, &connect(to.clone())).await;
        assert!(denied.starts_with("HTTP/1.1 403"), "{to}: {denied}");
        assert!(denied.contains(&format!("to allow: add \"{to}\"")), "{to}: {denied}");
    }
    let rows = "select metadata from events where event_type = 'sandbox_denied' and service_name = 'fix'";
    let rows = gateway.rows("the refusal", rows).await;
    assert!(rows[0]["metadata"].as_str().unwrap().contains("blocked by the sandbox"), "{rows:?}");
}

#[tokio::test]
async fn seawall_itself_is_not_reached_even_where_it_is_on_the_list() {
    let gateway = Gateway::start("").await;
    let port = gateway.address.port();
    gateway.edit(&confined("fix", &format!("{{ network = {{ allow = [\"127.0.0.1:{port}\"] }} }}")));
    wait_until(std::time::Duration::from_secs(20), "the server to be there", async || {
        (gateway.server("fix")["state"] == "ready").then_some(())
    })
    .await;
    let client = gateway.client("/mcp/fix").await;
    let request = "GET /healthz HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n";
    assert!(!say(&client, "127.0.0.1", port, request).await.contains("HTTP/1.1"));
    let connect = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\\r\\n\\r\\n");
    assert!(say(&client, "127.0.0.1", 3128, &connect).await.contains("seawall itself"));
}

/// What ignores proxies finds an exact name in its file of hosts, and a door behind it.
#[tokio::test]
async fn an_exact_name_has_a_door_for_programs_that_know_no_proxy() {
    let port = echo_server();
    let allow = format!("{{ allow = [\"localhost:{port}\", \"api.name-of-nobody.invalid:443\"] }}");
    let (_gateway, client) = start(&allow).await;
    let run = async |words: &[&str]| text_of(&client.call_tool("run", json!({"command": words})).await).to_owned();
    let found = run(&["/usr/bin/getent", "hosts", "api.name-of-nobody.invalid"]).await;
    assert!(found.starts_with("127.1.0.2 "), "{found}");
    assert!(!run(&["/usr/bin/getent", "hosts", "other.name-of-nobody.invalid"]).await.contains("127."));
    let variables = run(&["/usr/bin/env"]).await;
    assert!(variables.contains("HTTPS_PROXY=http://127.0.0.1:3128") && variables.contains("NODE_USE_ENV_PROXY=1"));
    if support::tools::npm().is_some() {
        let script = format!("fetch('http://localhost:{port}/page').then(r => r.text()).then(console.log)");
        assert_eq!(run(&["node", "-e", &script]).await.trim(), "GET /page HTTP/1.1");
    }
}

#[tokio::test]
async fn loopback_is_the_servers_own() {
    let port = echo_server();
    let (_gateway, client) = start("\"loopback\"").await;
    assert_eq!(say(&client, "127.0.0.1", port, "hi\\n").await, "");
    let own = "node -e \"require('net').createServer(s => s.end('own')).listen(7777)\" & \
               for i in 1 2 3 4 5 6 7 8 9; do sleep 0.3; cat </dev/tcp/127.0.0.1/7777 2>/dev/null && break; done; kill $!";
    if support::tools::npm().is_some() {
        let reply = client.call_tool("run", json!({"command": ["/bin/bash", "-c", own]})).await;
        assert_eq!(text_of(&reply), "own");
    }
}

#[tokio::test]
async fn open_is_the_machines_network_and_none_is_none() {
    let port = echo_server();
    let (_gateway, client) = start("\"open\"").await;
    assert_eq!(say(&client, "127.0.0.1", port, "hi\\n").await, "echo: hi\n");
    let (_gateway, client) = start("\"none\"").await;
    assert_eq!(say(&client, "127.0.0.1", port, "hi\\n").await, "");
}

/// The list holds for an ordinary user as well, whose namespaces are worth less.
#[tokio::test]
async fn an_ordinary_users_server_has_its_list_too() {
    let machine = support::machine::Machine { is_root: false, has_namespaces: true };
    let (port, other) = (echo_server(), echo_server());
    let folder = support::scratch::Scratch::new();
    machine.settle(folder.path());
    let wrapper = machine.wrapper();
    let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let config = confined("fix", &format!("{{ network = {{ allow = [\"127.0.0.1:{port}\"] }} }}"));
    let gateway = Launch::with_folder(folder, &config).through(&words).start().await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    assert_eq!(say(&client, "127.0.0.1", port, "hi\\n").await, "echo: hi\n");
    assert_eq!(say(&client, "127.0.0.1", other, "hi\\n").await, "");
}
