//! Replies: JSON, text, and streams of server-sent events.

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
use serde_json::{Value, json};

use super::read::Fault;
use crate::listener::guard::Refusal;

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) enum ReplyBody {
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

pub(super) type Reply = Response<ReplyBody>;

fn typed(status: StatusCode, kind: &'static str, body: ReplyBody) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

pub(super) fn text(text: &'static str) -> Reply {
    typed(StatusCode::OK, "text/plain; charset=utf-8", ReplyBody::Whole(Some(Bytes::from_static(text.as_bytes()))))
}

pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Reply {
    let text = serde_json::to_vec(value).unwrap_or_default();
    typed(status, "application/json", ReplyBody::Whole(Some(text.into())))
}

pub(super) fn events(events: impl Stream<Item = Bytes> + Send + 'static) -> Reply {
    let mut reply = typed(StatusCode::OK, "text/event-stream", ReplyBody::Events(Box::pin(events)));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Proxies would otherwise gather events before they pass them on.
    reply.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    reply
}

/// What is wrong, in a sentence.
pub(super) fn error(status: StatusCode, message: &str) -> Reply {
    json(status, &json!({ "error": { "message": message } }))
}

/// What is wrong with an event, and where.
pub(super) fn fault(status: StatusCode, fault: &Fault) -> Reply {
    let mut error = serde_json::Map::new();
    error.insert("message".to_owned(), fault.to_string().into());
    for (key, value) in [("line", fault.line.map(Value::from)), ("field", fault.field.clone().map(Value::from))] {
        error.extend(value.map(|value| (key.to_owned(), value)));
    }
    json(status, &json!({ "error": error }))
}

pub(super) fn refusal(refusal: &Refusal) -> Reply {
    let mut reply = error(refusal.status, &refusal.reason);
    match refusal.status {
        StatusCode::UNAUTHORIZED => {
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    reply
}

/// Nothing was taken; the same may be sent again after so many seconds.
pub(super) fn unavailable(message: &str, retry_after_s: u32) -> Reply {
    let mut reply = error(StatusCode::SERVICE_UNAVAILABLE, message);
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after_s));
    reply
}

pub(super) fn not_allowed(allowed: &'static str) -> Reply {
    let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, &format!("only {allowed} can be used here"));
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}
