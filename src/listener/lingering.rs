//! A connection that is not closed in the face of a client that still sends. Closed with
//! something unread, the system would reset it, and a client that writes all of its request
//! before it reads would meet an error in place of the refusal that says why.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// So long what still comes is read and thrown away.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
const LINGER_MAX_BYTES: usize = 256 * 1024 * 1024;
/// Read in one go, without others on this thread having their turn.
const TURN_BYTES: usize = 1024 * 1024;

/// Whether the request answered last was refused, with a body that nobody may have read.
#[derive(Clone, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    pub(super) fn set(&self, unread: bool) {
        self.0.store(unread, Ordering::Relaxed);
    }
}

pub(super) struct Lingering<S> {
    stream: S,
    unread: Unread,
    /// Since our side is closed.
    until: Option<Pin<Box<Sleep>>>,
    thrown_away_bytes: usize,
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S, unread: Unread) -> Self {
        Lingering { stream, unread, until: None, thrown_away_bytes: 0 }
    }
}

impl<S: AsyncRead + Unpin> Lingering<S> {
    /// Until the client has closed its side, or the patience is at its end.
    fn throw_away(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(LINGER_TIMEOUT)));
        if until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut trash = [0; 16 * 1024];
        let turn_ends_at = self.thrown_away_bytes + TURN_BYTES;
        while self.thrown_away_bytes < LINGER_MAX_BYTES {
            let mut buf = ReadBuf::new(&mut trash);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => self.thrown_away_bytes += buf.filled().len(),
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
            if self.thrown_away_bytes >= turn_ends_at {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.until.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.unread.0.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        self.throw_away(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncWriteExt as _, duplex},
        time::Instant,
    };

    use super::*;

    fn refused<S>(stream: S) -> Lingering<S> {
        let unread = Unread::default();
        unread.set(true);
        Lingering::new(stream, unread)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_refused_client_still_sends_is_taken() {
        let (ours, mut theirs) = duplex(1000);
        let sending = tokio::spawn(async move {
            theirs.write_all(&[0; 5_000_000]).await.expect("it is taken");
            Instant::now()
        });
        let began = Instant::now();
        refused(ours).shutdown().await.expect("closed");
        assert_eq!((began.elapsed(), sending.await.expect("no panic")), (Duration::ZERO, began));
    }

    #[tokio::test(start_paused = true)]
    async fn for_a_while() {
        let (ours, _theirs) = duplex(1000);
        let began = Instant::now();
        refused(ours).shutdown().await.expect("closed");
        assert_eq!(began.elapsed(), LINGER_TIMEOUT);
        let (ours, _theirs) = duplex(1000);
        Lingering::new(ours, Unread::default()).shutdown().await.expect("closed");
        assert_eq!(began.elapsed(), LINGER_TIMEOUT, "who was not refused is closed at once");
    }

    #[tokio::test(start_paused = true)]
    async fn up_to_a_size() {
        let (ours, mut theirs) = duplex(1024 * 1024);
        let sending = tokio::spawn(async move {
            let part = vec![0; 1024 * 1024];
            let mut sent = 0;
            while theirs.write_all(&part).await.is_ok() {
                sent += part.len();
            }
            sent
        });
        refused(ours).shutdown().await.expect("closed");
        let sent = sending.await.expect("no panic");
        assert!((LINGER_MAX_BYTES..=LINGER_MAX_BYTES + 2 * TURN_BYTES).contains(&sent), "{sent}");
    }
}
