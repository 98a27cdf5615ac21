//! A moment by two clocks: the one on the wall, which people read and which may be set,
//! and the one since boot, which runs on through sleep and is never set.

use std::time::Duration;

use serde_json::{Value, json};

use crate::id::unix_ms;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    pub wall_ms: i64,
    /// Since boot, sleep included.
    pub uptime_ms: u64,
    /// Which boot; `None` where it is not known.
    pub boot: Option<String>,
}

impl Moment {
    pub fn now() -> Self {
        Moment { wall_ms: i64::try_from(unix_ms()).unwrap_or(i64::MAX), uptime_ms: uptime_ms(), boot: boot_id() }
    }

    /// What an event keeps of it; the time on the wall is the event's own.
    pub fn as_json(&self) -> Value {
        json!({ "boot_id": self.boot, "uptime_ms": self.uptime_ms })
    }

    /// The moment of an event.
    pub fn of_event(timestamp_ms: i64, metadata: &Value) -> Self {
        let clock = &metadata["clock"];
        Moment {
            wall_ms: timestamp_ms,
            uptime_ms: clock["uptime_ms"].as_u64().unwrap_or(0),
            boot: clock["boot_id"].as_str().map(str::to_owned),
        }
    }

    /// How long after an `earlier` moment this one is, by the better of the two clocks.
    pub fn since(&self, earlier: &Moment) -> Duration {
        let ms = match (&self.boot, &earlier.boot) {
            (Some(now), Some(then)) if now == then => self.uptime_ms.saturating_sub(earlier.uptime_ms),
            // Nothing but the wall is left, and it never runs backwards here.
            _ => u64::try_from(self.wall_ms.saturating_sub(earlier.wall_ms)).unwrap_or(0),
        };
        Duration::from_millis(ms)
    }

    /// How long the machine slept since an `earlier` moment, of which it was `awake` so
    /// long by a clock that stands still in sleep.
    pub fn slept_since(&self, earlier: &Moment, awake: Duration) -> Duration {
        self.since(earlier).saturating_sub(awake)
    }
}

#[cfg(target_os = "linux")]
fn uptime_ms() -> u64 {
    clock_ms(rustix::time::ClockId::Boottime)
}

/// On macOS the monotonic clock runs on in sleep.
#[cfg(not(target_os = "linux"))]
fn uptime_ms() -> u64 {
    clock_ms(rustix::time::ClockId::Monotonic)
}

fn clock_ms(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds * 1000 + nanos / 1_000_000
}

#[cfg(target_os = "linux")]
fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(not(target_os = "linux"))]
fn boot_id() -> Option<String> {
    let output = std::process::Command::new("/usr/sbin/sysctl").args(["-n", "kern.bootsessionuuid"]).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|id| !id.is_empty())
}

/// When a process began, in words that only compare: a pid is used again, a pid with
/// its beginning is not. `None` if there is no such process.
#[cfg(target_os = "linux")]
pub fn began(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold anything, and its closing parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if fields.next() == Some("Z") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(not(target_os = "linux"))]
pub fn began(pid: u32) -> Option<String> {
    let output = std::process::Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|start| !start.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_does_not_move_what_happened() {
        let moment =
            |wall_ms, uptime_ms, boot: Option<&str>| Moment { wall_ms, uptime_ms, boot: boot.map(str::to_owned) };
        let early = moment(1_000_000, 500, Some("a"));
        assert_eq!(moment(4_600_000, 1_500, Some("a")).since(&early), Duration::from_secs(1), "set forward");
        assert_eq!(moment(0, 1_500, Some("a")).since(&early), Duration::from_secs(1), "set back");
        assert_eq!(moment(1_060_000, 10, Some("b")).since(&early), Duration::from_secs(60), "another boot");
        assert_eq!(moment(0, 10, None).since(&early), Duration::ZERO);
    }

    #[test]
    fn sleep_is_what_one_clock_has_and_the_other_has_not() {
        let moment = |wall_ms, uptime_ms| Moment { wall_ms, uptime_ms, boot: Some("a".to_owned()) };
        let early = moment(0, 1000);
        let seconds = Duration::from_secs;
        for (wall_ms, uptime_ms, awake, slept) in [
            (10_000, 11_000, 10, 0),
            // A night with the lid closed.
            (28_810_000, 28_811_000, 10, 28_800),
            // The clock on the wall was set by an hour, forward and back.
            (3_610_000, 11_000, 10, 0),
            (-3_590_000, 11_000, 10, 0),
            // Clocks are read one after the other.
            (10_000, 10_999, 10, 0),
        ] {
            assert_eq!(moment(wall_ms, uptime_ms).slept_since(&early, seconds(awake)), seconds(slept));
        }
    }

    #[test]
    fn a_moment_comes_back_from_its_event() {
        let now = Moment::now();
        assert_eq!(Moment::of_event(now.wall_ms, &json!({ "clock": now.as_json() })), now);
        assert!(now.uptime_ms > 0 && now.boot.is_some());
    }

    #[test]
    fn this_process_began_and_a_dead_one_did_not() {
        assert!(began(std::process::id()).is_some());
        assert_eq!(began(u32::MAX - 1), None);
    }
}
