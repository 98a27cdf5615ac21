//! Makes inputs out of a corpus: a few changes to one of its files, or two of them
//! crossed. Knows the words of a target, and nothing of what they mean.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

const INPUT_MAX_BYTES: usize = 16 * 1024;
const CHANGES_MAX: u32 = 6;
const ODD_BYTES: [u8; 12] = [0, b'\n', b'\r', b'"', b'\\', b'{', b'[', b':', 0x7f, 0x80, 0xc3, 0xff];

pub(crate) struct Mutator<'a> {
    random: StdRng,
    corpus: &'a [Vec<u8>],
    words: &'a [&'a str],
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(seed: u64, corpus: &'a [Vec<u8>], words: &'a [&'a str]) -> Self {
        Mutator { random: StdRng::seed_from_u64(seed), corpus, words }
    }

    pub(crate) fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.corpus.choose(&mut self.random).cloned().unwrap_or_default();
        for _ in 0..self.random.random_range(1..=CHANGES_MAX) {
            self.change(&mut input);
        }
        input.truncate(INPUT_MAX_BYTES);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.random_range(0..=input.len());
        let end = (at + self.random.random_range(1..=16)).min(input.len());
        match self.random.random_range(0..8) {
            0 if at < input.len() => input[at] ^= 1 << self.random.random_range(0..8),
            1 if at < input.len() => input[at] = *ODD_BYTES.choose(&mut self.random).expect("a constant"),
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = input[at..end].repeat(self.random.random_range(1..8));
                input.splice(at..at, piece);
            }
            4 => input.truncate(at),
            5 => {
                let other = self.corpus.choose(&mut self.random).map_or(&[][..], Vec::as_slice);
                let from = self.random.random_range(0..=other.len());
                input.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let word = self.words.choose(&mut self.random).copied().unwrap_or_default();
                let end = if self.random.random() { end } else { at };
                input.splice(at..end, word.bytes());
            }
        }
    }
}
