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
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufWriter, split},
    time::{Instant, sleep, timeout_at},
};

use super::ControlError;
use crate::{
    say::note,
    wire::lines::{LineError, LineReader},
};

mod ledger;

use ledger::Ledger;

/// How often it is tried to join again: a supervisor needs a moment to start a gateway.
const AGAIN_EVERY: Duration = Duration::from_millis(250);
/// So long the client's next calls wait for a gateway that is on its way; later ones are
/// refused, until it is back.
const GRACE: Duration = Duration::from_secs(30);
/// What is more waits in the client's pipe.
const HELD_MAX_BYTES: usize = 1024 * 1024;
/// A gateway that is back answers the handshake by then, or is tried again.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The gateway bounds what it sends; this only keeps a stranger from filling the memory.
const ANSWER_MAX_BYTES: usize = u32::MAX as usize;
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("the client does not read: {0}")]
    Unread(#[source] io::Error),
    #[error("the client sent {0}; servers.toml allows more with `max_message` under [gateway]")]
    Oversized(#[source] LineError),
    #[error("the gateway is back, and does not take this client: {0}")]
    NotTaken(#[source] ControlError),
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
}

/// Serves a client until its input ends. `link` is the gateway that it joined, `join`
/// joins the next.
pub async fn relay<R, W, L>(
    client: (R, W),
    max_line_bytes: usize,
    mut link: L,
    join: impl AsyncFn() -> Result<L, ControlError>,
) -> Result<(), RelayError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    L: AsyncRead + AsyncWrite,
{
    let mut relay = Relay {
        lines: LineReader::new(client.0, max_line_bytes),
        held: VecDeque::new(),
        client: BufWriter::with_capacity(BUFFER_BYTES, client.1),
        ledger: Mutex::default(),
    };
    let mut greeting = Vec::new();
    loop {
        let (read, write) = split(link);
        let mut answers = LineReader::new(read, ANSWER_MAX_BYTES);
        let mut gateway = BufWriter::with_capacity(BUFFER_BYTES, write);
        let end = match relay.greet(&greeting, &mut answers, &mut gateway).await? {
            true => relay.carry(&mut answers, &mut gateway).await?,
            false => End::Gateway,
        };
        let is_over = matches!(end, End::Client);
        let last = relay.ledger().bereave();
        let was_answered = last.is_empty();
        relay.tell(last).await?;
        if is_over {
            return Ok(());
        }
        note!(
            "seawall: the gateway has ended{}; it is joined again once it is back",
            if was_answered { "" } else { ", and the open calls are answered as lost" }
        );
        let Some(joined) = relay.come_back(&join).await? else { return Ok(()) };
        link = joined;
        greeting = relay.ledger().greeting();
    }
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

    /// Says to a gateway that is back what its predecessor knew. False if it died of it.
    async fn greet<G, T>(
        &mut self,
        greeting: &[Bytes],
        answers: &mut LineReader<G>,
        gateway: &mut T,
    ) -> Result<bool, RelayError>
    where
        G: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        let Some((hello, rest)) = greeting.split_first() else { return Ok(true) };
        let until = Instant::now() + HANDSHAKE_TIMEOUT;
        if put(gateway, hello).await.is_err() || gateway.flush().await.is_err() {
            return Ok(false);
        }
        loop {
            let Ok(Ok(Some(line))) = timeout_at(until, answers.next()).await else { return Ok(false) };
            if Ledger::is_welcome(&line).map_err(RelayError::Refused)? {
                break;
            }
            let line = self.ledger().hear_gateway(line);
            self.tell(line.into_iter().collect()).await?;
        }
        for line in rest {
            if put(gateway, line).await.is_err() {
                return Ok(false);
            }
        }
        let news = self.ledger().news();
        self.tell(news).await?;
        note!("seawall: joined the gateway again");
        Ok(gateway.flush().await.is_ok())
    }

    /// Both ways at once, until one of them ends.
    async fn carry<G, T>(&mut self, answers: &mut LineReader<G>, gateway: &mut T) -> Result<End, RelayError>
    where
        G: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        let ledger = &self.ledger;
        let note = || ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, held, client) = (&mut self.lines, &mut self.held, &mut self.client);
        let up = async {
            // A client whose input cannot be read any more has ended as well.
            loop {
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
                let Some(line) = note().hear_gateway(line) else { continue };
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
                // What it still had to say.
                down.await.map(|()| end)
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

    /// Waits for a gateway; `None` if the client does not wait that long.
    async fn come_back<L>(
        &mut self,
        join: &impl AsyncFn() -> Result<L, ControlError>,
    ) -> Result<Option<L>, RelayError> {
        let patience = Instant::now() + GRACE;
        loop {
            match join().await {
                Ok(link) => return Ok(Some(link)),
                Err(refused @ ControlError::Refused(_)) => return Err(RelayError::NotTaken(refused)),
                Err(_) => {}
            }
            if Instant::now() >= patience {
                self.refuse_held().await?;
            }
            let mut pause = std::pin::pin!(sleep(AGAIN_EVERY));
            loop {
                let has_room = self.held.iter().map(Bytes::len).sum::<usize>() < HELD_MAX_BYTES;
                let line = tokio::select! {
                    () = pause.as_mut() => break,
                    line = self.lines.next(), if has_room => line,
                };
                match line {
                    Ok(Some(line)) => self.held.push_back(line),
                    Ok(None) | Err(LineError::Io(_)) => return self.refuse_held().await.map(|()| None),
                    Err(oversized) => return Err(RelayError::Oversized(oversized)),
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncBufReadExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex};

    use super::*;

    struct Client {
        lines: tokio::io::Lines<BufReader<ReadHalf<DuplexStream>>>,
        out: WriteHalf<DuplexStream>,
    }

    impl Client {
        async fn send(&mut self, message: Value) {
            put(&mut self.out, message.to_string().as_bytes()).await.expect("it reads");
        }

        async fn next(&mut self) -> Value {
            let line = self.lines.next_line().await.expect("readable").expect("a line");
            serde_json::from_str(&line).expect("JSON")
        }
    }

    fn over(stream: DuplexStream) -> Client {
        let (read, out) = split(stream);
        Client { lines: BufReader::new(read).lines(), out }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_gateway_calls_wait_for_a_while_and_are_refused_then() {
        let (theirs, ours) = duplex(4096);
        let (link, gateway) = duplex(4096);
        drop(gateway);
        let serving = tokio::spawn(async move {
            relay(split(ours), 4096, link, async || Err::<DuplexStream, _>(ControlError::NoGateway)).await
        });
        let mut client = over(theirs);
        let began = Instant::now();
        client.send(json!({"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"name": "x"}})).await;
        client.send(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})).await;
        let (call, list) = (client.next().await, client.next().await);
        assert!(began.elapsed() >= GRACE, "a gateway that restarts is waited for: {:?}", began.elapsed());
        assert_eq!(call["result"]["_meta"]["seawall/failure"]["class"], "unavailable", "{call}");
        assert_eq!((&call["id"], &list["id"]), (&json!("a"), &json!(2)));
        let message = list["error"]["message"].as_str().expect("a message");
        assert!(message.contains("start one with `seawall serve`"), "{message}");
        client.send(json!({"jsonrpc": "2.0", "id": 3, "method": "ping"})).await;
        client.out.shutdown().await.expect("closed");
        assert_eq!(client.next().await["id"], 3, "asked before the end");
        serving.await.expect("no panic").expect("the end of the input is no error");
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_refuses_the_old_handshake_ends_it() {
        let (theirs, ours) = duplex(4096);
        let (link, gateway) = duplex(4096);
        let (next, second) = duplex(4096);
        let next = Mutex::new(Some(next));
        let join = async || next.lock().expect("whole").take().ok_or(ControlError::NoGateway);
        let serving = relay(split(ours), 4096, link, join);
        let (mut client, mut gateway, mut second) = (over(theirs), over(gateway), over(second));
        let playing = async {
            client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"n": 1}})).await;
            assert_eq!(gateway.next().await["id"], 1);
            gateway.send(json!({"jsonrpc": "2.0", "id": 1, "result": {"capabilities": {}}})).await;
            assert_eq!(client.next().await["id"], 1);
            drop(gateway);
            let hello = second.next().await;
            assert_eq!(hello["params"], json!({"n": 1}));
            let error = json!({"code": -32602, "message": "another version"});
            second.send(json!({"jsonrpc": "2.0", "id": hello["id"], "error": error})).await;
        };
        let (ended, ()) = tokio::join!(serving, playing);
        let ended = ended.expect_err("a client cannot go on with it");
        assert!(ended.to_string().ends_with("another version"), "{ended}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_cancelled_is_not_answered_as_lost() {
        let (theirs, ours) = duplex(4096);
        let (link, gateway) = duplex(4096);
        tokio::spawn(relay(split(ours), 4096, link, async || Err::<DuplexStream, _>(ControlError::NoGateway)));
        let (mut client, mut gateway) = (over(theirs), over(gateway));
        for id in [1, 2] {
            client.send(json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "x"}})).await;
        }
        let params = json!({"requestId": 1});
        client.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
        for _ in 0..3 {
            gateway.next().await;
        }
        drop(gateway);
        assert_eq!(client.next().await["id"], 2);
    }
}
