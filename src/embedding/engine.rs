//! The process of a model: takes requests in over its input, makes batches of their texts,
//! and answers over its output. It ends when its input does.
//!
//! Two threads: one reads and queues, one computes (with the threads of the libraries
//! under it). A long request keeps no short one waiting: each batch takes a text of every
//! request in turn.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use self::queue::{Queue, Row};
use super::{
    model::Model,
    talk::{self, About, Input, LENGTHS_BYTES, Order, Word},
};
use crate::heap;

mod queue;

/// Tokens of one batch; a larger one gains nothing on a CPU and keeps others waiting.
const BATCH_TOKENS: usize = 2048;
const BATCH_TEXTS_MAX: usize = 256;

/// The whole life of the process.
pub(super) fn run() -> ExitCode {
    // Its end is the end of its input, which comes when nobody waits for an answer any more:
    // a signal to the whole group, as a terminal sends it, must not come first.
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let ignored = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let _ = signal_hook::flag::register(signal, ignored);
    }
    let first = order(&mut io::stdin().lock());
    let Ok(Some(Order::Load { folder, batch_wait_us })) = first else { return ExitCode::FAILURE };
    let model = match Model::load(&folder) {
        Ok(model) => model,
        Err(error) => {
            let why = format!("the model at {} cannot be loaded: {error}", folder.display());
            let _ = say(&Word::CannotLoad { why }, &[]);
            return ExitCode::SUCCESS;
        }
    };
    heap::tidy();
    let about = About { dimensions: model.dimensions(), max_tokens: model.max_tokens() };
    if say(&Word::Ready(about), &[]).is_err() {
        return ExitCode::FAILURE;
    }
    let queue = Arc::new(Queue::new(Duration::from_micros(batch_wait_us)));
    let reading = {
        let queue = queue.clone();
        std::thread::Builder::new().name("orders".to_owned()).spawn(move || take_orders(&queue))
    };
    if reading.is_err() {
        return ExitCode::FAILURE;
    }
    let is_heard = serve(&model, &queue);
    heap::report("the process of the model", || drop(model));
    if is_heard { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn take_orders(queue: &Queue) {
    let mut input = io::stdin().lock();
    while let Ok(Some(order)) = order(&mut input) {
        match order {
            Order::Embed { id, inputs } => queue.push(id, inputs),
            Order::Cancel { id } => drop(queue.cancel(id)),
            Order::Load { .. } => break,
        }
    }
    queue.close();
}

/// Computes until the queue is closed; false if nobody hears the answers.
fn serve(model: &Model, queue: &Queue) -> bool {
    while let Some(mut batch) = queue.batch(BATCH_TEXTS_MAX) {
        let mut rows = Vec::new();
        let mut tokens = 0;
        // What does not fit goes back to the head of its request.
        while tokens < BATCH_TOKENS
            && let Some(row) = batch.next()
        {
            match model.tokens(&row.input) {
                Ok(ids) => {
                    tokens += ids.len();
                    rows.push((row, ids));
                }
                Err(what) => {
                    let word = Word::Unfit { id: row.id, index: row.index, what };
                    queue.cancel(row.id);
                    if say(&word, &[]).is_err() {
                        return false;
                    }
                }
            }
        }
        queue.give_back(batch);
        if answer(model, queue, rows).is_err() {
            return false;
        }
    }
    true
}

fn answer(model: &Model, queue: &Queue, rows: Vec<(Row, Vec<u32>)>) -> io::Result<()> {
    let (rows, ids): (Vec<Row>, Vec<Vec<u32>>) = rows.into_iter().unzip();
    let vectors = match model.embed(&ids) {
        Ok(vectors) => vectors,
        Err(error) => {
            let mut told: Vec<u64> = rows.iter().map(|row| row.id).collect();
            told.dedup();
            for id in told {
                if queue.cancel(id) {
                    say(&Word::Failed { id, why: format!("the model failed: {error}") }, &[])?;
                }
            }
            return Ok(());
        }
    };
    let mut is_quiet = true;
    for ((row, ids), vector) in rows.iter().zip(&ids).zip(&vectors) {
        if let Some(done) = queue.fill(row, vector, ids.len(), model.dimensions()) {
            say(&Word::Done { id: row.id, tokens: done.tokens }, &done.values)?;
            is_quiet = false;
        }
    }
    if is_quiet { say(&Word::Beat, &[]) } else { Ok(()) }
}

fn say(word: &Word, values: &[f32]) -> io::Result<()> {
    let frame = talk::frame(word, values)?;
    let mut output = io::stdout().lock();
    output.write_all(&frame)?;
    output.flush()
}

/// The next order; `None` at the end.
fn order(input: &mut impl io::Read) -> io::Result<Option<Order<Vec<Input>>>> {
    let mut lengths = [0; LENGTHS_BYTES];
    match input.read_exact(&mut lengths) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (head_bytes, _) = talk::lengths(lengths)?;
    let mut head = vec![0; head_bytes];
    input.read_exact(&mut head)?;
    Ok(Some(serde_json::from_slice(&head)?))
}
