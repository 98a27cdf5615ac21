//! How long to wait before the next start: the only place that knows the crate
//! `backoff`.
//!
//! 0.5 s doubling to 60 s, each times a random factor between 0.5 and 1.0, for ever:
//! a server that was broken for a night is back a minute after it is mended.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff};

pub(super) const FIRST_DELAY: Duration = Duration::from_millis(500);
pub(super) const MAX_DELAY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Ladder {
    delays: ExponentialBackoff,
    rung: u32,
}

impl Default for Ladder {
    fn default() -> Self {
        let mut delays = ExponentialBackoff {
            // The crate spreads a delay d over d ± r·d. Three quarters of the wanted
            // delay with r = 1/3 is the wanted 0.5 to 1.0 of it.
            initial_interval: FIRST_DELAY * 3 / 4,
            max_interval: MAX_DELAY * 3 / 4,
            multiplier: 2.0,
            randomization_factor: 1.0 / 3.0,
            // Its own default gives up after 15 minutes.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        delays.reset();
        Ladder { delays, rung: 0 }
    }
}

impl Ladder {
    /// Climbs one rung and says how long to wait there.
    pub(super) fn climb(&mut self) -> Duration {
        self.rung = self.rung.saturating_add(1);
        // `None` would mean "give up", which it was told never to say.
        self.delays.next_backoff().unwrap_or(MAX_DELAY).min(MAX_DELAY)
    }

    /// Back to the ground: the server has proven itself.
    pub(super) fn reset(&mut self) {
        self.delays.reset();
        self.rung = 0;
    }

    /// How many failures in a row there were.
    pub(super) fn rung(&self) -> u32 {
        self.rung
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_delays_each_within_its_bounds() {
        let mut ladder = Ladder::default();
        for rung in 0..10_000 {
            let full = FIRST_DELAY.saturating_mul(1 << rung.min(20)).min(MAX_DELAY);
            let delay = ladder.climb();
            assert!(delay <= full && delay >= full.mul_f64(0.499), "rung {rung}: {delay:?} of {full:?}");
        }
        assert_eq!(ladder.rung(), 10_000);
        ladder.reset();
        assert!(ladder.climb() <= FIRST_DELAY);
    }
}
