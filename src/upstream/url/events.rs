//! The messages in a reply: one, if it is plain JSON, or those of an event stream.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Response, header::HeaderValue};

use crate::{
    link::{Gone, LinkError},
    wire::events::EventReader,
};

pub(super) struct Events {
    response: Response,
    max_message_bytes: usize,
    arrived: Arrived,
    ended: bool,
}

/// What has come of the reply and was not handed on.
enum Arrived {
    Whole(BytesMut),
    Stream(EventReader),
}

impl Events {
    pub(super) fn new(response: Response, is_stream: bool, max_message_bytes: usize) -> Self {
        let arrived = match is_stream {
            true => Arrived::Stream(EventReader::default()),
            false => Arrived::Whole(BytesMut::new()),
        };
        Events { response, max_message_bytes, arrived, ended: false }
    }

    /// The rest of the same stream, in another reply.
    pub(super) fn gone_on_with(&self, response: Response) -> Self {
        let reader = self.reader().map(EventReader::for_the_rest).unwrap_or_default();
        Events { response, max_message_bytes: self.max_message_bytes, arrived: Arrived::Stream(reader), ended: false }
    }

    /// Where a stream that breaks can be resumed.
    pub(super) fn last_event_id(&self) -> Option<HeaderValue> {
        let id = self.reader()?.last_id()?;
        HeaderValue::from_bytes(id.trim_ascii()).ok()
    }

    /// How long the server wants to be left alone before that.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.reader()?.retry()
    }

    fn reader(&self) -> Option<&EventReader> {
        match &self.arrived {
            Arrived::Stream(reader) => Some(reader),
            Arrived::Whole(_) => None,
        }
    }

    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        loop {
            match &mut self.arrived {
                Arrived::Stream(reader) => {
                    if let Some(message) = reader.take() {
                        return Ok(Some(message));
                    }
                }
                Arrived::Whole(whole) if self.ended => {
                    let whole = std::mem::take(whole);
                    return Ok((!whole.is_empty()).then(|| whole.freeze()));
                }
                Arrived::Whole(_) => {}
            }
            if self.ended {
                return Ok(None);
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.arrived.push(&chunk),
                Ok(None) => self.ended = true,
                Err(error) => {
                    let reason = format!("its reply broke off: {}", super::reply::causes(&error));
                    return Err(LinkError::Lost(Gone::because(reason)));
                }
            }
            if self.arrived.held_bytes() > self.max_message_bytes {
                let max = crate::text::bytes(self.max_message_bytes as u64);
                return Err(LinkError::Protocol(format!("its answer is larger than {max}")));
            }
        }
    }
}

impl Arrived {
    fn push(&mut self, chunk: &[u8]) {
        match self {
            Arrived::Whole(whole) => whole.extend_from_slice(chunk),
            Arrived::Stream(reader) => reader.push(chunk),
        }
    }

    fn held_bytes(&self) -> usize {
        match self {
            Arrived::Whole(whole) => whole.len(),
            Arrived::Stream(reader) => reader.held_bytes(),
        }
    }
}
