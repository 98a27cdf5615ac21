//! What the listener and the process of the model say to each other over its pipes: frames
//! of a JSON head and, after an answer, the vectors as little-endian floats.

use std::io;

use serde::{Deserialize, Serialize};

/// A text, or the model's own numbers for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    Text(String),
    Tokens(Vec<u32>),
}

/// To the process. `I` is a list of [`Input`]s, lent or owned.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order<I> {
    /// The first one.
    Load {
        folder: std::path::PathBuf,
        batch_wait_us: u64,
    },
    Embed {
        id: u64,
        inputs: I,
    },
    /// Nobody waits for it any more.
    Cancel {
        id: u64,
    },
}

/// From the process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// It takes orders from now on.
    Ready(About),
    CannotLoad {
        why: String,
    },
    /// It has done a batch, and there is more of the same request.
    Beat,
    /// The vectors follow, one after the other.
    Done {
        id: u64,
        tokens: Vec<u32>,
    },
    /// One of the inputs is wrong.
    Unfit {
        id: u64,
        index: usize,
        what: String,
    },
    /// The model could not do it.
    Failed {
        id: u64,
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) dimensions: usize,
    pub(super) max_tokens: usize,
}

/// Two lengths: of the head and of what follows it.
pub(super) const LENGTHS_BYTES: usize = 8;
/// The longest request is a body of 64 MiB, escaped anew; the longest answer 16 384 vectors.
const FRAME_MAX_BYTES: usize = 512 << 20;

/// One frame.
pub(super) fn frame(head: &impl Serialize, values: &[f32]) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; LENGTHS_BYTES];
    serde_json::to_writer(&mut frame, head)?;
    let head_bytes = frame.len() - LENGTHS_BYTES;
    frame.reserve_exact(size_of_val(values));
    frame.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let tail_bytes = frame.len() - LENGTHS_BYTES - head_bytes;
    for (at, length) in [(0, head_bytes), (4, tail_bytes)] {
        let length = u32::try_from(length).map_err(|_| too_long())?;
        frame[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
    if frame.len() > FRAME_MAX_BYTES { Err(too_long()) } else { Ok(frame) }
}

/// How long head and tail of the next frame are.
pub(super) fn lengths(bytes: [u8; LENGTHS_BYTES]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = bytes;
    let head = u32::from_le_bytes([a, b, c, d]) as usize;
    let tail = u32::from_le_bytes([e, f, g, h]) as usize;
    if head + tail > FRAME_MAX_BYTES { Err(too_long()) } else { Ok((head, tail)) }
}

pub(super) fn values(tail: &[u8]) -> Vec<f32> {
    tail.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn too_long() -> io::Error {
    io::Error::other("a frame is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let values_written = [1.5, f32::MIN_POSITIVE, -0.0];
        let written = frame(&Word::Done { id: 7, tokens: vec![3, 4] }, &values_written).expect("a frame");
        let (start, rest) = written.split_first_chunk().expect("two lengths");
        let (head, tail) = lengths(*start).expect("within bounds");
        assert_eq!(rest.len(), head + tail);
        let word: Word = serde_json::from_slice(&rest[..head]).expect("a word");
        assert!(matches!(word, Word::Done { id: 7, tokens } if tokens == [3, 4]));
        assert_eq!(values(&rest[head..]), values_written);
        assert!(lengths([255; 8]).is_err());
    }

    #[test]
    fn what_is_lent_is_read_as_owned() {
        let inputs = [Input::Text("a\"\u{0}é".into()), Input::Tokens(vec![1, 2])];
        let text = serde_json::to_string(&Order::Embed { id: 1, inputs: &inputs[..] }).expect("JSON");
        let Ok(Order::Embed { id: 1, inputs: read }) = serde_json::from_str::<Order<Vec<Input>>>(&text) else {
            panic!("{text}");
        };
        assert_eq!(read, inputs);
    }
}
