//! What is wrong, in a sentence, as this server says it.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::read::Fault;
use crate::listener::{
    guard::Refusal,
    reply::{self, Reply, json},
};

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
    reply::of_refusal(error(refusal.status, &refusal.reason))
}

/// Nothing was taken; the same may be sent again after so many seconds.
pub(super) fn unavailable(message: &str, retry_after_s: u32) -> Reply {
    reply::retry_after(retry_after_s, error(StatusCode::SERVICE_UNAVAILABLE, message))
}

pub(super) fn not_allowed(allowed: &'static str) -> Reply {
    reply::allowing(allowed, error(StatusCode::METHOD_NOT_ALLOWED, &format!("only {allowed} can be used here")))
}
