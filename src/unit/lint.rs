//! What is wrong with a property list of launchd, ours or anybody's.
//!
//! launchd itself says next to nothing: it ignores a key that it does not know,
//! expands neither `~` nor variables, and takes an interval that it will not keep.
//! What the machine at hand lacks is for the caller to see: [`Checked::paths`].

use std::path::{Path, PathBuf};

use plist::{Dictionary, Value};

use super::read::{self, List};

mod keys;
mod paths;

use keys::{Keys, Kind};

/// Of one list. Who mends these will ask again, and a hostile one has thousands.
const FINDINGS_MAX: usize = 100;

/// What was found, by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub findings: Vec<Finding>,
    /// What must be on the machine that the list is for.
    pub paths: Vec<Needed>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// Counted from one; `None` where no line is to blame, and in a binary list.
    pub line: Option<usize>,
    /// The path of a key, as `KeepAlive.SuccessfulExit`; empty where no key is to blame.
    pub key: String,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

/// A path that a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    pub key: String,
    pub path: PathBuf,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Program,
    Folder,
    /// A file that launchd makes, in a folder that it does not.
    FolderOf,
}

/// Reads what a file of this name holds: a property list, in XML or in binary.
pub fn check(bytes: &[u8], file_name: &str) -> Checked {
    let list = read::read(bytes);
    let mut checking = Checking { list: &list, checked: Checked::default(), is_full: false };
    for trouble in &list.troubles {
        let (line, message) = (trouble.line, trouble.message.clone());
        checking.checked.findings.push(Finding { severity: Severity::Error, line, key: String::new(), message });
    }
    checking.is_full = list.twice.len() > FINDINGS_MAX;
    for (key, line) in list.twice.iter().take(FINDINGS_MAX) {
        let message = "is there twice, and nothing says which of them counts".to_owned();
        checking.checked.findings.push(Finding { severity: Severity::Error, line: *line, key: key.clone(), message });
    }
    match &list.value {
        Some(Value::Dictionary(job)) => checking.job(job, file_name),
        Some(_) => checking.error("", "is no dictionary: a job is one <dict> of keys"),
        None => {}
    }
    let (mut checked, is_full) = (checking.checked, checking.is_full);
    checked.findings.sort_by_key(|finding| finding.line.unwrap_or(0));
    if is_full {
        checked.findings.truncate(FINDINGS_MAX);
        let message = format!("has more wrong with it than these {FINDINGS_MAX}");
        checked.findings.push(Finding { severity: Severity::Error, line: None, key: String::new(), message });
    }
    checked
}

struct Checking<'a> {
    list: &'a List,
    checked: Checked,
    /// Whether anything was found beyond [`FINDINGS_MAX`].
    is_full: bool,
}

impl Checking<'_> {
    fn error(&mut self, key: &str, message: impl Into<String>) {
        self.add(Severity::Error, key, message.into());
    }

    fn warning(&mut self, key: &str, message: impl Into<String>) {
        self.add(Severity::Warning, key, message.into());
    }

    fn add(&mut self, severity: Severity, key: &str, message: String) {
        self.is_full |= self.checked.findings.len() >= FINDINGS_MAX;
        if self.is_full {
            return;
        }
        // An item of an array stands where the array does, as far as is known.
        let mut path = Some(key);
        let line = std::iter::from_fn(|| {
            let at = path?;
            path = at.rsplit_once('.').map(|(outer, _)| outer);
            Some(at)
        })
        .find_map(|at| self.list.lines.get(at).copied());
        self.checked.findings.push(Finding { severity, line, key: key.to_owned(), message });
    }

    fn job(&mut self, job: &Dictionary, file_name: &str) {
        self.known_keys("", job, keys::JOB);
        self.label(job, file_name);
        self.intervals(job);
        self.keep_alive(job);
        self.calendar(job);
        self.paths(job);
        self.arguments(job);
        self.environment(job);
    }

    /// Each key against a table of names and kinds.
    fn known_keys(&mut self, within: &str, dictionary: &Dictionary, known: Keys) {
        for (key, value) in dictionary {
            let full = if within.is_empty() { key.clone() } else { format!("{within}.{key}") };
            match known.iter().find(|(name, _)| name == key) {
                Some((_, kind)) => self.value(&full, value, kind),
                None if self.is_full => return,
                None if key.is_empty() => self.error(within, "has an empty <key>, which is none of launchd's"),
                None => {
                    let names = known.iter().map(|(name, _)| *name);
                    let message = match crate::text::nearest(key, names) {
                        Some(nearest) => format!("is no key of launchd, which ignores it; did you mean {nearest}?"),
                        None => "is no key of launchd, which ignores it".to_owned(),
                    };
                    self.error(&full, message);
                }
            }
        }
    }

    fn value(&mut self, path: &str, value: &Value, kind: &Kind) {
        let Some(kind) = kind.of(value) else {
            return self.error(path, format!("is {}, and launchd wants {}", keys::kind_of(value), kind.wanted()));
        };
        match (kind, value) {
            (Kind::Table(known), Value::Dictionary(table)) => self.known_keys(path, table, known),
            (Kind::Named(kind), Value::Dictionary(all)) => {
                all.iter().for_each(|(name, value)| self.value(&format!("{path}.{name}"), value, kind));
            }
            (Kind::Each(kind), Value::Array(all)) => {
                all.iter().enumerate().for_each(|(n, value)| self.value(&format!("{path}.{n}"), value, kind));
            }
            (Kind::OneOf(words), Value::String(word)) if !words.iter().any(|one| one.eq_ignore_ascii_case(word)) => {
                self.error(path, format!("is \"{word}\"; launchd knows {}", words.join(", ")));
            }
            // What does not fit 64 bits with a sign is beyond every range.
            (Kind::Range(first, last), Value::Integer(n))
                if n.as_signed().is_none_or(|n| !(*first..=*last).contains(&n)) =>
            {
                self.error(path, format!("is {n}; write {first} to {last}"));
            }
            (Kind::Seconds, Value::Integer(n)) if n.as_signed().is_some_and(|n| n < 0) => {
                self.error(path, format!("is {n}, and no time is below 0"));
            }
            _ => {}
        }
    }

    fn label(&mut self, job: &Dictionary, file_name: &str) {
        match job.get("Label").and_then(Value::as_string) {
            None | Some("") => self.error("", "has no Label, without which launchd does not take it"),
            Some(label) if file_name.strip_suffix(".plist").is_some_and(|stem| stem != label) => {
                self.error("Label", format!("differs from the name of the file; name it {label}.plist"));
            }
            Some(_) => {}
        }
    }

    fn intervals(&mut self, job: &Dictionary) {
        for key in ["ThrottleInterval", "StartInterval"] {
            if let Some(seconds) = job.get(key).and_then(Value::as_signed_integer)
                && seconds < 10
            {
                self.error(key, format!("is {seconds}, and launchd never starts a job twice within 10 seconds"));
            }
        }
        if job.get("ExitTimeOut").and_then(Value::as_signed_integer) == Some(0) {
            self.warning("ExitTimeOut", "is 0: launchd waits for ever for a job that hangs");
        }
    }

    fn keep_alive(&mut self, job: &Dictionary) {
        let Some(keep_alive) = job.get("KeepAlive") else { return };
        let is_scheduled = ["StartCalendarInterval", "StartInterval"].iter().any(|key| job.contains_key(key));
        if is_scheduled && keep_alive.as_boolean() != Some(false) {
            self.error(
                "KeepAlive",
                "on a job with a schedule: launchd would run it again and again, whatever the time",
            );
        }
    }

    fn calendar(&mut self, job: &Dictionary) {
        let times = match job.get("StartCalendarInterval") {
            Some(Value::Dictionary(time)) => vec![time],
            Some(Value::Array(times)) => times.iter().filter_map(Value::as_dictionary).collect(),
            _ => return,
        };
        if times.iter().any(|time| time.is_empty()) {
            self.warning("StartCalendarInterval", "names no time, which means every minute");
        }
    }
}

/// What a `${VAR}` of servers.toml will come to under a unit: `problem` is what reading
/// the file with the unit's own environment found.
pub fn unreachable_variable(service: &str, problem: &str) -> Finding {
    let message = format!(
        "{problem}, and the unit's environment will not have it: a secret is never written into a unit; \
         write ${{file:PATH}} or ${{VAR:-default}} in servers.toml"
    );
    Finding { severity: Severity::Error, line: None, key: service.to_owned(), message }
}

impl Needed {
    /// What must exist for it.
    pub fn must_exist(&self) -> &Path {
        match self.what {
            What::Program | What::Folder => &self.path,
            What::FolderOf => self.path.parent().unwrap_or(&self.path),
        }
    }
}
