//! Replies: JSON in the shape that OpenAI's clients read, errors too.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::StatusCode;
use serde::Serialize;
use serde_json::json;

use super::{
    ask::{Encoding, Fault, FaultKind},
    keeper::{Refused, Vectors},
};
use crate::listener::{
    guard::Refusal,
    reply::{self, Reply, json},
};

const RETRY_AFTER_BUSY_S: u32 = 1;
const RETRY_AFTER_TROUBLE_S: u32 = 5;

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
    reply::of_refusal(error(refusal.status, kind, None, None, &refusal.reason))
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
    let reply = error(status, kind, Some(code), param, &refused.to_string());
    match retry_after_s {
        Some(seconds) => reply::retry_after(seconds, reply),
        None => reply,
    }
}

pub(super) fn not_allowed(allowed: &'static str) -> Reply {
    let message = format!("only {allowed} can be used here");
    reply::allowing(allowed, error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", None, None, &message))
}
