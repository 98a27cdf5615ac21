//! The embedding server: its vectors are those of sentence-transformers; no request fails
//! for what becomes of the process that has the model; what is wrong is said as OpenAI does.
#![cfg(feature = "embedding")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{
    Connection, Gateway,
    embedding::{Place, Server, cosine, golden, golden_of, json_of, model, post, tiny, vectors},
    poll,
    service::{Services, lives},
    wait_until,
};

const WITHIN: Duration = Duration::from_secs(120);

#[tokio::test]
async fn vectors_are_those_of_sentence_transformers() {
    let Some(model) = model() else { return };
    let golden = golden();
    let place = Place::new(&model, ", name = \"all-MiniLM-L6-v2\"");
    let server = place.start().await;
    // All in one request, as text of every length beside each other.
    let all: Vec<&str> = golden.iter().map(|one| one.text.as_str()).collect();
    let answer = json_of(&server.post(&json!({ "input": all, "model": "all-MiniLM-L6-v2" })).await);
    let together = vectors(&answer);
    assert_eq!(together.len(), golden.len());
    let tokens: u64 = golden.iter().map(|one| one.tokens).sum();
    assert_eq!(answer["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));
    for (one, vector) in golden.iter().zip(&together) {
        let likeness = cosine(&one.vector, vector);
        assert!(likeness > 0.9999, "{}: {likeness}", one.name);
        let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!((length - 1.0).abs() < 1e-5, "{}: of length {length}", one.name);
        // Alone, and in the other encoding.
        let alone = json_of(&server.post(&json!({ "input": one.text, "encoding_format": "base64" })).await);
        assert!(alone["data"][0]["embedding"].is_string());
        let likeness = cosine(&one.vector, &vectors(&alone)[0]);
        assert!(likeness > 0.9999, "{} alone: {likeness}", one.name);
        assert_eq!(alone["usage"]["prompt_tokens"], one.tokens, "{}", one.name);
        assert_eq!(alone["model"], "all-MiniLM-L6-v2");
    }
    // What they are for: the same sentence in like words is nearer than another one.
    let distinct = cosine(&golden[0].vector, &golden[1].vector);
    assert!(distinct < 0.99, "the texts differ, and so do their vectors: {distinct}");
}

/// Other families, poolings, activations and widths than the real one has.
#[tokio::test]
async fn models_of_other_kinds_agree_as_well() {
    for kind in ["roberta", "bert"] {
        let server = Place::new(&tiny(kind), "").start().await;
        let golden = golden_of(&tiny(kind));
        let texts: Vec<&str> = golden.iter().map(|one| one.text.as_str()).collect();
        let answer = json_of(&server.post(&json!({ "input": texts })).await);
        let found = vectors(&answer);
        for (one, vector) in golden.iter().zip(&found) {
            let likeness = cosine(&one.vector, vector);
            assert!(likeness > 0.9999, "tiny-{kind}, {:?}: {likeness}", one.text);
        }
        assert!(cosine(&found[1], &found[4]) < 0.9, "another text has another vector");
        assert_eq!(answer["usage"]["total_tokens"], golden.iter().map(|one| one.tokens).sum::<u64>(), "tiny-{kind}");
        assert_eq!(answer["model"], format!("tiny-{kind}"), "the name of the folder");
    }
}

#[tokio::test]
async fn tokens_of_the_model_are_taken_as_well() {
    let Some(model) = model() else { return };
    let server = Place::new(&model, "").start().await;
    // "hello world", as the vocabulary of BERT numbers them.
    let of_text = vectors(&json_of(&server.post(&json!({ "input": "hello world" })).await));
    for input in [json!([7592, 2088]), json!([[7592, 2088], [7592, 2088]])] {
        let answer = json_of(&server.post(&json!({ "input": input })).await);
        assert!(vectors(&answer).iter().all(|vector| cosine(vector, &of_text[0]) > 0.999_999), "{answer}");
    }
    let beyond = server.post(&json!({ "input": [[7592], [99_999]] })).await;
    let error = &json_of(&beyond)["error"];
    assert_eq!((beyond.status(), &error["param"]), (400, &json!("input")));
    assert!(error["message"].as_str().is_some_and(|said| said.starts_with("input[1]: 99999 is no token")), "{error}");
}

#[tokio::test]
async fn what_is_wrong_is_said_as_openai_does() {
    let model = tiny("roberta");
    let options = ", token = \"s3cret\", max_inputs = 3, max_text = \"2KiB\", max_body = \"16KiB\", aliases = [\"text-embedding-3-small\"]";
    let server = Place::new(&model, options).start().await;
    let mut connection = server.connect().await;
    let mut ask = async |head: &str, body: &str| {
        let head = format!("{head}Host: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.request(&head, body.as_bytes()).await.expect("an answer on the same connection")
    };
    let head = "POST /v1/embeddings HTTP/1.1\r\nAuthorization: Bearer s3cret\r\nContent-Type: application/json\r\n";
    for (body, status, param, part) in [
        (json!({ "input": "a" }), 200, json!(null), ""),
        (json!({ "input": "a", "model": "text-embedding-3-small", "user": "u" }), 200, json!(null), ""),
        (json!({ "input": "a", "dimensions": 32 }), 200, json!(null), ""),
        (json!({ "input": "a", "model": "gpt-5" }), 404, json!("model"), "the model \"gpt-5\" does not exist here"),
        (json!({ "input": "a", "dimensions": 256 }), 400, json!("dimensions"), "must be 32"),
        (json!({ "input": "a", "encoding_format": "hex" }), 400, json!("encoding_format"), "\"float\" or \"base64\""),
        (json!({ "model": "m" }), 404, json!("model"), "does not exist"),
        (json!({}), 400, json!("input"), "input is missing"),
        (json!({ "input": [] }), 400, json!("input"), "input is an empty array"),
        (json!({ "input": ["a", 1] }), 400, json!("input"), "input[1] must be a string"),
        (json!({ "input": { "text": "a" } }), 400, json!("input"), "input must be a string"),
        (json!({ "input": [-1] }), 400, json!("input"), "whole numbers"),
        (json!({ "inptu": "a" }), 400, json!(null), "no such member: \"inptu\""),
        (json!({ "input": ["a", "b", "c", "d"] }), 413, json!("input"), "may have 3 (max_inputs)"),
        (json!({ "input": ["a", "b".repeat(3000)] }), 413, json!("input"), "input[1] is 2.9 KiB long"),
    ] {
        let answer = ask(head, &body.to_string()).await;
        let said = json_of(&answer);
        assert_eq!((answer.status(), &said["error"]["param"]), (status, &param), "{body}: {said}");
        if status != 200 {
            assert_eq!(said["error"]["type"], "invalid_request_error");
            assert!(said["error"]["message"].as_str().is_some_and(|said| said.contains(part)), "{body}: {said}");
        }
    }
    assert_eq!(ask(head, "{\"input\"").await.status(), 400);
    let evil = "POST /v1/embeddings HTTP/1.1\r\nOrigin: https://evil.example\r\nAuthorization: Bearer s3cret\r\nContent-Type: application/json\r\n";
    let plain = head.replace("application/json", "text/plain");
    let nobody = head.replace("s3cret", "s3cre");
    let body = "{\"input\":\"a\"}";
    for (head, status) in [
        (evil, 403),
        (&*plain, 415),
        (&*nobody, 401),
        ("GET /v1/embeddings HTTP/1.1\r\nAuthorization: Bearer s3cret\r\n", 405),
    ] {
        let answer = ask(head, body).await;
        assert_eq!(answer.status(), status, "{head}");
        assert!(json_of(&answer)["error"]["message"].is_string());
    }
    for (target, status) in
        [("/v1/models", 200), ("/v1/models/gpt-5", 404), ("/v1/models/text-embedding-3-small", 200), ("/v2", 404)]
    {
        let head = format!("GET {target} HTTP/1.1\r\nAuthorization: Bearer s3cret\r\n");
        assert_eq!(ask(&head, "").await.status(), status, "{target}");
    }
    // Last, for it closes the connection: what is too long is not read to its end.
    let large = format!("{{\"input\":\"{}\"}}", "y".repeat(20_000));
    assert_eq!(ask(head, &large).await.status(), 413);
}

#[tokio::test]
async fn a_model_that_is_missing_is_said_and_waited_for() {
    let model = tiny("roberta");
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("model");
    let place = Place::new(&link, "");
    let mut server = place.start_with(&[]);
    let refused = wait_until(WITHIN, "it to look", async || {
        let refused = server.post(&json!({ "input": "a" })).await;
        json_of(&refused)["error"]["message"]
            .as_str()
            .is_some_and(|said| said.contains("no model at"))
            .then_some(refused)
    })
    .await;
    assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("5")));
    assert!(refused.text().contains("hf download"), "{}", refused.text());
    let health = server.get("/health").await;
    assert_eq!((health.status(), &json_of(&health)["status"]), (200, &json!("no model")), "a restart would bring none");
    assert_eq!(server.get("/readyz").await.status(), 503);
    wait_until(WITHIN, "the log to be read", async || server.log.has("there is no model at").then_some(())).await;
    // One that cannot be used is no death of the server either.
    std::fs::create_dir(&link).expect("made");
    for name in ["tokenizer.json", "model.safetensors"] {
        std::os::unix::fs::symlink(model.join(name), link.join(name)).expect("linked");
    }
    std::fs::write(link.join("config.json"), "{\"model_type\":\"llama\"}").expect("written");
    wait_until(WITHIN, "it to be tried", async || {
        let refused = server.post(&json!({ "input": "a" })).await;
        (refused.status() == 503 && refused.text().contains("cannot be loaded: config.json")).then_some(())
    })
    .await;
    std::fs::remove_file(link.join("config.json")).expect("removed");
    std::os::unix::fs::symlink(model.join("config.json"), link.join("config.json")).expect("linked");
    server.ready().await;
    assert_eq!(server.post(&json!({ "input": "a" })).await.status(), 200);
    server.signal(Signal::TERM);
    assert_eq!(server.end().code(), Some(0), "{}", server.log.text());
}

/// Clients that ask one request after the other, on connections that they keep.
struct Load {
    failures: Arc<std::sync::Mutex<Vec<String>>>,
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    clients: tokio::task::JoinSet<()>,
}

impl Load {
    fn start(server: &Server, clients: usize) -> Load {
        let mut load = Load {
            failures: Arc::default(),
            answered: Arc::default(),
            stop: Arc::default(),
            clients: tokio::task::JoinSet::new(),
        };
        for number in 0..clients {
            let (failures, answered, stop) = (load.failures.clone(), load.answered.clone(), load.stop.clone());
            let address = server.address;
            load.clients.spawn(async move {
                let mut connection = Connection::open(address).await.expect("it listens");
                while !stop.load(Ordering::Relaxed) {
                    let text = format!("client {number} asks for {}", answered.load(Ordering::Relaxed));
                    let failure = match post(&mut connection, &json!({ "input": [text, "b"] })).await {
                        Ok(answer) if answer.status() == 200 => {
                            (vectors(&json_of(&answer)).len() != 2).then(|| "not two vectors".to_owned())
                        }
                        Ok(answer) => Some(answer.text()),
                        Err(error) => Some(error.to_string()),
                    };
                    let is_failure = failure.is_some();
                    failures.lock().expect("not poisoned").extend(failure);
                    if is_failure {
                        return;
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        load
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("not poisoned").clone()
    }

    /// How many were answered, and what failed.
    async fn end(mut self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        (self.answered(), self.failures())
    }
}

#[tokio::test]
async fn no_request_fails_while_its_processes_are_recycled_and_killed() {
    let model = tiny("roberta");
    let server = Place::new(&model, ", recycle = { requests = 40 }").start().await;
    let first = server.worker().await;
    let load = Load::start(&server, 6);
    let health = wait_until(WITHIN, "three to be recycled", async || {
        let health = server.health().await;
        (health["recycled"].as_u64() >= Some(3) || !load.failures().is_empty()).then_some(health)
    })
    .await;
    assert!(load.answered() >= 120 || !load.failures().is_empty(), "not before each has served 40: {health}");
    assert!(poll(WITHIN, || (!lives(first)).then_some(())).is_some(), "the first one is let go");
    for _ in 0..3 {
        let (victim, answered) = (server.worker().await, load.answered());
        support::service::send(victim, Signal::KILL);
        wait_until(WITHIN, "requests to be answered after a death", async || {
            (load.answered() >= answered + 12 || !load.failures().is_empty()).then_some(())
        })
        .await;
        assert!(poll(WITHIN, || (!lives(victim)).then_some(())).is_some());
    }
    let (answered, failures) = load.end().await;
    assert!(failures.is_empty(), "of {answered}: {failures:?}");
    // However the server ends, its model ends with it.
    let last = server.worker().await;
    server.signal(Signal::KILL);
    assert!(poll(WITHIN, || (!lives(last)).then_some(())).is_some(), "the process of the model outlives its server");
}

#[tokio::test]
async fn one_that_is_too_large_is_replaced_once_a_minute_at_most() {
    let model = tiny("roberta");
    let server = Place::new(&model, ", recycle = { memory = \"1MiB\" }").start().await;
    let health = wait_until(WITHIN, "it to be replaced", async || {
        let health = server.health().await;
        (health["recycled"] == 1).then_some(health)
    })
    .await;
    assert!(health["worker"]["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{health}");
    for _ in 0..20 {
        assert_eq!(server.post(&json!({ "input": "a" })).await.status(), 200);
    }
    assert_eq!(server.health().await["recycled"], 1, "the next one is as large, and may stay for now");
}

#[tokio::test]
async fn what_is_too_much_or_too_slow_is_refused_and_computed_no_further() {
    let Some(model) = model() else { return };
    let server = Place::new(&model, ", queue = 1, timeout = \"300ms\"").start().await;
    let page = "the keeper of the light wrote down the weather every evening ".repeat(60);
    let long = json!({ "input": vec![page; 1000] });
    let mut connection = server.connect().await;
    let slow = tokio::spawn(async move { post(&mut connection, &long).await.expect("an answer") });
    wait_until(WITHIN, "it to be under way", async || (server.health().await["waiting"] == 1).then_some(())).await;
    let refused = server.post(&json!({ "input": "a" })).await;
    // Unless the slow one was given up by then.
    if refused.status() != 200 {
        assert_eq!((refused.status(), refused.header("retry-after")), (429, Some("1")), "{}", refused.text());
        assert_eq!(json_of(&refused)["error"]["code"], "queue_full");
    }
    let slow = slow.await.expect("no panic");
    assert_eq!((slow.status(), slow.header("retry-after")), (503, Some("5")), "{}", slow.text());
    assert_eq!(json_of(&slow)["error"]["code"], "timeout");
    // Of what nobody waits for nothing is left to be done.
    wait_until(WITHIN, "others to be served again", async || {
        (server.post(&json!({ "input": "a" })).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_keep_alive_and_not_before_it_is_used_again() {
    /// Below what holds where nobody says otherwise: 30 s here and in hyper, 120 s of other listeners.
    const SOONER_THAN_BY_DEFAULT: Duration = Duration::from_secs(25);
    let model = tiny("roberta");
    let server = Place::new(&model, ", keep_alive = \"3s\"").start().await;
    let mut connection = server.connect().await;
    for _ in 0..3 {
        let answer = post(&mut connection, &json!({ "input": "a" })).await.expect("the connection is kept");
        assert_eq!(answer.status(), 200);
    }
    let end = tokio::time::timeout(SOONER_THAN_BY_DEFAULT, connection.response()).await.expect("it is closed");
    assert!(end.is_err(), "nothing is said: {end:?}");
}

#[tokio::test]
async fn told_to_stop_it_answers_lets_the_model_go_and_says_what_held_its_memory() {
    let Some(model) = model() else { return };
    let place = Place::new(&model, "");
    let mut server = place.start_with(&[("MEMORY_PROFILE", "1")]);
    server.ready().await;
    let worker = server.worker().await;
    let page = "the keeper of the light wrote down the weather every evening ".repeat(20);
    let mut connection = server.connect().await;
    let under_way =
        tokio::spawn(
            async move { post(&mut connection, &json!({ "input": vec![page; 16] })).await.expect("an answer") },
        );
    wait_until(WITHIN, "it to be under way", async || {
        (server.health().await["waiting"] == 1 || under_way.is_finished()).then_some(())
    })
    .await;
    server.signal(Signal::TERM);
    let answer = under_way.await.expect("no panic");
    assert_eq!((answer.status(), vectors(&json_of(&answer)).len()), (200, 16));
    assert_eq!(server.end().code(), Some(0), "{}", server.log.text());
    assert!(!lives(worker), "the model goes before its server does");
    let said = poll(WITHIN, || {
        let said = server.log.text();
        said.contains("the embedding server held about").then_some(said)
    });
    let said = said.unwrap_or_else(|| panic!("no report: {}", server.log.text()));
    let (_, report) = said.split_once("the process of the model held about").expect("a report of the model");
    let sites: Vec<&str> = report.lines().skip(1).take_while(|line| line.starts_with("  ")).collect();
    assert!((1..=10).contains(&sites.len()), "{report}");
    let mib = |said: &str| -> f64 {
        let (number, unit) = said.trim().split_once(' ').expect("a number and a unit");
        let number: f64 = number.parse().expect("a number");
        number
            * match unit.split([' ', ',']).next() {
                Some("MiB") => 1.0,
                Some("KiB") => 1.0 / 1024.0,
                _ => 0.0,
            }
    };
    assert!(sites[0].to_lowercase().contains("weights") && mib(sites[0]) > 40.0, "the model is the largest: {report}");
    let (held, left) = report.lines().next().and_then(|line| line.split_once("; ")).expect("held and left");
    assert!(mib(held) > 80.0 && mib(left) < 20.0, "it was let go: {report}");
}

#[tokio::test]
async fn under_seawall_run_it_is_watched_and_its_stop_is_recorded() {
    let model = tiny("roberta");
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = probe.local_addr().expect("an address");
    drop(probe);
    let services = Services::new(&format!(
        "[services.one]\nbuiltin = \"embedding\"\noptions = {{ listen = \"{address}\", model = \"{}\" }}\n\
         health = {{ url = \"http://{address}/health\", every = \"100ms\" }}\n",
        model.display()
    ));
    let run = services.start();
    wait_until(WITHIN, "its health to be well", async || (services.marker()["life"]["health"] == "well").then_some(()))
        .await;
    run.signal(Signal::TERM);
    run.end();
    assert_eq!(services.types(), ["service_start", "service_stop"]);
    assert_eq!(services.last("service_stop")["exit_code"], 0);
}

/// A model that nobody has brought yet is no reason to start the service again and again.
#[tokio::test]
async fn under_seawall_run_a_missing_model_is_no_crash() {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = probe.local_addr().expect("an address");
    drop(probe);
    let services = Services::new(&format!(
        "[services.one]\nbuiltin = \"embedding\"\noptions = {{ listen = \"{address}\" }}\n\
         health = {{ url = \"http://{address}/health\", every = \"100ms\", misses = 1 }}\n"
    ));
    let run = services.start();
    let log = run.log.clone();
    let said = "models/all-MiniLM-L6-v2; get one with";
    assert!(poll(WITHIN, || log.has(said).then_some(())).is_some(), "{}", log.text());
    wait_until(WITHIN, "its health to be well", async || (services.marker()["life"]["health"] == "well").then_some(()))
        .await;
    run.signal(Signal::TERM);
    run.end();
    assert_eq!(services.types(), ["service_start", "service_stop"]);
}

#[tokio::test]
async fn a_tool_of_the_gateway_embeds_and_nothing_runs_before_it_is_called() {
    let Some(model) = model() else { return };
    let toml = |folder: &str| format!("[servers.meaning]\nbuiltin = \"embed\"\noptions = {{ model = \"{folder}\" }}\n");
    let mut gateway = Gateway::start(&toml(&model.display().to_string())).await;
    gateway.ready().await;
    let client = gateway.client("/mcp").await;
    assert_eq!(client.list_tools().await[0]["name"], "meaning__embed");
    assert_eq!(children(gateway.pid()), [0_u32; 0], "no process of a model yet");
    let golden = golden();
    let texts: Vec<&str> = golden.iter().take(12).map(|one| one.text.as_str()).collect();
    let reply = client.call_tool("meaning__embed", json!({ "texts": texts })).await;
    let found = &reply["result"]["structuredContent"];
    assert_eq!(found["dimensions"], 384, "{reply}");
    let vectors: Vec<Vec<f32>> = serde_json::from_value(found["vectors"].clone()).expect("vectors");
    assert!(golden.iter().zip(&vectors).all(|(one, vector)| cosine(&one.vector, vector) > 0.9999));
    assert_eq!(vectors.len(), 12);
    let [worker] = children(gateway.pid())[..] else { panic!("one process has the model") };
    let refused = client.call_tool("meaning__embed", json!({ "texts": [] })).await;
    assert_eq!(refused["result"]["isError"], true, "{refused}");
    assert_eq!(gateway.stop().code(), Some(0), "every task ends");
    assert!(poll(WITHIN, || (!lives(worker)).then_some(())).is_some(), "and the model with the gateway");

    // A model that is not there is the answer of a call, and no death of anything.
    let gateway = Gateway::start(&toml("/nowhere/model")).await;
    gateway.ready().await;
    let client = gateway.client("/mcp").await;
    let refused = client.call_tool("meaning__embed", json!({ "texts": ["a"] })).await;
    assert!(support::text_of(&refused).contains("there is no model at /nowhere/model"), "{refused}");
}

/// The processes that any thread of this one has started.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of_thread =
        |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let all: String = threads.map(|thread| of_thread(thread.expect("an entry"))).collect();
    all.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

/// Resident memory of the process of the model, in bytes.
async fn memory(server: &Server) -> u64 {
    server.health().await["worker"]["memory_bytes"].as_u64().expect("a process")
}

/// How many requests: `SEAWALL_EMBEDDING_REQUESTS=10000` is the long form.
#[tokio::test]
async fn memory_stays_flat_over_many_requests() {
    let Some(model) = model() else { return };
    let requests: usize =
        std::env::var("SEAWALL_EMBEDDING_REQUESTS").map_or(120, |count| count.parse().expect("a number"));
    // One process for all of them.
    let server = Place::new(&model, ", recycle = { requests = 1000000, memory = \"100GiB\" }").start().await;
    let golden = golden();
    let run = async |requests: usize| {
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..4 {
            let address = server.address;
            let texts: Vec<String> =
                golden.iter().map(|one| one.text.clone()).filter(|text| text.len() < 400).collect();
            clients.spawn(async move {
                let mut connection = Connection::open(address).await.expect("it listens");
                for n in (client..requests).step_by(4) {
                    let input: Value = json!([texts[n % texts.len()], texts[(n * 7) % texts.len()]]);
                    let answer = post(&mut connection, &json!({ "input": input })).await.expect("an answer");
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                }
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended.expect("every request is answered");
        }
    };
    run(requests / 3).await;
    let (model_before, own_before) = (memory(&server).await, resident(server.pid()));
    run(requests).await;
    let (model_after, own_after) = (memory(&server).await, resident(server.pid()));
    println!(
        "{requests} requests: the model {model_before} -> {model_after} bytes, the listener {own_before} -> {own_after}"
    );
    let flat = |before: u64, after: u64| after < before + before / 5 + (16 << 20);
    assert!(flat(model_before, model_after), "the model: {model_before} -> {model_after}");
    assert!(flat(own_before, own_after), "the listener: {own_before} -> {own_after}");
}

fn resident(pid: u32) -> u64 {
    seawall::process::memory::of_process(pid).expect("it runs")
}
