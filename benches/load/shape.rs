//! What is asked in a measurement, and whether an answer is one.

use bytes::Bytes;

/// Ids have ten digits from the first to the last, so that a request can be
/// written once and only its digits change.
pub(crate) const FIRST_ID: u64 = 1_000_000_000;
const ID_DIGITS: usize = 10;
/// Where an answer's members are looked for: a megabyte of text lies between.
const EDGE_BYTES: usize = 256;

#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    result_bytes: usize,
    argument_bytes: usize,
}

pub(crate) const SHAPES: [Shape; 4] = [
    Shape { name: "100 B result", result_bytes: 100, argument_bytes: 0 },
    Shape { name: "10 KiB result", result_bytes: 10 << 10, argument_bytes: 0 },
    Shape { name: "1 MiB result", result_bytes: 1 << 20, argument_bytes: 0 },
    Shape { name: "1 MiB arguments", result_bytes: 100, argument_bytes: 1 << 20 },
];

/// A request whose id can be changed in place.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    id_at: usize,
    id: u64,
}

impl Shape {
    /// A `tools/call` of the fixture server's `size` tool, by its public name.
    pub(crate) fn message(&self, tool: &str) -> String {
        let padding = match self.argument_bytes {
            0 => String::new(),
            bytes => format!(",\"padding\":\"{}\"", "x".repeat(bytes)),
        };
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{FIRST_ID},\"method\":\"tools/call\",\
             \"params\":{{\"name\":\"{tool}\",\"arguments\":{{\"bytes\":{}{padding}}}}}}}",
            self.result_bytes
        )
    }

    /// Panics when the answer is not the one that was asked for: a driver that
    /// counts errors as answers measures nothing.
    pub(crate) fn check(&self, answer: &Bytes, id: Option<u64>) {
        let head = &answer[..answer.len().min(EDGE_BYTES)];
        let tail = &answer[answer.len().saturating_sub(EDGE_BYTES)..];
        let has = |part: &str| {
            let found = |edge| memchr::memmem::find(edge, part.as_bytes()).is_some();
            found(head) || found(tail)
        };
        let whole = answer.len() >= self.result_bytes && has("\"result\"") && !has("\"isError\":true");
        // The ceiling's answer is a constant.
        let ours = id.is_none_or(|id| has(&id.to_string()));
        assert!(whole && ours, "{}: not the answer to {id:?}: {}", self.name, String::from_utf8_lossy(head));
    }
}

impl Request {
    pub(crate) fn new(bytes: Vec<u8>) -> Request {
        let digits = FIRST_ID.to_string();
        let id_at = memchr::memmem::find(&bytes, digits.as_bytes()).expect("a request has its id");
        Request { bytes, id_at, id: FIRST_ID }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.id += 1;
        let digits = self.id.to_string();
        self.bytes[self.id_at..self.id_at + ID_DIGITS].copy_from_slice(digits.as_bytes());
        self.id
    }

    /// Ids that no other lane of the same session uses.
    pub(crate) fn starting_at(mut self, id: u64) -> Request {
        self.id = id;
        self
    }
}
