//! What the services are for, all the while: events that are acknowledged, files that appear.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use super::mac::Mac;
use crate::{
    database,
    http::{Connection, Response},
    report::Report,
    wait::wait_until,
};

const PAUSE: Duration = Duration::from_millis(25);
const PATIENCE: Duration = Duration::from_secs(5);
/// So many files are cleared away together, as a file takes more room than all that is known of it.
const PILE_FILES: u64 = 250;

pub(crate) struct Work {
    stop: watch::Sender<bool>,
    emitting: JoinHandle<BTreeSet<u64>>,
    filing: JoinHandle<u64>,
    embedding: JoinHandle<Vectors>,
}

/// One text, again and again.
#[derive(Default)]
struct Vectors {
    /// What was answered first.
    first: Option<Value>,
    same: u64,
    other: u64,
}

impl Work {
    pub(crate) fn begin(mac: &Mac) -> Work {
        let (stop, stopped) = watch::channel(false);
        Work {
            stop,
            emitting: tokio::spawn(emit(mac.emit, stopped.clone())),
            filing: tokio::spawn(file(mac.etc().to_owned(), stopped.clone())),
            embedding: tokio::spawn(embed(mac.embedding, stopped)),
        }
    }

    /// What came of it, once all of it can have arrived.
    pub(crate) async fn end(self, mac: &Mac, report: &mut Report) -> String {
        self.stop.send_replace(true);
        let (acknowledged, files) = (self.emitting.await.expect("no panic"), self.filing.await.expect("no panic"));
        let vectors = self.embedding.await.expect("no panic");
        report.demand(vectors.other == 0, format!("{} vectors were not those of their text", vectors.other));
        report.demand(vectors.same > 0 || !mac.has_model, "no vector was made");
        let rows = database::rows(&mac.etc().join("emit.db"), "SELECT id, count(*) AS times FROM events GROUP BY id");
        let mut kept = BTreeSet::new();
        for row in rows.expect("emit.db can be read") {
            report.demand(row["times"] == 1, format!("an event is there more than once: {row}"));
            kept.extend(row["id"].as_str().and_then(|id| id.parse::<u64>().ok()));
        }
        let lost = acknowledged.difference(&kept).count();
        report.demand(lost == 0, format!("{lost} acknowledged events are lost"));
        let recorded = || count(mac.etc(), "SELECT count(DISTINCT path) AS n FROM events WHERE event = 'created'");
        wait_until(super::WITHIN, "every file to be seen", async || (recorded() == files).then_some(())).await;
        let twice = "SELECT count(*) - count(DISTINCT path) AS n FROM events WHERE event = 'created'";
        let twice = count(mac.etc(), twice);
        report.demand(twice == 0, format!("{twice} files are recorded more than once"));
        format!(
            "{} events were acknowledged and are there once; {files} files were recorded once each.",
            acknowledged.len()
        )
    }
}

/// Each is sent until it is acknowledged, as its id allows.
async fn emit(address: SocketAddr, stopped: watch::Receiver<bool>) -> BTreeSet<u64> {
    let mut acknowledged = BTreeSet::new();
    let mut number = 0;
    while !*stopped.borrow() {
        let body = format!("{{\"id\":\"{number}\",\"event_type\":\"soak\",\"timestamp\":{number}}}");
        let head = format!(
            "POST /events HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if said(address, &head, body.as_bytes()).await == Some(200) {
            acknowledged.insert(number);
            number += 1;
        }
        sleep(PAUSE).await;
    }
    acknowledged
}

async fn embed(address: SocketAddr, stopped: watch::Receiver<bool>) -> Vectors {
    let body = r#"{"input":"the harbour wall"}"#;
    let head = format!(
        "POST /v1/embeddings HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut vectors = Vectors::default();
    while !*stopped.borrow() {
        if let Some(answer) = answer(address, &head, body.as_bytes()).await.filter(|answer| answer.status() == 200) {
            let vector =
                serde_json::from_str::<Value>(&answer.text()).map(|mut json| json["data"][0]["embedding"].take());
            match (vector.ok().filter(Value::is_array), &vectors.first) {
                (Some(vector), None) => vectors.first = Some(vector),
                (Some(vector), Some(first)) if vector == *first => vectors.same += 1,
                _ => vectors.other += 1,
            }
        }
        sleep(PAUSE).await;
    }
    vectors
}

/// A file that there was no room for is tried again. Those that the watcher has on record are
/// cleared away a pile at a time: the disk is to be full when it is filled, and not of this.
async fn file(etc: PathBuf, stopped: watch::Receiver<bool>) -> u64 {
    let name = |number: u64| etc.join(format!("in/{}-{}.txt", number / PILE_FILES, number % PILE_FILES));
    let (mut number, mut piles) = (0, Vec::new());
    while !*stopped.borrow() {
        if std::fs::write(name(number), format!("file {number}")).is_ok() {
            number += 1;
            if number % PILE_FILES == 0 {
                // The one that has just grown may not have been seen yet.
                piles.retain(|pile| !is_cleared(&etc, *pile, &name));
                piles.push(number / PILE_FILES - 1);
            }
        }
        sleep(PAUSE).await;
    }
    number
}

fn is_cleared(etc: &Path, pile: u64, name: &impl Fn(u64) -> PathBuf) -> bool {
    let seen =
        format!("SELECT count(DISTINCT path) AS n FROM events WHERE event = 'created' AND path LIKE '%/{pile}-%'");
    let is_seen = count(etc, &seen) == PILE_FILES;
    if is_seen {
        for number in pile * PILE_FILES..(pile + 1) * PILE_FILES {
            std::fs::remove_file(name(number)).expect("nobody else removes files");
        }
    }
    is_seen
}

/// 0 while watch.db cannot be read.
fn count(etc: &Path, sql: &str) -> u64 {
    let rows = database::rows(&etc.join("watch.db"), sql).unwrap_or_default();
    rows.first().and_then(|row| row["n"].as_u64()).unwrap_or_default()
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<u16> {
    said(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"), b"").await
}

/// The status of one request over a connection of its own; `None` if nobody answers.
async fn said(address: SocketAddr, head: &str, body: &[u8]) -> Option<u16> {
    Some(answer(address, head, body).await?.status())
}

async fn answer(address: SocketAddr, head: &str, body: &[u8]) -> Option<Response> {
    let asked = async {
        let mut connection = Connection::open(address).await.ok()?;
        connection.request(head, body).await.ok()
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
}
