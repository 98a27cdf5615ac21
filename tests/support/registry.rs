//! A registry of packages on this machine: answers a GET with what it was given for that
//! path, and notes what was asked for and who said that he was there.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
};

#[derive(Clone)]
struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
}

pub struct Registry {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    asked: Mutex<Vec<String>>,
    credentials: Mutex<Vec<String>>,
    /// A path whose answer waits.
    held: Mutex<Option<String>>,
    released: Condvar,
}

impl Registry {
    pub fn start() -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::<Shared>::default();
        let registry = Registry { address, shared: shared.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        registry
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn put(&self, path: &str, kind: &str, body: impl Into<Vec<u8>>) {
        let answer = Answer { status: "200 OK", headers: format!("Content-Type: {kind}\r\n"), body: body.into() };
        self.shared.answers.lock().expect("nobody has panicked").insert(path.to_owned(), answer);
    }

    pub fn redirect(&self, path: &str, to: &str) {
        let answer = Answer { status: "302 Found", headers: format!("Location: {to}\r\n"), body: Vec::new() };
        self.shared.answers.lock().expect("nobody has panicked").insert(path.to_owned(), answer);
    }

    /// Whoever asks for this waits until [`Registry::release`].
    pub fn hold(&self, path: &str) {
        *self.shared.held.lock().expect("nobody has panicked") = Some(path.to_owned());
    }

    pub fn release(&self) {
        *self.shared.held.lock().expect("nobody has panicked") = None;
        self.shared.released.notify_all();
    }

    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().expect("nobody has panicked").clone()
    }

    pub fn credentials(&self) -> Vec<String> {
        self.shared.credentials.lock().expect("nobody has panicked").clone()
    }
}

fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(told) = line.to_ascii_lowercase().strip_prefix("authorization: ") {
            shared.credentials.lock().expect("nobody has panicked").push(told.to_owned());
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    shared.asked.lock().expect("nobody has panicked").push(path.clone());
    let held = shared.held.lock().expect("nobody has panicked");
    drop(shared.released.wait_while(held, |held| held.as_ref() == Some(&path)).expect("nobody has panicked"));
    let found = shared.answers.lock().expect("nobody has panicked").get(&path).cloned();
    let Answer { status, headers, body } =
        found.unwrap_or(Answer { status: "404 Not Found", headers: String::new(), body: Vec::new() });
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    if first.starts_with("HEAD ") { Ok(()) } else { stream.write_all(&body) }
}
