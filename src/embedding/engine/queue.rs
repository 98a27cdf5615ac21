//! The requests that a model has not answered yet, and the batches that are made of them:
//! one text of each request in turn.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::embedding::talk::Input;

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    batch_wait: Duration,
}

#[derive(Default)]
struct State {
    requests: BTreeMap<u64, Request>,
    /// Those with texts that are still to be taken, in turn.
    turns: VecDeque<u64>,
    /// Since when somebody waits although nothing is computed.
    since: Option<Instant>,
    is_closed: bool,
}

struct Request {
    inputs: VecDeque<(usize, Input)>,
    count: usize,
    filled: usize,
    values: Vec<f32>,
    tokens: Vec<u32>,
}

/// One text of one request.
pub(super) struct Row {
    pub(super) id: u64,
    pub(super) index: usize,
    pub(super) input: Input,
}

/// All of a request.
pub(super) struct Done {
    pub(super) values: Vec<f32>,
    pub(super) tokens: Vec<u32>,
}

impl Queue {
    pub(super) fn new(batch_wait: Duration) -> Self {
        Queue { state: Mutex::default(), changed: Condvar::new(), batch_wait }
    }

    pub(super) fn push(&self, id: u64, inputs: Vec<Input>) {
        let mut state = self.state();
        let count = inputs.len();
        let inputs = inputs.into_iter().enumerate().collect();
        let request = Request { inputs, count, filled: 0, values: Vec::new(), tokens: vec![0; count] };
        state.requests.insert(id, request);
        state.turns.push_back(id);
        state.since.get_or_insert_with(Instant::now);
        self.changed.notify_all();
    }

    /// False if it was not there any more.
    pub(super) fn cancel(&self, id: u64) -> bool {
        let mut state = self.state();
        state.turns.retain(|turn| *turn != id);
        state.requests.remove(&id).is_some()
    }

    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// Texts for the next batch, at least one, in the order of the turns; `None` once it is
    /// closed. Waits for the first, and then for others within the batch wait.
    pub(super) fn batch(&self, max: usize) -> Option<std::vec::IntoIter<Row>> {
        let mut state = self.state();
        loop {
            if state.is_closed {
                return None;
            }
            let waiting: usize = state.turns.iter().filter_map(|id| Some(state.requests.get(id)?.inputs.len())).sum();
            let waited = state.since.map(|since| since.elapsed());
            match waited {
                Some(waited) if waiting > 0 && (waiting >= max || waited >= self.batch_wait) => break,
                Some(waited) if waiting > 0 => {
                    let rest = self.batch_wait.saturating_sub(waited);
                    let woken = self.changed.wait_timeout(state, rest);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                _ => {
                    state.since = None;
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        let mut rows = Vec::new();
        while rows.len() < max
            && let Some(id) = state.turns.pop_front()
        {
            let Some(request) = state.requests.get_mut(&id) else { continue };
            if let Some((index, input)) = request.inputs.pop_front() {
                rows.push(Row { id, index, input });
            }
            if !request.inputs.is_empty() {
                state.turns.push_back(id);
            }
        }
        if state.turns.is_empty() {
            state.since = None;
        }
        Some(rows.into_iter())
    }

    /// What did not fit into a batch is the first of the next one.
    pub(super) fn give_back(&self, rows: std::vec::IntoIter<Row>) {
        let mut state = self.state();
        for Row { id, index, input } in rows.rev() {
            let Some(request) = state.requests.get_mut(&id) else { continue };
            request.inputs.push_front((index, input));
            state.turns.retain(|turn| *turn != id);
            state.turns.push_front(id);
        }
        if !state.turns.is_empty() && state.since.is_none() {
            // They have waited for the batch that they were taken for.
            state.since = Instant::now().checked_sub(self.batch_wait);
        }
    }

    /// Enters the vector of a text; the whole request where it was the last one.
    pub(super) fn fill(&self, row: &Row, vector: &[f32], tokens: usize, dimensions: usize) -> Option<Done> {
        let mut state = self.state();
        let request = state.requests.get_mut(&row.id)?;
        if request.values.is_empty() {
            request.values = vec![0.0; request.count * dimensions];
        }
        request.values[row.index * dimensions..][..dimensions].copy_from_slice(vector);
        request.tokens[row.index] = u32::try_from(tokens).unwrap_or(u32::MAX);
        request.filled += 1;
        if request.filled < request.count {
            return None;
        }
        let Request { values, tokens, .. } = state.requests.remove(&row.id)?;
        Some(Done { values, tokens })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(count: usize) -> Vec<Input> {
        (0..count).map(|n| Input::Text(n.to_string())).collect()
    }

    fn taken(queue: &Queue, max: usize) -> Vec<(u64, usize)> {
        queue.batch(max).expect("open").map(|row| (row.id, row.index)).collect()
    }

    #[test]
    fn each_request_has_its_turn_and_a_long_one_keeps_none_waiting() {
        let queue = Queue::new(Duration::ZERO);
        queue.push(1, texts(100));
        assert_eq!(taken(&queue, 3), [(1, 0), (1, 1), (1, 2)]);
        queue.push(2, texts(1));
        queue.push(3, texts(2));
        assert_eq!(taken(&queue, 5), [(1, 3), (2, 0), (3, 0), (1, 4), (3, 1)]);
        assert!(queue.cancel(1) && !queue.cancel(1));
        queue.push(4, texts(1));
        assert_eq!(taken(&queue, 5), [(4, 0)], "of what was taken back nothing is computed");
        queue.close();
        assert!(queue.batch(1).is_none());
    }

    #[test]
    fn what_was_given_back_comes_first_and_in_its_order() {
        let queue = Queue::new(Duration::ZERO);
        queue.push(1, texts(4));
        queue.push(2, texts(1));
        let mut batch = queue.batch(8).expect("open");
        let first = batch.next().expect("a text");
        assert_eq!((first.id, first.index), (1, 0));
        queue.give_back(batch);
        let mut seen = taken(&queue, 8);
        assert_eq!(seen[0].1, 0, "the order of the turns may differ, that of a request's texts may not");
        seen.retain(|(id, _)| *id == 1);
        assert_eq!(seen, [(1, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn a_request_is_whole_when_its_last_text_is_there_whatever_the_order() {
        let queue = Queue::new(Duration::ZERO);
        queue.push(9, texts(2));
        let rows: Vec<Row> = queue.batch(2).expect("open").collect();
        assert!(queue.fill(&rows[1], &[3.0, 4.0], 7, 2).is_none());
        let done = queue.fill(&rows[0], &[1.0, 2.0], 5, 2).expect("it is whole");
        assert_eq!((done.values, done.tokens), (vec![1.0, 2.0, 3.0, 4.0], vec![5, 7]));
        assert!(queue.fill(&rows[0], &[1.0, 2.0], 5, 2).is_none(), "nobody waits for it any more");
    }
}
