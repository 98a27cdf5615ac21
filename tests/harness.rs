//! The harness judges everything else, so it is tried on what it stands on: its
//! HTTP client on a socket that answers by script, the fixture server by a pipe.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

mod support;

use support::{Client, Connection, Events, Hello, Journal, fixture, fixture_server, scratch::Scratch, wait_until};

/// Serves one connection: each answer is written once a whole request is there.
async fn scripted(answers: Vec<Vec<String>>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in answers {
            let mut request = [0; 4096];
            assert_ne!(stream.read(&mut request).await.unwrap(), 0, "the client went away");
            for piece in answer {
                stream.write_all(piece.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    address
}

#[tokio::test]
async fn a_kept_connection_reads_every_kind_of_body() {
    let answers: [&[&str]; 5] = [
        &["HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-A: b\r\n\r\nhe", "llo"],
        &["HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"],
        &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "2;x=y\r\nde\r", "\n0\r\n\r\n"],
        &["HTTP/1.1 204 No Content\r\n\r\n"],
        &["HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nnothing ", "here"],
    ];
    let answers = answers.iter().map(|pieces| pieces.iter().map(|piece| piece.to_string()).collect()).collect();
    let address = scripted(answers).await;
    let mut connection = Connection::open(address).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..5 {
        let response = connection.request("GET / HTTP/1.1\r\n\r\n", b"").await.unwrap();
        answers.push((response.status(), response.text(), response.header("x-a").map(str::to_owned)));
    }
    let expected = [(200, "hello", Some("b")), (202, "", None), (200, "abcde", None), (204, "", None)];
    for (answer, (status, text, header)) in answers.iter().zip(expected) {
        assert_eq!(*answer, (status, text.to_owned(), header.map(str::to_owned)));
    }
    assert_eq!(answers[4].1, "nothing here");
}

#[test]
fn events_are_put_together_from_any_pieces() {
    let stream = "id: 1\nretry: 3000\ndata:\n\n: still here\n\nevent: message\ndata: {\"a\":\r\ndata: 1}\r\n\r\nid:2\ndata:x\n\n";
    let whole = Events::default().feed(stream.as_bytes());
    let mut by_byte = Events::default();
    let pieces: Vec<_> = stream.bytes().flat_map(|byte| by_byte.feed(&[byte])).collect();
    assert_eq!(whole, pieces);
    assert_eq!(whole.len(), 3);
    assert_eq!(
        (whole[0].id.as_deref(), whole[0].retry.as_deref(), whole[0].data.as_str()),
        (Some("1"), Some("3000"), "")
    );
    assert_eq!((whole[1].kind.as_deref(), whole[1].data.as_str()), (Some("message"), "{\"a\":\n1}"));
    assert_eq!((whole[2].id.as_deref(), whole[2].data.as_str()), (Some("2"), "x"));
    assert_eq!(by_byte.comments, 1);
}

fn whole(headers: &str, body: &str) -> Vec<String> {
    vec![format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())]
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

#[tokio::test]
async fn a_client_tells_a_reply_from_what_came_before_it() {
    let stream = vec![
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        chunk("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\r\n"),
        chunk("\n") + &chunk("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n"),
        "0\r\n\r\n".to_owned(),
    ];
    let address = scripted(vec![
        whole("Mcp-Session-Id: s1\r\n", r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}"#),
        vec!["HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_owned()],
        stream,
        whole("", r#"{"jsonrpc":"2.0","id":2,"result":[1.0]}"#),
    ])
    .await;
    let client = Client::connect(address, "/mcp", Hello::default()).await;
    assert_eq!(client.session(), Some("s1"));
    let reply = client.call_tool("x", json!({})).await;
    assert_eq!(reply, json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    assert_eq!(client.seen(), [json!({"jsonrpc": "2.0", "method": "notifications/x"})]);
    // The same connection again: the stream was read to its end.
    assert_eq!(client.request("y", json!({})).await["result"], json!([1.0]));
}

#[tokio::test]
#[should_panic(expected = "in vain for the moon")]
async fn a_wait_ends_and_says_what_for() {
    wait_until(Duration::from_millis(50), "the moon", async || std::future::pending::<Option<()>>().await).await;
}

#[test]
fn the_fixture_server_answers_and_keeps_a_journal() {
    let folder = Scratch::new();
    let journal = folder.file("journal");
    let mut server = Command::new(fixture_server())
        .arg("--journal")
        .arg(&journal)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = server.stdin.take().unwrap();
    for (id, method, params) in [
        (1, "initialize", json!({"protocolVersion": "2024-11-05"})),
        (2, "tools/call", json!({"name": "echo", "arguments": {"tag": "a", "n": 0.1}})),
        (3, "tools/call", json!({"name": "rpc_error", "arguments": {"code": -32050}})),
    ] {
        writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).unwrap();
    }
    drop(stdin);
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let replies: Vec<Value> = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(server.wait().unwrap().success());
    assert_eq!(replies[0]["result"]["protocolVersion"], "2024-11-05");
    assert_eq!(replies[1]["result"]["structuredContent"], json!({"tag": "a", "n": 0.1}));
    assert_eq!(replies[2]["error"]["code"], -32050);

    let journal = Journal(journal);
    assert_eq!(journal.calls_by("tag").get("\"a\""), Some(&1));
    assert_eq!((journal.events("start").len(), journal.events("eof").len()), (1, 1));
}

#[test]
fn a_fixture_table_is_toml() {
    let text = fixture("fix", &["--name", "a \"quoted\" name"]);
    let table: toml_edit::DocumentMut = text.parse().unwrap();
    assert_eq!(table["servers"]["fix"]["command"].as_array().unwrap().len(), 3);
}
