//! Lines of a byte stream, bounded in length. Reading is cancel-safe: a line that
//! has half arrived stays in the reader.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is asked of the stream at a time.
const READ_AHEAD_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct LineReader<R> {
    stream: R,
    buffer: BytesMut,
    /// So much of `buffer` is known to hold no line break.
    scanned_bytes: usize,
    max_line_bytes: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("a line of more than {max_bytes} bytes")]
    Oversized { max_bytes: usize, start: Bytes },
    #[error("reading failed: {0}")]
    Io(#[from] std::io::Error),
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub fn new(stream: R, max_line_bytes: usize) -> Self {
        LineReader { stream, buffer: BytesMut::new(), scanned_bytes: 0, max_line_bytes }
    }

    /// The next line that is not blank, without its line break; `None` at the end.
    /// A last line that has no line break is no line: its writer died in mid-word.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LineError> {
        loop {
            if let Some(line) = self.take_line()? {
                if !line.is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            self.buffer.reserve(READ_AHEAD_BYTES);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// A whole line out of the buffer, blank ones included.
    fn take_line(&mut self) -> Result<Option<Bytes>, LineError> {
        let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned_bytes..]) else {
            self.scanned_bytes = self.buffer.len();
            if self.scanned_bytes > self.max_line_bytes {
                return Err(self.oversized());
            }
            return Ok(None);
        };
        let end = self.scanned_bytes + at;
        if end > self.max_line_bytes {
            return Err(self.oversized());
        }
        let mut line = self.buffer.split_to(end).freeze();
        self.buffer.advance(1);
        self.scanned_bytes = 0;
        trim(&mut line);
        Ok(Some(line))
    }

    fn oversized(&mut self) -> LineError {
        let start = self.buffer.split_to(self.buffer.len().min(1024)).freeze();
        self.buffer = BytesMut::new();
        self.scanned_bytes = 0;
        LineError::Oversized { max_bytes: self.max_line_bytes, start: Bytes::copy_from_slice(&start) }
    }
}

/// Takes off a byte order mark and the blanks around a line.
fn trim(line: &mut Bytes) {
    if line.starts_with(b"\xef\xbb\xbf") {
        line.advance(3);
    }
    let start = line.iter().take_while(|b| b.is_ascii_whitespace()).count();
    line.advance(start);
    let end = line.len() - line.iter().rev().take_while(|b| b.is_ascii_whitespace()).count();
    line.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], max: usize) -> (Vec<String>, Option<LineError>) {
        let mut reader = LineReader::new(text, max);
        let mut lines = Vec::new();
        loop {
            match reader.next().await {
                Ok(Some(line)) => lines.push(String::from_utf8_lossy(&line).into_owned()),
                Ok(None) => return (lines, None),
                Err(error) => return (lines, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn line_ends_of_all_kinds_and_a_byte_order_mark() {
        let (lines, error) = lines(b"\xef\xbb\xbfa\r\n\n  \n b \nhalf", 100).await;
        assert!(error.is_none());
        assert_eq!(lines, ["a", "b"]);
    }

    #[tokio::test]
    async fn a_line_too_long_is_an_error_with_its_start() {
        let (before, error) = lines(b"ok\n0123456789\n", 9).await;
        assert_eq!(before, ["ok"]);
        let Some(LineError::Oversized { start, .. }) = error else { panic!("oversized was due") };
        assert_eq!(&start[..4], b"0123");
        let (lines, error) = lines(b"012345678\n", 9).await;
        assert!(error.is_none());
        assert_eq!(lines, ["012345678"]);
    }

    #[tokio::test]
    async fn a_dropped_read_loses_nothing() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let mut reader = LineReader::new(theirs, 100);
        tokio::io::AsyncWriteExt::write_all(&mut ours, b"hal").await.expect("room");
        assert!(futures_util::FutureExt::now_or_never(reader.next()).is_none());
        tokio::io::AsyncWriteExt::write_all(&mut ours, b"f\n").await.expect("room");
        assert_eq!(reader.next().await.expect("a line").expect("a line"), "half");
    }
}
