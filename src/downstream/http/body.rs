//! Bodies of replies, written without copying.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body::{Body, Frame, SizeHint};
use tokio::time::timeout;

use super::{tape::as_event, tapes::Reader};
use crate::{
    call::Answer,
    downstream::{
        mailbox::{Mail, Mailbox, Question},
        rounds,
    },
    wire::envelope::Parts,
};

/// Below this the parts of an answer are joined, which saves a larger write call.
const JOIN_MAX_BYTES: usize = 16 * 1024;
/// A comment so often keeps idle streams from being cut by what lies between.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
pub(super) const STILL_HERE: &[u8] = b": still here\n\n";

/// A reply: pieces of known length, or events for as long as they come.
pub(super) enum ReplyBody {
    Pieces(std::collections::VecDeque<Bytes>),
    Events(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl ReplyBody {
    pub(super) fn empty() -> Self {
        ReplyBody::Pieces(Default::default())
    }

    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        ReplyBody::Pieces([text.into()].into())
    }

    pub(super) fn message(parts: Parts) -> Self {
        if parts.len() <= JOIN_MAX_BYTES {
            return ReplyBody::text(parts.joined());
        }
        let Parts { head, body, tail } = parts;
        let body = body.map(Bytes::from).unwrap_or_default();
        ReplyBody::Pieces([head.freeze(), body, Bytes::from_static(tail)].into())
    }

    /// Server-sent events that nobody can resume: `first`, then what the mailbox gets,
    /// until its answer.
    pub(super) fn events(first: Option<Bytes>, mailbox: Arc<Mailbox>, ending: Option<Box<dyn Ending>>) -> Self {
        let source = Source { mailbox, ending, is_over: false };
        let rest = stream::unfold(source, |mut source| async move {
            let chunk = source.next().await?;
            Some((chunk, source))
        });
        let first = stream::iter(first.map(|message| as_event(None, &message)));
        ReplyBody::Events(Box::pin(futures_util::StreamExt::chain(first, rest)))
    }

    /// Server-sent events of a stream that can be resumed.
    pub(super) fn tape(reader: Reader) -> Self {
        ReplyBody::Events(Box::pin(stream::unfold(reader, |mut reader| async move {
            let chunk = reader.next().await?;
            Some((chunk, reader))
        })))
    }
}

/// How the stream of a request ends.
pub(super) trait Ending: Send + 'static {
    /// The message that carries the answer.
    fn answer(&mut self, answer: Answer) -> Bytes;
    /// The message that carries questions, if they end the stream.
    fn questions(&mut self, questions: Vec<Question>) -> Option<Bytes>;
    /// The client has closed the stream before its end.
    fn abandoned(&mut self) {}
}

struct Source {
    mailbox: Arc<Mailbox>,
    /// A stream on which nothing more is said has none.
    ending: Option<Box<dyn Ending>>,
    is_over: bool,
}

impl Source {
    async fn next(&mut self) -> Option<Bytes> {
        while !self.is_over {
            let mail = match timeout(KEEP_ALIVE, self.mailbox.next()).await {
                Ok(mail) => mail,
                Err(_) => return Some(Bytes::from_static(STILL_HERE)),
            };
            let last = match (mail, &mut self.ending) {
                (Mail::Message(message), _) => return Some(as_event(None, &message)),
                (Mail::Answer(answer), Some(ending)) => Some(ending.answer(answer)),
                (Mail::Question(question), Some(ending)) => {
                    ending.questions(rounds::gather(&self.mailbox, question).await)
                }
                (Mail::Answer(_) | Mail::Question(_), None) => continue,
                (Mail::Cancelled | Mail::Closed, _) => None,
            };
            self.is_over = true;
            return last.map(|message| as_event(None, &message));
        }
        None
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(ending) = self.ending.as_mut().filter(|_| !self.is_over) {
            ending.abandoned();
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            ReplyBody::Pieces(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
            ReplyBody::Events(events) => events.as_mut().poll_next(cx).map(|event| event.map(|e| Ok(Frame::data(e)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ReplyBody::Pieces(pieces) if pieces.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Pieces(pieces) => SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum()),
            ReplyBody::Events(_) => SizeHint::default(),
        }
    }
}
