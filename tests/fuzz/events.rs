//! The reader of event streams, against one that has the whole stream at once.

use seawall::wire::events::EventReader;

pub(crate) const WORDS: &[&str] = &[
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "\u{feff}",
    "data",
    "data:",
    "data: ",
    "data: {}\n\n",
    ":",
    "event: message\n",
    "id: 1\n",
    "retry: 5\n",
    "\0",
];

/// The first byte says how the rest is cut up.
pub(crate) fn run(input: &[u8]) {
    let [cut, stream @ ..] = input else { return };
    let mut reader = EventReader::default();
    let mut events = Vec::new();
    for piece in stream.chunks(1 + usize::from(*cut)) {
        reader.push(piece);
        while let Some(event) = reader.take() {
            assert!(!event.is_empty());
            events.push(event.to_vec());
        }
        assert!(reader.held_bytes() <= stream.len(), "it holds no more than came");
    }
    assert_eq!(events, by_the_book(stream));
}

/// The algorithm of the HTML standard, 9.2.6, for the field that matters.
fn by_the_book(stream: &[u8]) -> Vec<Vec<u8>> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let (mut events, mut data): (Vec<Vec<u8>>, Vec<&[u8]>) = (Vec::new(), Vec::new());
    let mut rest = stream;
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        let line = &rest[..end];
        let break_bytes = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + break_bytes..];
        if line.is_empty() {
            let event = std::mem::take(&mut data).join(&b'\n');
            if !event.is_empty() {
                events.push(event);
            }
            continue;
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        if field == b"data" {
            data.push(value.strip_prefix(b" ").unwrap_or(value));
        }
    }
    events
}
