//! Many failures of one kind within a minute become one row that says how many.
//!
//! A server in backoff or a runaway client can cause thousands of refusals a second;
//! each is the same news. It knows neither threads nor clocks: time is an argument.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::row::FailureRow;
use crate::{
    call::ServerName,
    failure::{Class, Recording},
    id::Id,
    text,
};

pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// Tools are those of the catalogs, so this is reached by a thousand busy ones only.
const KEYS_MAX: usize = 1024;

pub(super) struct Minutes {
    /// A minute, but in tests.
    length: Duration,
    minutes: HashMap<Key, Minute>,
    /// The keys in the order in which their minutes began, hence end.
    order: VecDeque<Key>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    server: ServerName,
    /// `None` where all tools of a server share a row.
    tool: Option<String>,
    class: Class,
}

struct Minute {
    first: Box<FailureRow>,
    began: Instant,
    /// How many the row at the end shall tell of.
    untold: u64,
}

/// What became of a failure.
pub(super) enum Taken {
    /// It gets a row of its own, now.
    Row(Box<FailureRow>),
    /// It will be in the number that the row at the end of its minute tells.
    Counted,
    /// Too many kinds at once: it is lost.
    NoRoom(Class),
}

impl Minutes {
    pub(super) fn of(length: Duration) -> Self {
        Minutes { length, minutes: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn take(&mut self, row: Box<FailureRow>, recording: Recording, now: Instant) -> Taken {
        let tool = match recording {
            Recording::Coalesced => None,
            Recording::Counted => Some(row.tool.clone()),
            Recording::Row | Recording::No => return Taken::Row(row),
        };
        let key = Key { server: row.server.clone(), tool, class: row.class };
        if let Some(minute) = self.minutes.get_mut(&key) {
            minute.untold += 1;
            return Taken::Counted;
        }
        if self.minutes.len() >= KEYS_MAX {
            return Taken::NoRoom(row.class);
        }
        // The first to find a server unavailable is news; the first refusal is not.
        let (untold, taken) = match recording {
            Recording::Coalesced => (0, Taken::Row(row.clone())),
            _ => (1, Taken::Counted),
        };
        self.order.push_back(key.clone());
        self.minutes.insert(key, Minute { first: row, began: now, untold });
        taken
    }

    /// When the oldest minute is over.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let oldest = self.order.front()?;
        self.minutes.get(oldest).map(|minute| minute.began + self.length)
    }

    /// The rows of the minutes that are over.
    pub(super) fn over(&mut self, now: Instant) -> Vec<FailureRow> {
        let mut rows = Vec::new();
        while self.next_end().is_some_and(|end| end <= now) {
            rows.extend(self.end_oldest(now));
        }
        rows
    }

    /// The rows of all minutes, over or not: the writer is about to stop.
    pub(super) fn all(&mut self, now: Instant) -> Vec<FailureRow> {
        let mut rows = Vec::new();
        while !self.order.is_empty() {
            rows.extend(self.end_oldest(now));
        }
        rows
    }

    fn end_oldest(&mut self, now: Instant) -> Option<FailureRow> {
        let key = self.order.pop_front()?;
        let minute = self.minutes.remove(&key)?;
        (minute.untold > 0).then(|| summary(&key, minute, now))
    }
}

fn summary(key: &Key, minute: Minute, now: Instant) -> FailureRow {
    let within = match now.saturating_duration_since(minute.began) {
        elapsed if elapsed >= MINUTE => "a minute".to_owned(),
        elapsed => text::duration(elapsed),
    };
    let calls = match (&key.tool, minute.untold) {
        (Some(_), 1) => "1 call refused".to_owned(),
        (Some(_), n) => format!("{n} calls refused"),
        (None, 1) => "1 more call".to_owned(),
        (None, n) => format!("{n} more calls"),
    };
    FailureRow {
        id: Id::now(),
        message: format!("{calls} within {within}: {}", minute.first.message),
        request_id: String::new(),
        arguments: None,
        duration_ms: 0,
        ..*minute.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::failure;

    fn counted(minutes: &mut Minutes, class: Class, tool: &str, now: Instant) {
        let taken = minutes.take(Box::new(failure(class, tool)), Recording::Counted, now);
        assert!(matches!(taken, Taken::Counted));
    }

    #[test]
    fn refusals_become_one_row_a_minute_that_says_how_many() {
        let (mut minutes, start) = (Minutes::of(MINUTE), Instant::now());
        for _ in 0..37 {
            counted(&mut minutes, Class::RateLimited, "read", start);
        }
        counted(&mut minutes, Class::RateLimited, "write", start);
        assert!(minutes.over(start + MINUTE - Duration::from_millis(1)).is_empty());
        let rows = minutes.over(start + MINUTE);
        let told: Vec<_> = rows.iter().map(|row| (row.tool.as_str(), row.message.as_str())).collect();
        assert_eq!(
            told,
            [
                ("read", "37 calls refused within a minute: it broke"),
                ("write", "1 call refused within a minute: it broke")
            ]
        );
        assert!(minutes.next_end().is_none(), "a minute that is over leaves nothing behind");
    }

    #[test]
    fn the_first_unavailable_is_a_row_and_the_rest_one_more() {
        let (mut minutes, start) = (Minutes::of(MINUTE), Instant::now());
        let mut rows = 0;
        for tool in ["read", "write", "read"] {
            let taken = minutes.take(Box::new(failure(Class::Unavailable, tool)), Recording::Coalesced, start);
            rows += usize::from(matches!(taken, Taken::Row(_)));
        }
        assert_eq!(rows, 1);
        let later = minutes.all(start + Duration::from_secs(5));
        assert_eq!(later.len(), 1);
        assert_eq!(later[0].message, "2 more calls within 5 s: it broke");
        assert!(minutes.all(start).is_empty());
    }

    #[test]
    fn a_minute_without_a_second_one_tells_nothing() {
        let (mut minutes, start) = (Minutes::of(MINUTE), Instant::now());
        assert!(matches!(
            minutes.take(Box::new(failure(Class::Unavailable, "read")), Recording::Coalesced, start),
            Taken::Row(_)
        ));
        assert!(minutes.over(start + MINUTE).is_empty());
    }

    #[test]
    fn the_number_of_kinds_is_bounded() {
        let (mut minutes, now) = (Minutes::of(MINUTE), Instant::now());
        for i in 0..KEYS_MAX {
            counted(&mut minutes, Class::Overloaded, &format!("tool{i}"), now);
        }
        let taken = minutes.take(Box::new(failure(Class::Overloaded, "one more")), Recording::Counted, now);
        assert!(matches!(taken, Taken::NoRoom(Class::Overloaded)));
        assert_eq!(minutes.all(now).len(), KEYS_MAX);
    }
}
