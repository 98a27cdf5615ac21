//! What is wrong, in a sentence, as this server says it.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Room for so many bytes; `None` where others have taken it, who do not read.
pub(super) fn room(room: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
    room.clone().try_acquire_many_owned(kib).ok()
}

/// A text that has its room until the last of it is sent.
pub(super) fn held(text: Vec<u8>, room: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(Held { text, _room: room })
}

struct Held {
    text: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

pub(super) fn not_allowed(allowed: &'static str) -> Reply {
    reply::allowing(allowed, error(StatusCode::METHOD_NOT_ALLOWED, &format!("only {allowed} can be used here")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_its_room_until_the_last_of_it_is_let_go() {
        let all = Arc::new(Semaphore::new(4));
        let text = held(vec![b'x'; 3000], room(&all, 3000).expect("there is room"));
        assert_eq!((text.len(), all.available_permits()), (3000, 1));
        assert!(room(&all, 1500).is_none());
        let part = text.slice(10..20);
        drop(text);
        assert!(room(&all, 1500).is_none(), "the memory is still there");
        drop(part);
        assert_eq!(all.available_permits(), 4);
        assert!(room(&all, 1500).is_some());
    }
}
