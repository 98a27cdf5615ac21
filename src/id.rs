//! Short ids of failures and events: text that sorts by the time it was made.

use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Eight characters of milliseconds, four of a counter that starts at random:
/// unique within a process for a million ids a millisecond, and across processes
/// but for one chance in a million when both make one in the same millisecond.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 12]);

/// Crockford's base 32 in lower case: no i, l, o or u to misread.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const EPOCH_MS: u64 = 1_735_689_600_000; // 2025-01-01, so that 40 bits last until 2059

impl Id {
    pub fn now() -> Self {
        Self::at(unix_ms())
    }

    fn at(now_ms: u64) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        static START: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        let start = *START.get_or_init(rand::random);
        let count = u64::from(start.wrapping_add(COUNTER.fetch_add(1, Ordering::Relaxed)));
        let time = now_ms.saturating_sub(EPOCH_MS) & ((1 << 40) - 1);
        let mut text = [0; 12];
        for (i, place) in text.iter_mut().enumerate() {
            let five_bits = match i {
                0..8 => time >> (35 - 5 * i),
                _ => count >> (55 - 5 * i),
            };
            *place = ALPHABET[usize::try_from(five_bits & 31).unwrap_or(0)];
        }
        Id(text)
    }

    pub fn as_str(&self) -> &str {
        // Only characters of ALPHABET are ever written.
        std::str::from_utf8(&self.0).unwrap_or("")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Milliseconds since 1970, the unit of every timestamp in the database.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_differ_within_a_millisecond() {
        let early = Id::at(EPOCH_MS + 1);
        let late = Id::at(EPOCH_MS + 2);
        assert!(early.as_str() < late.as_str());
        let many: std::collections::HashSet<Id> = (0..10_000).map(|_| Id::at(EPOCH_MS)).collect();
        assert_eq!(many.len(), 10_000);
    }
}
