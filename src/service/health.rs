//! Whether a service still works: when a row of failed probes is a hang.
//!
//! A pure state here; asking is in `probe.rs`.

use std::time::Duration;

/// How to see that it still works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub probe: Probe,
    pub every: Duration,
    /// So many probes in a row must fail.
    pub misses: u32,
    pub timeout: Duration,
    /// Before its first good answer it may take so long to come up.
    pub starts_within: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Healthy where it answers 2xx.
    Url(String),
    /// Healthy where it completes the handshake of MCP and answers a ping, or a call
    /// of this tool.
    Mcp { url: String, tool: Option<String> },
    /// Healthy where it exits with 0.
    Command(Vec<String>),
}

impl Health {
    /// Asked every 10 s, 5 s each; the third failure in a row is a hang.
    pub fn of(probe: Probe) -> Self {
        Health {
            probe,
            every: Duration::from_secs(10),
            misses: 3,
            timeout: Duration::from_secs(5),
            starts_within: Duration::from_secs(60),
        }
    }
}

/// What has been seen of one life of a service.
#[derive(Clone, Debug)]
pub struct Watch {
    health: Health,
    misses: u32,
    was_well: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Well,
    /// So many in a row, and not enough to act.
    Missed(u32),
    /// Not asked in earnest: it is still starting, or the machine has just slept.
    Excused,
    Hung,
}

/// A probe during which the machine slept for longer says nothing about the service.
const SLEEP_MIN: Duration = Duration::from_secs(5);

impl Watch {
    pub fn new(health: Health) -> Self {
        Watch { health, misses: 0, was_well: false }
    }

    /// Takes the outcome of a probe of a service that is `age` old; `slept` is how long
    /// the machine slept since the probe before.
    pub fn observe(&mut self, is_well: bool, age: Duration, slept: Duration) -> Verdict {
        if is_well {
            self.was_well = true;
            self.misses = 0;
            return Verdict::Well;
        }
        let is_starting = !self.was_well && age < self.health.starts_within;
        if is_starting || slept >= SLEEP_MIN {
            self.misses = 0;
            return Verdict::Excused;
        }
        self.misses += 1;
        if self.misses >= self.health.misses { Verdict::Hung } else { Verdict::Missed(self.misses) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_SLEEP: Duration = Duration::ZERO;

    fn watch() -> Watch {
        Watch::new(Health::of(Probe::Command(vec!["probe".to_owned()])))
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn by_default_it_is_asked_every_ten_seconds_and_three_failures_of_five_seconds_are_a_hang() {
        let Health { every, misses, timeout, .. } = Health::of(Probe::Url("http://127.0.0.1/".to_owned()));
        assert_eq!((every, misses, timeout), (seconds(10), 3, seconds(5)));
    }

    #[test]
    fn three_misses_in_a_row_are_a_hang_and_an_answer_between_is_not() {
        let mut watch = watch();
        let outcomes = [true, false, false, true, false, false, false];
        let verdicts: Vec<Verdict> =
            (0..).zip(outcomes).map(|(n, well)| watch.observe(well, seconds(10 * n), NO_SLEEP)).collect();
        assert_eq!(
            verdicts,
            [
                Verdict::Well,
                Verdict::Missed(1),
                Verdict::Missed(2),
                Verdict::Well,
                Verdict::Missed(1),
                Verdict::Missed(2),
                Verdict::Hung
            ]
        );
    }

    #[test]
    fn a_slow_start_has_its_time_and_no_more() {
        let mut watch = watch();
        for n in 0..6 {
            assert_eq!(watch.observe(false, seconds(10 * n), NO_SLEEP), Verdict::Excused);
        }
        let late: Vec<Verdict> = (6..9).map(|n| watch.observe(false, seconds(10 * n), NO_SLEEP)).collect();
        assert_eq!(late, [Verdict::Missed(1), Verdict::Missed(2), Verdict::Hung]);
    }

    #[test]
    fn a_night_of_sleep_is_not_a_hang() {
        let mut watch = watch();
        watch.observe(true, seconds(10), NO_SLEEP);
        watch.observe(false, seconds(20), NO_SLEEP);
        watch.observe(false, seconds(30), NO_SLEEP);
        assert_eq!(watch.observe(false, seconds(40), seconds(28_800)), Verdict::Excused);
        assert_eq!(watch.observe(false, seconds(50), NO_SLEEP), Verdict::Missed(1));
    }
}
