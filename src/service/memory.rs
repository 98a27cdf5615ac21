//! When the memory of a service is worth an alert: a pure function of its samples.
//!
//! Noise, a warm-up, a step and a saw-tooth are no leak. Growth is one only where three
//! windows in a row, side by side, each rose, and where a robust line through all that
//! is kept rises faster than allowed, with room to spare for chance.

use std::time::Duration;

/// When its memory is worth an alert; `None` is what fits the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryWatch {
    pub growth_per_hour_bytes: Option<u64>,
    pub max_bytes: Option<u64>,
}

pub const SAMPLE_EVERY: Duration = Duration::from_secs(60);
/// What a service may grow by in an hour where servers.toml does not say.
pub const GROWTH_PER_HOUR_BYTES: u64 = 10_000_000;
/// A model server works with larger blocks.
pub const GROWTH_PER_HOUR_EMBEDDING_BYTES: u64 = 20_000_000;

/// Samples of a window.
const WINDOW: usize = 12;
const WINDOWS_MIN: usize = 3;
/// Two hours. Older ones say little about now.
const KEPT_MAX: usize = 120;
/// A start fills caches, which is no leak, and its last drops look like one.
const WARM_UP: Duration = Duration::from_secs(20 * 60);
/// A longer pause between samples is sleep: what was before it is of another life.
const GAP_SAMPLES: u32 = 3;
/// How many standard deviations of chance a growth must exceed the sure bound by.
const SURENESS: f64 = 4.75;
/// The sure bound: growth of less than this part of what is allowed is never told.
const SURE_PART: f64 = 0.9;
/// Each of the last windows must have risen at least this part of what is allowed.
const WINDOW_PART: f64 = 0.5;

/// The samples of one life of a service.
#[derive(Clone, Debug)]
pub struct Growth {
    allowed_per_hour: f64,
    every: Duration,
    samples: Vec<(Duration, f64)>,
}

impl Growth {
    pub fn new(allowed_per_hour_bytes: u64, every: Duration) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a size is far below 2^52")]
        Growth { allowed_per_hour: allowed_per_hour_bytes as f64, every, samples: Vec::new() }
    }

    /// Adds a sample, taken when the process was `age` old, and says whether it leaks:
    /// faster than allowed, and surely not by chance.
    pub fn sample(&mut self, age: Duration, bytes: u64) -> bool {
        if age < self.scaled(WARM_UP) {
            return false;
        }
        if self.samples.last().is_some_and(|(last, _)| age.saturating_sub(*last) > self.every * GAP_SAMPLES) {
            self.samples.clear();
        }
        if self.samples.len() == KEPT_MAX {
            self.samples.remove(0);
        }
        #[expect(clippy::cast_precision_loss, reason = "a size is far below 2^52")]
        self.samples.push((age, bytes as f64));
        self.is_leak()
    }

    /// Times are of samples a minute apart; tests take them closer together.
    fn scaled(&self, time: Duration) -> Duration {
        time.mul_f64(self.every.as_secs_f64() / SAMPLE_EVERY.as_secs_f64())
    }

    /// Theil and Sen's line: the middle of the slopes between all pairs, which up to a
    /// quarter of wild samples cannot bend.
    pub fn bytes_per_hour(&self) -> Option<f64> {
        if self.samples.len() < WINDOW * WINDOWS_MIN {
            return None;
        }
        let mut slopes: Vec<f64> = self.slopes().collect();
        slopes.sort_by(f64::total_cmp);
        (!slopes.is_empty()).then(|| median(&slopes))
    }

    /// Asked once a minute for ever, so the cheap question comes first, and slopes are
    /// counted rather than sorted.
    fn is_leak(&self) -> bool {
        if self.samples.len() < WINDOW * WINDOWS_MIN || !self.each_window_rose() {
            return false;
        }
        let (mut steep, mut doubtful, mut pairs) = (0, 0, 0);
        for slope in self.slopes() {
            pairs += 1;
            steep += usize::from(slope > self.allowed_per_hour);
            doubtful += usize::from(slope <= SURE_PART * self.allowed_per_hour);
        }
        2 * steep > pairs && doubtful <= self.sure_rank(pairs)
    }

    fn slopes(&self) -> impl Iterator<Item = f64> {
        self.samples.iter().enumerate().flat_map(|(i, (early, before))| {
            self.samples[i + 1..].iter().map(move |(late, after)| {
                (after - before) / (late.saturating_sub(*early).as_secs_f64() / 3600.0).max(1e-9)
            })
        })
    }

    /// Which of the sorted slopes the true one is surely above, by the variance of
    /// Kendall's tau (Sen 1968): no assumption about what the noise is like.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "few samples"
    )]
    fn sure_rank(&self, pairs: usize) -> usize {
        let n = self.samples.len() as f64;
        let deviation = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
        ((pairs as f64 - SURENESS * deviation) / 2.0).max(0.0) as usize
    }

    fn each_window_rose(&self) -> bool {
        let last = &self.samples[self.samples.len() - WINDOW * WINDOWS_MIN..];
        let levels: Vec<f64> = last
            .chunks(WINDOW)
            .map(|window| {
                let mut bytes: Vec<f64> = window.iter().map(|(_, bytes)| *bytes).collect();
                bytes.sort_by(f64::total_cmp);
                median(&bytes)
            })
            .collect();
        let hours = (self.every * 12).as_secs_f64() / 3600.0;
        levels.windows(2).all(|pair| pair[1] - pair[0] > WINDOW_PART * self.allowed_per_hour * hours)
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

#[cfg(test)]
mod tests;
