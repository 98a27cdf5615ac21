//! What comes in on the stream of a [`Peer`]: each line is a message, an answer to a
//! request of ours, an array of both, or stray.

use std::{
    borrow::Cow,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{io::AsyncRead, time::Instant};

use super::{Listener, Malformed, Peer};
use crate::{
    call::{Answer, Payload},
    wire::{
        batch,
        envelope::Envelope,
        lines::{LineError, LineReader},
        pending::Guilty,
    },
};

const STRAY_MAX_PER_MINUTE: u32 = 100;
const STRAY_KEPT_BYTES: usize = 2048;

/// Lines that were no JSON-RPC.
#[derive(Clone, Debug, Default)]
pub struct Stray {
    pub lines: u64,
    pub last: Option<String>,
    minute: Option<(Instant, u32)>,
}

impl Peer {
    pub(super) async fn read<R: AsyncRead + Unpin>(self, mut lines: LineReader<R>, listener: Arc<dyn Listener>) {
        let mut gone = self.0.gone.subscribe();
        loop {
            let line = tokio::select! {
                biased;
                _ = gone.wait_for(|gone| *gone) => return,
                line = lines.next() => line,
            };
            match line {
                Ok(Some(line)) => {
                    if let Err((reason, guilty)) = self.on_line(line, &*listener) {
                        return self.end(reason, guilty);
                    }
                }
                Ok(None) => return self.end("it closed its output", Guilty::None),
                Err(LineError::Oversized { max_bytes, start }) => {
                    let guilty = guess_id(&start).filter(|id| self.0.pending.contains(*id));
                    let reason = format!("it sent a line of more than {}", crate::text::bytes(max_bytes as u64));
                    return self.end(reason, guilty.map_or(Guilty::All, Guilty::One));
                }
                Err(LineError::Io(error)) => return self.end(format!("reading from it failed: {error}"), Guilty::None),
            }
        }
    }

    fn settle(&self, id: &Payload, answer: Answer) {
        // Ids of ours are plain integers; anything else is nobody's answer.
        let known = id.as_str().parse().is_ok_and(|id| self.0.pending.settle(id, Ok(answer)));
        if !known {
            tracing::debug!(instance = self.0.number, "an answer that nobody waits for");
        }
    }

    /// An array, taken apart.
    fn on_batch(&self, line: &Bytes, listener: &dyn Listener) -> Result<(), (String, Guilty)> {
        let items = match batch::parse(line) {
            Ok(items) => items,
            Err(malformed) => {
                listener.on_stray(self, malformed);
                return self.count_stray(line);
            }
        };
        let (mut messages, mut strays) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Ok(Envelope::Message(message)) => messages.push(message),
                Ok(Envelope::Response { id, answer }) => self.settle(&id, answer),
                Err(malformed) => strays.push(malformed),
            }
        }
        let ids = strays.iter().filter_map(|stray| stray.id.as_ref()?.as_str().parse().ok());
        let guilty = ids.into_iter().find(|id| self.0.pending.contains(*id));
        let is_stray = !strays.is_empty();
        listener.on_batch(self, messages, strays);
        match guilty {
            Some(id) => Err(("its answer was malformed".to_owned(), Guilty::One(id))),
            None if is_stray => self.count_stray(line),
            None => Ok(()),
        }
    }

    fn on_line(&self, line: Bytes, listener: &dyn Listener) -> Result<(), (String, Guilty)> {
        if batch::is_batch(&line) && listener.takes_batches() {
            return self.on_batch(&line, listener);
        }
        match parse_forgivingly(line) {
            Ok(Envelope::Message(message)) => listener.on(self, message),
            Ok(Envelope::Response { id, answer }) => self.settle(&id, answer),
            Err((malformed, line)) => {
                let read = malformed.id.as_ref().and_then(|id| id.as_str().parse().ok());
                // The beginning of an answer, broken off or mixed with another line. A log
                // line that quotes a message does not begin with the brace.
                let guilty = read.or_else(|| line.starts_with(b"{").then(|| guess_id(&line)).flatten());
                if let Some(id) = guilty.filter(|id| self.0.pending.contains(*id)) {
                    return Err((format!("its answer was {malformed}"), Guilty::One(id)));
                }
                listener.on_stray(self, malformed);
                return self.count_stray(&line);
            }
        }
        Ok(())
    }

    fn count_stray(&self, line: &[u8]) -> Result<(), (String, Guilty)> {
        let mut stray = self.0.stray.lock().unwrap_or_else(PoisonError::into_inner);
        stray.lines += 1;
        stray.last = Some(String::from_utf8_lossy(&line[..line.len().min(STRAY_KEPT_BYTES)]).into_owned());
        let now = Instant::now();
        let (_, count) = match &mut stray.minute {
            Some(minute) if now - minute.0 < Duration::from_secs(60) => minute,
            expired => expired.insert((now, 0)),
        };
        *count += 1;
        if *count > STRAY_MAX_PER_MINUTE {
            return Err((
                format!("it wrote more than {STRAY_MAX_PER_MINUTE} lines within a minute that are no JSON-RPC"),
                Guilty::All,
            ));
        }
        Ok(())
    }
}

/// Reads a line; one that is not UTF-8 gets a second chance with the bad bytes replaced.
fn parse_forgivingly(line: Bytes) -> Result<Envelope, (Malformed, Bytes)> {
    match Envelope::parse(&line) {
        Ok(envelope) => Ok(envelope),
        Err(malformed) => match String::from_utf8_lossy(&line) {
            Cow::Owned(mended) => Envelope::parse(&Bytes::from(mended)).map_err(|_| (malformed, line)),
            Cow::Borrowed(_) => Err((malformed, line)),
        },
    }
}

/// The id at the start of a line that cannot be read, or was too long to be.
fn guess_id(start: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(start, b"\"id\":")? + 5;
    let digits: Vec<u8> =
        start[at..].iter().copied().skip_while(|b| *b == b' ').take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}
