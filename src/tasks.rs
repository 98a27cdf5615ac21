//! The steps of a scheduled task: commands, and upkeep of seawall's own.
//!
//! ```text
//! launchd ─ seawall run daily-tasks ─ seawall tasks steps ─┬─ a step, a process of its own
//!           when it is due, once,                          ├─ the next one
//!           recorded, alerts                               └─ …
//! ```
//!
//! Each step has a time in which it must end, so many attempts, and a test of success. One
//! that fails keeps no other from running, and the task has failed. How it went so far is
//! in a file, which outlives a task that is killed.

use std::{path::PathBuf, time::Duration};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

mod digest;
mod expect;
mod process;
mod upkeep;

pub mod report;
pub mod run;

pub use upkeep::{UpkeepFailed, perform};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// At least one.
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// For people; not necessarily unlike others.
    pub name: String,
    pub what: What,
    /// One attempt must end by then.
    pub timeout: Duration,
    /// Attempts after the first that failed.
    pub retries: u32,
    pub retry_after: Duration,
    pub expect: Expect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Program and arguments, at least the program.
    Command(Vec<String>),
    /// What is too old or too much goes from the databases.
    Retention,
    /// The databases are whole.
    Check,
    /// A copy of each database; the newest `keep` of each stay.
    Backup { to: PathBuf, keep: u32 },
    /// What failed lately, as a file to read; the newest `keep` stay.
    Digest { to: PathBuf, keep: u32, since: Duration },
}

/// When an attempt has succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    pub exit_code: i32,
    pub file: Option<Fresh>,
    pub query: Option<Query>,
}

/// A file that must be there and not be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    pub path: PathBuf,
    /// Changed no longer ago than this; `None`: since the attempt began.
    pub within: Option<Duration>,
}

/// A question whose first value must say yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub sql: String,
    /// `None` is the database of the gateway.
    pub database: Option<PathBuf>,
}

const STAMP: &str = "%Y%m%dT%H%M%SZ";
const LOCAL_STAMP: &str = "%Y%m%d-%H%M%S";

/// The time of a run, on the wall.
#[derive(Clone, Debug)]
pub struct Now {
    pub timestamp: Timestamp,
    pub zone: TimeZone,
}

impl Now {
    /// By the clock and the zone of this machine.
    pub fn here() -> Self {
        Now { timestamp: Timestamp::now(), zone: TimeZone::system() }
    }

    /// In the name of a file, in UTC: an hour that comes twice would give names twice.
    fn stamp(&self) -> String {
        self.timestamp.strftime(STAMP).to_string()
    }

    /// The time of a stamp; those of earlier versions are in the zone of this machine.
    fn of_stamp(&self, stamp: &str) -> Option<Timestamp> {
        let (form, zone) = if stamp.ends_with('Z') { (STAMP, &TimeZone::UTC) } else { (LOCAL_STAMP, &self.zone) };
        let time = DateTime::strptime(form, stamp).ok()?;
        // What only looks alike is not ours.
        (time.strftime(form).to_string() == stamp).then(|| zone.to_ambiguous_timestamp(time).compatible().ok())?
    }

    /// Some other time, for people.
    fn shown(&self, ms: i64) -> String {
        let time = Timestamp::from_millisecond(ms).unwrap_or_default();
        self.zone.to_datetime(time).strftime("%Y-%m-%d %H:%M").to_string()
    }
}

impl What {
    /// In a few words.
    pub fn describe(&self) -> String {
        match self {
            What::Command(argv) => argv.join(" "),
            What::Retention => "delete what is too old or too much".to_owned(),
            What::Check => "check that the databases are whole".to_owned(),
            What::Backup { to, keep } => format!("copy the databases to {}, keep {keep} of each", to.display()),
            What::Digest { to, keep, since } => {
                let since = crate::text::duration(*since);
                format!("write what failed within {since} to {}, keep {keep}", to.display())
            }
        }
    }
}
