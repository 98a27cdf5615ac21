//! The data of an event stream (`text/event-stream`), as it arrives in pieces. Knows
//! the form of events and nothing of what is in them.

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
                match self.data.take() {
                    Some(data) if !data.is_empty() => return Some(data.freeze()),
                    _ => continue,
                }
            }
            // Event names, ids and retry times do not matter here, comments never do.
            let Some(value) = value_of_data(&line) else { continue };
            match &mut self.data {
                Some(data) => {
                    data.extend_from_slice(b"\n");
                    data.extend_from_slice(value);
                }
                None => self.data = Some(BytesMut::from(value)),
            }
        }
        None
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

fn value_of_data(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
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
    fn what_is_no_data_is_no_event() {
        assert!(events(b": ping\n\nevent: message\nid: 7\nretry: 5\n\ndatabase: x\n\ndata\n\ndata:\n\n").is_empty());
        assert_eq!(events(b"\xef\xbb\xbfdata: a\n\n"), ["a"]);
        assert_eq!(events(b"data: a\ndata\ndata:  b\n\ndata: half"), ["a\n\n b"]);
    }
}
