//! An install puts units in place once and without loss, refuses what cannot work before it
//! touches anything, and finds again what it once put there.

mod support;

#[path = "installs/dry_run.rs"]
mod dry_run;
#[path = "installs/finished.rs"]
mod finished;
#[path = "installs/foreign.rs"]
mod foreign;
#[path = "installs/machine.rs"]
mod machine;

use std::{fs, os::unix::fs::MetadataExt as _};

use machine::{BOTH, Machine, ONE, edit};
use support::{
    scratch::Scratch,
    units::{Recorder, TWO, seawall, text},
};

#[test]
fn an_install_under_launchd_is_done_once_and_loses_nothing() {
    let home = Scratch::new();
    let config = home.write("servers.toml", TWO);
    let recorder = Recorder::new();
    let launchctl = recorder.program();
    let does = |words: &[&str]| {
        let output = seawall(&[&["launchd", "--launchctl", &launchctl], words].concat(), &config, home.path());
        assert!(output.status.success(), "{words:?}: {}", text(&output));
        text(&output)
    };
    let agents = home.file("Library/LaunchAgents");

    let said = does(&["install", "--dry-run"]);
    assert!(said.contains("would write") && said.contains("bootstrap"), "{said}");
    assert!(recorder.told().is_empty() && !agents.exists(), "a dry run does nothing");

    does(&["install"]);
    let told = recorder.told();
    let uid = rustix::process::getuid().as_raw();
    let plist = |name: &str| agents.join(format!("dev.seawall.{name}.plist"));
    let bootstrap = |name: &str| format!("bootstrap gui/{uid} {}", plist(name).display());
    assert_eq!(
        told,
        [
            format!("enable gui/{uid}/dev.seawall.one"),
            bootstrap("one"),
            format!("kickstart gui/{uid}/dev.seawall.one"),
            format!("enable gui/{uid}/dev.seawall.nightly"),
            bootstrap("nightly"),
        ]
    );
    assert!(home.file("Library/Logs/seawall").is_dir());

    assert!(does(&["install"]).contains("unchanged"));
    assert!(recorder.told().is_empty(), "a second install has nothing to do");
    does(&["install", "--restart", "one"]);
    assert_eq!(recorder.told(), [format!("kickstart -k gui/{uid}/dev.seawall.one")]);

    // Edited by hand: the edit is kept beside, and shown before.
    edit(&plist("one"));
    let differs = seawall(&["launchd", "diff"], &config, home.path());
    assert_eq!(differs.status.code(), Some(1));
    assert!(text(&differs).contains("edited by hand"));
    does(&["install"]);
    assert_eq!(recorder.told()[0], format!("bootout gui/{uid}/dev.seawall.one"));
    let backups: Vec<_> = fs::read_dir(&agents)
        .expect("a folder")
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().contains(".backup-"))
        .collect();
    assert_eq!(backups.len(), 1);
    assert!(fs::read_to_string(backups[0].path()).expect("a backup").contains("edited by hand"));
    assert!(seawall(&["launchd", "diff"], &config, home.path()).status.success());

    let said = does(&["status"]);
    assert!(said.contains("dev.seawall.one") && said.contains("waiting for its time"), "{said}");
    does(&["uninstall"]);
    assert_eq!(recorder.told().len(), 2);
    assert!(!plist("one").exists() && !plist("nightly").exists());
    assert!(does(&["uninstall"]).contains("not installed"));
}

#[test]
fn a_daemon_starts_at_boot_as_its_user() {
    let home = Scratch::new();
    let config = home.write("servers.toml", TWO);
    let recorder = Recorder::new();
    let folder = home.file("LaunchDaemons");
    let words = [
        "launchd",
        "--launchctl",
        &recorder.program(),
        "install",
        "one",
        "--daemon",
        "--user",
        "ada",
        "--folder",
        folder.to_str().expect("UTF-8"),
    ];
    let output = seawall(&words, &config, home.path());
    assert!(output.status.success(), "{}", text(&output));
    let plist = fs::read_to_string(folder.join("dev.seawall.one.plist")).expect("written");
    assert!(plist.contains("<key>UserName</key>\n  <string>ada</string>"), "{plist}");
    assert!(recorder.told().iter().any(|line| line.starts_with("bootstrap system ")));
}

#[test]
fn an_install_under_systemd_is_done_once_and_tells_of_lingering() {
    let home = Scratch::new();
    let config = home.write("servers.toml", TWO);
    let recorder = Recorder::new();
    let program = recorder.program();
    let does = |words: &[&str]| {
        let output = seawall(
            &[&["systemd", "--systemctl", &program, "--loginctl", &program], words].concat(),
            &config,
            home.path(),
        );
        assert!(output.status.success(), "{words:?}: {}", text(&output));
        text(&output)
    };
    assert!(does(&["install", "--dry-run"]).contains("would write"));
    assert!(recorder.told().is_empty());
    let said = does(&["install"]);
    assert!(said.contains("lingering is off for you"), "{said}");
    let enabled = [
        "--user daemon-reload",
        "--user enable --now seawall-one.service",
        "--user enable --now seawall-nightly.timer",
    ];
    assert_eq!(recorder.told(), enabled);
    let units = home.file(".config/systemd/user");
    assert!(units.join("seawall-nightly.timer").exists() && units.join("seawall-nightly.service").exists());
    does(&["install"]);
    assert!(recorder.told().is_empty(), "a second install has nothing to do");
    does(&["install", "--restart"]);
    assert_eq!(recorder.told(), ["--user restart seawall-one.service", "--user restart seawall-nightly.timer"]);
    let service = fs::read_to_string(units.join("seawall-one.service")).expect("installed");
    assert!(service.contains("[Install]\nWantedBy=default.target\n"), "it starts at login: {service}");
    does(&["uninstall"]);
    assert_eq!(recorder.told().len(), 3);
    assert!(!units.join("seawall-one.service").exists());
}

#[test]
fn a_unit_whose_service_is_gone_is_shown_and_can_be_uninstalled() {
    for supervisor in BOTH {
        let machine = Machine::new(supervisor);
        let config = machine.config("servers.toml", TWO);
        machine.does(&config, &["install"]);
        assert!(machine.tries(&config, &["diff"]).status.success());
        machine.config("servers.toml", ONE);

        let left = machine.label("nightly");
        let said = machine.fails(&config, &["diff"]);
        assert!(said.contains(&format!("{left}: installed, no longer in servers.toml")), "{said}");
        let is_left = |line: &str| line.starts_with(&left) && line.contains("no longer in servers.toml");
        for words in [&["status"][..], &["install"], &["status", "nightly"]] {
            let said = machine.does(&config, words);
            assert!(said.lines().any(is_left), "{supervisor} {words:?}: {said}");
        }
        assert!(!machine.does(&config, &["status", "one"]).contains("nightly"), "it was not asked for");
        assert!(machine.does(&config, &["diff", "one"]).is_empty());

        machine.recorder.told();
        let said = machine.does(&config, &["uninstall", "nightly", "--dry-run"]);
        assert!(said.contains("would remove") && machine.recorder.told().is_empty(), "{said}");
        machine.does(&config, &["uninstall", "nightly"]);
        let told = machine.recorder.told().join("\n");
        assert!(told.contains("nightly") && !told.contains("one"), "{told}");
        assert!(machine.files().iter().all(|file| file.contains("one")), "{:?}", machine.files());
        assert!(machine.tries(&config, &["diff"]).status.success());
        let said = machine.fails(&config, &["uninstall", "nightly"]);
        assert!(said.contains("there is no [services.nightly]"), "{said}");
    }
}

#[test]
fn an_uninstall_of_all_takes_what_is_left_of_this_servers_toml_along() {
    for supervisor in BOTH {
        let machine = Machine::new(supervisor);
        let config = machine.config("servers.toml", TWO);
        machine.does(&config, &["install"]);
        // Nothing at all is described any more.
        machine.config("servers.toml", "");
        assert!(machine.does(&config, &["status"]).contains("no longer in servers.toml"));
        machine.does(&config, &["uninstall"]);
        assert_eq!(machine.files(), [""; 0], "{supervisor}");
        let said = machine.fails(&config, &["uninstall"]);
        assert!(said.contains("has no [services.NAME]"), "{said}");
    }
}

#[test]
fn units_of_others_are_not_touched() {
    for supervisor in BOTH {
        let machine = Machine::new(supervisor);
        let (mine, other) = (machine.config("mine/servers.toml", ONE), machine.config("other/servers.toml", TWO));
        machine.does(&mine, &["install"]);
        machine.does(&other, &["install", "nightly"]);
        // Of its name, and no unit of seawall's.
        let name = if supervisor == "launchd" { "dev.seawall.own.plist" } else { "seawall-own.service" };
        let own = match supervisor {
            "launchd" => {
                "<plist version=\"1.0\"><dict><key>Label</key><string>dev.seawall.own</string>\
                 <key>ProgramArguments</key><array><string>/bin/x</string></array></dict></plist>"
            }
            _ => "[Service]\nExecStart=/bin/x\n",
        };
        fs::write(machine.folder().join(name), own).expect("written");

        let said = machine.does(&mine, &["status"]);
        assert!(said.contains(&format!("of another servers.toml, {}", other.display())), "{said}");
        assert!(!said.contains("own"), "{said}");
        assert!(machine.does(&mine, &["diff"]).is_empty());
        let said = machine.fails(&mine, &["uninstall", "nightly"]);
        assert!(said.contains(&format!("add `--config {}`", other.display())), "{said}");
        machine.fails(&mine, &["uninstall", "own"]);
        machine.does(&mine, &["uninstall"]);
        assert!(machine.files().iter().any(|file| file.contains("nightly")), "{:?}", machine.files());
        assert!(machine.files().iter().any(|file| file.contains("own")));

        // A service of the same name makes it no less the other one's.
        let same = machine.config("same/servers.toml", TWO);
        assert!(machine.does(&same, &["status", "nightly"]).contains("of another servers.toml"));
        assert!(machine.fails(&same, &["uninstall", "nightly"]).contains("add `--config"));
        assert!(machine.does(&same, &["uninstall"]).contains("of another servers.toml"));
        assert!(machine.files().iter().any(|file| file.contains("nightly")), "{:?}", machine.files());

        // Where the other one is gone, somebody has to be able to.
        fs::remove_file(&other).expect("removed");
        assert!(machine.does(&mine, &["status"]).contains("which is gone"));
        machine.does(&mine, &["uninstall", "nightly"]);
        assert!(!machine.files().iter().any(|file| file.contains("nightly")), "{:?}", machine.files());
    }
}

#[test]
fn an_install_refuses_what_lint_calls_wrong_before_it_touches_anything() {
    for supervisor in BOTH {
        let machine = Machine::new(supervisor);
        let with =
            format!("{ONE}[services.two]\ncommand = [\"x\"]\nenv = {{ A = \"${{NO_SUCH_TOKEN:-}}${{LANG}}\" }}\n");
        let config = machine.config("servers.toml", &with);
        let program = machine.recorder.program();
        let tools: &[&str] = match supervisor {
            "launchd" => &["launchd", "--launchctl", &program],
            _ => &["systemd", "--systemctl", &program, "--loginctl", &program],
        };
        for words in [&["install"][..], &["install", "--dry-run"]] {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_seawall"));
            command.args(tools).args(words).arg("--config").arg(&config);
            // In this shell it is there.
            command.env("HOME", machine.home.path()).env("USER", "you").env("LANG", "C");
            let output = support::process::run(command, std::time::Duration::from_secs(60));
            let said = text(&output);
            assert_eq!(output.status.code(), Some(1), "{supervisor} {words:?}: {said}");
            assert!(said.contains("servers.toml: error: services.two") && said.contains("LANG"), "{said}");
            assert!(said.contains("nothing was installed: see the errors of servers.toml above"), "{said}");
            assert_eq!(machine.recorder.told(), [""; 0]);
            assert!(!machine.folder().exists() && !machine.home.file("Library").exists());
        }
        // What it has nothing to do with can be had.
        machine.does(&config, &["install", "one"]);
        assert!(machine.files().iter().all(|file| file.contains("one")), "{:?}", machine.files());
    }
}

#[test]
fn an_install_goes_on_after_warnings() {
    for supervisor in BOTH {
        let machine = Machine::new(supervisor);
        let config = machine.config("servers.toml", ONE);
        let said = machine.does(&config, &["install", "--program", "/no/such/seawall"]);
        assert!(said.contains("warning") && said.contains("/no/such/seawall does not exist"), "{said}");
        assert!(!machine.files().is_empty());
    }
}

#[test]
fn what_is_changed_or_removed_stays_as_a_backup() {
    for supervisor in BOTH {
        let machine = Machine::new(supervisor);
        let config = machine.config("servers.toml", ONE);
        machine.does(&config, &["install"]);
        let file = machine.folder().join(&machine.files()[0]);
        let edited = edit(&file);
        machine.does(&config, &["install"]);
        let installed = fs::read_to_string(&file).expect("installed");
        machine.does(&config, &["uninstall"]);
        let backups = fs::read_dir(machine.folder()).expect("a folder").flatten();
        let mut kept: Vec<String> =
            backups.map(|backup| fs::read_to_string(backup.path()).expect("readable")).collect();
        kept.sort();
        let mut expected = vec![edited, installed];
        expected.sort();
        assert_eq!(kept, expected, "{supervisor}");
    }
}

#[test]
fn a_job_that_is_still_going_away_is_waited_for() {
    let machine = Machine::new("launchd");
    let config = machine.config("servers.toml", ONE);
    machine.recorder.refuse_once();
    machine.does(&config, &["install"]);
    let told = machine.recorder.told();
    assert_eq!(told.iter().filter(|line| line.starts_with("bootstrap ")).count(), 2, "{told:?}");
}

#[test]
fn a_service_that_gets_or_loses_its_schedule_leaves_nothing_behind() {
    let machine = Machine::new("systemd");
    let config = machine.config("servers.toml", TWO);
    machine.does(&config, &["install"]);
    machine.config("servers.toml", &TWO.replace("schedule = \"daily 03:30\"\n", ""));
    assert!(machine.fails(&config, &["diff"]).contains("seawall-nightly.timer: installed, and its service has no"));
    let said = machine.does(&config, &["status"]);
    let differs = |line: &str| line.starts_with("seawall-nightly.service ") && line.contains("installed, differs");
    assert!(said.lines().any(differs), "{said}");
    machine.recorder.told();
    machine.does(&config, &["install"]);
    assert!(machine.recorder.told().contains(&"--user disable --now seawall-nightly.timer".to_owned()));
    assert_eq!(machine.files(), ["seawall-nightly.service", "seawall-one.service"]);
    assert!(machine.tries(&config, &["diff"]).status.success());

    machine.config("servers.toml", TWO);
    machine.does(&config, &["install"]);
    let told = machine.recorder.told();
    assert!(told.contains(&"--user disable --now seawall-nightly.service".to_owned()), "{told:?}");
    assert!(told.contains(&"--user enable --now seawall-nightly.timer".to_owned()), "{told:?}");
}

#[test]
fn lingering_is_told_of_where_it_is_not_on() {
    let machine = Machine::new("systemd");
    let config = machine.config("servers.toml", ONE);
    machine.recorder.linger("Linger=yes\n");
    assert!(!machine.does(&config, &["install"]).contains("linger"));
    machine.recorder.linger("Linger=no\n");
    assert!(machine.does(&config, &["install"]).contains("lingering is off for you"));
    machine.recorder.linger("");
    assert!(machine.does(&config, &["install"]).contains("loginctl does not say whether lingering is on for you"));
}

#[test]
fn the_folder_that_a_daemon_writes_its_log_to_is_its_own() {
    let machine = Machine::new("launchd");
    let config = machine.config("servers.toml", ONE);
    let (folder, home) = (machine.home.file("LaunchDaemons"), machine.home.file("home/of-nobody"));
    let words = ["install", "--daemon", "--user", "nobody", "--home", home.to_str().expect("UTF-8")];
    machine.does(&config, &[&words[..], &["--folder", folder.to_str().expect("UTF-8")]].concat());
    let ours = machine.home.path().metadata().expect("it is there").uid();
    let said = std::process::Command::new("id").args(["-u", "nobody"]).output().expect("id is there").stdout;
    let theirs = String::from_utf8_lossy(&said).trim().parse::<u32>().expect("a number");
    // Only root can give anything to somebody else.
    let expected = if ours == 0 { theirs } else { ours };
    for made in ["home/of-nobody", "home/of-nobody/Library/Logs", "home/of-nobody/Library/Logs/seawall"] {
        assert_eq!(machine.home.file(made).metadata().expect("it was made").uid(), expected, "{made}");
    }
    assert_eq!(machine.home.path().metadata().expect("it is there").uid(), ours, "it was there before");
}

#[test]
fn daemons_go_where_the_machine_starts_them_at_boot() {
    let machine = Machine::new("launchd");
    let config = machine.config("servers.toml", ONE);
    let said = machine.does(&config, &["install", "--daemon", "--user", "ada", "--dry-run"]);
    assert!(said.contains("would write /Library/LaunchDaemons/dev.seawall.one.plist"), "{said}");
    assert!(said.contains("bootstrap system /Library/LaunchDaemons/dev.seawall.one.plist"), "{said}");
    let list = machine.does(&config, &["render", "--daemon", "--user", "root"]);
    for part in [
        "<key>UserName</key>\n  <string>root</string>",
        "<key>HOME</key>\n    <string>/root</string>",
        "<key>LOGNAME</key>\n    <string>root</string>",
        "<key>USER</key>\n    <string>root</string>",
        "<key>RunAtLoad</key>\n  <true/>",
        "<string>/root/Library/Logs/seawall/one.log</string>",
    ] {
        assert!(list.contains(part), "{part} is missing in {list}");
    }

    let machine = Machine::new("systemd");
    let config = machine.config("servers.toml", ONE);
    let said = machine.does(&config, &["install", "--daemon", "--user", "ada", "--dry-run"]);
    assert!(said.contains("would write /etc/systemd/system/seawall-one.service"), "{said}");
    assert!(said.contains(" enable --now seawall-one.service") && !said.contains("--user"), "{said}");
    assert!(!said.contains("linger"), "{said}");
    let unit = machine.does(&config, &["render", "--daemon", "--user", "ada"]);
    assert!(unit.contains("User=ada\n") && unit.contains("WantedBy=multi-user.target"), "{unit}");
}
