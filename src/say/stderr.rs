//! Stderr for one who must not wait for it, as the one who watches a service must not: what
//! is said goes through a bounded queue to a thread of its own, and only that waits for
//! whoever reads. Where nobody does, words are lost and counted; nothing else is.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// As much of what others say waits to be read.
const OTHERS_MAX_BYTES: usize = 256 * 1024;
/// Our own words have room even where a flood of others' fills theirs.
const OWN_MAX_BYTES: usize = OTHERS_MAX_BYTES + 64 * 1024;
/// What one write takes: a pipe takes so much at once or not at all.
const CHUNK_BYTES: usize = 4096;
/// One who has read nothing for so long does not read. Shorter than the last words of a
/// service are waited for.
const STALLED_AFTER: Duration = Duration::from_millis(100);
/// At the end of the process: without any progress, and in all.
const FAREWELL_STALLED: Duration = Duration::from_millis(500);
const FAREWELL: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// From now on nothing in this process waits for stderr.
pub fn wait_for_nobody() {
    let queue = Arc::new(Queue::new(STALLED_AFTER));
    let mine = queue.clone();
    // Without that thread it stays as it was.
    if thread::Builder::new().name("say".to_owned()).spawn(move || mine.drain(write)).is_ok() {
        let _ = QUEUE.set(queue);
    }
}

/// Gives what is said and not read yet a last moment. Not for long: who does not read now
/// never may.
pub fn farewell() {
    if let Some(queue) = QUEUE.get() {
        queue.farewell();
    }
}

/// What somebody else said. Waits for room only as long as anybody reads.
pub(crate) fn pass_on(text: &[u8]) {
    match QUEUE.get() {
        Some(queue) => queue.push(text, OTHERS_MAX_BYTES),
        None => drop(io::Write::write_all(&mut io::stderr(), text)),
    }
}

/// Our own words.
pub(super) fn own(text: &[u8]) {
    match QUEUE.get() {
        Some(queue) => queue.push(text, OWN_MAX_BYTES),
        None => drop(io::Write::write_all(&mut io::stderr(), text)),
    }
}

/// For whoever wants a writer: the log.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        own(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Queue {
    stalled_after: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<u8>,
    /// Some of it is with the one who writes.
    is_writing: bool,
    writes: u64,
    is_stalled: bool,
    lost_bytes: usize,
    is_within_line: bool,
}

impl Queue {
    fn new(stalled_after: Duration) -> Self {
        Queue { stalled_after, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, text: &[u8], max_bytes: usize) {
        let has_room = |state: &State| state.waiting.len() + text.len() <= max_bytes;
        let mut state = self.state();
        while !has_room(&state) && !state.is_stalled {
            let writes = state.writes;
            let is_waited_for = |state: &mut State| state.writes == writes && !has_room(state);
            state = match self.changed.wait_timeout_while(state, self.stalled_after, is_waited_for) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
            state.is_stalled = state.writes == writes;
        }
        match has_room(&state) {
            true => state.add(text),
            false => state.lost_bytes += text.len(),
        }
        self.changed.notify_all();
    }

    /// Writes what there is, for good.
    fn drain(&self, mut write: impl FnMut(&[u8])) {
        loop {
            let chunk: Vec<u8> = {
                let waited = self.changed.wait_while(self.state(), |state| state.waiting.is_empty());
                let mut state = waited.unwrap_or_else(PoisonError::into_inner);
                state.is_writing = true;
                let count = state.waiting.len().min(CHUNK_BYTES);
                state.waiting.drain(..count).collect()
            };
            write(&chunk);
            let mut state = self.state();
            state.writes += 1;
            (state.is_writing, state.is_stalled) = (false, false);
            if state.waiting.is_empty() {
                state.tell_of_loss();
            }
            self.changed.notify_all();
        }
    }

    fn farewell(&self) {
        let until = Instant::now() + FAREWELL;
        let mut state = self.state();
        while !state.is_done() {
            let writes = state.writes;
            let patience = FAREWELL_STALLED.min(until.saturating_duration_since(Instant::now()));
            let is_waited_for = |state: &mut State| state.writes == writes && !state.is_done();
            state = match self.changed.wait_timeout_while(state, patience, is_waited_for) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
            if state.writes == writes {
                return;
            }
        }
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.waiting.is_empty() && !self.is_writing
    }

    fn add(&mut self, text: &[u8]) {
        // Told once it flows again, and not once for each piece.
        if !self.is_stalled {
            self.tell_of_loss();
        }
        self.waiting.extend(text);
        self.is_within_line = text.last().map_or(self.is_within_line, |last| *last != b'\n');
    }

    fn tell_of_loss(&mut self) {
        let lost_bytes = std::mem::take(&mut self.lost_bytes);
        if lost_bytes > 0 {
            let begin = if self.is_within_line { "\n" } else { "" };
            let line = format!("{begin}seawall: {lost_bytes} bytes of stderr are lost: nobody read them in time\n");
            self.waiting.extend(line.as_bytes());
            self.is_within_line = false;
        }
    }
}

/// Without the lock that all who use `io::stderr` wait for.
fn write(mut chunk: &[u8]) {
    use rustix::{
        event::{PollFd, PollFlags, poll},
        io::Errno,
    };
    let stderr = io::stderr();
    while !chunk.is_empty() {
        match rustix::io::write(&stderr, chunk) {
            Ok(count) => chunk = chunk.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Somebody else who has it made it so.
            Err(Errno::AGAIN) if poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None).is_ok() => {}
            // A full disk, or nobody there any more.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A queue whose writer writes as often as it is let.
    fn queue(stalled_after: Duration) -> (Arc<Queue>, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
        let queue = Arc::new(Queue::new(stalled_after));
        let (go, may_go) = mpsc::channel::<()>();
        let (wrote, written) = mpsc::channel();
        let mine = queue.clone();
        thread::spawn(move || {
            mine.drain(|chunk| {
                let _ = may_go.recv();
                let _ = wrote.send(chunk.to_vec());
            });
        });
        (queue, go, written)
    }

    #[test]
    fn nobody_waits_for_one_who_does_not_read_and_what_is_lost_is_counted() {
        let (queue, go, written) = queue(STALLED_AFTER);
        let (piece, count) = ([b'x'; 8192], 100);
        for _ in 0..count {
            queue.push(&piece, OTHERS_MAX_BYTES);
        }
        queue.push(b"our own\n", OWN_MAX_BYTES);
        queue.farewell();
        drop(go);
        let (mut text, mut told) = (Vec::new(), String::new());
        while !told.contains("are lost") {
            text.extend(written.recv_timeout(Duration::from_secs(60)).expect("it flows again"));
            told = String::from_utf8_lossy(&text).trim_start_matches('x').to_owned();
        }
        let passed_on = text.iter().take_while(|byte| **byte == b'x').count();
        let lost = count * piece.len() - passed_on;
        assert!(passed_on <= OTHERS_MAX_BYTES + CHUNK_BYTES && passed_on > OTHERS_MAX_BYTES / 2, "{passed_on}");
        assert_eq!(told, format!("our own\nseawall: {lost} bytes of stderr are lost: nobody read them in time\n"));
    }

    #[test]
    fn one_who_reads_slowly_gets_all_of_it() {
        let (queue, go, written) = queue(Duration::from_secs(60));
        let reader = thread::spawn(move || {
            let mut bytes = 0;
            while bytes < 4 * OTHERS_MAX_BYTES {
                go.send(()).expect("it writes");
                bytes += written.recv().expect("it writes").len();
            }
            bytes
        });
        (0..4).for_each(|_| {
            (0..OTHERS_MAX_BYTES / CHUNK_BYTES).for_each(|_| queue.push(&[b'y'; CHUNK_BYTES], OTHERS_MAX_BYTES));
        });
        assert_eq!(reader.join().expect("it reads"), 4 * OTHERS_MAX_BYTES);
        queue.farewell();
        assert!(queue.state().is_done());
    }
}
