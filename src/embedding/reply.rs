//! Replies: JSON in the shape that OpenAI's clients read, errors too.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use serde_json::json;

use super::{
    ask::{Encoding, Fault, FaultKind},
    keeper::{Refused, Vectors},
};
use crate::listener::guard::Refusal;

const RETRY_AFTER_BUSY_S: u32 = 1;
const RETRY_AFTER_TROUBLE_S: u32 = 5;

pub(super) struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

pub(super) type Reply = Response<Whole>;

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut reply = Response::new(Whole(Some(text.into())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Item<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Item<'a> {
    object: &'static str,
    index: usize,
    embedding: Embedding<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Embedding<'a> {
    Float(&'a [f32]),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

pub(super) fn vectors(vectors: &Vectors, encoding: Encoding, model: &str) -> Reply {
    let prompt_tokens = vectors.tokens.iter().copied().map(u64::from).sum();
    let item = |(index, vector)| Item {
        object: "embedding",
        index,
        embedding: match encoding {
            Encoding::Float => Embedding::Float(vector),
            Encoding::Base64 => Embedding::Base64(base64(vector)),
        },
    };
    let list = List {
        object: "list",
        data: vectors.values.chunks_exact(vectors.dimensions.max(1)).enumerate().map(item).collect(),
        model,
        usage: Usage { prompt_tokens, total_tokens: prompt_tokens },
    };
    json(StatusCode::OK, &list)
}

/// The floats as they lie in memory, little-endian.
fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes)
}

/// What is wrong, in OpenAI's shape.
pub(super) fn error(status: StatusCode, kind: &str, code: Option<&str>, param: Option<&str>, message: &str) -> Reply {
    json(status, &json!({ "error": { "message": message, "type": kind, "param": param, "code": code } }))
}

pub(super) fn fault(fault: &Fault) -> Reply {
    let (status, code) = match fault.kind {
        FaultKind::Wrong => (StatusCode::BAD_REQUEST, None),
        FaultKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Some("too_large")),
        FaultKind::NoSuchModel => (StatusCode::NOT_FOUND, Some("model_not_found")),
    };
    let message = match fault.param {
        Some(param) if fault.kind != FaultKind::NoSuchModel => {
            // `input[3] is …` and `dimensions must be …`
            let gap = if fault.what.starts_with('[') { "" } else { " " };
            format!("{param}{gap}{}", fault.what)
        }
        _ => fault.what.clone(),
    };
    error(status, "invalid_request_error", code, fault.param, &message)
}

pub(super) fn refusal(refusal: &Refusal) -> Reply {
    let kind = match refusal.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        _ => "invalid_request_error",
    };
    let mut reply = error(refusal.status, kind, None, None, &refusal.reason);
    match refusal.status {
        StatusCode::UNAUTHORIZED => {
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_BUSY_S));
        }
        _ => {}
    }
    reply
}

pub(super) fn refused(refused: &Refused) -> Reply {
    use StatusCode as Code;
    let (status, kind, code, retry_after_s) = match refused {
        Refused::Busy => (Code::TOO_MANY_REQUESTS, "overloaded_error", "queue_full", Some(RETRY_AFTER_BUSY_S)),
        Refused::Unavailable(_) => {
            (Code::SERVICE_UNAVAILABLE, "unavailable_error", "model_unavailable", Some(RETRY_AFTER_TROUBLE_S))
        }
        Refused::TooLate(_) => (Code::SERVICE_UNAVAILABLE, "overloaded_error", "timeout", Some(RETRY_AFTER_TROUBLE_S)),
        Refused::Unfit { .. } => (Code::BAD_REQUEST, "invalid_request_error", "invalid_input", None),
        Refused::Failed(_) => (Code::INTERNAL_SERVER_ERROR, "server_error", "model_failed", None),
    };
    let param = matches!(refused, Refused::Unfit { .. }).then_some("input");
    let mut reply = error(status, kind, Some(code), param, &refused.to_string());
    if let Some(seconds) = retry_after_s {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

pub(super) fn not_allowed(allowed: &'static str) -> Reply {
    let message = format!("only {allowed} can be used here");
    let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", None, None, &message);
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}
