//! What happens between two multiplications of matrices, each in one pass over the memory
//! and in place.
//!
//! The exponential is a polynomial that compilers make vector instructions of; it is right
//! to within two units in the last place.

use candle_core::{CpuStorage, Error, InplaceOp1, InplaceOp2, Layout, Result};
use rayon::prelude::*;

use super::settings::Activation;

/// Numbers that are worth a task of their own.
const PIECE: usize = 64 * 1024;

/// Adds `bias` to each row, and bends the sums.
pub(super) struct AddBias<'a> {
    pub(super) bias: &'a [f32],
    pub(super) activation: Option<Activation>,
}

impl InplaceOp1 for AddBias<'_> {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let bend: fn(&mut [f32]) = match self.activation {
            None => |_| {},
            Some(Activation::Gelu) => |row| row.iter_mut().for_each(|x| *x = gelu(*x)),
            Some(Activation::GeluTanh) => |row| row.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
            Some(Activation::Relu) => |row| row.iter_mut().for_each(|x| *x = x.max(0.0)),
        };
        let width = self.bias.len();
        pieces(whole_mut(storage, layout)?, width).for_each(|piece| {
            for row in piece.chunks_exact_mut(width) {
                row.iter_mut().zip(self.bias).for_each(|(x, bias)| *x += bias);
                bend(row);
            }
        });
        Ok(())
    }
}

/// Adds a residual, and a bias to each row, and normalises the rows.
pub(super) struct AddNorm<'a> {
    pub(super) bias: Option<&'a [f32]>,
    pub(super) scale: &'a [f32],
    pub(super) shift: &'a [f32],
    pub(super) epsilon: f32,
}

impl InplaceOp2 for AddNorm<'_> {
    fn name(&self) -> &'static str {
        "add-norm"
    }

    fn cpu_fwd(&self, states: &mut CpuStorage, at: &Layout, residual: &CpuStorage, from: &Layout) -> Result<()> {
        let residual = whole(residual, from)?;
        let width = self.scale.len();
        let states = whole_mut(states, at)?;
        if states.len() != residual.len() {
            return Err(Error::Msg("a residual is of another shape".to_owned()));
        }
        let rows_of_piece = (PIECE / width).max(1) * width;
        pieces(states, width).zip(residual.par_chunks(rows_of_piece)).for_each(|(piece, residual)| {
            for (row, residual) in piece.chunks_exact_mut(width).zip(residual.chunks_exact(width)) {
                row.iter_mut().zip(residual).for_each(|(x, more)| *x += more);
                if let Some(bias) = self.bias {
                    row.iter_mut().zip(bias).for_each(|(x, more)| *x += more);
                }
                self.normalise(row);
            }
        });
        Ok(())
    }
}

impl AddNorm<'_> {
    #[expect(clippy::cast_precision_loss, reason = "the width of a model is a small number")]
    fn normalise(&self, row: &mut [f32]) {
        let count = row.len() as f32;
        let mean = row.iter().sum::<f32>() / count;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / count;
        let factor = 1.0 / (variance + self.epsilon).sqrt();
        for ((x, scale), shift) in row.iter_mut().zip(self.scale).zip(self.shift) {
            *x = (*x - mean) * factor * scale + shift;
        }
    }
}

/// Rows times `scale` become what sums up to 1.
pub(super) struct Softmax {
    pub(super) scale: f32,
}

impl InplaceOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let width = layout.dims().last().copied().unwrap_or(1);
        pieces(whole_mut(storage, layout)?, width).for_each(|piece| {
            for row in piece.chunks_exact_mut(width) {
                let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.iter_mut().for_each(|x| *x = exp((*x - most) * self.scale));
                let sum: f32 = row.iter().sum();
                row.iter_mut().for_each(|x| *x /= sum);
            }
        });
        Ok(())
    }
}

fn pieces(numbers: &mut [f32], width: usize) -> impl IndexedParallelIterator<Item = &mut [f32]> {
    numbers.par_chunks_mut((PIECE / width).max(1) * width)
}

fn whole<'s>(storage: &'s CpuStorage, layout: &Layout) -> Result<&'s [f32]> {
    let (from, to) = bounds(layout)?;
    Ok(&storage.as_slice::<f32>()?[from..to])
}

fn whole_mut<'s>(storage: &'s mut CpuStorage, layout: &Layout) -> Result<&'s mut [f32]> {
    let (from, to) = bounds(layout)?;
    match storage {
        CpuStorage::F32(numbers) => Ok(&mut numbers[from..to]),
        _ => Err(Error::Msg("not a tensor of f32".to_owned())),
    }
}

fn bounds(layout: &Layout) -> Result<(usize, usize)> {
    layout.contiguous_offsets().ok_or_else(|| Error::Msg("a tensor does not lie in one piece".to_owned()))
}

fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

fn gelu_tanh(x: f32) -> f32 {
    // tanh(u) is 1 - 2 / (e^2u + 1), and 0.5 (1 + tanh(u)) the rest.
    let u = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    x * (1.0 - 1.0 / (exp(2.0 * u) + 1.0))
}

/// Abramowitz and Stegun, 7.1.26: wrong by 1.5e-7 at most.
fn erf(x: f32) -> f32 {
    let positive = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * positive);
    let sum = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_8) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    (1.0 - sum * exp(-positive * positive)).copysign(x)
}

/// 2^n times a polynomial of what is left.
fn exp(x: f32) -> f32 {
    // Added and taken off again it rounds, and its last bits are then the whole number.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p =
        ((((1.987_569_1e-4 * r + 1.398_2e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r + 0.166_666_65) * r + 0.5;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    (p * r * r + r + 1.0) * f32::from_bits(power)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn the_exponential_is_one() {
        for step in -870..=880 {
            let x = step as f32 / 10.0;
            let right = f64::from(x).exp();
            assert!((f64::from(exp(x)) / right - 1.0).abs() < 3e-7, "{x}: {} and {right}", exp(x));
        }
        assert!(exp(-1000.0) < 1e-37 && exp(0.0) == 1.0);
    }

    #[test]
    fn the_bends_are_as_published() {
        // From Python's math.erf and math.tanh.
        for (x, right, right_tanh) in [
            (-3.0, -0.004_049_694, -0.003_637_392),
            (-0.5, -0.154_268_8, -0.154_286),
            (0.0, 0.0, 0.0),
            (0.1, 0.053_982_78, 0.053_982_75),
            (2.0, 1.954_499_7, 1.954_597_7),
            (40.0, 40.0, 40.0),
        ] {
            assert!((gelu(x) - right).abs() < 1e-6, "{x}: {}", gelu(x));
            assert!((gelu_tanh(x) - right_tanh).abs() < 1e-6, "{x}: {}", gelu_tanh(x));
        }
    }

    #[test]
    fn rows_are_normalised_and_weighted_each_for_itself() {
        let states = Tensor::new(&[[1.0f32, 2.0], [5.0, 5.0]], &Device::Cpu).unwrap();
        let residual = Tensor::new(&[[0.0f32, 1.0], [1.0, 1.0]], &Device::Cpu).unwrap();
        let add = AddNorm { bias: Some(&[0.0, 1.0]), scale: &[2.0, 2.0], shift: &[0.5, 0.5], epsilon: 0.0 };
        states.inplace_op2(&residual, &add).unwrap();
        assert_eq!(states.to_vec2::<f32>().unwrap(), [[-1.5, 2.5], [-1.5, 2.5]]);
        let weights = Tensor::new(&[[0.0f32, 0.0], [0.0, 1000.0]], &Device::Cpu).unwrap();
        weights.inplace_op1(&Softmax { scale: 1.0 }).unwrap();
        assert_eq!(weights.to_vec2::<f32>().unwrap()[0], [0.5, 0.5]);
        assert!(weights.to_vec2::<f32>().unwrap()[1][1] > 0.999_999);
    }
}
