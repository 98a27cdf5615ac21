//! Replies that every listener of a service gives: JSON, text, and streams of server-sent events.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const BUSY_RETRY_AFTER_S: u32 = 1;

pub enum ReplyBody {
    Whole(Option<Bytes>),
    Events(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            ReplyBody::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            ReplyBody::Events(events) => events.as_mut().poll_next(cx).map(|event| event.map(|e| Ok(Frame::data(e)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ReplyBody::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            ReplyBody::Events(_) => SizeHint::default(),
        }
    }
}

pub type Reply = Response<ReplyBody>;

fn typed(status: StatusCode, kind: &'static str, body: ReplyBody) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

pub fn text(text: &'static str) -> Reply {
    typed(StatusCode::OK, "text/plain; charset=utf-8", ReplyBody::Whole(Some(Bytes::from_static(text.as_bytes()))))
}

pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Reply {
    json_text(status, serde_json::to_vec(value).unwrap_or_default().into())
}

pub fn json_text(status: StatusCode, text: Bytes) -> Reply {
    typed(status, "application/json", ReplyBody::Whole(Some(text)))
}

pub fn events(events: impl Stream<Item = Bytes> + Send + 'static) -> Reply {
    let mut reply = typed(StatusCode::OK, "text/event-stream", ReplyBody::Events(Box::pin(events)));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Proxies would otherwise gather events before they pass them on.
    reply.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    reply
}

/// A refusal of the guard, or of a body, with what its status asks to be said beside it.
pub fn of_refusal(mut reply: Reply) -> Reply {
    match reply.status() {
        StatusCode::UNAUTHORIZED => {
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::SERVICE_UNAVAILABLE => return retry_after(BUSY_RETRY_AFTER_S, reply),
        _ => {}
    }
    reply
}

pub fn retry_after(seconds: u32, mut reply: Reply) -> Reply {
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    reply
}

/// Of a method that is not among `allowed`.
pub fn allowing(allowed: &'static str, mut reply: Reply) -> Reply {
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}
