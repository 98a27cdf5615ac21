//! What an install or an uninstall began and could not finish, the next one finishes.

use std::fs;

use crate::machine::{BOTH, Machine, ONE, edit};
use crate::support::units::TWO;

/// The steps of an install that changes a unit, each of which may fail.
fn steps(supervisor: &str) -> &'static [&'static str] {
    if supervisor == "launchd" { &["bootout", "enable", "kickstart"] } else { &["daemon-reload", "restart"] }
}

#[test]
fn a_change_that_could_not_take_effect_does_so_with_the_next_install() {
    for supervisor in BOTH {
        for step in steps(supervisor) {
            let machine = Machine::new(supervisor);
            let config = machine.config("servers.toml", ONE);
            machine.does(&config, &["install"]);
            edit(&machine.unit("one"));
            machine.recorder.told();
            machine.recorder.fail_once(step);
            let said = machine.fails(&config, &["install"]);
            assert!(said.contains("broken") && !machine.recorder.is_to_fail(step), "{step}: {said}");
            let said = machine.does(&config, &["status"]);
            assert!(said.contains("installed, the last change of it was not finished"), "{step}: {said}");
            assert!(machine.fails(&config, &["diff"]).contains("was not finished"), "{step}");

            let said = machine.does(&config, &["install", "--dry-run"]);
            assert!(said.contains("was not finished, and would be now"), "{step}: {said}");
            machine.recorder.told();
            let said = machine.does(&config, &["install"]);
            assert!(said.contains("was not finished, and is now"), "{step}: {said}");
            let told = machine.recorder.told().join("\n");
            let needed: &[&str] = match supervisor {
                "launchd" => &["bootstrap gui/", "kickstart gui/"],
                _ => &["--user daemon-reload", "--user restart seawall-one.service"],
            };
            assert!(needed.iter().all(|needed| told.contains(needed)), "{step}: {told}");
            assert!(machine.does(&config, &["install"]).contains("unchanged"), "{step}");
            assert_eq!(machine.recorder.told(), [""; 0], "{step}");
            assert!(machine.tries(&config, &["diff"]).status.success(), "{step}");
            assert!(machine.all().iter().all(|(name, _)| !name.contains("unfinished")), "{:?}", machine.all());
        }
    }
}

#[test]
fn a_restart_that_failed_is_made_up_for_by_the_next_install() {
    for (supervisor, step) in [("launchd", "kickstart"), ("systemd", "restart")] {
        let machine = Machine::new(supervisor);
        let config = machine.config("servers.toml", ONE);
        machine.does(&config, &["install"]);
        machine.recorder.fail_once(step);
        machine.fails(&config, &["install", "--restart"]);
        machine.recorder.told();
        machine.does(&config, &["install"]);
        let told = machine.recorder.told();
        assert!(told.iter().any(|line| line.contains(step)), "{told:?}");
        machine.does(&config, &["install"]);
        assert_eq!(machine.recorder.told(), [""; 0]);
    }
}

#[test]
fn what_systemd_has_not_read_since_it_changed_is_read_and_started_again() {
    let machine = Machine::new("systemd");
    let config = machine.config("servers.toml", ONE);
    machine.does(&config, &["install"]);
    machine.recorder.told();
    machine.recorder.shows("NeedDaemonReload=yes\n");
    machine.does(&config, &["install"]);
    assert_eq!(machine.recorder.told(), ["--user daemon-reload", "--user restart seawall-one.service"]);
}

#[test]
fn a_job_that_takes_its_time_to_go_is_no_failure() {
    let machine = Machine::new("launchd");
    let config = machine.config("servers.toml", ONE);
    machine.does(&config, &["install"]);
    edit(&machine.unit("one"));
    machine.recorder.fail_late("bootout");
    machine.does(&config, &["install"]);
    assert!(machine.does(&config, &["install"]).contains("unchanged"));
}

#[test]
fn an_uninstall_goes_on_after_a_failure_and_the_next_one_does_the_rest() {
    for (supervisor, step) in [("launchd", "bootout"), ("systemd", "disable")] {
        let machine = Machine::new(supervisor);
        let config = machine.config("servers.toml", TWO);
        machine.does(&config, &["install"]);
        machine.recorder.fail_once(step);
        let said = machine.fails(&config, &["uninstall"]);
        assert!(said.contains("broken"), "{said}");
        let files = machine.files();
        let of = |name: &str| files.iter().any(|file| file.contains(name));
        assert!(of("one") != of("nightly"), "the other one is gone: {files:?}");
        if supervisor == "systemd" {
            assert!(machine.recorder.told().contains(&"--user daemon-reload".to_owned()));
        }
        machine.does(&config, &["uninstall"]);
        assert_eq!(machine.files(), [""; 0], "{supervisor}");
    }
}

#[test]
fn systemd_is_told_of_what_was_removed_though_it_did_not_listen_at_first() {
    for words in [["uninstall"], ["install"]] {
        let machine = Machine::new("systemd");
        let config = machine.config("servers.toml", TWO);
        machine.does(&config, &["install"]);
        machine.recorder.fail_once("daemon-reload");
        assert!(machine.fails(&config, &["uninstall"]).contains("systemd still has what was removed"));
        machine.recorder.told();
        machine.does(&config, &words);
        assert_eq!(machine.recorder.told()[0], "--user daemon-reload");
        assert!(machine.all().iter().all(|(name, _)| !name.ends_with(".unfinished")), "{:?}", machine.all());
    }
}

#[test]
fn the_newest_three_of_what_a_unit_was_are_kept() {
    for supervisor in BOTH {
        let machine = Machine::new(supervisor);
        let config = machine.config("servers.toml", ONE);
        machine.does(&config, &["install"]);
        let unit = machine.unit("one");
        let own = unit.with_file_name(format!("{}.backup-mine", unit.file_name().expect("a name").to_string_lossy()));
        fs::write(&own, "kept by its owner").expect("written");
        for n in 1..=5 {
            let text = fs::read_to_string(&unit).expect("installed");
            fs::write(&unit, edit(&unit).replace("by hand", &format!("by hand {n}"))).expect("written");
            machine.does(&config, &["install"]);
            assert_eq!(fs::read_to_string(&unit).expect("installed"), text);
        }
        let mut kept = machine.backups(&unit);
        kept.retain(|said| said != "kept by its owner");
        let of = |n: usize| kept.iter().filter(|said| said.contains(&format!("edited by hand {n}"))).count();
        assert_eq!([1, 2, 3, 4, 5].map(of), [0, 0, 1, 1, 1], "{supervisor}: {kept:?}");
        assert!(own.exists());
    }
}
