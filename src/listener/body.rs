//! Bodies of requests, read within bounds: of size, of time, and of room for all of them.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use hyper::StatusCode;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::guard::Refusal;

/// Messages up to this size need no room.
const SMALL_MAX_BYTES: u64 = 64 * 1024;
/// So long a large one waits for room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// A body must have arrived by then.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes room for a body, which is given back when its request has been answered. Small
/// ones need none; one of unknown length may be as large as any.
pub async fn room_for(
    body: &impl Body,
    room: &Arc<Semaphore>,
    max_bytes: usize,
) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
    let bytes = body.size_hint().exact().unwrap_or(max_bytes as u64).min(max_bytes as u64);
    if bytes <= SMALL_MAX_BYTES {
        return Ok(None);
    }
    let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
    match timeout(ROOM_TIMEOUT, room.clone().acquire_many_owned(kib)).await {
        Ok(Ok(room)) => Ok(Some(room)),
        _ => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many large messages are on their way, try again in a moment",
        )),
    }
}

/// Reads a whole body of at most `max_bytes`; `setting` says in the refusal of a larger one
/// where that bound is written.
pub async fn read<B>(body: B, max_bytes: usize, setting: &str) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let too_large = || {
        let max = crate::text::bytes(max_bytes as u64);
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the message is larger than {max}, see {setting} in servers.toml"),
        )
    };
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large());
    }
    match timeout(READ_TIMEOUT, collect(body, max_bytes)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(too_large()),
        Ok(Err(error)) => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("the body could not be read: {error}"))),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

/// `None` if it is too large.
async fn collect<B>(mut body: B, max_bytes: usize) -> Result<Option<Bytes>, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.len().max(whole.len()) + data.len() > max_bytes {
            return Ok(None);
        }
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            let expected = usize::try_from(body.size_hint().lower()).unwrap_or(0).min(max_bytes);
            whole.reserve(first.len() + data.len() + expected);
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Some(if whole.is_empty() { first } else { whole.freeze() }))
}
