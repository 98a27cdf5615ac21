//! A client, and gateways that come and go, over streams in memory and on a paused clock.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex};

use super::*;

const DRAIN: Duration = Duration::from_secs(30);

struct Client {
    lines: tokio::io::Lines<BufReader<ReadHalf<DuplexStream>>>,
    out: WriteHalf<DuplexStream>,
}

impl Client {
    async fn send(&mut self, message: Value) {
        put(&mut self.out, message.to_string().as_bytes()).await.expect("it reads");
    }

    async fn next(&mut self) -> Value {
        let line = self.lines.next_line().await.expect("readable").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }
}

/// The handshake of a client with its first gateway.
async fn shake_hands(client: &mut Client, gateway: &mut Client) {
    client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"n": 1}})).await;
    assert_eq!(gateway.next().await["id"], 1);
    gateway.send(json!({"jsonrpc": "2.0", "id": 1, "result": {"capabilities": {}}})).await;
    assert_eq!(client.next().await["id"], 1);
}

fn over(stream: DuplexStream) -> Client {
    let (read, out) = split(stream);
    Client { lines: BufReader::new(read).lines(), out }
}

#[tokio::test(start_paused = true)]
async fn without_a_gateway_calls_wait_for_a_while_and_are_refused_then() {
    let (theirs, ours) = duplex(4096);
    let (link, gateway) = duplex(4096);
    drop(gateway);
    let serving = tokio::spawn(async move {
        relay(split(ours), DRAIN, link, async || Err::<DuplexStream, _>(ControlError::NoGateway)).await
    });
    let mut client = over(theirs);
    let began = Instant::now();
    client.send(json!({"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"name": "x"}})).await;
    client.send(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})).await;
    let (call, list) = (client.next().await, client.next().await);
    assert!(began.elapsed() >= GRACE, "a gateway that restarts is waited for: {:?}", began.elapsed());
    assert_eq!(call["result"]["_meta"]["seawall/failure"]["class"], "unavailable", "{call}");
    assert_eq!((&call["id"], &list["id"]), (&json!("a"), &json!(2)));
    let message = list["error"]["message"].as_str().expect("a message");
    assert!(message.contains("start one with `seawall serve`"), "{message}");
    client.send(json!({"jsonrpc": "2.0", "id": 3, "method": "ping"})).await;
    client.out.shutdown().await.expect("closed");
    assert_eq!(client.next().await["id"], 3, "asked before the end");
    serving.await.expect("no panic").expect("the end of the input is no error");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_refuses_the_old_handshake_ends_it() {
    let (theirs, ours) = duplex(4096);
    let (link, gateway) = duplex(4096);
    let (next, second) = duplex(4096);
    let next = Mutex::new(Some(next));
    let join = async || next.lock().expect("whole").take().ok_or(ControlError::NoGateway);
    let serving = relay(split(ours), DRAIN, link, join);
    let (mut client, mut gateway, mut second) = (over(theirs), over(gateway), over(second));
    let playing = async {
        shake_hands(&mut client, &mut gateway).await;
        drop(gateway);
        let hello = second.next().await;
        assert_eq!(hello["params"], json!({"n": 1}));
        let error = json!({"code": -32602, "message": "another version"});
        second.send(json!({"jsonrpc": "2.0", "id": hello["id"], "error": error})).await;
    };
    let (ended, ()) = tokio::join!(serving, playing);
    let ended = ended.expect_err("a client cannot go on with it");
    assert!(ended.to_string().ends_with("another version"), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn what_a_client_cancelled_is_not_answered_as_lost() {
    let (theirs, ours) = duplex(4096);
    let (link, gateway) = duplex(4096);
    tokio::spawn(relay(split(ours), DRAIN, link, async || Err::<DuplexStream, _>(ControlError::NoGateway)));
    let (mut client, mut gateway) = (over(theirs), over(gateway));
    for id in [1, 2] {
        client.send(json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "x"}})).await;
    }
    let params = json!({"requestId": 1});
    client.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
    for _ in 0..3 {
        gateway.next().await;
    }
    drop(gateway);
    assert_eq!(client.next().await["id"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_open_is_answered_as_one() {
    let (theirs, ours) = duplex(4096);
    let (link, gateway) = duplex(4096);
    tokio::spawn(relay(split(ours), DRAIN, link, async || Err::<DuplexStream, _>(ControlError::NoGateway)));
    let (mut client, mut gateway) = (over(theirs), over(gateway));
    let ping = |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
    client.send(json!([ping(1), ping(2)])).await;
    client.send(json!([ping(3), {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}])).await;
    client.send(ping(4)).await;
    for _ in 0..3 {
        gateway.next().await;
    }
    drop(gateway);
    let mut told = [client.next().await, client.next().await, client.next().await].map(|line| match line.as_array() {
        Some(answers) => answers.iter().map(|answer| answer["id"].as_u64()).collect(),
        None => vec![line["id"].as_u64(), None],
    });
    told.iter_mut().for_each(|ids| ids.sort_unstable());
    told.sort_unstable();
    assert_eq!(told, [vec![None, Some(4)], vec![Some(1), Some(2)], vec![Some(3)]]);
}

/// One that accepts and is stopped, say.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_accepts_and_is_silent_holds_nobody() {
    let (theirs, ours) = duplex(4096);
    let (link, gateway) = duplex(4096);
    let silent = Mutex::new(Vec::new());
    let join = async || {
        let (link, kept) = duplex(4096);
        silent.lock().expect("whole").push(kept);
        Ok::<_, ControlError>(link)
    };
    let (mut client, mut gateway) = (over(theirs), over(gateway));
    let playing = async {
        shake_hands(&mut client, &mut gateway).await;
        drop(gateway);
        client.send(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})).await;
        let refused = client.next().await;
        assert_eq!(refused["error"]["data"]["seawall/failure"]["class"], "unavailable", "{refused}");
        client.out.shutdown().await.expect("closed");
    };
    let began = Instant::now();
    let (ended, ()) = tokio::join!(relay(split(ours), DRAIN, link, join), playing);
    ended.expect("the end of the input is no error");
    assert!(began.elapsed() < GRACE + JOIN_TIMEOUT, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_was_open_is_had_with_the_next_gateway() {
    let (theirs, ours) = duplex(4096);
    let (link, gateway) = duplex(4096);
    let (next, second) = duplex(4096);
    let next = Mutex::new(Some(next));
    let join = async || next.lock().expect("whole").take().ok_or(ControlError::NoGateway);
    let (mut client, mut gateway, mut second) = (over(theirs), over(gateway), over(second));
    let playing = async {
        client.send(json!({"jsonrpc": "2.0", "id": "hi", "method": "initialize", "params": {"n": 1}})).await;
        client.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        gateway.next().await;
        gateway.next().await;
        drop(gateway);
        let again = second.next().await;
        assert_eq!((&again["id"], &again["params"]), (&json!("hi"), &json!({"n": 1})));
        assert_eq!(second.next().await["method"], "notifications/initialized");
        second.send(json!({"jsonrpc": "2.0", "id": "hi", "result": {"capabilities": {}}})).await;
        assert_eq!(client.next().await["id"], "hi");
        client.out.shutdown().await.expect("closed");
        drop(second);
    };
    let (ended, ()) = tokio::join!(relay(split(ours), DRAIN, link, join), playing);
    ended.expect("the end of the input is no error");
}

/// Its server does not run: it may, later.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_cannot_serve_it_yet_is_asked_again() {
    let (theirs, ours) = duplex(4096);
    let (link, gateway) = duplex(4096);
    let (one, first) = duplex(4096);
    let (two, second) = duplex(4096);
    let links = Mutex::new(vec![two, one]);
    let join = async || links.lock().expect("whole").pop().ok_or(ControlError::NoGateway);
    let (mut client, mut gateway) = (over(theirs), over(gateway));
    let (mut first, mut second) = (over(first), over(second));
    let playing = async {
        shake_hands(&mut client, &mut gateway).await;
        drop(gateway);
        client.send(json!({"jsonrpc": "2.0", "id": 2, "method": "ping"})).await;
        let hello = first.next().await;
        let error = json!({"code": -32000, "message": "its process ended"});
        first.send(json!({"jsonrpc": "2.0", "id": hello["id"], "error": error})).await;
        let hello = second.next().await;
        second.send(json!({"jsonrpc": "2.0", "id": hello["id"], "result": {}})).await;
        assert_eq!(second.next().await["method"], "ping", "what was held comes after the handshake");
        second.send(json!({"jsonrpc": "2.0", "id": 2, "result": {}})).await;
        assert_eq!(client.next().await["id"], 2);
        client.out.shutdown().await.expect("closed");
        drop(second);
    };
    let (ended, ()) = tokio::join!(relay(split(ours), DRAIN, link, join), playing);
    ended.expect("the end of the input is no error");
}
