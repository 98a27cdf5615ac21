//! Whole replies, put together.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE},
};

use super::{
    body::{Ending, ReplyBody},
    tapes::Reader,
};
use crate::{
    call::Payload,
    downstream::mailbox::Mailbox,
    listener::guard::Refusal,
    wire::{
        batch,
        envelope::{INVALID_REQUEST, Parts, rpc_error},
    },
};

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) fn message(parts: Parts) -> Response<ReplyBody> {
    typed("application/json", ReplyBody::message(parts))
}

pub(super) fn json(json: Payload) -> Response<ReplyBody> {
    typed("application/json", ReplyBody::text(Bytes::from(json)))
}

/// Whole messages, all at once.
pub(super) fn array(messages: &[Bytes]) -> Response<ReplyBody> {
    typed("application/json", ReplyBody::text(batch::joined(messages)))
}

pub(super) fn text(text: impl Into<Bytes>) -> Response<ReplyBody> {
    typed("text/plain; charset=utf-8", ReplyBody::text(text))
}

pub(super) fn events(
    first: Option<Bytes>,
    mailbox: Arc<Mailbox>,
    ending: Option<Box<dyn Ending>>,
) -> Response<ReplyBody> {
    event_stream(ReplyBody::events(first, mailbox, ending))
}

/// A stream that can be resumed.
pub(super) fn tape(reader: Reader) -> Response<ReplyBody> {
    event_stream(ReplyBody::tape(reader))
}

fn event_stream(body: ReplyBody) -> Response<ReplyBody> {
    let mut response = typed("text/event-stream", body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Proxies would otherwise gather events before they pass them on.
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

pub(super) fn empty(status: StatusCode) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::empty());
    *response.status_mut() = status;
    response
}

/// What is wrong, as a JSON-RPC error without an id, which MCP clients show.
pub(super) fn refusal(refusal: &Refusal) -> Response<ReplyBody> {
    let error = rpc_error(INVALID_REQUEST, format!("seawall: {}", refusal.reason));
    let mut response = message(Parts::error_without_id(error));
    *response.status_mut() = refusal.status;
    if refusal.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn typed(kind: &'static str, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
