//! Says each kind of trouble at most once a minute, so that a broken disk does not
//! also flood the log.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

const QUIET: Duration = Duration::from_secs(60);

/// When each kind was last said. The kinds are literals, so the map is bounded.
#[derive(Default)]
pub(super) struct Complaints(HashMap<&'static str, Instant>);

impl Complaints {
    pub(super) fn say(&mut self, kind: &'static str, say: impl FnOnce()) {
        let now = Instant::now();
        if self.0.get(kind).is_none_or(|last| now.duration_since(*last) >= QUIET) {
            self.0.insert(kind, now);
            say();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_said_once_and_another_kind_too() {
        let (mut complaints, mut said) = (Complaints::default(), Vec::new());
        for kind in ["full", "full", "locked", "full"] {
            complaints.say(kind, || said.push(kind));
        }
        assert_eq!(said, ["full", "locked"]);
    }
}
