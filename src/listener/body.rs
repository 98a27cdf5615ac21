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
const SMALL_MAX_BYTES: usize = 64 * 1024;
/// So long a large one waits for room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// A body must have arrived by then.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Room is taken in such steps as a body arrives: who announces a large one and sends little
/// keeps nobody else out.
const STEP_BYTES: usize = 256 * 1024;

/// Reads a whole body of at most `max_bytes`; `setting` says in the refusal of a larger one
/// where that bound is written. What comes with it is its room among all bodies, counted in
/// KiB, which is to be kept until its request has been answered.
pub async fn read<B>(
    body: B,
    room: &Arc<Semaphore>,
    max_bytes: usize,
    setting: &str,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut reading = Reading { room, held: None, covered_bytes: SMALL_MAX_BYTES, max_bytes, setting };
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(reading.too_large());
    }
    match timeout(READ_TIMEOUT, reading.whole(body)).await {
        Ok(bytes) => Ok((bytes?, reading.held)),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

struct Reading<'a> {
    room: &'a Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    /// So much of it has room.
    covered_bytes: usize,
    max_bytes: usize,
    setting: &'a str,
}

impl Reading<'_> {
    async fn whole<B>(&mut self, mut body: B) -> Result<Bytes, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(data) = frame.map_err(unreadable)?.into_data() else { continue };
            let bytes = first.len().max(whole.len()) + data.len();
            if bytes > self.max_bytes {
                return Err(self.too_large());
            }
            self.cover(bytes).await?;
            if first.is_empty() && whole.is_empty() {
                first = data;
                continue;
            }
            if whole.is_empty() {
                let expected = usize::try_from(body.size_hint().lower()).unwrap_or(0).min(self.max_bytes);
                whole.reserve(first.len() + data.len() + expected);
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&data);
        }
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    }

    async fn cover(&mut self, bytes: usize) -> Result<(), Refusal> {
        while self.covered_bytes < bytes {
            // Not more than there is for the largest body.
            let step = STEP_BYTES.min(self.max_bytes - self.covered_bytes);
            let kib = u32::try_from(step.div_ceil(1024)).unwrap_or(u32::MAX);
            let Ok(Ok(more)) = timeout(ROOM_TIMEOUT, self.room.clone().acquire_many_owned(kib)).await else {
                return Err(Refusal::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many large messages are on their way, try again in a moment",
                ));
            };
            self.covered_bytes += step;
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
        }
        Ok(())
    }

    fn too_large(&self) -> Refusal {
        let max = crate::text::bytes(self.max_bytes as u64);
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the message is larger than {max}, see {} in servers.toml", self.setting),
        )
    }
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
        let (bytes, held) = read(whole, &room, MAX_BYTES, "x").await.expect("there is room");
        assert_eq!((bytes.len(), held.is_some()), (MAX_BYTES, true));
        assert!(slow.await.expect("no panic").is_err(), "it did not arrive in time");
        drop(held);
        assert_eq!(room.available_permits(), MAX_BYTES / 1024, "all is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_room_is_refused_after_a_while() {
        let room = Arc::new(Semaphore::new(MAX_BYTES / 1024));
        let first = read(sender(0, MAX_BYTES, true), &room, MAX_BYTES, "x").await.expect("there is room");
        let small = read(sender(10, 10, true), &room, MAX_BYTES, "x").await.expect("it needs none");
        assert!(small.1.is_none());
        let refusal = read(sender(0, MAX_BYTES, true), &room, MAX_BYTES, "x").await.expect_err("there is none");
        assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        read(sender(0, MAX_BYTES, true), &room, MAX_BYTES, "x").await.expect("there is room again");
    }
}
