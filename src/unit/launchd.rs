//! A unit as a property list of launchd, as launchd.plist(5) describes it.

use std::fmt::Write as _;

use jiff::civil::Weekday;

use plist::Value;

use super::{Installed, LABEL_PREFIX, STOP_WITHIN_S, Scope, THROTTLE_S, Unit, read};
use crate::service::schedule::Schedule;

/// The name of the file that launchd expects a unit in.
pub fn file_name(unit: &Unit) -> String {
    format!("{}.plist", unit.label())
}

/// The property list, in XML.
pub fn plist(unit: &Unit) -> String {
    let mut out = Plist::default();
    out.string("Label", &unit.label());
    if let Scope::Daemon { user } = &unit.scope {
        out.string("UserName", user);
    }
    out.strings("ProgramArguments", &unit.argv);
    out.open_dict("EnvironmentVariables");
    out.string("HOME", &unit.home.to_string_lossy());
    if let Scope::Daemon { user } = &unit.scope {
        // An agent has these of the session that it belongs to; a daemon belongs to none.
        out.string("LOGNAME", user);
    }
    out.string("PATH", &unit.path);
    if let Scope::Daemon { user } = &unit.scope {
        out.string("USER", user);
    }
    out.close_dict();
    out.string("WorkingDirectory", &unit.cwd.to_string_lossy());
    out.string("StandardOutPath", &unit.log.to_string_lossy());
    out.string("StandardErrorPath", &unit.log.to_string_lossy());
    out.string("ProcessType", "Background");
    out.boolean("RunAtLoad", unit.run_at_load);
    match unit.schedule {
        // Restarted when it fails. Ending with 0 is its own decision.
        None => {
            out.open_dict("KeepAlive");
            out.boolean("SuccessfulExit", false);
            out.close_dict();
        }
        Some(schedule) => calendar(&mut out, schedule),
    }
    out.integer("ThrottleInterval", u64::from(THROTTLE_S));
    out.integer("ExitTimeOut", u64::from(STOP_WITHIN_S));
    out.finished()
}

/// What a property list is for; `None` where it is none of ours.
pub fn installed(bytes: &[u8]) -> Option<Installed> {
    let list = read::read(bytes).value?.into_dictionary()?;
    let argv = list.get("ProgramArguments")?.as_array()?.iter().map(|word| word.as_string().map(str::to_owned));
    let installed = Installed::of(&argv.collect::<Option<Vec<String>>>()?)?;
    let label = list.get("Label").and_then(Value::as_string)?;
    (label.strip_prefix(LABEL_PREFIX)? == installed.name).then_some(installed)
}

/// The command of any job, for a person; `None` where the list has none.
pub fn starts(bytes: &[u8]) -> Option<String> {
    let list = read::read(bytes).value?.into_dictionary()?;
    let words = |value: &Value| {
        let words = value.as_array()?.iter().map(|word| word.as_string().unwrap_or("…"));
        Some(words.collect::<Vec<_>>().join(" "))
    };
    let program = || list.get("Program").and_then(Value::as_string).map(str::to_owned);
    list.get("ProgramArguments").and_then(words).or_else(program)
}

/// What sleep swallowed, launchd makes up for once with a calendar and never with an
/// interval.
fn calendar(out: &mut Plist, schedule: Schedule) {
    let (day, time) = match schedule {
        Schedule::Every(pause) => return out.integer("StartInterval", pause.as_secs()),
        Schedule::Daily(time) => (None, time),
        Schedule::Weekly(day, time) => (Some(day), time),
    };
    out.open_dict("StartCalendarInterval");
    if let Some(day) = day {
        out.integer("Weekday", weekday(day));
    }
    out.integer("Hour", time.hour().unsigned_abs().into());
    out.integer("Minute", time.minute().unsigned_abs().into());
    out.close_dict();
}

fn weekday(day: Weekday) -> u64 {
    day.to_sunday_zero_offset().unsigned_abs().into()
}

/// The text so far, and how deep in it the next line is.
struct Plist {
    text: String,
    depth: usize,
}

impl Default for Plist {
    fn default() -> Self {
        const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
            <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
            \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
            <plist version=\"1.0\">\n<dict>\n";
        Plist { text: HEAD.to_owned(), depth: 1 }
    }
}

impl Plist {
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{}{line}", "  ".repeat(self.depth));
    }

    fn key(&mut self, key: &str) {
        self.line(&format!("<key>{}</key>", escaped(key)));
    }

    fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        self.line(&format!("<string>{}</string>", escaped(value)));
    }

    fn strings(&mut self, key: &str, values: &[String]) {
        self.key(key);
        self.line("<array>");
        self.depth += 1;
        for value in values {
            self.line(&format!("<string>{}</string>", escaped(value)));
        }
        self.depth -= 1;
        self.line("</array>");
    }

    fn integer(&mut self, key: &str, value: u64) {
        self.key(key);
        self.line(&format!("<integer>{value}</integer>"));
    }

    fn boolean(&mut self, key: &str, value: bool) {
        self.key(key);
        self.line(if value { "<true/>" } else { "<false/>" });
    }

    fn open_dict(&mut self, key: &str) {
        self.key(key);
        self.line("<dict>");
        self.depth += 1;
    }

    fn close_dict(&mut self) {
        self.depth -= 1;
        self.line("</dict>");
    }

    fn finished(mut self) -> String {
        self.text.push_str("</dict>\n</plist>\n");
        self.text
    }
}

/// XML knows no other control characters than these three.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#13;"),
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
