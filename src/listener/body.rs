//! Bodies of requests, read within bounds: of size, of time, and of room for all of them.

use std::{future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use hyper::StatusCode;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::guard::Refusal;

/// Messages up to this size need no room. Who has sent as much takes room for all that is to
/// come, at once: bodies that took it bit by bit would wait for each other.
const SMALL_MAX_BYTES: usize = 64 * 1024;
/// So long a large one waits for room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// A body must have arrived by then; waiting for room does not count.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Who has room and sends nothing gives it back.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads a whole body of at most `max_bytes`; `setting` says in the refusal of a larger one
/// where that bound is written. A large one takes of `room`, counted in KiB, until the last
/// part of it is let go, wherever that is.
pub async fn read<B>(mut body: B, room: &Arc<Semaphore>, max_bytes: usize, setting: &str) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large(max_bytes, setting));
    }
    let (began, mut waited) = (Instant::now(), Duration::ZERO);
    let mut parts = Parts::default();
    let mut held = None;
    loop {
        let left = READ_TIMEOUT.saturating_sub(began.elapsed().saturating_sub(waited));
        let patience = if held.is_some() { left.min(STALL_TIMEOUT) } else { left };
        let Ok(frame) = timeout(patience, poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await else {
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"));
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(unreadable)?.into_data() else { continue };
        let bytes = parts.len() + data.len();
        if bytes > max_bytes {
            return Err(too_large(max_bytes, setting));
        }
        let more = body.size_hint().exact().map(|more| usize::try_from(more).unwrap_or(usize::MAX));
        if held.is_none() && bytes > SMALL_MAX_BYTES {
            let since = Instant::now();
            let all = more.map_or(max_bytes, |more| bytes.saturating_add(more));
            held = Some(take(room, all.min(max_bytes)).await?);
            waited += since.elapsed();
        }
        parts.push(data, more.unwrap_or(0).min(max_bytes));
    }
    Ok(match held {
        Some(room) => Bytes::from_owner(Roomy { bytes: parts.whole(), _room: room }),
        None => parts.whole(),
    })
}

/// What has come of a body; what came in one piece is not copied.
#[derive(Default)]
struct Parts {
    first: Bytes,
    joined: BytesMut,
}

impl Parts {
    fn len(&self) -> usize {
        self.first.len().max(self.joined.len())
    }

    fn push(&mut self, data: Bytes, more_bytes: usize) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        if self.joined.is_empty() {
            self.joined.reserve(self.first.len() + data.len() + more_bytes);
            self.joined.extend_from_slice(&self.first);
        }
        self.joined.extend_from_slice(&data);
    }

    fn whole(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.freeze() }
    }
}

/// Memory that has its room for as long as anybody has a part of it.
struct Roomy {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Roomy {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

async fn take(room: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    match timeout(ROOM_TIMEOUT, room.clone().acquire_many_owned(kib)).await {
        Ok(Ok(room)) => Ok(room),
        _ => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many large messages are under way, try again in a moment",
        )),
    }
}

fn too_large(max_bytes: usize, setting: &str) -> Refusal {
    let max = crate::text::bytes(max_bytes as u64);
    let why = format!("the message is larger than {max}, see {setting} in servers.toml");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, why)
}

fn unreadable(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("the body could not be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use http_body::{Frame, SizeHint};

    use super::*;

    /// Announces `claimed` bytes, sends `sent` in one piece, and stays open or ends.
    struct Sender {
        claimed: u64,
        sent: Option<Bytes>,
        ends: bool,
    }

    impl Body for Sender {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
            match self.sent.take() {
                Some(sent) => Poll::Ready(Some(Ok(Frame::data(sent)))),
                None if self.ends => Poll::Ready(None),
                None => Poll::Pending,
            }
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.claimed)
        }
    }

    const MAX_BYTES: usize = 1024 * 1024;

    fn sender(claimed: u64, sent: usize, ends: bool) -> Sender {
        Sender { claimed, sent: Some(vec![b' '; sent].into()), ends }
    }

    #[tokio::test(start_paused = true)]
    async fn who_announces_much_and_sends_little_keeps_nobody_out() {
        let room = Arc::new(Semaphore::new(MAX_BYTES / 1024));
        let slow = tokio::spawn({
            let room = room.clone();
            async move { read(sender(MAX_BYTES as u64, 1000, false), &room, MAX_BYTES, "x").await.map(|_| ()) }
        });
        tokio::task::yield_now().await;
        let whole = sender(MAX_BYTES as u64, MAX_BYTES, true);
        let bytes = read(whole, &room, MAX_BYTES, "x").await.expect("there is room");
        assert_eq!((bytes.len(), room.available_permits()), (MAX_BYTES, 0));
        assert!(slow.await.expect("no panic").is_err(), "it did not arrive in time");
        let part = bytes.slice(5..10);
        drop(bytes);
        assert_eq!(room.available_permits(), 0, "the memory is still there");
        drop(part);
        assert_eq!(room.available_permits(), MAX_BYTES / 1024, "all is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_room_is_refused_after_a_while() {
        let room = Arc::new(Semaphore::new(MAX_BYTES / 1024));
        let first = read(sender(0, MAX_BYTES, true), &room, MAX_BYTES, "x").await.expect("there is room");
        read(sender(10, 10, true), &room, MAX_BYTES, "x").await.expect("it needs none");
        let refusal = read(sender(0, MAX_BYTES, true), &room, MAX_BYTES, "x").await.expect_err("there is none");
        assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        read(sender(0, MAX_BYTES, true), &room, MAX_BYTES, "x").await.expect("there is room again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_room_and_falls_silent_gives_it_back() {
        let room = Arc::new(Semaphore::new(MAX_BYTES / 1024));
        let began = Instant::now();
        let half = sender(MAX_BYTES as u64, MAX_BYTES / 2, false);
        let refusal = read(half, &room, MAX_BYTES, "x").await.expect_err("it never ends");
        assert_eq!((refusal.status, began.elapsed()), (StatusCode::REQUEST_TIMEOUT, STALL_TIMEOUT));
        assert_eq!(room.available_permits(), MAX_BYTES / 1024);
    }
}
