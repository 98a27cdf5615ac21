//! `seawall stdio` in a running gateway: lines from one client to the gateway it joined and
//! back, which outlive the gateway. Its open calls are answered when it dies, and once it is
//! back, it is told what the client had told its predecessor.
//!
//! Knows what a line is, and nothing of sockets: who joins is handed in.

use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufWriter, ReadHalf, WriteHalf, split},
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::ControlError;
use crate::{
    say::note,
    wire::lines::{LineError, LineReader},
};

mod ledger;
mod open;
#[cfg(test)]
mod tests;

use ledger::{Ledger, Welcome};

/// How often it is tried to join again: a supervisor needs a moment to start a gateway.
const AGAIN_EVERY: Duration = Duration::from_millis(250);
/// The same where a gateway is there and cannot serve this client yet.
const NOT_YET_EVERY: Duration = Duration::from_secs(1);
/// So long the client's next calls wait for a gateway that is on its way; later ones are
/// refused, until it is back.
const GRACE: Duration = Duration::from_secs(30);
/// What is more waits in the client's pipe.
const HELD_MAX_BYTES: usize = 1024 * 1024;
/// A gateway that is there takes a connection by then, or is tried again.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for the handshake: a server's own start is waited for, for 30 s.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(40);
/// What a gateway that is asked to end a session needs beyond its `drain`.
const FAREWELL_MARGIN: Duration = Duration::from_secs(10);
/// Either way. The gateway has the bound that counts, and may be started with another one.
const LINE_MAX_BYTES: usize = u32::MAX as usize;
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("the client does not read: {0}")]
    Unread(io::Error),
    #[error("the client sent {0}")]
    Oversized(LineError),
    #[error("the gateway is back, and does not take this client: {0}")]
    NotTaken(ControlError),
    #[error("the gateway is back, and refuses the handshake that its predecessor took: {0}")]
    Refused(String),
}

/// How the life of one gateway ended for its client.
enum End {
    Client,
    Gateway,
}

struct Relay<R, W> {
    lines: LineReader<R>,
    /// What the client said while there was no gateway. Read all the same, or its end would
    /// not be noticed.
    held: VecDeque<Bytes>,
    client: BufWriter<W>,
    ledger: Mutex<Ledger>,
    /// How long calls under way may take once the client has ended.
    drain: Duration,
}

/// A gateway that has joined hands.
struct Joined<L> {
    answers: LineReader<ReadHalf<L>>,
    gateway: BufWriter<WriteHalf<L>>,
    /// What it said before it answered the handshake.
    said: Vec<Bytes>,
}

impl<L: AsyncRead + AsyncWrite> Joined<L> {
    fn over(link: L) -> Self {
        let (read, write) = split(link);
        Joined {
            answers: LineReader::new(read, LINE_MAX_BYTES),
            gateway: BufWriter::with_capacity(BUFFER_BYTES, write),
            said: Vec::new(),
        }
    }
}

/// Serves a client until its input ends. `link` is the gateway that it joined, `join`
/// joins the next; its calls may take `drain` once its input has ended.
pub async fn relay<R, W, L>(
    client: (R, W),
    drain: Duration,
    link: L,
    join: impl AsyncFn() -> Result<L, ControlError>,
) -> Result<(), RelayError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    L: AsyncRead + AsyncWrite,
{
    let mut relay = Relay {
        lines: LineReader::new(client.0, LINE_MAX_BYTES),
        held: VecDeque::new(),
        client: BufWriter::with_capacity(BUFFER_BYTES, client.1),
        ledger: Mutex::default(),
        drain,
    };
    let mut joined = Joined::over(link);
    loop {
        let end = relay.carry(&mut joined).await;
        let bereaved = relay.ledger().bereave();
        let has_lost = !bereaved.last.is_empty();
        relay.tell(bereaved.last).await?;
        if let End::Client = end? {
            return Ok(());
        }
        for line in bereaved.again.into_iter().rev() {
            relay.held.push_front(line);
        }
        note!(
            "seawall: the gateway has ended, or closed the connection{}; it is joined again once it is back",
            if has_lost { ", and the open calls are answered as lost" } else { "" }
        );
        let greeting = relay.ledger().greeting();
        let Some(next) = relay.meanwhile(come_back(&join, &greeting)).await? else { return Ok(()) };
        joined = match next {
            Ok(joined) => joined,
            Err(error) => {
                relay.refuse_held().await?;
                return Err(error);
            }
        };
        note!("seawall: joined the gateway again");
        let said = std::mem::take(&mut joined.said);
        let news = {
            let mut ledger = relay.ledger();
            let mut news: Vec<Bytes> = said.into_iter().filter_map(|line| ledger.hear_gateway(line)).collect();
            news.extend(ledger.news());
            news
        };
        relay.tell(news).await?;
    }
}

/// Joins the next gateway, and says to it what its predecessor knew.
async fn come_back<L: AsyncRead + AsyncWrite>(
    join: &impl AsyncFn() -> Result<L, ControlError>,
    greeting: &[Bytes],
) -> Result<Joined<L>, RelayError> {
    loop {
        match timeout(JOIN_TIMEOUT, join()).await {
            Ok(Ok(link)) => {
                let mut joined = Joined::over(link);
                match timeout(HANDSHAKE_TIMEOUT, shake_hands(greeting, &mut joined)).await {
                    Ok(Ok(Welcome::Taken)) => return Ok(joined),
                    Ok(Ok(Welcome::Refused(why))) => return Err(RelayError::Refused(why)),
                    // Its server does not run, say.
                    Ok(Ok(Welcome::NotYet)) => sleep(NOT_YET_EVERY).await,
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            Ok(Err(refused @ ControlError::Refused(_))) => return Err(RelayError::NotTaken(refused)),
            Ok(Err(_)) | Err(_) => {}
        }
        sleep(AGAIN_EVERY).await;
    }
}

/// An error means that it ended before it had answered.
async fn shake_hands<L: AsyncRead + AsyncWrite>(greeting: &[Bytes], joined: &mut Joined<L>) -> io::Result<Welcome> {
    let Some((hello, rest)) = greeting.split_first() else { return Ok(Welcome::Taken) };
    put(&mut joined.gateway, hello).await?;
    joined.gateway.flush().await?;
    loop {
        let Ok(Some(line)) = joined.answers.next().await else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        match Welcome::of(&line) {
            Some(Welcome::Taken) => break,
            Some(other) => return Ok(other),
            None => joined.said.push(line),
        }
    }
    for line in rest {
        put(&mut joined.gateway, line).await?;
    }
    joined.gateway.flush().await?;
    Ok(Welcome::Taken)
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Relay<R, W> {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&mut self, lines: Vec<Bytes>) -> Result<(), RelayError> {
        for line in lines {
            put(&mut self.client, &line).await.map_err(RelayError::Unread)?;
        }
        self.client.flush().await.map_err(RelayError::Unread)
    }

    /// Both ways at once, until one of them ends.
    async fn carry<L: AsyncRead + AsyncWrite>(&mut self, joined: &mut Joined<L>) -> Result<End, RelayError> {
        let ledger = &self.ledger;
        let note = || ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = Notify::new();
        let (lines, held, client) = (&mut self.lines, &mut self.held, &mut self.client);
        let (answers, gateway) = (&mut joined.answers, &mut joined.gateway);
        let up = async {
            loop {
                // Nothing is taken from the client that could not be answered for.
                while note().is_full() {
                    has_room.notified().await;
                }
                let line = match held.pop_front() {
                    Some(line) => Ok(Some(line)),
                    None => next(lines, gateway).await,
                };
                let line = match line {
                    Ok(Some(line)) => line,
                    // A client whose input cannot be read any more has ended as well.
                    Ok(None) | Err(LineError::Io(_)) => break,
                    Err(oversized) => return Err(RelayError::Oversized(oversized)),
                };
                // Noted before it is sent, so that no answer can be faster.
                let Some(line) = note().hear_client(line) else { continue };
                if put(gateway, &line).await.is_err() {
                    return Ok(End::Gateway);
                }
            }
            // The end of the client's input is the end of the session: say so.
            let _ = gateway.shutdown().await;
            Ok(End::Client)
        };
        let down = async {
            // An error is the gateway's end, as its last word is: one killed with something unread.
            while let Ok(Some(line)) = next(answers, client).await {
                let line = note().hear_gateway(line);
                has_room.notify_one();
                let Some(line) = line else { continue };
                put(client, &line).await.map_err(RelayError::Unread)?;
            }
            client.flush().await.map_err(RelayError::Unread)
        };
        let mut down = std::pin::pin!(down);
        tokio::select! {
            biased;
            ended = down.as_mut() => ended.map(|()| End::Gateway),
            end = up => {
                let end = end?;
                // What it still had to say, unless it is stuck.
                match timeout(self.drain + FAREWELL_MARGIN, down).await {
                    Ok(ended) => ended.map(|()| end),
                    Err(_) => Ok(end),
                }
            }
        }
    }

    /// Waits for `back` while the client is listened to; `None` if the client does not wait
    /// that long.
    async fn meanwhile<T>(&mut self, back: impl Future<Output = T>) -> Result<Option<T>, RelayError> {
        let mut back = std::pin::pin!(back);
        let patience = Instant::now() + GRACE;
        let mut held_bytes: usize = self.held.iter().map(Bytes::len).sum();
        loop {
            let line = tokio::select! {
                biased;
                back = back.as_mut() => return Ok(Some(back)),
                () = sleep_until(patience), if !self.held.is_empty() => {
                    self.refuse_held().await?;
                    held_bytes = 0;
                    continue;
                }
                line = self.lines.next(), if held_bytes < HELD_MAX_BYTES => line,
            };
            match line {
                Ok(Some(line)) => {
                    held_bytes += line.len();
                    self.held.push_back(line);
                }
                Ok(None) | Err(LineError::Io(_)) => return self.refuse_held().await.map(|()| None),
                Err(oversized) => return Err(RelayError::Oversized(oversized)),
            }
        }
    }

    async fn refuse_held(&mut self) -> Result<(), RelayError> {
        for line in std::mem::take(&mut self.held) {
            let refusals = self.ledger().refuse(line);
            self.tell(refusals).await?;
        }
        Ok(())
    }
}

/// The next line; what was written is sent off before anything is waited for.
async fn next<R, W>(lines: &mut LineReader<R>, out: &mut W) -> Result<Option<Bytes>, LineError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    match lines.next().now_or_never() {
        Some(line) => line,
        None => {
            // Whoever does not take it is found at the next line, or has ended.
            let _ = out.flush().await;
            lines.next().await
        }
    }
}

async fn put(out: &mut (impl AsyncWrite + Unpin), line: &[u8]) -> io::Result<()> {
    out.write_all(line).await?;
    out.write_all(b"\n").await
}
