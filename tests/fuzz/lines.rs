//! The reader of a server's lines, and the envelope that is taken off each.

use std::{
    io,
    pin::Pin,
    slice::Chunks,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use seawall::{
    call::{Answer, Message},
    wire::{
        envelope::{Envelope, Parts},
        lines::{LineError, LineReader},
    },
};
use serde::de::IgnoredAny;
use tokio::io::{AsyncRead, ReadBuf};

pub(crate) const WORDS: &[&str] = &[
    "\n",
    "\r\n",
    "\u{feff}",
    "{\"jsonrpc\":\"2.0\",",
    "\"id\":",
    "\"id\":null",
    "\"method\":\"ping\"",
    "\"method\":\"notifications/progress\"",
    "\"params\":",
    "\"result\":{}",
    "\"error\":{\"code\":-32601,\"message\":\"m\"}",
    "1e400",
    "-0",
    "1.0",
    "18446744073709551616",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"\\/\"",
    "null",
    "[[[[[[[[[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
    "}",
];

/// The first byte says how long a line may be, the second how the rest is cut up.
pub(crate) fn run(input: &[u8]) {
    let [longest, cut, stream @ ..] = input else { return };
    let max_line_bytes = 16 + 8 * usize::from(*longest);
    let piece_bytes = 1 + usize::from(*cut);

    let (lines, broken_off) = read(stream, piece_bytes, max_line_bytes);
    let (expected, must_break_off) = split(stream, max_line_bytes);
    assert_eq!((&lines, broken_off), (&expected, must_break_off));
    for line in lines {
        envelope(&line);
    }
}

fn read(stream: &[u8], piece_bytes: usize, max_line_bytes: usize) -> (Vec<Bytes>, bool) {
    let mut reader = LineReader::new(Pieces(stream.chunks(piece_bytes)), max_line_bytes);
    let mut lines = Vec::new();
    loop {
        match reader.next().now_or_never().expect("everything is there already") {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => return (lines, false),
            Err(LineError::Oversized { start, .. }) => {
                assert!(start.len() <= 1024);
                return (lines, true);
            }
            Err(LineError::Io(error)) => panic!("{error}"),
        }
    }
}

/// The same, told simply: whole lines without blanks around them, up to the first that
/// is too long.
fn split(stream: &[u8], max_line_bytes: usize) -> (Vec<Bytes>, bool) {
    let mut lines = Vec::new();
    let mut pieces = stream.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = pieces.next() {
        if line.len() > max_line_bytes {
            return (lines, true);
        }
        let is_whole = pieces.peek().is_some();
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
        if is_whole && !line.is_empty() {
            lines.push(Bytes::copy_from_slice(line));
        }
    }
    (lines, false)
}

/// What was understood can be said again, and means the same; what was not says why.
fn envelope(line: &Bytes) {
    let is_json = serde_json::from_slice::<IgnoredAny>(line).is_ok();
    match Envelope::parse(line) {
        Ok(Envelope::Response { id, answer }) => {
            let said = Parts::response(&id, answer.clone().on_one_line()).joined();
            assert!(!said.contains(&b'\n'), "a line break would make two messages of one");
            let Ok(Envelope::Response { id: same_id, answer: same }) = Envelope::parse(&said) else {
                panic!("{}", said.escape_ascii())
            };
            assert_eq!((same_id, same), (id, answer.on_one_line()));
        }
        Ok(Envelope::Message(Message::Notification { method, params })) => {
            let said = Parts::notification(&method, params.clone()).joined();
            let Ok(Envelope::Message(Message::Notification { method: same, params: same_params })) =
                Envelope::parse(&said)
            else {
                panic!("{}", said.escape_ascii())
            };
            assert_eq!((same, same_params), (method, params));
        }
        Ok(Envelope::Message(Message::Request { id, method, params })) => {
            assert!(matches!(id.as_bytes()[0], b'"' | b'-' | b'0'..=b'9'), "{id:?}");
            let said = Parts::request(7, &method, params.map(|params| params.on_one_line())).joined();
            assert!(Envelope::parse(&said).is_ok(), "{}", said.escape_ascii());
            // The id goes back as it came.
            let refused = Parts::response(&id, Answer::Error(seawall::wire::envelope::rpc_error(-1, "m"))).joined();
            assert!(Envelope::parse(&refused).is_ok(), "{}", refused.escape_ascii());
        }
        Err(malformed) => {
            assert!(!malformed.reason.is_empty());
            assert!(is_json || !malformed.is_json, "{malformed:?}");
            if let Some(id) = malformed.id {
                assert!(serde_json::from_str::<IgnoredAny>(id.as_str()).is_ok(), "{id:?}");
            }
        }
    }
}

/// Bytes that arrive in pieces of one size.
struct Pieces<'a>(Chunks<'a, u8>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        buffer.put_slice(self.0.next().unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}
