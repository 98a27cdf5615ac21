//! The network: embeddings and layers of attention and two linear maps, as in the paper.
//!
//! All tokens of a pack go through the linear maps as one matrix; attention alone looks at
//! where a text begins and ends.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::{
    ModelError,
    ops::{AddBias, AddNorm, Softmax},
    settings::{Activation, BertConfig, ModelConfig},
    weights::Weights,
};

pub(super) struct Bert {
    words: Tensor,
    /// With what the type of a text adds: here all are of one.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    width: usize,
    heads: usize,
    first_position: usize,
    activation: Activation,
}

struct Layer {
    /// Query, key and value side by side.
    qkv: Linear,
    out: Linear,
    out_norm: Norm,
    up: Linear,
    down: Linear,
    down_norm: Norm,
}

struct Linear {
    /// Transposed: a matrix of tokens is multiplied by it.
    weight: Tensor,
    bias: Vec<f32>,
}

struct Norm {
    scale: Vec<f32>,
    shift: Vec<f32>,
    epsilon: f32,
}

impl Bert {
    pub(super) fn load(folder: &Path, config: &ModelConfig) -> Result<Bert, ModelError> {
        let config = &config.bert;
        let mut weights = Weights::open(folder)?;
        let width = config.hidden_size;
        let words = weights.take("embeddings.word_embeddings.weight", &[config.vocab_size, width])?;
        let places = config.max_position_embeddings;
        let positions = weights.take("embeddings.position_embeddings.weight", &[places, width])?;
        let types = weights.rows("embeddings.token_type_embeddings.weight", width)?;
        let first_type = Tensor::from_slice(&types[..width], width, &Device::Cpu)?;
        Ok(Bert {
            words,
            positions: positions.broadcast_add(&first_type)?,
            norm: norm(&mut weights, "embeddings.LayerNorm", config)?,
            layers: (0..config.num_hidden_layers)
                .map(|number| layer(&mut weights, &format!("encoder.layer.{number}"), config))
                .collect::<Result<_, _>>()?,
            width,
            heads: config.num_attention_heads,
            first_position: config.first_position(),
            activation: config.hidden_act,
        })
    }

    /// The states of all tokens, one row of `hidden_size` for each, row after row.
    pub(super) fn forward(&self, rows: &[&[u32]]) -> Result<Vec<f32>, ModelError> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let ids: Vec<u32> = rows.iter().flat_map(|row| row.iter().copied()).collect();
        let first = u32::try_from(self.first_position).unwrap_or(0);
        let places: Vec<u32> = rows.iter().flat_map(|row| (first..).take(row.len())).collect();
        let count = ids.len();
        let words = self.words.index_select(&Tensor::from_vec(ids, count, &Device::Cpu)?, 0)?;
        let places = self.positions.index_select(&Tensor::from_vec(places, count, &Device::Cpu)?, 0)?;
        self.norm.add(&words, &places, None)?;
        let mut states = words;
        for layer in &self.layers {
            states = self.layer(layer, states, &lengths)?;
        }
        Ok(states.flatten_all()?.to_vec1()?)
    }

    fn layer(&self, layer: &Layer, states: Tensor, lengths: &[usize]) -> Result<Tensor, ModelError> {
        let qkv = layer.qkv.map(&states, None)?;
        let seen = self.attention(&qkv, lengths)?;
        drop(qkv);
        let out = seen.matmul(&layer.out.weight)?;
        layer.out_norm.add(&out, &states, Some(&layer.out.bias))?;
        drop(states);
        let up = layer.up.map(&out, Some(self.activation))?;
        let down = up.matmul(&layer.down.weight)?;
        layer.down_norm.add(&down, &out, Some(&layer.down.bias))?;
        Ok(down)
    }

    /// Each token looks at those of its own text.
    fn attention(&self, qkv: &Tensor, lengths: &[usize]) -> Result<Tensor, ModelError> {
        let (heads, of_head) = (self.heads, self.width / self.heads);
        #[expect(clippy::cast_precision_loss, reason = "the width of a head is a small number")]
        let softmax = Softmax { scale: 1.0 / (of_head as f32).sqrt() };
        let mut from = 0;
        let mut seen = Vec::with_capacity(lengths.len());
        for &length in lengths {
            let text = qkv.narrow(0, from, length)?.reshape((length, 3, heads, of_head))?.permute((1, 2, 0, 3))?;
            let (query, key, value) = (text.get(0)?, text.get(1)?, text.get(2)?);
            let weights = query.matmul(&key.t()?)?;
            weights.inplace_op1(&softmax)?;
            let mixed = weights.matmul(&value)?;
            seen.push(mixed.transpose(0, 1)?.reshape((length, self.width))?);
            from += length;
        }
        Ok(Tensor::cat(&seen, 0)?)
    }
}

impl Linear {
    fn map(&self, states: &Tensor, activation: Option<Activation>) -> Result<Tensor, ModelError> {
        let mapped = states.matmul(&self.weight)?;
        mapped.inplace_op1(&AddBias { bias: &self.bias, activation })?;
        Ok(mapped)
    }
}

impl Norm {
    /// `states` becomes what `states + residual + bias` is when normalised.
    fn add(&self, states: &Tensor, residual: &Tensor, bias: Option<&[f32]>) -> Result<(), ModelError> {
        let Norm { scale, shift, epsilon } = self;
        Ok(states.inplace_op2(residual, &AddNorm { bias, scale, shift, epsilon: *epsilon })?)
    }
}

fn layer(weights: &mut Weights, name: &str, config: &BertConfig) -> Result<Layer, ModelError> {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let mut parts = (Vec::with_capacity(3 * width * width), Vec::with_capacity(3 * width));
    for part in ["query", "key", "value"] {
        let name = format!("{name}.attention.self.{part}");
        parts.0.extend(weights.numbers(&format!("{name}.weight"), &[width, width])?);
        parts.1.extend(weights.numbers(&format!("{name}.bias"), &[width])?);
    }
    let qkv = Linear { weight: Tensor::from_vec(parts.0, (3 * width, width), &Device::Cpu)?.t()?, bias: parts.1 };
    Ok(Layer {
        qkv,
        out: linear(weights, &format!("{name}.attention.output.dense"), width, width)?,
        out_norm: norm(weights, &format!("{name}.attention.output.LayerNorm"), config)?,
        up: linear(weights, &format!("{name}.intermediate.dense"), width, inner)?,
        down: linear(weights, &format!("{name}.output.dense"), inner, width)?,
        down_norm: norm(weights, &format!("{name}.output.LayerNorm"), config)?,
    })
}

fn linear(weights: &mut Weights, name: &str, from: usize, to: usize) -> Result<Linear, ModelError> {
    Ok(Linear {
        weight: weights.take(&format!("{name}.weight"), &[to, from])?.t()?,
        bias: weights.numbers(&format!("{name}.bias"), &[to])?,
    })
}

fn norm(weights: &mut Weights, name: &str, config: &BertConfig) -> Result<Norm, ModelError> {
    let width = config.hidden_size;
    #[expect(clippy::cast_possible_truncation, reason = "a small number that stays one")]
    let epsilon = config.layer_norm_eps as f32;
    Ok(Norm {
        scale: weights.numbers(&format!("{name}.weight"), &[width])?,
        shift: weights.numbers(&format!("{name}.bias"), &[width])?,
        epsilon,
    })
}
