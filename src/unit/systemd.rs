//! A unit as files of systemd: a service, and a timer for one that has a schedule.
//! systemd.service(5), systemd.timer(5), systemd.time(7).

use std::fmt::Write as _;

use jiff::civil::{Time, Weekday};

use super::{Installed, STOP_WITHIN_S, Scope, Unit};
use crate::service::schedule::Schedule;

/// One file: its name and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub text: String,
}

/// Older ones ignore `RestartSteps`, with a warning each time.
pub const RESTART_STEPS_SINCE: u32 = 254;

/// The name of the unit that is enabled and started: the timer where there is one.
pub fn starting_unit(unit: &Unit) -> String {
    let kind = if unit.schedule.is_some() { "timer" } else { "service" };
    format!("seawall-{}.{kind}", unit.name)
}

/// The files of a unit, for a systemd of this version.
pub fn files(unit: &Unit, systemd_version: u32) -> Vec<File> {
    let service = File { name: format!("seawall-{}.service", unit.name), text: service(unit, systemd_version) };
    let timer = unit
        .schedule
        .map(|schedule| File { name: format!("seawall-{}.timer", unit.name), text: timer(unit, schedule) });
    [service].into_iter().chain(timer).collect()
}

/// Of a unit's file, the name of what it is of: `seawall-NAME.service` or `….timer`.
pub fn name_of(file_name: &str) -> Option<&str> {
    let stem = file_name.strip_prefix("seawall-")?;
    stem.strip_suffix(".service").or_else(|| stem.strip_suffix(".timer"))
}

/// What a service's file is for; `None` where it is none of ours.
pub fn installed(text: &str) -> Option<Installed> {
    Installed::of(&words(&starts(text)?)?)
}

/// The command of any service, as it is written; `None` where the text has none.
pub fn starts(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("ExecStart=")).map(str::to_owned)
}

/// Whether this is a timer of ours for the service of this name. Whose, its service says.
pub fn is_timer_of(text: &str, name: &str) -> bool {
    let description = format!("Description={}", when_it_runs(name));
    let elsewhere =
        |line: &str| line.strip_prefix("Unit=").is_some_and(|unit| unit != format!("seawall-{name}.service"));
    text.lines().any(|line| line == description) && !text.lines().any(elsewhere)
}

fn when_it_runs(name: &str) -> String {
    format!("seawall: when {name} runs")
}

/// The words of a command line as [`quoted`] writes them.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            None => rest.split_at(rest.find(' ').unwrap_or(rest.len())),
            Some(inner) => {
                let mut escaped = false;
                let end = inner.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                })?;
                (&inner[..end], &inner[end + 1..])
            }
        };
        let is_quoted = rest.starts_with('"');
        words.push(if is_quoted { unescaped(word) } else { word.to_owned() });
        rest = after.trim_start();
    }
    let plain = |word: String| word.replace("%%", "%").replace("$$", "$");
    Some(words.into_iter().map(plain).collect())
}

fn unescaped(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().map(|c| if c == 'n' { '\n' } else { c })),
            c => out.push(c),
        }
    }
    out
}

fn service(unit: &Unit, systemd_version: u32) -> String {
    let mut out = format!("[Unit]\nDescription=seawall: {}\n", unit.name);
    if unit.schedule.is_none() {
        // Else five starts within ten seconds would be the last ones.
        out.push_str("StartLimitIntervalSec=0\n");
    }
    let argv: Vec<String> = unit.argv.iter().map(|word| quoted(&word.replace('$', "$$"))).collect();
    let _ = write!(out, "\n[Service]\nType={}\n", if unit.schedule.is_some() { "oneshot" } else { "exec" });
    if let Scope::Daemon { user } = &unit.scope {
        let _ = writeln!(out, "User={}", specifiers(user));
    }
    let _ = writeln!(out, "ExecStart={}", argv.join(" "));
    let _ = writeln!(out, "WorkingDirectory={}", specifiers(&unit.cwd.to_string_lossy()));
    let _ = writeln!(out, "Environment={}", quoted(&format!("PATH={}", unit.path)));
    if unit.schedule.is_none() {
        out.push_str("Restart=on-failure\n");
        out.push_str(match systemd_version {
            RESTART_STEPS_SINCE.. => "RestartSec=1\nRestartSteps=6\nRestartMaxDelaySec=60\n",
            _ => "RestartSec=5\n",
        });
    }
    // Mixed: `seawall run` passes the signal on itself, and a second one means "at once".
    let _ = writeln!(out, "KillMode=mixed\nTimeoutStopSec={STOP_WITHIN_S}");
    if unit.schedule.is_none() {
        let target = match unit.scope {
            Scope::Agent => "default.target",
            Scope::Daemon { .. } => "multi-user.target",
        };
        let _ = write!(out, "\n[Install]\nWantedBy={target}\n");
    }
    out
}

fn timer(unit: &Unit, schedule: Schedule) -> String {
    let mut out = format!("[Unit]\nDescription={}\n\n[Timer]\n", when_it_runs(&unit.name));
    match schedule {
        Schedule::Every(pause) => {
            let first = if unit.run_at_load { 1 } else { pause.as_secs() };
            let _ = writeln!(out, "OnActiveSec={first}s\nOnUnitActiveSec={}s", pause.as_secs());
        }
        Schedule::Daily(time) => on_calendar(&mut out, None, time),
        Schedule::Weekly(day, time) => on_calendar(&mut out, Some(day), time),
    }
    if unit.run_at_load && !matches!(schedule, Schedule::Every(_)) {
        // `seawall run` sees for itself whether it is due.
        out.push_str("OnActiveSec=1s\n");
    }
    out.push_str("AccuracySec=1s\n\n[Install]\nWantedBy=timers.target\n");
    out
}

/// Persistent: what was missed while the machine was off is made up for.
fn on_calendar(out: &mut String, day: Option<Weekday>, time: Time) {
    let day = match day {
        None => "",
        Some(Weekday::Monday) => "Mon ",
        Some(Weekday::Tuesday) => "Tue ",
        Some(Weekday::Wednesday) => "Wed ",
        Some(Weekday::Thursday) => "Thu ",
        Some(Weekday::Friday) => "Fri ",
        Some(Weekday::Saturday) => "Sat ",
        Some(Weekday::Sunday) => "Sun ",
    };
    let _ = writeln!(out, "OnCalendar={day}*-*-* {:02}:{:02}:00\nPersistent=true", time.hour(), time.minute());
}

/// One word of a command line or of Environment=.
fn quoted(word: &str) -> String {
    let word = specifiers(word);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@,%$".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word;
    }
    let mut out = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// systemd replaces %h and its like, everywhere.
fn specifiers(text: &str) -> String {
    text.replace('%', "%%")
}
