//! How calls ended: every one of them, and only in ways that there are.

use std::{collections::BTreeMap, fmt, io};

use seawall::failure::Class;
use serde_json::Value;

/// More of them say nothing new.
const WRONG_KEPT_MAX: usize = 20;

/// One way to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The answer that was asked for.
    Own,
    /// A class of the table of outcomes.
    Class(&'static str),
    /// An answer that was not asked for, or none.
    Wrong(String),
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    ends: BTreeMap<&'static str, u64>,
    wrong: Vec<String>,
    wrong_count: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, end: &End) {
        self.calls += 1;
        match end {
            End::Own => *self.ends.entry("ok").or_default() += 1,
            End::Class(class) => *self.ends.entry(class).or_default() += 1,
            End::Wrong(what) => {
                self.wrong_count += 1;
                if self.wrong.len() < WRONG_KEPT_MAX {
                    self.wrong.push(what.clone());
                }
            }
        }
    }

    pub(crate) fn of(&self, class: &str) -> u64 {
        self.ends.get(class).copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, other: Tally) {
        self.calls += other.calls;
        self.wrong_count += other.wrong_count;
        for (class, count) in other.ends {
            *self.ends.entry(class).or_default() += count;
        }
        let room = WRONG_KEPT_MAX.saturating_sub(self.wrong.len());
        self.wrong.extend(other.wrong.into_iter().take(room));
    }

    /// What must not be.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let more = self.wrong_count.saturating_sub(self.wrong.len() as u64);
        let more = (more > 0).then(|| format!("and {more} more wrong answers"));
        self.wrong.iter().cloned().chain(more).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends: Vec<String> = self.ends.iter().map(|(class, count)| format!("{count} {class}")).collect();
        write!(f, "{} calls: {}, {} wrong", self.calls, ends.join(", "), self.wrong_count)
    }
}

/// What the reply to an `echo` of these arguments is.
pub(crate) fn judge(arguments: &Value, reply: &io::Result<Value>) -> End {
    match class_of(reply) {
        End::Own => {
            let result = &reply.as_ref().expect("it is its own")["result"];
            if result["structuredContent"] == *arguments {
                return End::Own;
            }
            End::Wrong(format!("asked for {arguments}, got {result}"))
        }
        end => end,
    }
}

/// The class alone, where the answer is not known beforehand.
pub(crate) fn class_of(reply: &io::Result<Value>) -> End {
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => return End::Wrong(format!("no answer: {error}")),
    };
    let result = &reply["result"];
    if !result.is_object() {
        return if reply["error"]["code"].is_i64() { End::Class("rejected") } else { End::Wrong(reply.to_string()) };
    }
    if result["isError"] != true {
        return End::Own;
    }
    let Some(name) = result["_meta"]["seawall/failure"]["class"].as_str() else { return End::Class("tool_error") };
    match Class::ALL.iter().find(|class| class.name() == name) {
        Some(class) => End::Class(class.name()),
        None => End::Wrong(format!("no class of the table: {reply}")),
    }
}

impl Tally {
    /// For what is no call.
    pub(crate) fn blame_unless_ok(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.wrong_count += 1;
            self.wrong.push(format!("a session could not be ended: {error}"));
        }
    }
}
