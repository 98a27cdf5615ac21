//! The services are described to launchd and systemd by text that is generated and that
//! independent parsers accept, and any property list can be checked.

mod support;

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use support::{
    process::run,
    scratch::Scratch,
    units::{seawall, text, tool},
};

const SIX: [&str; 6] = ["gateway", "embedding-server", "file-watcher", "emit-server", "daily-tasks", "weekly-tasks"];
const WITHIN: Duration = Duration::from_secs(60);

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rendered_into(folder: &Path) {
    let words = ["launchd", "render", "--home", "/Users/you", "--program", "/usr/local/bin/seawall", "--out"];
    let folder_word = folder.to_str().expect("UTF-8");
    let output = seawall(&[&words[..], &[folder_word]].concat(), &repository().join("servers.toml"), folder);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_golden_property_lists_are_what_is_rendered() {
    let folder = Scratch::new();
    rendered_into(folder.path());
    for name in SIX {
        let file = format!("dev.seawall.{name}.plist");
        let golden = repository().join("launchd").join(&file);
        let got = fs::read_to_string(folder.file(&file)).expect("rendered");
        if std::env::var("BLESS").is_ok_and(|bless| bless == "1") {
            fs::write(&golden, &got).expect("written");
        }
        assert_eq!(fs::read_to_string(&golden).expect("a golden file"), got, "{file}");
    }
    assert_eq!(fs::read_dir(repository().join("launchd")).expect("a folder").count(), SIX.len());
}

#[test]
fn every_golden_property_list_says_what_launchd_needs() {
    for name in SIX {
        let file = repository().join(format!("launchd/dev.seawall.{name}.plist"));
        let job = plist::Value::from_file(&file).expect("a property list");
        let job = job.as_dictionary().expect("a dictionary");
        let string =
            |key: &str| job.get(key).and_then(plist::Value::as_string).unwrap_or_else(|| panic!("{name}: {key}"));
        let integer = |key: &str| job.get(key).and_then(plist::Value::as_signed_integer);
        assert_eq!(string("Label"), format!("dev.seawall.{name}"));
        assert_eq!(string("ProcessType"), "Background");
        for key in ["WorkingDirectory", "StandardOutPath", "StandardErrorPath"] {
            assert!(string(key).starts_with("/Users/you/"), "{name}: {key}");
        }
        assert!(integer("ThrottleInterval") >= Some(10));
        assert_eq!(integer("ExitTimeOut"), Some(45));
        assert_eq!(job.get("RunAtLoad").and_then(plist::Value::as_boolean), Some(true));
        let arguments = job.get("ProgramArguments").and_then(plist::Value::as_array).expect("arguments");
        let config = "/Users/you/.config/seawall/servers.toml";
        let expected = ["/usr/local/bin/seawall", "run", name, "--config", config];
        assert_eq!(*arguments, expected.map(plist::Value::from));
        let path = job.get("EnvironmentVariables").and_then(plist::Value::as_dictionary).expect("a dictionary");
        let path = path.get("PATH").and_then(plist::Value::as_string).expect("PATH");
        for folder in ["/opt/homebrew/bin", "/usr/local/bin", "/Users/you/.local/bin", "/usr/bin"] {
            assert!(path.split(':').any(|one| one == folder), "{folder} is not on {path}");
        }
        let keep_alive = job.get("KeepAlive").and_then(plist::Value::as_dictionary);
        let calendar = job.get("StartCalendarInterval").and_then(plist::Value::as_dictionary);
        if name.ends_with("-tasks") {
            assert!(keep_alive.is_none() && !job.contains_key("KeepAlive"), "{name}");
            let calendar = calendar.expect("a calendar");
            let at = |key: &str| calendar.get(key).and_then(plist::Value::as_signed_integer);
            let expected = match name {
                "daily-tasks" => [None, Some(3), Some(30)],
                _ => [Some(0), Some(4), Some(0)],
            };
            assert_eq!(["Weekday", "Hour", "Minute"].map(at), expected, "{name}");
        } else {
            let successful = keep_alive.and_then(|conditions| conditions.get("SuccessfulExit"));
            assert_eq!(successful.and_then(plist::Value::as_boolean), Some(false), "{name}");
            assert!(calendar.is_none(), "{name}");
        }
    }
}

#[test]
fn hostile_names_and_paths_survive_the_way_through_a_parser() {
    let folder = Scratch::new();
    let home = "/Users/a & <b> \"c\" 'd' ü";
    let config = folder.write("servers.toml", "[services.one]\ncommand = [\"x\"]\nschedule = \"every 15m\"\n");
    let output =
        seawall(&["launchd", "render", "--home", home, "--program", "/opt/a&b/seawall"], &config, folder.path());
    let job = plist::Value::from_reader(Cursor::new(&output.stdout)).expect("a property list");
    let job = job.as_dictionary().expect("a dictionary");
    let arguments = job.get("ProgramArguments").and_then(plist::Value::as_array).expect("arguments");
    assert_eq!(arguments[0].as_string(), Some("/opt/a&b/seawall"));
    assert_eq!(
        job.get("WorkingDirectory").and_then(plist::Value::as_string),
        Some(format!("{home}/.config/seawall").as_str())
    );
    assert_eq!(job.get("StartInterval").and_then(plist::Value::as_signed_integer), Some(900));
}

#[test]
fn an_independent_parser_reads_the_same() {
    if !tool("plistutil") {
        return;
    }
    let folder = Scratch::new();
    for name in SIX {
        let golden = repository().join(format!("launchd/dev.seawall.{name}.plist"));
        let binary = folder.file("binary");
        let mut command = Command::new("plistutil");
        command.args(["-f", "bin", "-i"]).arg(&golden).arg("-o").arg(&binary);
        let output = run(command, WITHIN);
        assert!(output.status.success(), "{name}: {}", text(&output));
        let theirs = plist::Value::from_file(&binary).expect("a binary property list");
        assert_eq!(theirs, plist::Value::from_file(&golden).expect("ours"), "{name}");
        // And what it writes is read here.
        let theirs = folder.file(&format!("dev.seawall.{name}.plist"));
        fs::rename(&binary, &theirs).expect("renamed");
        let words = ["launchd", "lint", theirs.to_str().expect("UTF-8")];
        let output = seawall(&words, &repository().join("servers.toml"), folder.path());
        assert!(output.status.success() && !text(&output).contains("error"), "{}", text(&output));
    }
}

#[test]
fn npx_and_uvx_are_found_where_they_are_now() {
    let home = Scratch::new();
    for name in ["odd place/bin/npx", "tools/uvx"] {
        home.write(name, "");
    }
    let config = home.write("servers.toml", "[services.one]\ncommand = [\"x\"]\n");
    let folders = ["odd place/bin", "tools"].map(|folder| home.file(folder).display().to_string()).join(":");
    for supervisor in ["launchd", "systemd"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.args([supervisor, "render", "--config"]).arg(&config).env("HOME", home.path()).env("USER", "you");
        command.env("PATH", format!("relative:{folders}:/usr/bin:/bin"));
        let said = text(&run(command, WITHIN));
        let expected = format!("{folders}:{}/.local/bin:", home.path().display());
        assert!(said.contains(&expected) && !said.contains("relative"), "{expected}: {said}");
    }
}

#[test]
fn systemd_itself_finds_nothing_wrong() {
    if !tool("systemd-analyze") {
        return;
    }
    let home = Scratch::new();
    for words in [&["systemd", "lint", "--strict"][..], &["systemd", "lint", "--strict", "--daemon"]] {
        let output = seawall(words, &repository().join("servers.toml"), home.path());
        assert!(output.status.success(), "{words:?}: {}", text(&output));
    }
    // It would have found something.
    let program = home.write("program", "no program");
    let program = program.to_str().expect("UTF-8");
    for words in [&["systemd", "lint", "--program", program][..], &["systemd", "install", "--program", program]] {
        let wrong = seawall(words, &repository().join("servers.toml"), home.path());
        assert_eq!(wrong.status.code(), Some(1), "{words:?}: {}", text(&wrong));
        assert!(text(&wrong).contains("not executable"), "{words:?}: {}", text(&wrong));
    }
    assert!(!home.file(".config").exists());
}

#[test]
fn a_schedule_becomes_a_timer_and_a_service_that_restarts_has_bounds() {
    let home = Scratch::new();
    let render = |version| {
        let words = ["systemd", "render", "--systemd-version", version];
        text(&seawall(&words, &repository().join("servers.toml"), home.path()))
    };
    let new = render("256");
    for part in [
        "OnCalendar=*-*-* 03:30:00\nPersistent=true",
        "OnCalendar=Sun *-*-* 04:00:00",
        "TimeoutStopSec=45",
        "Restart=on-failure\nRestartSec=1\nRestartSteps=6\nRestartMaxDelaySec=60",
        "StartLimitIntervalSec=0",
        "WantedBy=timers.target",
    ] {
        assert!(new.contains(part), "{part} is missing in\n{new}");
    }
    assert!(
        !render("252").contains("RestartMaxDelaySec"),
        "ignored without RestartSteps, which this one does not know"
    );
}

#[test]
fn a_unit_is_never_written_for_a_relative_path() {
    let home = Scratch::new();
    let config = repository().join("servers.toml");
    for supervisor in ["launchd", "systemd"] {
        for action in ["render", "lint", "diff", "install", "uninstall", "status"] {
            for flag in ["--home", "--program"] {
                let output = seawall(&[supervisor, action, flag, "some/where"], &config, home.path());
                let said = text(&output);
                assert_eq!(output.status.code(), Some(2), "{supervisor} {action} {flag}: {said}");
                assert!(said.contains("relative path") && said.contains(flag), "{said}");
            }
        }
    }
}

#[test]
fn a_program_that_this_machine_lacks_is_a_warning_and_strict_makes_it_an_error() {
    let home = Scratch::new();
    for supervisor in ["launchd", "systemd"] {
        let words = [supervisor, "lint", "--program", "/no/such/seawall", "--strict"];
        let output = seawall(&words[..4], &repository().join("servers.toml"), home.path());
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("warning: ") && text(&output).contains("/no/such/seawall does not exist"));
        let output = seawall(&words, &repository().join("servers.toml"), home.path());
        assert_eq!(output.status.code(), Some(1), "{supervisor}: {}", text(&output));
    }
}

#[test]
fn status_says_where_there_is_no_such_supervisor() {
    let home = Scratch::new();
    for (supervisor, flag) in [("launchd", "--launchctl"), ("systemd", "--systemctl")] {
        let words = [supervisor, flag, "/no/such/program", "status"];
        let output = seawall(&words, &repository().join("servers.toml"), home.path());
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains(&format!("there is no {} here", flag.trim_start_matches('-'))));
    }
}

#[test]
fn a_variable_that_the_unit_will_not_have_is_found_and_its_value_written_nowhere() {
    let folder = Scratch::new();
    let config = folder.write(
        "servers.toml",
        "[services.one]\ncommand = [\"x\"]\nenv = { A = \"${MY_TOKEN}\", B = \"${HOME}\", C = \"${MAYBE:-x}\" }\n",
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command
        .args(["launchd", "lint", "--config"])
        .arg(&config)
        .env("MY_TOKEN", "s3cret-value")
        .env("HOME", folder.path());
    let output = run(command, WITHIN);
    let said = text(&output);
    assert!(!output.status.success() && said.contains("MY_TOKEN") && said.contains("services.one"), "{said}");
    assert!(!said.contains("HOME"), "a unit has it: {said}");
    assert!(!said.contains("MAYBE") && !said.contains("s3cret-value"), "{said}");
    for supervisor in ["launchd", "systemd"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.args([supervisor, "render", "--config"]).arg(&config);
        command.env("MY_TOKEN", "s3cret-value").env("HOME", folder.path());
        let said = text(&run(command, WITHIN));
        assert!(said.contains("seawall.one") || said.contains("seawall-one"), "{said}");
        assert!(!said.contains("s3cret-value") && !said.contains("MY_TOKEN"), "{said}");
    }
}

/// The variables that a unit lacks, of those named, as lint says it.
fn lacking(words: &[&str], names: &[&str]) -> Vec<String> {
    let folder = Scratch::new();
    let services = names.iter().map(|name| {
        let service = name.to_lowercase().replace('_', "-");
        format!("[services.{service}]\ncommand = [\"x\"]\nenv = {{ A = \"${{{name}}}\" }}\n")
    });
    let config = folder.write("servers.toml", &services.collect::<String>());
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(words).arg("--config").arg(config).envs(names.iter().map(|name| (name, "here")));
    command.env("HOME", folder.path()).env("USER", "you");
    let said = text(&run(command, WITHIN));
    let is_named = |name: &&&str| said.contains(&format!("services.{}:", name.to_lowercase().replace('_', "-")));
    names.iter().filter(is_named).map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_unit_has_the_variables_that_its_supervisor_gives_and_no_others() {
    let names = ["PATH", "LOGNAME", "SHELL", "TMPDIR", "XDG_RUNTIME_DIR", "LANG"];
    assert_eq!(lacking(&["launchd", "lint"], &names), ["XDG_RUNTIME_DIR", "LANG"]);
    assert_eq!(lacking(&["launchd", "lint", "--daemon"], &names), ["SHELL", "TMPDIR", "XDG_RUNTIME_DIR", "LANG"]);
    assert_eq!(lacking(&["systemd", "lint"], &names), ["TMPDIR", "LANG"]);
    assert_eq!(lacking(&["systemd", "lint", "--daemon"], &names), ["TMPDIR", "XDG_RUNTIME_DIR", "LANG"]);
}
