//! What goes out on the stream of a [`Peer`]: a bounded queue of lines, written in batches.

use std::time::Duration;

use bytes::BytesMut;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::{
        OwnedSemaphorePermit, TryAcquireError,
        mpsc::{self, error::TrySendError},
    },
    time::timeout,
};

use super::Peer;
use crate::{
    link::LinkError,
    wire::{envelope::Parts, pending::Guilty},
};

/// Lines that wait to be written; what comes on top waits in its own future.
pub(super) const QUEUE_MAX_LINES: usize = 256;
/// Bytes that wait to be written, in KiB so that they fit a semaphore's count.
pub(super) const QUEUE_MAX_KIB: u32 = 64 * 1024;
/// Below this a payload is copied into the write buffer; above it is written in place.
const COPY_MAX_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Frame {
    /// Set for requests: not written any more once nobody waits.
    request: Option<u64>,
    parts: Parts,
    _room: OwnedSemaphorePermit,
}

impl Peer {
    pub(super) async fn enqueue(&self, request: Option<u64>, parts: Parts) -> Result<(), ()> {
        let kib = kib_of(&parts);
        let room = self.0.room.clone().acquire_many_owned(kib).await.map_err(|_| ())?;
        self.0.out.send(Frame { request, parts, _room: room }).await.map_err(|_| ())
    }

    pub(super) fn try_enqueue(&self, parts: Parts) -> Result<(), LinkError> {
        let not_sent =
            |is_closed| LinkError::NotSent(if is_closed { self.reason() } else { "its queue is full".to_owned() });
        let room = self.0.room.clone().try_acquire_many_owned(kib_of(&parts));
        let room = room.map_err(|error| not_sent(error == TryAcquireError::Closed))?;
        let sent = self.0.out.try_send(Frame { request: None, parts, _room: room });
        sent.map_err(|error| not_sent(matches!(error, TrySendError::Closed(_))))
    }

    pub(super) async fn write<W: AsyncWrite + Unpin>(
        self,
        mut write: W,
        mut queue: mpsc::Receiver<Frame>,
        limit: Duration,
    ) {
        let mut gone = self.0.gone.subscribe();
        let mut frames = Vec::with_capacity(64);
        loop {
            tokio::select! {
                biased;
                _ = gone.wait_for(|gone| *gone) => break,
                n = queue.recv_many(&mut frames, 64) => if n == 0 { break },
            }
            match timeout(limit, self.write_all(&mut write, &mut frames)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.end(format!("writing to it failed: {error}"), Guilty::None);
                    break;
                }
                Err(_) => {
                    let waited = crate::text::duration(limit);
                    self.end(format!("it has not read its input for {waited}"), Guilty::None);
                    break;
                }
            }
        }
        // Whoever still waits for room in the queue hears that there is none.
        self.0.room.close();
    }

    async fn write_all<W: AsyncWrite + Unpin>(&self, write: &mut W, frames: &mut Vec<Frame>) -> std::io::Result<()> {
        let mut buffer = BytesMut::with_capacity(4096);
        for frame in frames.drain(..) {
            if let Some(id) = frame.request
                && !self.0.pending.mark_sent(id, self.0.number)
            {
                continue;
            }
            buffer.extend_from_slice(&frame.parts.head);
            if let Some(body) = &frame.parts.body {
                if body.len() > COPY_MAX_BYTES {
                    write.write_all(&buffer).await?;
                    buffer.clear();
                    write.write_all(body.as_bytes()).await?;
                } else {
                    buffer.extend_from_slice(body.as_bytes());
                }
            }
            buffer.extend_from_slice(frame.parts.tail);
            buffer.extend_from_slice(b"\n");
        }
        write.write_all(&buffer).await?;
        write.flush().await
    }
}

fn kib_of(parts: &Parts) -> u32 {
    u32::try_from(parts.len() / 1024 + 1).unwrap_or(u32::MAX).min(QUEUE_MAX_KIB)
}
