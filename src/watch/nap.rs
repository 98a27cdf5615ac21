//! Whether the machine slept: then the kernel may have told nobody what happened to
//! folders of other machines and of disks that were plugged out meanwhile.

use std::time::Duration;

/// A look at the clock that comes so much later than it was meant to.
const LATE: Duration = Duration::from_secs(15);

/// Compares when it is asked with when it was to be asked, by the clock that runs on in
/// sleep and is never set.
#[derive(Debug)]
pub(super) struct Nap {
    last: Duration,
}

impl Nap {
    pub(super) fn new(since_boot: Duration) -> Self {
        Nap { last: since_boot }
    }

    /// How long it was away, where that is longer than `expected` by far.
    pub(super) fn was_away(&mut self, since_boot: Duration, expected: Duration) -> Option<Duration> {
        let passed = since_boot.saturating_sub(self.last);
        self.last = since_boot;
        (passed > expected + LATE).then_some(passed)
    }
}

/// Sleep included.
pub(super) fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    // On macOS this one runs on in sleep.
    #[cfg(not(target_os = "linux"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(CLOCK);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_is_noticed_once_and_a_busy_moment_is_none() {
        let seconds = Duration::from_secs;
        let mut nap = Nap::new(seconds(100));
        assert_eq!(nap.was_away(seconds(101), seconds(1)), None);
        assert_eq!(nap.was_away(seconds(110), seconds(1)), None, "a slow disk");
        assert_eq!(nap.was_away(seconds(28_910), seconds(1)), Some(seconds(28_800)));
        assert_eq!(nap.was_away(seconds(28_911), seconds(1)), None);
        assert_eq!(nap.was_away(seconds(5), seconds(1)), None, "it never runs backwards");
    }

    #[test]
    fn the_clock_runs() {
        assert!(since_boot() > Duration::ZERO);
    }
}
