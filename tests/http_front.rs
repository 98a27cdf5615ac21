//! What the HTTP front lets in, and with which words it turns away the rest.

use std::{process::Command, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::time::timeout;

mod support;

use support::{Client, Gateway, Hello, Response, fixture, process::run, wait_until};

const SOON: Duration = Duration::from_secs(30);
const JSON: (&str, &str) = ("Content-Type", "application/json");
const BOTH: (&str, &str) = ("Accept", "application/json, text/event-stream");

fn hello() -> String {
    let params =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}});
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).to_string()
}

const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;

/// The reason that a refusal gives.
fn reason(response: &Response) -> String {
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_else(|_| panic!("no JSON: {}", response.text()));
    assert_eq!(body["jsonrpc"], "2.0", "{body}");
    body["error"]["message"].as_str().unwrap_or_else(|| panic!("no reason in {body}")).to_owned()
}

#[tokio::test]
async fn a_page_in_the_users_browser_is_kept_out() {
    let config = "[gateway]\nallowed_hosts = [\"box.lan\"]\nallowed_origins = [\"https://app.example\"]\n";
    let gateway = Gateway::start(config).await;
    let own = format!("http://{}", gateway.address);
    let status =
        async |extra: &[(&str, &str)]| gateway.post("/mcp", &[&[JSON, BOTH][..], extra].concat(), &hello()).await;
    for allowed in [
        &[][..],
        &[("Host", "box.lan")],
        &[("Origin", "https://app.example")],
        &[("Origin", &own)],
        &[("Host", "localhost:1")],
    ] {
        assert_eq!(status(allowed).await.status(), 200, "{allowed:?}");
    }
    for (refused, key) in [
        (("Host", "evil.example"), "allowed_hosts"),
        (("Host", "127.0.0.1.evil.example"), "allowed_hosts"),
        (("Origin", "https://evil.example"), "allowed_origins"),
        (("Origin", "null"), "allowed_origins"),
        (("Origin", "http://127.0.0.1:1"), "allowed_origins"),
    ] {
        let response = status(&[refused]).await;
        assert_eq!(response.status(), 403, "{refused:?}");
        assert!(reason(&response).contains(key), "{refused:?} is not told what to write: {}", reason(&response));
    }
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data")] {
        let headers: Vec<_> = kind.map(|kind| ("Content-Type", kind)).into_iter().chain([BOTH]).collect();
        assert_eq!(gateway.post("/mcp", &headers, &hello()).await.status(), 415, "{kind:?}");
    }
    // A preflight gets no leave either.
    let options = format!("OPTIONS /mcp HTTP/1.1\r\nHost: {}\r\nOrigin: https://evil.example\r\n\r\n", gateway.address);
    let response = gateway.connection().await.request(&options, b"").await.unwrap();
    assert_eq!((response.status(), response.header("access-control-allow-origin")), (403, None));
}

#[tokio::test]
async fn a_token_is_asked_of_everybody() {
    let gateway = Gateway::start("[gateway]\ntoken = \"s3cret\"\n").await;
    for wrong in [None, Some("Bearer s3creT"), Some("Bearer"), Some("Basic s3cret")] {
        let headers: Vec<_> = wrong.map(|value| ("Authorization", value)).into_iter().chain([JSON, BOTH]).collect();
        let response = gateway.post("/mcp", &headers, &hello()).await;
        assert_eq!((response.status(), response.header("www-authenticate")), (401, Some("Bearer")), "{wrong:?}");
        assert!(!response.text().contains("s3cret"));
    }
    let hello = Hello::default().header("Authorization", "Bearer s3cret");
    assert!(gateway.client_as("/mcp", hello).await.request("ping", json!({})).await["result"].is_object());
    assert_eq!(gateway.get("/healthz").await.unwrap().status(), 200, "who watches needs no token");
}

#[tokio::test]
async fn each_wrong_request_gets_the_status_that_mcp_and_http_have_for_it() {
    let config = format!("[gateway]\nmax_message = \"64KiB\"\n{}", fixture("fix", &[]));
    let gateway = Gateway::start(&config).await;
    let client = gateway.client("/mcp").await;
    let session = ("Mcp-Session-Id", client.session().expect("a session"));
    let version = ("MCP-Protocol-Version", "2025-11-25");
    let post = async |headers: &[(&str, &str)], body: &str| gateway.post("/mcp", headers, body).await;

    assert_eq!(post(&[JSON, BOTH, version], PING).await.status(), 400, "no session");
    assert_eq!(post(&[JSON, BOTH, ("Mcp-Session-Id", "none")], PING).await.status(), 404, "an unknown session");
    assert_eq!(
        gateway.post("/mcp/fix", &[JSON, BOTH, session], PING).await.status(),
        404,
        "the session of another path"
    );
    assert_eq!(post(&[JSON, BOTH, session], PING).await.status(), 200, "the version may be left out");
    let wrong = post(&[JSON, BOTH, session, ("MCP-Protocol-Version", "1999-01-01")], PING).await;
    assert_eq!(wrong.status(), 400);
    assert!(reason(&wrong).contains("2025-06-18"), "it says which there are: {}", reason(&wrong));

    for (body, code) in [
        ("{\"jsonrpc\":", -32700),
        ("", -32700),
        ("[]", -32600),
        (r#"[7,"ping"]"#, -32600),
        (r#"{"jsonrpc":"2.0"}"#, -32600),
        ("\u{feff}7", -32700),
    ] {
        let response = post(&[JSON, BOTH, session], body).await;
        assert_eq!(response.status(), 400, "{body:?}");
        let answer: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(answer["error"]["code"], code, "{body:?}: {answer}");
    }
    assert_eq!(post(&[JSON, ("Accept", "text/event-stream"), session], PING).await.status(), 406);
    assert_eq!(
        post(&[JSON, ("Accept", "application/json"), session], PING).await.status(),
        200,
        "answers alone will do"
    );

    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":"{}"}}}}"#, "x".repeat(64 << 10));
    let response = post(&[JSON, BOTH, session], &long).await;
    assert_eq!(response.status(), 413);
    assert!(reason(&response).contains("max_message"), "{}", reason(&response));
    let chunked = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nMcp-Session-Id: {}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
        session.1,
        long.len()
    );
    assert_eq!(
        gateway.connection().await.request(&chunked, b"").await.unwrap().status(),
        413,
        "its length not told before"
    );

    for verb in ["PUT", "PATCH", "HEAD"] {
        let mut connection = gateway.connection().await;
        connection.send(format!("{verb} /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let head = connection.head().await.unwrap();
        assert_eq!((head.status, head.header("allow")), (405, Some("GET, POST, DELETE")), "{verb}");
    }
    let nowhere = gateway.post("/elsewhere", &[JSON, BOTH], &hello()).await;
    assert_eq!(nowhere.status(), 404);
    let nobody = gateway.post("/mcp/nobody", &[JSON, BOTH], &hello()).await;
    assert_eq!(nobody.status(), 404);
    assert!(reason(&nobody).contains("fix"), "it names those that there are: {}", reason(&nobody));
    assert_eq!(client.notify("notifications/initialized", json!({})).await, 202);
    assert_eq!(client.request("ping", json!({})).await["result"], json!({}), "all that has not hurt the session");
}

/// Most clients send all of a request before they read.
#[tokio::test]
async fn who_is_refused_in_the_middle_of_a_large_request_hears_why() {
    let gateway = Gateway::start("[gateway]\ntoken = \"s3cret\"\nmax_message = \"64KiB\"\n").await;
    let body = vec![b' '; 48 << 20];
    for (authorization, status) in [("Bearer s3cret", 413), ("Bearer other", 401)] {
        for (length, open, close) in
            [("Content-Length: 50331648", "", ""), ("Transfer-Encoding: chunked", "3000000\r\n", "\r\n0\r\n\r\n")]
        {
            let head = format!(
                "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\
                 Content-Type: application/json\r\n{length}\r\n\r\n{open}"
            );
            let body = [&body[..], close.as_bytes()].concat();
            let response = gateway.connection().await.request(&head, &body).await.expect("it is told");
            assert_eq!(response.status(), status, "{length}");
        }
    }
}

#[tokio::test]
async fn what_is_kept_of_a_request_may_not_be_large() {
    let gateway = Gateway::start("").await;
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {"experimental": {"x": "x".repeat(70_000)}}});
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let refused = gateway.post("/mcp", &[JSON, BOTH], &hello.to_string()).await;
    let answer: Value = serde_json::from_slice(&refused.body).expect("JSON");
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    assert!(answer["error"]["message"].as_str().expect("a message").contains("64 KiB"), "{answer}");
    let long = "y".repeat(2000);
    let session = gateway.client("/mcp").await;
    let headers = [JSON, BOTH, ("Mcp-Session-Id", session.session().expect("a session"))];
    let refused = gateway.post("/mcp", &headers, &PING.replace('7', &format!("\"{long}\""))).await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().contains("its id is longer than 1 KiB"), "{}", refused.text());
}

#[tokio::test]
async fn a_session_ends_by_delete_and_takes_its_calls_along() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let client = Arc::new(gateway.client("/mcp/fix").await);
    let hanging = {
        let client = client.clone();
        tokio::spawn(async move { client.start("tools/call", json!({"name": "hang"})).await.next().await })
    };
    wait_until(SOON, "the call", async || (gateway.server("fix")["in_flight"] == 1).then_some(())).await;
    let mut stream = client.listen().await;
    assert_eq!(client.end().await, 204);
    assert_eq!(hanging.await.unwrap(), None, "its call ends without an answer");
    // What was said before may still be on its way.
    while let Some(message) = timeout(SOON, stream.next()).await.expect("its stream ends too") {
        assert_eq!(message["method"], "notifications/tools/list_changed");
    }
    wait_until(SOON, "the call to end", async || (gateway.server("fix")["in_flight"] == 0).then_some(())).await;
    assert_eq!(client.end().await, 404, "there is nothing left to end");
    assert_eq!(client.post(PING).await.status(), 404);
    assert_eq!(gateway.seawall_json(&["status", "--json"])["gateway"]["sessions"], 0);
}

#[tokio::test]
async fn healthz_and_readyz_say_what_a_supervisor_needs() {
    let config = fixture("fix", &[])
        + &fixture("slow", &["--never-initialize"])
        + "\n[servers.away]\ncommand = [\"no-such-program\"]\nsandbox = \"off\"\n";
    let gateway = Gateway::start(&config).await;
    assert_eq!(gateway.get("/healthz").await.unwrap().text(), "ok\n");
    // Each server comes to its state in its own time.
    let settled = json!({"ready": true, "servers": {"fix": "ready", "slow": "handshaking", "away": "parked"}});
    wait_until(SOON, "every server to be in the state it stays in", async || {
        let ready: Value = serde_json::from_slice(&gateway.get("/readyz").await.ok()?.body).ok()?;
        (ready == settled).then_some(())
    })
    .await;
}

#[tokio::test]
async fn fifty_clients_at_once_each_get_their_own_answers() {
    let gateway = Arc::new(Gateway::start(&fixture("fix", &[])).await);
    gateway.ready().await;
    let clients: Vec<_> = (0..50)
        .map(|number| {
            let gateway = gateway.clone();
            tokio::spawn(async move {
                let client = gateway.client("/mcp").await;
                for turn in 0..10 {
                    let sent = json!({"client": number, "turn": turn});
                    let reply = client.call_tool("fix__echo", sent.clone()).await;
                    assert_eq!(reply["result"]["structuredContent"], sent);
                }
                client
            })
        })
        .collect();
    let mut connected: Vec<Client> = Vec::new();
    for client in clients {
        connected.push(client.await.expect("no client fails"));
    }
    assert_eq!(gateway.seawall_json(&["status", "--json"])["gateway"]["sessions"], 50);
    for client in &connected {
        assert_eq!(client.end().await, 204);
    }
    assert_eq!(
        gateway.seawall_json(&["status", "--json"])["gateway"]["sessions"],
        0,
        "sessions that ended are forgotten"
    );
}

/// Only root can become somebody else.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn another_user_of_the_machine_is_refused_unless_there_is_a_token() {
    if !rustix::process::getuid().is_root() {
        println!("skipped: another user can only be played by root");
        return;
    }
    let as_nobody = |gateway: &Gateway, path: &str| {
        let script = r#"
            exec 3<>/dev/tcp/127.0.0.1/$0
            printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer s3cret\r\nConnection: close\r\n\r\n' "$1" >&3
            cat <&3"#;
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", script]);
        command.args([&gateway.address.port().to_string(), path]).current_dir("/");
        let output = run(command, SOON);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.get(9..12).unwrap_or_else(|| panic!("no answer: {output:?}")).to_owned() + &text
    };
    let gateway = Gateway::start("").await;
    let refused = as_nobody(&gateway, "/mcp");
    assert!(refused.starts_with("403") && refused.contains("set token"), "{refused}");
    assert!(as_nobody(&gateway, "/healthz").starts_with("200"));
    let with_token = Gateway::start("[gateway]\ntoken = \"s3cret\"\n").await;
    // Admitted by the guard: only the session is missing.
    assert!(as_nobody(&with_token, "/mcp").starts_with("400"));
}
