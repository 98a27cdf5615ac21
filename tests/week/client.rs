//! A client of the week on an in-memory stream: calls now and then, and what it was told.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use rand::{Rng as _, rngs::StdRng};
use seawall::failure::Class;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf, split},
    time::{Instant, sleep, timeout},
};

use crate::{house::SERVERS, world::World};

/// Longer than the cap of a call by default.
const PATIENCE: Duration = Duration::from_secs(400);
/// Calls of one burst, and how long there are none after it.
const BURST_MAX: u64 = 8;
const PAUSE_MAX_S: u64 = 1800;

/// How every call of some clients ended.
#[derive(Default)]
pub(crate) struct Told {
    /// By the call's number: which server, and how.
    ends: HashMap<u64, (usize, String)>,
}

struct Conversation {
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    write: WriteHalf<DuplexStream>,
}

pub(crate) async fn live(stream: DuplexStream, number: usize, time: Duration, mut chance: StdRng) -> Told {
    let until = Instant::now() + time;
    let (read, write) = split(stream);
    let mut with = Conversation { lines: BufReader::new(read).lines(), write };
    let hello =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "w", "version": "1"}});
    with.send(json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})).await;
    assert_eq!(with.replies(1).await.len(), 1);
    with.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    let (mut told, mut last) = (Told::default(), (number as u64 + 1) << 32);
    while Instant::now() < until {
        let mut asked = BTreeMap::new();
        for _ in 0..chance.random_range(1..=BURST_MAX) {
            last += 1;
            let server = chance.random_range(0..SERVERS.len());
            let tool = format!("{}__{}", SERVERS[server].name, if chance.random_bool(0.5) { "echo" } else { "read" });
            let params = json!({"name": tool, "arguments": {"n": last}});
            with.send(json!({"jsonrpc": "2.0", "id": last, "method": "tools/call", "params": params})).await;
            asked.insert(last, server);
        }
        for reply in with.replies(asked.len()).await {
            let id = reply["id"].as_u64().expect("an id of ours");
            let server = asked.remove(&id).unwrap_or_else(|| panic!("nobody asked for, or asked twice: {reply}"));
            told.ends.insert(id, (server, end_of(&reply)));
        }
        sleep(Duration::from_secs(chance.random_range(0..PAUSE_MAX_S))).await;
    }
    with.nothing_more().await;
    told
}

/// "ok" is its own answer.
fn end_of(reply: &Value) -> String {
    let result = &reply["result"];
    if result["structuredContent"]["n"] == reply["id"] {
        return "ok".to_owned();
    }
    if reply["error"]["code"].is_i64() {
        return "rejected".to_owned();
    }
    assert_eq!(result["isError"], true, "an answer to something else: {reply}");
    result["_meta"]["seawall/failure"]["class"].as_str().unwrap_or("tool_error").to_owned()
}

impl Conversation {
    async fn send(&mut self, message: Value) {
        self.write.write_all(format!("{message}\n").as_bytes()).await.expect("the gateway reads");
    }

    /// So many replies; notifications are passed over.
    async fn replies(&mut self, count: usize) -> Vec<Value> {
        let mut replies = Vec::new();
        while replies.len() < count {
            let line = timeout(PATIENCE, self.lines.next_line()).await.expect("every call ends in time");
            let line = line.expect("the stream stays open").expect("the stream stays open");
            let message: Value = serde_json::from_str(&line).expect("the gateway writes JSON");
            if message.get("method").is_none() {
                replies.push(message);
            }
        }
        replies
    }

    /// It leaves; until the gateway has closed its side no reply may come.
    async fn nothing_more(mut self) {
        self.write.shutdown().await.expect("a stream can be closed");
        while let Some(line) = self.lines.next_line().await.expect("the stream ends in order") {
            let message: Value = serde_json::from_str(&line).expect("the gateway writes JSON");
            assert!(message.get("method").is_some(), "a reply that nobody asked for: {message}");
        }
    }
}

impl Told {
    pub(crate) fn add(&mut self, other: Told) {
        self.ends.extend(other.ends);
    }

    pub(crate) fn is_right(&self, worlds: &[World], days: u32) {
        let mut summary = BTreeMap::<(&str, &str), usize>::new();
        for (number, (server, end)) in &self.ends {
            let received = worlds[*server].received(*number);
            let name = SERVERS[*server].name;
            *summary.entry((name, end.as_str())).or_default() += 1;
            assert!(Class::ALL.iter().any(|class| class.name() == end), "no class of the table: {end}");
            assert_ne!(end, "internal", "a bug of ours ended {name}'s call {number}");
            assert!(received <= 1, "{name} got call {number} {received} times");
            match end.as_str() {
                "ok" | "tool_error" | "server_error" => assert_eq!(received, 1, "{name}: {number} ended as {end}"),
                "lost" | "timeout" | "protocol" => {}
                _ => assert_eq!(received, 0, "{name}: {number} ended as {end}"),
            }
            assert!(SERVERS[*server].fails || end == "ok", "{name} works, and {number} ended as {end}");
        }
        eprintln!("{} calls: {summary:?}", self.ends.len());
        for server in &SERVERS {
            assert!(summary.get(&(server.name, "ok")).is_some_and(|ok| *ok > 20 * days as usize), "{summary:?}");
        }
        let lost = summary.iter().filter(|((_, end), _)| *end == "lost").map(|(_, count)| count).sum::<usize>();
        assert!(lost > days as usize, "hardly anything went wrong: {summary:?}");
    }
}
