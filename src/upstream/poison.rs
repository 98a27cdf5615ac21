//! The poison rule: a tool that was in flight at each of its server's last three
//! deaths is to blame for them, and its breaker hears of it.

use std::collections::{HashSet, VecDeque};

use crate::call::ToolName;

const DEATHS_TO_CONVICT: usize = 3;

/// The last deaths of one server, newest last.
#[derive(Debug, Default)]
pub(super) struct Deaths(VecDeque<(u64, HashSet<ToolName>)>);

impl Deaths {
    /// Instance `number` has died; may be said more than once.
    pub(super) fn note(&mut self, number: u64) {
        // Numbers grow: one that is older than all that are kept has been forgotten.
        let forgotten = self.0.len() == DEATHS_TO_CONVICT && self.0.front().is_some_and(|(oldest, _)| number < *oldest);
        if !forgotten && !self.0.iter().any(|(known, _)| *known == number) {
            self.0.push_back((number, HashSet::new()));
            while self.0.len() > DEATHS_TO_CONVICT {
                self.0.pop_front();
            }
        }
    }

    /// `tool` was in flight when instance `number` died. True if that convicts it.
    pub(super) fn blame(&mut self, number: u64, tool: &ToolName) -> bool {
        self.note(number);
        if let Some((_, tools)) = self.0.iter_mut().find(|(known, _)| *known == number) {
            tools.insert(tool.clone());
        }
        self.0.len() == DEATHS_TO_CONVICT && self.0.iter().all(|(_, tools)| tools.contains(tool))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_deaths_in_a_row_convict_and_one_without_it_acquits() {
        let mut deaths = Deaths::default();
        let (bad, good) = (ToolName::from("bad"), ToolName::from("good"));
        assert!(!deaths.blame(1, &bad));
        assert!(!deaths.blame(1, &good));
        assert!(!deaths.blame(2, &bad));
        assert!(deaths.blame(3, &bad));
        assert!(!deaths.blame(3, &good));
        deaths.note(4);
        assert!(!deaths.blame(5, &bad), "it was not in flight at death 4");
    }
}
