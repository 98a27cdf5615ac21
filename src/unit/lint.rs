//! What is wrong with a property list of launchd, ours or anybody's.
//!
//! launchd itself says next to nothing: it ignores a key that it does not know,
//! expands neither `~` nor variables, and takes an interval that it will not keep.
//! What the machine at hand lacks is for the caller to see: [`Checked::paths`].

use std::{
    io::Cursor,
    path::{Path, PathBuf},
};

use plist::{Dictionary, Value};

mod keys;

use keys::Kind;

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
    /// Counted from one; `None` where no line is to blame.
    pub line: Option<usize>,
    /// Empty where no key is to blame.
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
    pub key: &'static str,
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

/// Reads the text of a property list in a file of this name.
pub fn check(text: &str, file_name: &str) -> Checked {
    let mut checking = Checking { text, checked: Checked::default() };
    checking.entities();
    match Value::from_reader(Cursor::new(text.as_bytes())) {
        Ok(Value::Dictionary(job)) => checking.job(&job, file_name),
        Ok(_) => checking.error("", "is no dictionary: a job is one <dict> of keys"),
        Err(error) => checking.error("", format!("is no property list: {error}")),
    }
    let mut checked = checking.checked;
    checked.findings.sort_by_key(|finding| finding.line.unwrap_or(0));
    checked
}

struct Checking<'a> {
    text: &'a str,
    checked: Checked,
}

impl Checking<'_> {
    fn error(&mut self, key: &str, message: impl Into<String>) {
        self.add(Severity::Error, key, message.into());
    }

    fn warning(&mut self, key: &str, message: impl Into<String>) {
        self.add(Severity::Warning, key, message.into());
    }

    fn add(&mut self, severity: Severity, key: &str, message: String) {
        let last = key.rsplit('.').next().unwrap_or(key);
        let line = (!key.is_empty()).then(|| self.line_of(&format!("<key>{last}</key>"))).flatten();
        self.checked.findings.push(Finding { severity, line, key: key.to_owned(), message });
    }

    fn line_of(&self, part: &str) -> Option<usize> {
        self.text.lines().position(|line| line.contains(part)).map(|at| at + 1)
    }

    /// An ampersand of a URL or a command makes the whole file unreadable, and the
    /// parser's own words for it help nobody.
    fn entities(&mut self) {
        const KNOWN: [&str; 6] = ["amp;", "lt;", "gt;", "quot;", "apos;", "#"];
        let mut found = Vec::new();
        for (at, line) in self.text.lines().enumerate() {
            let bare = line.split('&').skip(1).find(|rest| !KNOWN.iter().any(|known| rest.starts_with(known)));
            if let Some(rest) = bare {
                let written: String =
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == ';').take(20).collect();
                found.push((
                    at + 1,
                    format!("\"&{written}\" is no entity of a property list; write &amp; for an ampersand"),
                ));
            }
            if line.contains("<!ENTITY") {
                found.push((at + 1, "defines an entity; write out what it stands for".to_owned()));
            }
        }
        for (line, message) in found {
            self.checked.findings.push(Finding {
                severity: Severity::Error,
                line: Some(line),
                key: String::new(),
                message,
            });
        }
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

    /// Each key against a table of names and types.
    fn known_keys(&mut self, within: &str, dictionary: &Dictionary, known: &[(&str, Kind)]) {
        for (key, value) in dictionary {
            let full = if within.is_empty() { key.clone() } else { format!("{within}.{key}") };
            match known.iter().find(|(name, _)| name == key) {
                Some((_, kind)) if !kind.takes(value) => {
                    self.error(&full, format!("is {}, and launchd wants {}", keys::kind_of(value), kind.wanted()));
                }
                Some(_) => {}
                None => {
                    let names = known.iter().map(|(name, _)| *name);
                    let message = match nearest(key, names) {
                        Some(nearest) => format!("is no key of launchd, which ignores it; did you mean {nearest}?"),
                        None => "is no key of launchd, which ignores it".to_owned(),
                    };
                    self.error(&full, message);
                }
            }
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
        if let Some(conditions) = keep_alive.as_dictionary() {
            self.known_keys("KeepAlive", conditions, keys::KEEP_ALIVE);
        }
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
        for time in times {
            self.known_keys("StartCalendarInterval", time, keys::CALENDAR);
            if time.is_empty() {
                self.warning("StartCalendarInterval", "names no time, which means every minute");
            }
            for (key, range) in keys::CALENDAR_RANGES {
                if let Some(n) = time.get(key).and_then(Value::as_signed_integer)
                    && !range.contains(&n)
                {
                    let full = format!("StartCalendarInterval.{key}");
                    self.error(&full, format!("is {n}; write {} to {}", range.start(), range.end()));
                }
            }
        }
    }

    fn paths(&mut self, job: &Dictionary) {
        for (key, what) in keys::PATHS {
            if let Some(path) = job.get(key).and_then(Value::as_string) {
                self.path(key, path, *what);
            }
        }
    }

    fn path(&mut self, key: &'static str, path: &str, what: What) {
        if path.starts_with('~') {
            self.error(key, format!("begins with \"~\", which launchd does not expand: {path}"));
        } else if !path.starts_with('/') {
            self.error(key, format!("is a relative path, and a job has no folder that it could be of: {path}"));
        } else if !path.contains("${") {
            self.checked.paths.push(Needed { key, path: PathBuf::from(path), what });
        }
        self.variable(key, path);
    }

    fn arguments(&mut self, job: &Dictionary) {
        let arguments = job.get("ProgramArguments").and_then(Value::as_array);
        let words: Vec<&str> = arguments.into_iter().flatten().filter_map(Value::as_string).collect();
        if words.is_empty() && !job.contains_key("Program") && !job.contains_key("BundleProgram") {
            return self.error("", "has neither Program nor ProgramArguments: there is nothing to run");
        }
        const KEY: &str = "ProgramArguments";
        if let Some(program) = words.first()
            && !job.contains_key("Program")
        {
            if program.contains('/') || program.starts_with('~') {
                self.path(KEY, program, What::Program);
            } else {
                self.warning(
                    KEY,
                    format!(
                        "names {program} without a folder: launchd looks in /usr/bin, /bin, /usr/sbin and /sbin only"
                    ),
                );
            }
        }
        for word in words.iter().skip(1) {
            if word.starts_with("~/") || word.contains("=~/") {
                self.error(KEY, format!("holds {word}, and launchd does not expand \"~\""));
            }
            self.variable(KEY, word);
        }
    }

    fn environment(&mut self, job: &Dictionary) {
        let Some(environment) = job.get("EnvironmentVariables").and_then(Value::as_dictionary) else { return };
        for (name, value) in environment {
            let key = format!("EnvironmentVariables.{name}");
            let Some(value) = value.as_string() else {
                self.error(&key, "is no string, and launchd wants one");
                continue;
            };
            self.variable(&key, value);
            if value.contains("$PATH") || name == "PATH" && value.split(':').any(|folder| folder.starts_with('~')) {
                self.error(&key, "is not expanded by launchd; write the folders out");
            }
            if sounds_secret(name) && !value.is_empty() {
                self.warning(
                    &key,
                    "looks like a secret, in a file that is easily read; write ${file:PATH} in servers.toml instead",
                );
            }
        }
    }

    fn variable(&mut self, key: &str, value: &str) {
        if let Some((_, rest)) = value.split_once("${")
            && let Some((name, _)) = rest.split_once('}')
        {
            self.error(key, format!("holds ${{{name}}}, and launchd expands no variables"));
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

fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written = written.to_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::normalized_damerau_levenshtein(&written, &word.to_lowercase()), word))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["token", "secret", "password", "passwd", "api_key", "apikey", "credential"].iter().any(|word| name.contains(word))
}
