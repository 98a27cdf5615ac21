//! `--dry-run` says what a run then does, word for word, and does none of it.

use std::fs;

use crate::machine::{Machine, edit};
use crate::support::units::{TWO, text};

/// How a machine may be found.
#[derive(Clone, Copy, Debug)]
enum State {
    Fresh,
    Unchanged,
    Changed,
    /// A unit of one servers.toml that is not there, and one of nobody's.
    Foreign,
    HalfInstalled,
    HalfRemoved,
    /// As many copies as there may be.
    OftenChanged,
}

const STATES: [State; 7] = [
    State::Fresh,
    State::Unchanged,
    State::Changed,
    State::Foreign,
    State::HalfInstalled,
    State::HalfRemoved,
    State::OftenChanged,
];

fn machine(supervisor: &'static str, state: State) -> (Machine, std::path::PathBuf) {
    let machine = Machine::new(supervisor);
    let config = machine.config("servers.toml", TWO);
    if !matches!(state, State::Fresh) {
        machine.does(&config, &["install"]);
    }
    match state {
        State::Fresh | State::Unchanged => {}
        State::Changed => {
            edit(&machine.unit("one"));
            machine.config("servers.toml", &TWO.replace("schedule = \"daily 03:30\"\n", ""));
        }
        State::Foreign => {
            let text = fs::read_to_string(machine.unit("one")).expect("installed");
            fs::write(machine.unit("one"), text.replace("servers.toml", "gone.toml")).expect("written");
            fs::write(machine.unit("nightly"), "of nobody's").expect("written");
        }
        State::HalfInstalled => {
            edit(&machine.unit("one"));
            machine.recorder.fail_once(if supervisor == "launchd" { "kickstart" } else { "daemon-reload" });
            machine.fails(&config, &["install"]);
        }
        State::HalfRemoved => {
            machine.recorder.fail_once(if supervisor == "launchd" { "bootout" } else { "daemon-reload" });
            machine.fails(&config, &["uninstall"]);
        }
        State::OftenChanged => {
            let unit = machine.unit("one");
            for n in 1..=4 {
                let copy = format!("{}.backup-{n}", unit.file_name().expect("a name").to_string_lossy());
                fs::write(unit.with_file_name(copy), format!("copy {n}")).expect("written");
            }
            edit(&unit);
        }
    }
    machine.recorder.told();
    (machine, config)
}

/// What is told of what is done, without the times that copies are named by.
fn deeds(said: &str, is_dry: bool) -> String {
    let line = |line: &str| {
        let line = if is_dry {
            line.replacen("  would ", "  ", 1).replace("and would be now", "and is now")
        } else {
            line.to_owned()
        };
        match line.split_once("keep what is there as ").and_then(|(_, path)| path.rsplit_once('-')) {
            Some((path, _)) => format!("  keep what is there as {path}-TIME"),
            None => line,
        }
    };
    said.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_dry_run_under_launchd_says_what_a_run_then_does() {
    STATES.iter().for_each(|state| says_what_it_does("launchd", *state));
}

#[test]
fn a_dry_run_under_systemd_says_what_a_run_then_does() {
    STATES.iter().for_each(|state| says_what_it_does("systemd", *state));
}

fn says_what_it_does(supervisor: &'static str, state: State) {
    let actions: &[&[&str]] = match state {
        State::Fresh | State::Changed | State::OftenChanged => &[&["install"], &["uninstall"]],
        State::Unchanged | State::HalfInstalled | State::HalfRemoved => {
            &[&["install"], &["uninstall"], &["install", "--restart"]]
        }
        State::Foreign => {
            &[&["install"], &["uninstall"], &["install", "--restart", "--foreign"], &["uninstall", "one", "--foreign"]]
        }
    };
    for action in actions {
        let which = format!("{supervisor} {state:?} {action:?}");
        let (machine, config) = machine(supervisor, state);
        let before = machine.all();
        let dry = machine.tries(&config, &[action, &["--dry-run"][..]].concat());
        assert_eq!(machine.recorder.told(), [""; 0], "{which}");
        assert_eq!(machine.all(), before, "{which}");

        let done = machine.tries(&config, action);
        assert_eq!(dry.status.code(), done.status.code(), "{which}: {}", text(&done));
        let said = deeds(&text(&dry), true);
        assert_eq!(said, deeds(&text(&done), false), "{which}");
        let program = format!("  run {} ", machine.recorder.program());
        let told: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix(&program)).collect();
        assert_eq!(machine.recorder.told(), told, "{which}");
        // Each file that has changed was named.
        let after = machine.all();
        for name in names_that_differ(&before, &after) {
            let is_copy = name.contains(".backup-") && after.iter().any(|(known, _)| *known == name);
            let named = if is_copy { ".backup-TIME" } else { &name };
            assert!(name.ends_with(".unfinished") || said.contains(named), "{which}: {name}\n{said}");
        }
    }
}

fn names_that_differ(before: &[(String, String)], after: &[(String, String)]) -> Vec<String> {
    let differs = |one: &[(String, String)], other: &[(String, String)]| {
        one.iter().filter(|file| !other.contains(file)).map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    [differs(before, after), differs(after, before)].concat()
}
