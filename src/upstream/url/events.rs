//! The messages in a reply: one, if it is plain JSON, or those of an event stream.

use bytes::{Bytes, BytesMut};
use reqwest::Response;

use crate::link::{Gone, LinkError};

pub(super) struct Events {
    response: Response,
    is_stream: bool,
    max_message_bytes: usize,
    buffer: BytesMut,
    /// The data lines of the event that is being read.
    data: Option<BytesMut>,
    ended: bool,
}

impl Events {
    pub(super) fn new(response: Response, is_stream: bool, max_message_bytes: usize) -> Self {
        Events { response, is_stream, max_message_bytes, buffer: BytesMut::new(), data: None, ended: false }
    }

    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        loop {
            if self.is_stream {
                if let Some(message) = self.take_event() {
                    return Ok(Some(message));
                }
            } else if self.ended {
                let whole = std::mem::take(&mut self.buffer);
                return Ok((!whole.is_empty()).then(|| whole.freeze()));
            }
            if self.ended {
                return Ok(None);
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => self.ended = true,
                Err(error) => {
                    let reason = format!("its reply broke off: {}", super::causes(&error));
                    return Err(LinkError::Lost(Gone::because(reason)));
                }
            }
            let held = self.buffer.len() + self.data.as_ref().map_or(0, BytesMut::len);
            if held > self.max_message_bytes {
                let max = crate::text::bytes(self.max_message_bytes as u64);
                return Err(LinkError::Protocol(format!("its answer is larger than {max}")));
            }
        }
    }

    /// Takes lines out of the buffer until an event is whole.
    fn take_event(&mut self) -> Option<Bytes> {
        while let Some(at) = memchr::memchr(b'\n', &self.buffer) {
            let line = self.buffer.split_to(at + 1);
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                match self.data.take() {
                    Some(data) if !data.is_empty() => return Some(data.freeze()),
                    _ => continue,
                }
            }
            // Event names, ids and retry times do not matter here, comments never do.
            if let Some(value) = line.strip_prefix(b"data:") {
                let value = value.strip_prefix(b" ").unwrap_or(value);
                match &mut self.data {
                    Some(data) => {
                        data.extend_from_slice(b"\n");
                        data.extend_from_slice(value);
                    }
                    None => self.data = Some(BytesMut::from(value)),
                }
            }
        }
        None
    }
}
