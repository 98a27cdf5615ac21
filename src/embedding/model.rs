//! A model of the BERT family as sentence-transformers keeps it: tokens, the network, pooling.
//!
//! Texts of a batch lie one behind the other, without padding: what is computed for one is
//! what it would be alone.

use std::path::Path;

use rayon::prelude::*;
use tokenizers::{Encoding, Token, Tokenizer, TruncationParams};

use self::{bert::Bert, settings::ModelConfig};
use super::talk::Input;

mod bert;
mod ops;
mod pooling;
mod settings;
mod weights;

/// Why a model cannot be loaded, or did not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum ModelError {
    #[error("{name} cannot be read: {why}")]
    File { name: &'static str, why: String },
    #[error("{0}")]
    Unfit(String),
    #[error(transparent)]
    Computation(#[from] candle_core::Error),
}

pub(super) struct Model {
    tokenizer: Tokenizer,
    network: Bert,
    config: ModelConfig,
}

impl Model {
    pub(super) fn load(folder: &Path) -> Result<Model, ModelError> {
        let config = settings::read(folder)?;
        let file = |why: tokenizers::Error| ModelError::File { name: "tokenizer.json", why: why.to_string() };
        let mut tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).map_err(file)?;
        // Both stand in the file as they were when the model was trained; what
        // sentence-transformers goes by is the length of its own settings.
        let truncation = TruncationParams { max_length: config.max_tokens, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(file)?;
        tokenizer.with_padding(None);
        let network = Bert::load(folder, &config)?;
        Ok(Model { tokenizer, network, config })
    }

    pub(super) fn dimensions(&self) -> usize {
        self.config.bert.hidden_size
    }

    pub(super) fn max_tokens(&self) -> usize {
        self.config.max_tokens
    }

    /// What the network is given for an input. `Err` is a sentence about the input.
    pub(super) fn tokens(&self, input: &Input) -> Result<Vec<u32>, String> {
        let encoding = match input {
            Input::Text(text) => self.tokenizer.encode_fast(self.config.prepared(text), true),
            Input::Tokens(tokens) => self.tokenizer.post_process(self.encoding(tokens)?, None, true),
        };
        let ids = encoding.map_err(|error| format!("cannot be made tokens of: {error}"))?.get_ids().to_vec();
        if ids.is_empty() { Err("has no tokens".to_owned()) } else { Ok(ids) }
    }

    fn encoding(&self, tokens: &[u32]) -> Result<Encoding, String> {
        let token = |id: &u32| {
            let value = self.tokenizer.id_to_token(*id).filter(|_| (*id as usize) < self.config.bert.vocab_size);
            let value = value.ok_or_else(|| {
                format!("{id} is no token of this model; tokens are the model's own, so send the text instead")
            })?;
            Ok(Token::new(*id, value, (0, 0)))
        };
        Ok(Encoding::from_tokens(tokens.iter().map(token).collect::<Result<_, String>>()?, 0))
    }

    /// A vector of length 1 for each.
    pub(super) fn embed(&self, rows: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError> {
        let packs = packs(rows, rayon::current_num_threads());
        let embedded: Vec<Vec<Vec<f32>>> = packs
            .par_iter()
            .map(|pack| {
                let rows: Vec<&[u32]> = pack.iter().map(|row| &*rows[*row]).collect();
                let states = self.network.forward(&rows)?;
                let lengths = rows.iter().map(|row| row.len());
                Ok::<_, ModelError>(pooling::pool(&states, lengths, self.dimensions(), self.config.pooling))
            })
            .collect::<Result<_, _>>()?;
        let mut vectors = vec![Vec::new(); rows.len()];
        for (row, vector) in packs.iter().flatten().zip(embedded.into_iter().flatten()) {
            vectors[*row] = vector;
        }
        Ok(vectors)
    }
}

/// Which rows each thread computes: as many tokens for each as can be.
fn packs(rows: &[Vec<u32>], threads: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|row| std::cmp::Reverse(rows[*row].len()));
    let mut packs = vec![(0, Vec::new()); threads.clamp(1, rows.len().max(1))];
    for row in order {
        // The lightest so far: there is always one.
        if let Some((tokens, pack)) = packs.iter_mut().min_by_key(|(tokens, _)| *tokens) {
            *tokens += rows[row].len();
            pack.push(row);
        }
    }
    packs.into_iter().map(|(_, pack)| pack).filter(|pack| !pack.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_computed_once_and_the_work_is_shared() {
        let rows: Vec<Vec<u32>> = [9, 1, 1, 3, 4, 0].map(|length| vec![0; length]).into();
        let packs = packs(&rows, 2);
        let tokens: Vec<usize> = packs.iter().map(|pack| pack.iter().map(|row| rows[*row].len()).sum()).collect();
        assert_eq!(tokens, [9, 9]);
        let mut all: Vec<usize> = packs.into_iter().flatten().collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5]);
        assert_eq!(super::packs(&rows[..1], 8), [[0]]);
    }
}
