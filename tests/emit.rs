//! The emit server: what it acknowledges is on the disk, once; what it cannot keep it
//! refuses, and says what is wrong.

mod support;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection as Database;
use rustix::process::Signal;
use serde_json::json;
use support::{
    Connection, Event, Events, Response,
    disk::Disk,
    emit::{Emit, Place, json, post},
    poll,
    service::{Services, lives},
    wait_until,
};

const WITHIN: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_is_acknowledged_is_there_as_it_was_written() {
    let place = Place::new("");
    let emit = place.start();
    let whole = r#"{"id":"a-1","timestamp":"2026-11-24T12:00:00Z","category":"ci","event_type":"deploy_done","service_name":"web","metadata":{"n": 1e400}}"#;
    let answer = emit.post(whole).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(
        json(&answer),
        json!({ "accepted": 1, "events": [{ "id": "a-1", "timestamp": 1_795_521_600_000_i64 }] })
    );
    assert_eq!(
        place.rows("SELECT id, timestamp, category, event_type, service_name, metadata FROM events"),
        [json!({
            "id": "a-1", "timestamp": 1_795_521_600_000_i64, "category": "ci", "event_type": "deploy_done",
            "service_name": "web", "metadata": r#"{"n": 1e400}"#,
        })]
    );
    let small = json(&emit.post(r#"{"event_type":"x"}"#).await);
    let row = place.rows("SELECT id, timestamp, category, service_name, metadata FROM events WHERE seq = 2").remove(0);
    assert_eq!((&row["id"], &row["timestamp"]), (&small["events"][0]["id"], &small["events"][0]["timestamp"]));
    assert_eq!(
        (&row["category"], &row["service_name"], &row["metadata"]),
        (&json!("user"), &json!("unknown"), &json!("{}"))
    );
}

#[tokio::test]
async fn a_repeat_gets_the_same_acknowledgement_and_is_there_once() {
    let place = Place::new("");
    let mut emit = place.start();
    let lines = "{\"event_type\":\"a\"}\n{\"event_type\":\"b\",\"id\":\"mine\"}\n";
    let first = emit.post_lines(&[("Idempotency-Key", "k-1")], lines).await;
    assert_eq!((first.status(), first.header("idempotency-replayed")), (200, None));
    // Another process by then.
    emit.kill();
    let emit = place.start();
    let again = emit.post_lines(&[("Idempotency-Key", "k-1")], lines).await;
    assert_eq!((again.status(), again.header("idempotency-replayed")), (200, Some("true")));
    assert_eq!(first.body, again.body);
    // By the id of the event alone, without its time.
    let known = emit.post(r#"{"event_type":"b","id":"mine"}"#).await;
    assert_eq!(json(&known)["events"][0], json(&first)["events"][1]);
    assert_eq!(place.count(), 2);

    let other = emit.post(r#"{"event_type":"c","id":"mine"}"#).await;
    assert_eq!((other.status(), &json(&other)["error"]["field"]), (409, &json!("id")));
    let other = emit.post_lines(&[("Idempotency-Key", "k-1")], "{\"event_type\":\"z\"}\n").await;
    assert_eq!(other.status(), 422, "{}", other.text());
    assert_eq!(emit.post_lines(&[("Idempotency-Key", "")], lines).await.status(), 400);
    assert_eq!(place.count(), 2);
}

#[tokio::test]
async fn one_wrong_line_refuses_them_all_and_is_named() {
    let place = Place::new("");
    let emit = place.start();
    for (lines, status, line, field, part) in [
        ("{\"event_type\":\"a\"}\n\n{\"event_typ\":\"b\"}\n", 400, json!(3), json!("event_typ"), "did you mean"),
        ("{\"event_type\":\"a\"}\n{\"event_type\"\n", 400, json!(2), json!(null), "not JSON"),
        (
            "{\"event_type\":\"a\",\"id\":\"i\"}\n\n{\"event_type\":\"b\",\"id\":\"i\"}\n",
            409,
            json!(3),
            json!("id"),
            "another one",
        ),
        ("\n", 400, json!(null), json!(null), "no event"),
    ] {
        let answer = emit.post_lines(&[("Idempotency-Key", "k")], lines).await;
        let error = json(&answer)["error"].clone();
        assert_eq!((answer.status(), &error["line"], &error["field"]), (status, &line, &field), "{error}");
        assert!(error["message"].as_str().is_some_and(|said| said.contains(part)), "{error}");
    }
    assert_eq!(place.count(), 0);
    // What was refused has used up no key.
    let good = emit.post_lines(&[("Idempotency-Key", "k")], "{\"event_type\":\"a\"}").await;
    assert_eq!(good.status(), 200, "{}", good.text());
    let large = format!("{{\"event_type\":\"a\",\"metadata\":{{\"x\":\"{}\"}}}}", "y".repeat(2 << 20));
    assert_eq!(emit.post(&large).await.status(), 413);
}

async fn status(emit: &Emit, head: &str, body: &str) -> u16 {
    let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
    emit.connect().await.request(&head, body.as_bytes()).await.expect("an answer").status()
}

#[tokio::test]
async fn the_guard_of_every_listener_stands_here_too() {
    let place = Place::new(", token = \"s3cret\", allowed_hosts = [\"box.lan\"]");
    let emit = place.start();
    let body = r#"{"event_type":"x"}"#;
    let with = |host: &str, more: &str| {
        format!("POST /events HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{more}")
    };
    let token = "Authorization: Bearer s3cret\r\n";
    for (expected, head) in [
        (200, with("127.0.0.1", token)),
        (200, with("box.lan", token)),
        (401, with("127.0.0.1", "")),
        (401, with("127.0.0.1", "Authorization: Bearer s3cre\r\n")),
        (403, with("evil.example", token)),
        (403, with("127.0.0.1", &format!("{token}Origin: https://evil.example\r\n"))),
        (415, format!("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n{token}")),
        (405, format!("DELETE /events HTTP/1.1\r\nHost: localhost\r\n{token}")),
        (404, format!("POST /mcp HTTP/1.1\r\nHost: localhost\r\n{token}")),
        (401, "GET /events HTTP/1.1\r\nHost: localhost\r\n".to_owned()),
    ] {
        assert_eq!(status(&emit, &head, body).await, expected, "{head}");
    }
    assert_eq!(place.count(), 2);
    assert_eq!(emit.get("/healthz").await.text(), "ok\n", "for whoever asks whether it lives");
    assert_eq!(json(&emit.get("/readyz").await)["ready"], true);
}

#[tokio::test]
async fn a_locked_database_is_a_503_and_nothing_of_it_is_there() {
    let place = Place::new("");
    let emit = place.start();
    assert_eq!(emit.post(r#"{"event_type":"before"}"#).await.status(), 200);
    let neighbour = Database::open(place.database()).expect("opens");
    neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let refused = emit.post(r#"{"event_type":"during"}"#).await;
    assert_eq!(refused.status(), 503, "{}", refused.text());
    assert!(refused.header("retry-after").is_some_and(|after| after.parse().is_ok_and(|seconds: u32| seconds > 0)));
    assert!(refused.text().contains("another process holds the database locked"), "{}", refused.text());
    let ready = emit.get("/readyz").await;
    assert_eq!((ready.status(), &json(&ready)["ready"]), (503, &json!(false)));
    neighbour.execute_batch("COMMIT").expect("unlocks");
    assert_eq!(emit.post(r#"{"event_type":"after"}"#).await.status(), 200);
    assert_eq!(emit.get("/readyz").await.status(), 200);
    let types = place.rows("SELECT event_type FROM events ORDER BY seq");
    assert_eq!(types, [json!({ "event_type": "before" }), json!({ "event_type": "after" })]);
}

#[tokio::test]
async fn a_full_disk_is_a_503_and_what_was_acknowledged_is_there() {
    let Some(disk) = Disk::of("size=1m") else { return };
    let place = Place::new(&format!(", database = \"{}\"", disk.path().join("emit.db").display()));
    let emit = place.start();
    let event = |n: usize| format!(r#"{{"event_type":"x","id":"e{n}","metadata":{{"a":"{}"}}}}"#, "y".repeat(20_000));
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for n in 0..200 {
        let answer = emit.post(&event(n)).await;
        match answer.status() {
            200 => acknowledged.push(format!("e{n}")),
            503 => {
                assert!(answer.header("retry-after").is_some());
                refused += 1;
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!(refused > 0 && !acknowledged.is_empty(), "one MiB holds some and not all: {refused} refused");
    let ids = |emit_db: &std::path::Path| -> Vec<String> {
        let rows = support::database::rows(emit_db, "SELECT id FROM events ORDER BY seq").expect("reads");
        rows.iter().map(|row| row["id"].as_str().expect("text").to_owned()).collect()
    };
    let path = disk.path().join("emit.db");
    assert_eq!(ids(&path), acknowledged, "no more and no less");
    disk.remount("size=64m");
    wait_until(WITHIN, "events to be taken again", async || {
        (emit.post(&event(1000)).await.status() == 200).then_some(())
    })
    .await;
    assert_eq!(ids(&path).len(), acknowledged.len() + 1);
}

#[tokio::test]
async fn pages_lead_from_the_beginning_to_the_end_and_filters_hold() {
    let place = Place::new("");
    let emit = place.start();
    let lines: String = (0..25)
        .map(|n| {
            let kind = if n % 5 == 0 { "five" } else { "other" };
            format!(
                "{{\"event_type\":\"{kind}\",\"category\":\"c{}\",\"service_name\":\"s{n}\",\"timestamp\":{}}}\n",
                n % 2,
                1000 + n
            )
        })
        .collect();
    assert_eq!(emit.post_lines(&[], &lines).await.status(), 200);
    let names = |answer: &Response| -> Vec<String> {
        let answer = json(answer);
        let events = answer["events"].as_array().expect("a list");
        events.iter().map(|event| event["service_name"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(names(&emit.get("/events?limit=3").await), ["s22", "s23", "s24"], "the newest, in their order");
    assert_eq!(names(&emit.get("/events?type=five").await), ["s0", "s5", "s10", "s15", "s20"]);
    assert_eq!(names(&emit.get("/events?type=five&category=c1").await), ["s5", "s15"]);
    assert_eq!(names(&emit.get("/events?service=s7").await), ["s7"]);
    assert_eq!(names(&emit.get("/events?since=1003&until=1005").await), ["s3", "s4"]);

    let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
    loop {
        let answer = emit.get(&format!("/events?cursor={cursor}&limit=10")).await;
        seen.extend(names(&answer));
        let answer = json(&answer);
        cursor = answer["next"].as_str().expect("a place").to_owned();
        if answer["more"] == false {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(|n| format!("s{n}")).collect::<Vec<_>>());
    assert!(names(&emit.get(&format!("/events?cursor={cursor}")).await).is_empty());
    emit.post(r#"{"event_type":"x","service_name":"new"}"#).await;
    assert_eq!(names(&emit.get(&format!("/events?cursor={cursor}")).await), ["new"]);
    let wrong = emit.get("/events?tipe=x").await;
    assert_eq!(wrong.status(), 400);
    assert!(wrong.text().contains("tipe: no such parameter"), "{}", wrong.text());
}

#[tokio::test]
async fn a_page_of_large_events_is_bounded_and_the_next_goes_on() {
    let place = Place::new(", max_body = \"8MiB\"");
    let emit = place.start();
    let large = "y".repeat(60_000);
    let line =
        |n: usize| format!("{{\"event_type\":\"x\",\"service_name\":\"s{n}\",\"metadata\":{{\"y\":\"{large}\"}}}}\n");
    let lines: String = (0..50).map(line).collect();
    assert_eq!(emit.post_lines(&[], &lines).await.status(), 200);
    let page_max = 1024 * 1024 + 1000;
    let newest = emit.get("/events?limit=1000").await;
    assert!(newest.body.len() < page_max, "{}", newest.body.len());
    let newest = json(&newest)["events"].as_array().map(|events| (events.len(), events[events.len() - 1].clone()));
    assert!(newest.is_some_and(|(count, last)| (10..20).contains(&count) && last["service_name"] == "s49"));
    let (mut cursor, mut seen, mut pages) = ("0".to_owned(), 0, 0);
    loop {
        let answer = emit.get(&format!("/events?cursor={cursor}&limit=1000")).await;
        assert!(answer.body.len() < page_max, "{}", answer.body.len());
        let answer = json(&answer);
        for event in answer["events"].as_array().expect("a list") {
            assert_eq!(event["service_name"], format!("s{seen}"));
            seen += 1;
        }
        pages += 1;
        cursor = answer["next"].as_str().expect("a place").to_owned();
        if answer["more"] == false {
            break;
        }
    }
    assert_eq!((seen, pages), (50, 3));
    let mut follower = Follower::open(&emit, "/events?cursor=0", None).await;
    assert_eq!(follower.types(50).await.len(), 50);
}

/// A stream of events that is open.
struct Follower {
    connection: Connection,
    head: support::http::Head,
    events: Events,
    seen: std::collections::VecDeque<Event>,
}

impl Follower {
    async fn open(emit: &Emit, target: &str, last: Option<&str>) -> Follower {
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let head = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n{last}\r\n");
        let mut connection = emit.connect().await;
        connection.send(head.as_bytes()).await.expect("sent");
        let head = connection.head().await.expect("a head");
        assert!(head.status == 200 && head.is_event_stream(), "{head:?}");
        Follower { connection, head, events: Events::default(), seen: [].into() }
    }

    /// The id of the next event, or the place that the stream begins at.
    async fn next(&mut self) -> Option<Event> {
        while self.seen.is_empty() {
            let piece = tokio::time::timeout(WITHIN, self.connection.piece(&self.head)).await.expect("in time");
            self.seen.extend(self.events.feed(&piece.ok()??));
        }
        self.seen.pop_front()
    }

    async fn types(&mut self, count: usize) -> Vec<String> {
        let mut types = Vec::new();
        while types.len() < count {
            let event = self.next().await.expect("the stream goes on");
            if event.data.is_empty() {
                continue;
            }
            let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
            types.push(data["event_type"].as_str().expect("text").to_owned());
        }
        types
    }
}

#[tokio::test]
async fn whoever_follows_misses_nothing_across_a_death_of_the_server() {
    let place = Place::new("");
    let mut emit = place.start();
    emit.post(r#"{"event_type":"early"}"#).await;
    let mut follower = Follower::open(&emit, "/events", None).await;
    let opened = follower.next().await.expect("where it begins");
    assert!(opened.id.is_some() && opened.data.is_empty(), "{opened:?}");
    let mut some = Follower::open(&emit, "/events?type=two", None).await;
    for event_type in ["one", "two", "three"] {
        emit.post(&format!(
            r#"{{"event_type":"{event_type}","metadata":{{"a":
            1}}}}"#
        ))
        .await;
    }
    assert_eq!(follower.types(1).await, ["one"], "from when it began");
    let two = follower.next().await.expect("two");
    assert_eq!(some.types(1).await, ["two"]);
    emit.kill();
    // What was sent before it died, and then the end.
    while follower.next().await.is_some() {}

    let mut emit = place.start();
    let id = two.id.expect("each event has one");
    let mut follower = Follower::open(&emit, "/events", Some(&id)).await;
    emit.post(r#"{"event_type":"four"}"#).await;
    assert_eq!(follower.types(2).await, ["three", "four"]);
    let mut all = Follower::open(&emit, "/events?cursor=0", None).await;
    assert_eq!(all.types(5).await, ["early", "one", "two", "three", "four"]);
    // One that follows does not keep it from ending.
    emit.signal(Signal::TERM);
    assert_eq!(emit.end().code(), Some(0));
    assert_eq!(follower.next().await, None);
}

/// Retention deletes once a minute; here somebody else does, in the same order.
#[tokio::test]
async fn whoever_reads_later_than_events_are_kept_is_told_that_some_are_gone() {
    let place = Place::new("");
    let emit = place.start();
    emit.post(r#"{"event_type":"one"}"#).await;
    let listing = json(&emit.get("/events?cursor=0").await);
    assert!(listing.get("lost").is_none(), "{listing}");
    let seen = listing["next"].as_str().expect("a place").to_owned();
    for event_type in ["two", "three"] {
        emit.post(&format!(r#"{{"event_type":"{event_type}"}}"#)).await;
    }
    let neighbour = Database::open(place.database()).expect("opens");
    neighbour.execute_batch("DELETE FROM events WHERE event_type <> 'three'").expect("deleted");
    let mut follower = Follower::open(&emit, "/events", Some(&seen)).await;
    assert_eq!(follower.next().await.and_then(|opened| opened.id).as_ref(), Some(&seen));
    let lost = follower.next().await.expect("the stream goes on");
    assert_eq!((lost.kind.as_deref(), lost.id), (Some("lost"), None));
    let told: serde_json::Value = serde_json::from_str(&lost.data).expect("JSON");
    assert_eq!(told, serde_json::json!({ "reason": "deleted", "after": seen }));
    assert_eq!(follower.types(1).await, ["three"]);
    assert_eq!(json(&emit.get(&format!("/events?cursor={seen}")).await)["lost"], "deleted");
    emit.post(r#"{"event_type":"four"}"#).await;
    assert_eq!(follower.types(1).await, ["four"], "it is told once");
}

#[tokio::test]
async fn what_is_under_way_when_it_is_told_to_stop_is_answered() {
    let place = Place::new("");
    let mut emit = place.start();
    let neighbour = {
        emit.post(r#"{"event_type":"before"}"#).await;
        let neighbour = Database::open(place.database()).expect("opens");
        neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
        neighbour
    };
    let mut connection = emit.connect().await;
    let body = r#"{"event_type":"late"}"#;
    let head = format!(
        "POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.send(&[head.as_bytes(), body.as_bytes()].concat()).await.expect("sent");
    // It is at the writer, which waits for the lock.
    wait_until(WITHIN, "it to be taken", async || (json(&emit.get("/readyz").await)["waiting"] == 1).then_some(()))
        .await;
    emit.signal(Signal::TERM);
    neighbour.execute_batch("COMMIT").expect("unlocks");
    let answer = connection.response().await.expect("an answer");
    assert_eq!(emit.end().code(), Some(0), "{}", emit.log.text());
    let is_there = place_has_late(&place);
    assert_eq!(answer.status() == 200, is_there, "{}: {}", answer.status(), answer.text());
    assert!(Connection::open(emit.address).await.is_err(), "nothing listens any more");
}

fn place_has_late(place: &Place) -> bool {
    place.rows("SELECT event_type FROM events WHERE event_type = 'late'").len() == 1
}

#[tokio::test]
async fn under_seawall_run_it_is_watched_and_its_stop_is_recorded() {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = probe.local_addr().expect("an address");
    drop(probe);
    let services = Services::new(&format!(
        "[services.one]\nbuiltin = \"emit\"\noptions = {{ listen = \"{address}\", token = \"s3cret\" }}\n\
         health = {{ url = \"http://{address}/healthz\", every = \"100ms\" }}\n"
    ));
    let run = services.start();
    wait_until(WITHIN, "its health to be well", async || (services.marker()["life"]["health"] == "well").then_some(()))
        .await;
    let pid =
        services.wait_for("service_start")["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
    run.signal(Signal::TERM);
    run.end();
    assert_eq!(services.types(), ["service_start", "service_stop"]);
    assert_eq!(services.last("service_stop")["exit_code"], 0);
    assert!(poll(WITHIN, || (!lives(pid)).then_some(())).is_some());
}

/// What all writers of the storm share.
struct Storm {
    address: Mutex<SocketAddr>,
    /// The next event that nobody has sent.
    next: AtomicUsize,
    /// Only those below it may be sent before the next death.
    limit: AtomicUsize,
    events: usize,
    acknowledged: Mutex<BTreeMap<String, usize>>,
    /// Answers that never came: the server died with the request in hand.
    torn: AtomicUsize,
    is_over: AtomicBool,
}

/// One writer: batches under a key, or single events with ids, each sent until it is
/// acknowledged.
async fn write(storm: Arc<Storm>, with_keys: bool) {
    let batch = if with_keys { 20 } else { 1 };
    let mut connection = None;
    loop {
        while storm.next.load(Ordering::SeqCst) >= storm.limit.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let first = storm.next.fetch_add(batch, Ordering::SeqCst);
        if first >= storm.events {
            return;
        }
        let numbers = first..(first + batch).min(storm.events);
        let (kind, headers, body) = match with_keys {
            true => {
                let lines =
                    numbers.clone().map(|n| format!("{{\"event_type\":\"storm\",\"metadata\":{{\"n\":{n}}}}}\n"));
                ("application/x-ndjson", vec![("Idempotency-Key", format!("k{first}"))], lines.collect::<String>())
            }
            false => {
                let body = format!("{{\"event_type\":\"storm\",\"id\":\"e{first}\",\"metadata\":{{\"n\":{first}}}}}");
                ("application/json", Vec::new(), body)
            }
        };
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        loop {
            let mut open = match connection.take() {
                Some(open) => open,
                None => {
                    let address = *storm.address.lock().expect("not poisoned");
                    match Connection::open(address).await {
                        Ok(open) => open,
                        Err(_) => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            continue;
                        }
                    }
                }
            };
            match post(&mut open, kind, &headers, &body).await {
                Ok(answer) if answer.status() == 200 => {
                    let answer = json(&answer);
                    let events = answer["events"].as_array().expect("a list");
                    assert_eq!(events.len(), numbers.len());
                    let ids = events.iter().map(|event| event["id"].as_str().expect("text").to_owned());
                    storm.acknowledged.lock().expect("not poisoned").extend(ids.zip(numbers));
                    connection = Some(open);
                    break;
                }
                Ok(answer) => assert_eq!(answer.status(), 503, "{}", answer.text()),
                Err(_) => {
                    storm.torn.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }
}

/// The long form: `SEAWALL_EMIT_EVENTS=50000 cargo test --test emit killed -- --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_acknowledged_event_is_there_once_however_often_it_is_killed() {
    let events = std::env::var("SEAWALL_EMIT_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    // So many between two deaths.
    let quota = 400;
    let place = Place::new("");
    let mut emit = place.start();
    let storm = Arc::new(Storm {
        address: Mutex::new(emit.address),
        next: AtomicUsize::new(0),
        limit: AtomicUsize::new(quota),
        events,
        acknowledged: Mutex::default(),
        torn: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
    });
    let began = Instant::now();
    let writers: Vec<_> = (0..8).map(|n| tokio::spawn(write(storm.clone(), n % 2 == 0))).collect();
    let all = {
        let storm = storm.clone();
        tokio::spawn(async move {
            for writer in writers {
                writer.await.expect("a writer does not panic");
            }
            storm.is_over.store(true, Ordering::SeqCst);
        })
    };
    let mut kills = 0;
    while !storm.is_over.load(Ordering::SeqCst) {
        // In the midst of its share, at another place each time.
        let enough = kills * quota + quota * (1 + kills % 3) / 4;
        let acknowledged = || storm.acknowledged.lock().expect("not poisoned").len();
        poll(WITHIN, || (acknowledged() >= enough || storm.is_over.load(Ordering::SeqCst)).then_some(()))
            .expect("it goes on");
        tokio::task::block_in_place(|| emit.kill());
        kills += 1;
        emit = tokio::task::block_in_place(|| place.start());
        *storm.address.lock().expect("not poisoned") = emit.address;
        let limit = (kills + 1) * quota;
        // Beyond the last event there is nothing to wait for.
        storm.limit.store(if limit >= events { usize::MAX } else { limit }, Ordering::SeqCst);
    }
    all.await.expect("all is sent");
    emit.signal(Signal::TERM);
    assert_eq!(emit.end().code(), Some(0));

    let acknowledged = storm.acknowledged.lock().expect("not poisoned").clone();
    assert_eq!(acknowledged.len(), events, "each was acknowledged, under an id of its own");
    let rows = place.rows("SELECT id, json_extract(metadata, '$.n') AS n FROM events");
    assert_eq!(rows.len(), events, "once");
    for row in rows {
        let id = row["id"].as_str().expect("text");
        assert_eq!(acknowledged.get(id).map(|n| json!(n)), Some(row["n"].clone()), "{id}");
    }
    let torn = storm.torn.load(Ordering::SeqCst);
    assert!(kills + 1 >= events / quota, "killed {kills} times");
    println!("{events} events, {kills} times killed, {torn} requests torn, {:?}", began.elapsed());
}
