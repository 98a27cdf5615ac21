//! The tail: events as they come, each with the place to go on from as its id.
//!
//! What is sent is read from the file, from a place on: nothing is kept for a reader, a
//! slow one is only later, and one that comes back misses nothing that is kept. One that is later
//! than events are kept is told that some are gone.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::timeout,
};

use super::{Server, front, query::Cursor};
use crate::store::{
    EventRecord,
    intake::{IntakeFilter, Page},
};

/// A comment so often keeps idle streams from being cut by what lies between.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const PAGE_MAX_EVENTS: u32 = 500;
/// What one who does not read may hold; others have as much.
const PAGE_MAX_BYTES: usize = 256 * 1024;
/// While the file cannot be read, it is tried again so often.
const RETRY: Duration = Duration::from_secs(1);

struct Tail {
    server: Arc<Server>,
    filter: IntakeFilter,
    at: Cursor,
    commits: watch::Receiver<()>,
    _place: OwnedSemaphorePermit,
}

/// The events after a place, for as long as there is somebody who reads them.
pub(super) fn tail(
    server: Arc<Server>,
    filter: IntakeFilter,
    at: Cursor,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Bytes> + Send + 'static {
    let commits = server.commits.clone();
    let tail = Tail { server, filter, at, commits, _place: place };
    // The first chunk says at once that the stream is open, and from where.
    let opened = format!("id: {}\nretry: 1000\n: open\n\n", tail.at);
    let opened = stream::iter([Bytes::from(opened)]);
    let rest = stream::unfold(tail, |mut tail| async move {
        let chunk = tail.next().await?;
        Some((chunk, tail))
    });
    futures_util::StreamExt::chain(opened, rest)
}

impl Tail {
    /// The next events; `None` when the server stops.
    async fn next(&mut self) -> Option<Bytes> {
        let shutdown = self.server.shutdown.clone();
        loop {
            if shutdown.is_cancelled() {
                return None;
            }
            // Before reading: a commit in between is then not slept through.
            self.commits.mark_unchanged();
            match self.read().await {
                Some(page) if !page.events.is_empty() || page.lost.is_some() => return Some(self.chunk(&page)),
                Some(page) => self.at = Cursor { epoch: page.epoch, seq: page.seq },
                None => {
                    let _ = timeout(RETRY, shutdown.cancelled()).await;
                    continue;
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                changed = timeout(KEEP_ALIVE, self.commits.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => return Some(Bytes::from_static(b": still here\n\n")),
                }
            }
        }
    }

    async fn read(&self) -> Option<Page> {
        let (filter, at) = (self.filter.clone(), self.at.clone());
        let read = front::reading(&self.server, move |reader| {
            reader.with_pages_of(PAGE_MAX_BYTES).after(&filter, (&at.epoch, at.seq), PAGE_MAX_EVENTS)
        });
        read.await.ok()
    }

    fn chunk(&mut self, page: &Page) -> Bytes {
        let mut chunk = BytesMut::new();
        if let Some(lost) = page.lost {
            let lost = serde_json::json!({ "reason": lost, "after": self.at.to_string() });
            // Without an id: who is cut off right after it is told again.
            chunk.put_slice(format!("event: lost\ndata: {lost}\n\n").as_bytes());
        }
        for event in &page.events {
            write(&mut chunk, &page.epoch, event);
        }
        self.at = Cursor { epoch: page.epoch.clone(), seq: page.seq };
        chunk.freeze()
    }
}

fn write(out: &mut BytesMut, epoch: &str, event: &EventRecord) {
    let id = Cursor { epoch: epoch.to_owned(), seq: event.seq };
    out.put_slice(format!("id: {id}\ndata: ").as_bytes());
    // Metadata is kept as it was written, line breaks between its members included; a line
    // break cannot be within a string of JSON.
    let json = serde_json::to_string(event).unwrap_or_default();
    out.put_slice(json.replace(['\n', '\r'], " ").as_bytes());
    out.put_slice(b"\n\n");
}
