//! What lies under seawall's names and is not of this servers.toml is left alone until
//! somebody says so, and whatever it is, nothing waits for it.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use crate::machine::{BOTH, Machine, ONE};
use crate::support::units::TWO;

/// A unit of this name that somebody else wrote.
fn by_hand(supervisor: &str) -> &'static str {
    match supervisor {
        "launchd" => {
            "<plist version=\"1.0\"><dict><key>Label</key><string>dev.seawall.one</string>\
             <key>ProgramArguments</key><array><string>/bin/own</string></array></dict></plist>"
        }
        _ => "[Service]\nExecStart=/bin/own\n",
    }
}

#[test]
fn a_unit_that_somebody_wrote_is_left_alone_unless_it_is_asked_for() {
    for supervisor in BOTH {
        let machine = Machine::new(supervisor);
        let config = machine.config("servers.toml", TWO);
        let unit = machine.unit("one");
        fs::create_dir_all(machine.folder()).expect("a folder");
        fs::write(&unit, by_hand(supervisor)).expect("written");
        let is_untouched = || fs::read_to_string(&unit).is_ok_and(|text| text == by_hand(supervisor));

        for words in [&["install"][..], &["install", "one"]] {
            let said = machine.fails(&config, words);
            let expected = format!("{} is not seawall's: it starts `/bin/own`", unit.display());
            assert!(said.contains(&expected) && said.contains("`install one --foreign`"), "{said}");
            assert!(is_untouched(), "{supervisor} {words:?}");
            let told = machine.recorder.told();
            assert!(!told.iter().any(|line| line.contains("one")), "{told:?}");
        }
        assert!(machine.unit("nightly").exists(), "the other one can still be had");
        for words in [&["status"][..], &["diff"]] {
            let output = machine.tries(&config, words);
            let said = crate::support::units::text(&output);
            assert!(said.contains("installed, not seawall's: it starts `/bin/own`"), "{said}");
        }
        let said = machine.fails(&config, &["uninstall", "one"]);
        assert!(said.contains("`uninstall one --foreign`") && is_untouched(), "{said}");
        let said = machine.does(&config, &["uninstall"]);
        assert!(said.contains("left alone") && is_untouched(), "{said}");
        assert!(!machine.unit("nightly").exists());

        machine.does(&config, &["install", "one", "--foreign"]);
        assert_eq!(machine.backups(&unit), [by_hand(supervisor)]);
        assert!(machine.tries(&config, &["diff", "one"]).status.success());
        fs::write(&unit, by_hand(supervisor)).expect("written");
        machine.does(&config, &["uninstall", "one", "--foreign"]);
        assert!(!unit.exists());
    }
}

#[test]
fn a_unit_that_starts_another_service_is_not_this_ones() {
    for supervisor in BOTH {
        let machine = Machine::new(supervisor);
        let config = machine.config("servers.toml", TWO);
        machine.does(&config, &["install"]);
        let text = fs::read_to_string(machine.unit("one")).expect("installed");
        let (run, other) = match supervisor {
            "launchd" => ("<string>one</string>", "<string>nightly</string>"),
            _ => (" run one ", " run nightly "),
        };
        fs::write(machine.unit("one"), text.replace(run, other)).expect("written");
        assert!(machine.fails(&config, &["install"]).contains("not seawall's"), "{supervisor}");
    }
}

#[test]
fn a_timer_that_somebody_wrote_is_left_alone() {
    let machine = Machine::new("systemd");
    let config = machine.config("servers.toml", ONE);
    let timer = machine.folder().join("seawall-one.timer");
    let text = "[Timer]\nOnCalendar=hourly\n[Install]\nWantedBy=timers.target\n";
    fs::create_dir_all(machine.folder()).expect("a folder");
    fs::write(&timer, text).expect("written");
    let is_untouched = || fs::read_to_string(&timer).is_ok_and(|now| now == text);
    let said = machine.does(&config, &["install"]);
    assert!(said.contains("a timer that seawall did not write") && is_untouched(), "{said}");
    assert!(machine.unit("one").exists(), "it does not stand in the way");
    assert!(machine.tries(&config, &["diff"]).status.success());
    let told = machine.recorder.told();
    assert!(!told.iter().any(|line| line.contains(".timer")), "{told:?}");
    let said = machine.does(&config, &["uninstall"]);
    assert!(said.contains("left alone") && is_untouched() && !machine.unit("one").exists(), "{said}");

    // Where the service is to have one, it does.
    machine.config("servers.toml", &format!("{ONE}schedule = \"daily 03:30\"\n"));
    let said = machine.fails(&config, &["install"]);
    assert!(said.contains("did not write") && is_untouched() && !machine.unit("one").exists(), "{said}");
    machine.does(&config, &["install", "--foreign"]);
    assert!(!is_untouched() && machine.tries(&config, &["diff"]).status.success());
}

#[test]
fn units_of_a_servers_toml_that_is_not_there_just_now_stay() {
    for supervisor in BOTH {
        let machine = Machine::new(supervisor);
        let (away, here) = (machine.config("disk/servers.toml", ONE), machine.config("here/servers.toml", ONE));
        machine.does(&away, &["install"]);
        let installed = machine.all();
        fs::rename(&away, away.with_extension("unmounted")).expect("moved");
        machine.recorder.told();
        let said = machine.does(&here, &["uninstall"]);
        assert!(said.contains(&format!("of {}, which is gone; left alone", away.display())), "{said}");
        for words in [&["uninstall", "one"][..], &["install"]] {
            let said = machine.fails(&here, words);
            assert!(said.contains("which is gone; left alone") && said.contains("--foreign"), "{said}");
        }
        assert_eq!(machine.all(), installed, "{supervisor}");
        assert_eq!(machine.recorder.told(), [""; 0]);
        machine.does(&here, &["install", "--foreign"]);
        assert!(machine.tries(&here, &["diff"]).status.success());
    }
}

#[test]
fn another_servers_tomls_unit_is_not_replaced_unasked() {
    for supervisor in BOTH {
        let machine = Machine::new(supervisor);
        let (other, mine) = (machine.config("other/servers.toml", ONE), machine.config("mine/servers.toml", ONE));
        machine.does(&other, &["install"]);
        let installed = machine.all();
        let said = machine.fails(&mine, &["install"]);
        assert!(said.contains(&format!("of another servers.toml, {}", other.display())), "{said}");
        assert_eq!(machine.all(), installed, "{supervisor}");
    }
}

#[test]
fn a_job_that_launchd_has_from_elsewhere_is_left_alone() {
    let machine = Machine::new("launchd");
    let config = machine.config("servers.toml", ONE);
    let label = machine.label("one");
    let elsewhere = format!("{label} = {{\n\tpath = /Library/LaunchAgents/own.plist\n}}\n");
    machine.recorder.prints(&label, &elsewhere);
    for words in [&["install"][..], &["uninstall", "one"]] {
        let said = machine.fails(&config, words);
        assert!(said.contains("is loaded from /Library/LaunchAgents/own.plist"), "{said}");
    }
    assert_eq!(machine.recorder.told(), [""; 0]);
    assert_eq!(machine.files(), [""; 0]);
    machine.does(&config, &["install", "--foreign"]);
    let here = format!("{label} = {{\n\tpath = {}\n}}\n", machine.unit("one").display());
    machine.recorder.prints(&label, &here);
    assert!(machine.does(&config, &["install"]).contains("unchanged"));
}

fn pipe(at: &Path) {
    assert!(Command::new("mkfifo").arg(at).status().expect("mkfifo is there").success());
}

#[test]
fn whatever_lies_in_the_place_of_a_unit_nothing_waits_for_it_or_writes_through_it() {
    type Laid = fn(&Path);
    let odd: [(Laid, &str); 5] = [
        (pipe, "is a pipe, and not a file"),
        (|at| symlink("/dev/zero", at).expect("a link"), "is a device, and not a file"),
        (|at| symlink("nowhere/at all", at).expect("a link"), "is a link to nowhere/at all, which is not there"),
        (|at| fs::create_dir(at).expect("a folder"), "is a folder, and not a file"),
        (|at| fs::File::create(at).and_then(|file| file.set_len(1 << 40)).expect("a file"), "is larger than 1024 KiB"),
    ];
    for supervisor in BOTH {
        for (lay, expected) in odd {
            let machine = Machine::new(supervisor);
            let config = machine.config("servers.toml", ONE);
            let unit = machine.unit("one");
            fs::create_dir_all(machine.folder()).expect("a folder");
            lay(&unit);
            for words in [&["status"][..], &["uninstall"]] {
                let said = machine.does(&config, words);
                assert!(said.contains(expected), "{supervisor} {words:?}: {said}");
            }
            for words in [&["diff"][..], &["install"], &["uninstall", "one"]] {
                let said = machine.fails(&config, words);
                assert!(said.contains(expected), "{supervisor} {words:?}: {said}");
            }
            assert!(unit.symlink_metadata().is_ok(), "{supervisor} {expected}");
            if expected.contains("larger") {
                // A copy of it would be as large as it seems.
                continue;
            }
            machine.does(&config, &["install", "--foreign"]);
            assert!(unit.symlink_metadata().expect("installed").is_file(), "{supervisor} {expected}");
            assert!(!machine.home.file("nowhere").exists() && !machine.folder().join("nowhere").exists());
            assert_eq!(machine.backups(&unit).len(), 1, "{supervisor} {expected}");
        }
    }
}

#[test]
fn a_link_to_a_unit_of_ours_is_replaced_and_what_it_leads_to_stays() {
    for supervisor in BOTH {
        let machine = Machine::new(supervisor);
        let config = machine.config("servers.toml", ONE);
        machine.does(&config, &["install"]);
        let (unit, dotfile) = (machine.unit("one"), machine.home.file("dotfile"));
        fs::rename(&unit, &dotfile).expect("moved");
        symlink(&dotfile, &unit).expect("a link");
        assert!(machine.does(&config, &["install"]).contains("unchanged"), "{supervisor}");
        let text = crate::machine::edit(&dotfile);
        machine.does(&config, &["install"]);
        assert!(unit.symlink_metadata().expect("installed").is_file(), "not written through");
        assert_eq!(fs::read_to_string(&dotfile).expect("it stays"), text);

        fs::remove_file(&unit).expect("removed");
        symlink(&dotfile, &unit).expect("a link");
        machine.does(&config, &["uninstall"]);
        assert!(unit.symlink_metadata().is_err() && dotfile.exists(), "{supervisor}");
    }
}
