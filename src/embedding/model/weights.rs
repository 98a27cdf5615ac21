//! model.safetensors: the numbers of a model, read one tensor at a time, so that no more
//! than the model itself is ever in memory.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
};

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use serde::Deserialize;

use super::ModelError;

const NAME: &str = "model.safetensors";
/// A list of some hundred tensors is some ten thousand bytes.
const HEADER_MAX_BYTES: u64 = 16 << 20;
const CHUNK_BYTES: usize = 1 << 20;
/// What stands before the names in files that were saved with a head on top.
const PREFIXES: [&str; 3] = ["", "bert.", "roberta."];

pub(super) struct Weights {
    file: File,
    tensors: HashMap<String, Entry>,
    data_at: u64,
    data_bytes: u64,
    prefix: &'static str,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

fn wrong(why: impl Into<String>) -> ModelError {
    ModelError::File { name: NAME, why: why.into() }
}

impl Weights {
    pub(super) fn open(folder: &Path) -> Result<Weights, ModelError> {
        let io = |error: std::io::Error| wrong(error.to_string());
        let mut file = File::open(folder.join(NAME)).map_err(io)?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > HEADER_MAX_BYTES {
            return Err(wrong("it does not begin like a safetensors file"));
        }
        let mut header = Vec::new();
        file.by_ref().take(header_bytes).read_to_end(&mut header).map_err(io)?;
        let mut header: HashMap<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|error| wrong(error.to_string()))?;
        header.remove("__metadata__");
        let entry = |(name, value)| Ok((name, serde_json::from_value(value)?));
        let tensors: HashMap<String, Entry> = header
            .into_iter()
            .map(entry)
            .collect::<Result<_, serde_json::Error>>()
            .map_err(|error| wrong(error.to_string()))?;
        let data_at = 8 + header_bytes;
        let data_bytes = file.metadata().map_err(io)?.len().saturating_sub(data_at);
        let has = |prefix: &&&str| tensors.contains_key(&format!("{prefix}embeddings.word_embeddings.weight"));
        let prefix = PREFIXES.iter().find(has).ok_or_else(|| wrong("it holds no embeddings.word_embeddings.weight"))?;
        Ok(Weights { file, data_at, data_bytes, prefix, tensors })
    }

    /// The tensor of that name, which must have that shape.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        Ok(Tensor::from_vec(self.numbers(name, shape)?, shape, &Device::Cpu)?)
    }

    /// All rows of that width, however many.
    pub(super) fn rows(&mut self, name: &str, width: usize) -> Result<Vec<f32>, ModelError> {
        let full = format!("{}{name}", self.prefix);
        match self.tensors.get(&full).map(|entry| &*entry.shape) {
            Some(&[rows, found]) if rows > 0 && found == width => self.numbers(name, &[rows, width]),
            _ => Err(wrong(format!("it holds no {full} of width {width}"))),
        }
    }

    pub(super) fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let full = format!("{}{name}", self.prefix);
        let Some(entry) = self.tensors.get(&full) else { return Err(wrong(format!("it holds no {full}"))) };
        if entry.shape != shape {
            return Err(wrong(format!("{full} is {:?}, and {shape:?} by config.json", entry.shape)));
        }
        let read: fn(&[u8], &mut Vec<f32>) = match entry.dtype.as_str() {
            "F32" => |bytes, out| out.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            "F16" => |bytes, out| out.extend(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
            "BF16" => |bytes, out| out.extend(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
            other => return Err(wrong(format!("{full} is of {other}, and F32, F16 and BF16 can be read"))),
        };
        let width = if entry.dtype == "F32" { 4 } else { 2 };
        let count: usize = shape.iter().product();
        let (begin, end) = entry.data_offsets;
        if end.checked_sub(begin) != Some((count * width) as u64) || end > self.data_bytes {
            return Err(wrong(format!("{full} is cut off")));
        }
        let io = |error: std::io::Error| wrong(format!("{full}: {error}"));
        self.file.seek(SeekFrom::Start(self.data_at + begin)).map_err(io)?;
        let mut numbers = Vec::with_capacity(count);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = count * width;
        while left > 0 {
            let part = &mut chunk[..left.min(CHUNK_BYTES)];
            self.file.read_exact(part).map_err(io)?;
            read(part, &mut numbers);
            left -= part.len();
        }
        Ok(numbers)
    }
}
