//! From the states of a text's tokens to its vector of length 1.

use super::settings::Pooling;

/// `states` has one row of `width` for each token, text after text.
pub(super) fn pool(
    states: &[f32],
    lengths: impl Iterator<Item = usize>,
    width: usize,
    pooling: Pooling,
) -> Vec<Vec<f32>> {
    let mut rest = states;
    let vector = |length: usize| {
        let (rows, others) = rest.split_at(length * width);
        rest = others;
        let mut vector = rows[..width].to_vec();
        let add: fn(&mut f32, f32) = match pooling {
            Pooling::Cls => |_, _| {},
            // The length is taken off below, and with it the count.
            Pooling::Mean => |sum, value| *sum += value,
            Pooling::Max => |most, value| *most = most.max(value),
        };
        for row in rows.chunks_exact(width).skip(1) {
            vector.iter_mut().zip(row).for_each(|(all, value)| add(all, *value));
        }
        normalise(&mut vector);
        vector
    };
    lengths.map(vector).collect()
}

fn normalise(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    // As torch does, lest a vector of zeros become one of NaN.
    let length = square.sqrt().max(1e-12);
    #[expect(clippy::cast_possible_truncation, reason = "a number between -1 and 1")]
    vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_has_its_own_rows() {
        let states = [3.0, 4.0, 1.0, 0.0, 0.0, 0.0, 2.0, 0.0];
        let pooled = |pooling| pool(&states, [1, 3].into_iter(), 2, pooling);
        assert_eq!(pooled(Pooling::Mean), [[0.6, 0.8], [1.0, 0.0]]);
        assert_eq!(pooled(Pooling::Cls), [[0.6, 0.8], [1.0, 0.0]]);
        assert_eq!(pooled(Pooling::Max), [[0.6, 0.8], [1.0, 0.0]]);
        let differ = [1.0, 0.0, 0.0, 1.0, 2.0, -1.0];
        let pooled = |pooling| pool(&differ, [3].into_iter(), 2, pooling).remove(0);
        assert_eq!(pooled(Pooling::Mean), [1.0, 0.0]);
        assert_eq!(pooled(Pooling::Cls), [1.0, 0.0]);
        let max = pooled(Pooling::Max);
        assert!((max[0] - 0.894_427_2).abs() < 1e-6 && (max[1] - 0.447_213_6).abs() < 1e-6, "{max:?}");
        assert_eq!(pool(&[0.0, 0.0], [1].into_iter(), 2, Pooling::Mean), [[0.0, 0.0]]);
    }
}
