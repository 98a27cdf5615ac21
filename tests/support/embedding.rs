//! A real embedding server on a port of its own, with a real model.

use std::{
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

pub use super::listening::json as json_of;
use super::{Connection, Response, listening::Listening, scratch::Scratch, tools, wait::wait_until};

const WITHIN: Duration = Duration::from_secs(120);

/// The folder of a servers.toml with one embedding server.
pub struct Place {
    pub folder: Scratch,
}

impl Place {
    /// `options` are those beside `listen` and `model`.
    pub fn new(model: &Path, options: &str) -> Self {
        let folder = Scratch::new();
        let model = model.display();
        folder.write(
            "servers.toml",
            &format!(
                "[services.embedding-server]\nbuiltin = \"embedding\"\n\
                 options = {{ listen = \"127.0.0.1:0\", model = \"{model}\"{options} }}\n"
            ),
        );
        Place { folder }
    }

    /// Starts it, and waits until its model is loaded.
    pub async fn start(&self) -> Server {
        let server = self.start_with(&[]);
        server.ready().await;
        server
    }

    /// Starts it, and waits until it says where it listens.
    pub fn start_with(&self, env: &[(&str, &str)]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.arg("embedding-server").arg("--config").arg(self.folder.file("servers.toml"));
        command.current_dir(self.folder.path()).envs(env.iter().copied());
        Server(Listening::start(command, WITHIN, "seawall: embeddings at http://", "/v1/embeddings"))
    }
}

pub struct Server(Listening);

impl Deref for Server {
    type Target = Listening;

    fn deref(&self) -> &Listening {
        &self.0
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Listening {
        &mut self.0
    }
}

impl Server {
    pub async fn ready(&self) {
        wait_until(WITHIN, "the model to be loaded", async || {
            (self.get("/readyz").await.status() == 200).then_some(())
        })
        .await;
    }

    pub async fn post(&self, body: &Value) -> Response {
        post(&mut self.connect().await, body).await.expect("an answer")
    }

    pub async fn health(&self) -> Value {
        json_of(&self.get("/health").await)
    }

    /// The process that has the model now.
    pub async fn worker(&self) -> u32 {
        wait_until(WITHIN, "a process of the model", async || {
            self.health().await["worker"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
        })
        .await
    }
}

pub async fn post(connection: &mut Connection, body: &Value) -> std::io::Result<Response> {
    let body = body.to_string();
    let head = format!(
        "POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.request(&head, body.as_bytes()).await
}

/// The vectors of an answer, in the order of their index.
pub fn vectors(answer: &Value) -> Vec<Vec<f32>> {
    let data = answer["data"].as_array().unwrap_or_else(|| panic!("no data: {answer}"));
    let vector = |(at, item): (usize, &Value)| {
        assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(at)));
        match &item["embedding"] {
            Value::String(text) => floats(text),
            numbers => serde_json::from_value(numbers.clone()).expect("numbers"),
        }
    };
    data.iter().enumerate().map(vector).collect()
}

/// Little-endian floats in base64.
pub fn floats(text: &str) -> Vec<f32> {
    let bytes = BASE64_STANDARD.decode(text).expect("base64");
    bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().expect("four bytes"))).collect()
}

pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// A text with a vector that sentence-transformers made of it.
pub struct Golden {
    pub name: String,
    pub text: String,
    pub tokens: u64,
    pub vector: Vec<f32>,
}

/// All of fixtures/embedding, as golden.py made them.
pub fn golden() -> Vec<Golden> {
    let read = |name: &str| -> Value {
        let text = std::fs::read_to_string(tools::fixtures("embedding").join(name)).expect("it is checked in");
        serde_json::from_str(&text).expect("JSON")
    };
    let (texts, golden) = (read("texts.json"), read("golden.json"));
    let texts = texts.as_array().expect("a list").clone();
    let words: Vec<String> = texts
        .iter()
        .filter_map(|entry| entry["text"].as_str())
        .flat_map(|text| text.split_whitespace().map(str::to_owned))
        .collect();
    let made = golden["texts"].as_array().expect("a list").iter();
    assert_eq!(made.len(), texts.len(), "golden.py was run after the last edit of texts.json");
    made.zip(&texts)
        .map(|(made, entry)| {
            assert_eq!(made["name"], entry["name"]);
            let text = match entry["words"].as_u64() {
                Some(count) => (0..usize::try_from(count).expect("small"))
                    .map(|i| &*words[i % words.len()])
                    .collect::<Vec<_>>()
                    .join(" "),
                None => entry["text"].as_str().expect("a text").to_owned(),
            };
            Golden {
                name: entry["name"].as_str().expect("a name").to_owned(),
                text,
                tokens: made["tokens"].as_u64().expect("a count"),
                vector: floats(made["vector"].as_str().expect("a vector")),
            }
        })
        .collect()
}

/// The texts and vectors that tiny.py has put beside a model.
pub fn golden_of(model: &Path) -> Vec<Golden> {
    let text = std::fs::read_to_string(model.join("golden.json")).expect("it is checked in");
    let golden: Vec<Value> = serde_json::from_str(&text).expect("a list");
    let one = |one: &Value| Golden {
        name: String::new(),
        text: one["text"].as_str().expect("a text").to_owned(),
        tokens: one["tokens"].as_u64().expect("a count"),
        vector: floats(one["vector"].as_str().expect("a vector")),
    };
    golden.iter().map(one).collect()
}

/// A model of that kind with random weights, so small that it is checked in.
pub fn tiny(kind: &str) -> PathBuf {
    tools::fixtures("embedding").join(format!("tiny-{kind}"))
}

/// The folder of all-MiniLM-L6-v2; `None` where there is no python to install it.
pub fn model() -> Option<PathBuf> {
    tools::model()
}
