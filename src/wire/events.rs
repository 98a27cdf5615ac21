//! The data of an event stream (`text/event-stream`), as it arrives in pieces. Knows
//! the form of events and nothing of what is in them.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Takes pieces in and gives events out. It holds what it was given and not yet gave
/// out: the bound is its caller's, by [`held_bytes`](EventReader::held_bytes).
#[derive(Debug, Default)]
pub struct EventReader {
    buffer: BytesMut,
    /// So much of `buffer` is known to hold no line break.
    scanned_bytes: usize,
    /// The data lines of the event that is being read.
    data: Option<BytesMut>,
    id: Option<Bytes>,
    last_id: Option<Bytes>,
    retry: Option<Duration>,
    /// A carriage return ended the last line: a line feed right after it is part of it.
    after_return: bool,
    has_begun: bool,
}

impl EventReader {
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    pub fn held_bytes(&self) -> usize {
        self.buffer.len() + self.data.as_ref().map_or(0, BytesMut::len)
    }

    /// The data of the next event that is whole. Events without data are none.
    pub fn take(&mut self) -> Option<Bytes> {
        while let Some(line) = self.line() {
            if line.is_empty() {
                self.last_id = self.id.take().or(self.last_id.take());
                match self.data.take() {
                    Some(data) if !data.is_empty() => return Some(data.freeze()),
                    _ => continue,
                }
            }
            // Event names do not matter here, comments never do.
            if let Some(value) = value_of(b"data", &line) {
                match &mut self.data {
                    Some(data) => {
                        data.extend_from_slice(b"\n");
                        data.extend_from_slice(value);
                    }
                    None => self.data = Some(BytesMut::from(value)),
                }
            } else if let Some(id) = value_of(b"id", &line) {
                self.id = Some(Bytes::copy_from_slice(id));
            } else if let Some(digits) = value_of(b"retry", &line) {
                let millis = std::str::from_utf8(digits).ok().and_then(|digits| digits.trim().parse().ok());
                self.retry = millis.map(Duration::from_millis).or(self.retry);
            }
        }
        None
    }

    /// A reader for the rest of the same stream, from another connection.
    #[must_use]
    pub fn for_the_rest(&self) -> Self {
        EventReader { last_id: self.last_id.clone(), retry: self.retry, ..EventReader::default() }
    }

    /// Of the last whole event that had one: where a stream that breaks can be resumed.
    pub fn last_id(&self) -> Option<&Bytes> {
        self.last_id.as_ref()
    }

    /// How long the other side wants to be left alone before that.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// A line ends with LF, CR, or both.
    fn line(&mut self) -> Option<BytesMut> {
        if !self.has_begun && !self.begin() {
            return None;
        }
        if self.after_return && !self.buffer.is_empty() {
            self.after_return = false;
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
        }
        let Some(at) = memchr::memchr2(b'\n', b'\r', &self.buffer[self.scanned_bytes..]) else {
            self.scanned_bytes = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.scanned_bytes + at);
        self.scanned_bytes = 0;
        self.after_return = self.buffer[0] == b'\r';
        self.buffer.advance(1);
        Some(line)
    }

    /// Takes a byte order mark off; false while it cannot be told whether there is one.
    fn begin(&mut self) -> bool {
        if self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.buffer.advance(BYTE_ORDER_MARK.len());
        } else if BYTE_ORDER_MARK.starts_with(&self.buffer) {
            return false;
        }
        self.has_begun = true;
        true
    }
}

fn value_of<'a>(field: &[u8], line: &'a [u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(field)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out, whole and byte by byte: that must make no difference.
    fn events(stream: &[u8]) -> Vec<String> {
        let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut reader = EventReader::default();
            let mut events = Vec::new();
            for piece in pieces {
                reader.push(piece);
                while let Some(event) = reader.take() {
                    events.push(String::from_utf8_lossy(&event).into_owned());
                }
            }
            events
        };
        let whole = read(&mut std::iter::once(stream));
        assert_eq!(read(&mut stream.chunks(1)), whole);
        whole
    }

    #[test]
    fn lines_end_in_three_ways() {
        for stream in ["data: a\n\ndata:b\n\n", "data: a\r\n\r\ndata:b\r\n\r\n", "data: a\r\rdata:b\r\r"] {
            assert_eq!(events(stream.as_bytes()), ["a", "b"], "{stream:?}");
        }
        assert_eq!(events(b"data: a\r\ndata: b\r\n\r\n"), ["a\nb"], "CRLF is one line end, not two");
    }

    #[test]
    fn the_id_is_that_of_the_last_whole_event() {
        let mut reader = EventReader::default();
        reader.push(b"id: 1\nretry: 250\ndata: a\n\nid:2\n\ndata: b\n\nid: 3\ndata: half");
        assert_eq!(std::iter::from_fn(|| reader.take()).count(), 2);
        assert_eq!(reader.last_id().map(|id| &id[..]), Some(&b"2"[..]), "an event without data has one too");
        assert_eq!(reader.retry(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_no_data_is_no_event() {
        assert!(events(b": ping\n\nevent: message\nid: 7\nretry: 5\n\ndatabase: x\n\ndata\n\ndata:\n\n").is_empty());
        assert_eq!(events(b"\xef\xbb\xbfdata: a\n\n"), ["a"]);
        assert_eq!(events(b"data: a\ndata\ndata:  b\n\ndata: half"), ["a\n\n b"]);
    }
}
