//! The options of `builtin = "embedding"`, a service, and of `builtin = "embed"`, a server:
//! which model, for whom, and within which bounds.

use std::{path::Path, time::Duration};

use super::{
    doors::{self, Doors},
    reader::{Entry, Table},
};
use crate::embedding::{ModelSettings, PORT, Recycle, Settings};

const MODEL: &str = "models/all-MiniLM-L6-v2";
const MAX_BODY_BYTES: usize = 8 << 20;
const MAX_INPUTS: u32 = 2048;
const MAX_TEXT_BYTES: usize = 512 << 10;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// More gain little with the small models that a CPU is good for.
const THREADS: usize = 4;
const THREADS_MAX: u32 = 64;
const BATCH_WAIT: Duration = Duration::from_millis(2);
const QUEUE: u32 = 256;
const TIMEOUT: Duration = Duration::from_secs(120);
const RECYCLE: Recycle = Recycle { requests: 1000, memory_bytes: 1 << 30 };
const HOUR: Duration = Duration::from_secs(3600);
/// A model that a client's tool uses now and then need not stay in memory for it.
const IDLE_STOP: Duration = Duration::from_secs(600);

pub(super) fn read(table: &mut Table<'_>) -> Settings {
    let listen = doors::address(table, PORT, "EMBEDDING_TOKEN");
    let mut bytes = |key, allowed, default| {
        let bytes = table.take(key, |entry| entry.size(allowed));
        bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default)
    };
    let max_body_bytes = bytes("max_body", 1 << 10..=64 << 20, MAX_BODY_BYTES);
    let max_text_bytes = bytes("max_text", 1 << 10..=16 << 20, MAX_TEXT_BYTES);
    let Doors { token, allowed_hosts, allowed_origins } = doors::read(table);
    Settings {
        listen,
        token,
        allowed_hosts,
        allowed_origins,
        max_body_bytes,
        max_text_bytes,
        max_inputs: table.take("max_inputs", |e| e.integer(1..=MAX_INPUTS)).unwrap_or(MAX_INPUTS) as usize,
        keep_alive: table.take("keep_alive", |e| e.duration(Duration::from_secs(1)..=HOUR)).unwrap_or(KEEP_ALIVE),
        aliases: table.take("aliases", |e| e.list("not a list of names", Entry::nonempty)).unwrap_or_default(),
        model: model(table),
    }
}

/// Those of the in-process server.
pub(super) fn read_server(table: &mut Table<'_>) -> ModelSettings {
    ModelSettings { idle_stop: Some(IDLE_STOP), ..model(table) }
}

fn model(table: &mut Table<'_>) -> ModelSettings {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let folder = table.take("model", Entry::path).unwrap_or_else(|| table.folder().join(MODEL));
    let threads = table.take("threads", |e| e.integer(1..=THREADS_MAX)).map_or(cores.min(THREADS), |n| n as usize);
    ModelSettings {
        name: table.take("name", Entry::nonempty).unwrap_or_else(|| name_of(&folder)),
        folder,
        threads,
        batch_wait: table
            .take("batch_wait", |e| e.duration(Duration::ZERO..=Duration::from_secs(1)))
            .unwrap_or(BATCH_WAIT),
        queue: table.take("queue", |e| e.integer(1..=10_000)).unwrap_or(QUEUE) as usize,
        timeout: table.take("timeout", |e| e.duration(Duration::from_millis(100)..=HOUR)).unwrap_or(TIMEOUT),
        recycle: table.take("recycle", recycle).unwrap_or(RECYCLE),
        idle_stop: None,
    }
}

/// The name of its folder.
fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}

fn recycle(entry: &Entry<'_>) -> Option<Recycle> {
    entry.table("write something like { requests = 1000, memory = \"1GiB\" }", |table| Recycle {
        requests: table.take("requests", |e| e.integer(1..=1_000_000_000)).map_or(RECYCLE.requests, u64::from),
        memory_bytes: table.take("memory", |e| e.size(1 << 20..=1 << 44)).unwrap_or(RECYCLE.memory_bytes),
    })
}
