//! The services are described to launchd and systemd by text that is generated, that
//! independent parsers accept, and that an install puts in place once and without loss.

mod support;

use std::{
    fs,
    io::Cursor,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use support::{process::run, scratch::Scratch};

const SIX: [&str; 6] = ["gateway", "embedding-server", "file-watcher", "emit-server", "daily-tasks", "weekly-tasks"];
const WITHIN: Duration = Duration::from_secs(60);

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `seawall WORDS`, with a home of its own and no variables of this shell.
fn seawall(words: &[&str], config: &Path, home: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(words).arg("--config").arg(config).current_dir(home);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home).env("USER", "you");
    run(command, WITHIN)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn rendered_into(folder: &Path) {
    let words = ["launchd", "render", "--home", "/Users/you", "--program", "/usr/local/bin/seawall", "--out"];
    let folder_word = folder.to_str().expect("UTF-8");
    let output = seawall(&[&words[..], &[folder_word]].concat(), &repository().join("servers.toml"), folder);
    assert!(output.status.success(), "{}", text(&output));
}

/// A program of the machine that a test cannot do without. Said in one line where it is
/// missing; in CI that is a failure.
fn tool(name: &str) -> bool {
    let there =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(name).is_file());
    if !there {
        assert!(std::env::var_os("CI").is_none(), "{name} is not installed, and CI must have it");
        eprintln!("skipped: {name} is not installed");
    }
    there
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
        assert_eq!(arguments[..3], ["/usr/local/bin/seawall", "run", name].map(plist::Value::from));
        let path = job.get("EnvironmentVariables").and_then(plist::Value::as_dictionary).expect("a dictionary");
        let path = path.get("PATH").and_then(plist::Value::as_string).expect("PATH");
        for folder in ["/opt/homebrew/bin", "/usr/local/bin", "/Users/you/.local/bin", "/usr/bin"] {
            assert!(path.split(':').any(|one| one == folder), "{folder} is not on {path}");
        }
        let keep_alive = job.get("KeepAlive").and_then(plist::Value::as_dictionary);
        let calendar = job.get("StartCalendarInterval").and_then(plist::Value::as_dictionary);
        if name.ends_with("-tasks") {
            assert!(keep_alive.is_none() && calendar.is_some(), "{name}");
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
    let wrong =
        seawall(&["systemd", "lint", "--systemd-version", "9999"], &repository().join("servers.toml"), home.path());
    assert!(wrong.status.success() || text(&wrong).contains("RestartSteps"), "{}", text(&wrong));
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

/// What a lint of one text says.
fn lint(body: &str, name: &str, strict: bool) -> (bool, String) {
    let folder = Scratch::new();
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\">\n";
    let file = folder.write(name, &format!("{head}<dict>\n{body}\n</dict>\n</plist>\n"));
    let words = ["launchd", "lint", file.to_str().expect("UTF-8"), "--strict"];
    let output = seawall(if strict { &words } else { &words[..3] }, &repository().join("servers.toml"), folder.path());
    (output.status.success(), text(&output))
}

const SOUND: &str = "<key>Label</key><string>com.example.job</string>
    <key>ProgramArguments</key><array><string>/bin/sh</string></array>";

#[test]
fn lint_finds_what_launchd_would_silently_ignore() {
    for (body, expected) in [
        ("<key>ExitTimeout</key><integer>45</integer>", "did you mean ExitTimeOut?"),
        ("<key>KeepAlive</key><dict><key>SuccesfulExit</key><false/></dict>", "did you mean SuccessfulExit?"),
        ("<key>RunAtload</key><true/>", "did you mean RunAtLoad?"),
        ("<key>Flavour</key><string>x</string>", "is no key of launchd"),
        ("<key>RunAtLoad</key><string>true</string>", "is a <string>, and launchd wants <true/> or <false/>"),
        ("<key>ExitTimeOut</key><string>45</string>", "launchd wants an <integer>"),
        ("<key>ThrottleInterval</key><integer>5</integer>", "never starts a job twice within 10 seconds"),
        (
            "<key>StartInterval</key><integer>600</integer><key>KeepAlive</key><true/>",
            "KeepAlive: on a job with a schedule",
        ),
        ("<key>StartCalendarInterval</key><dict><key>Hour</key><integer>24</integer></dict>", "write 0 to 23"),
        ("<key>StartCalendarInterval</key><dict><key>Weekday</key><string>Mon</string></dict>", "wants an <integer>"),
        ("<key>StandardOutPath</key><string>~/x.log</string>", "begins with \"~\""),
        ("<key>StandardErrorPath</key><string>logs/x.log</string>", "is a relative path"),
        ("<key>WorkingDirectory</key><string>${HOME}/x</string>", "launchd expands no variables"),
        ("<key>EnvironmentVariables</key><dict><key>PATH</key><string>/x:$PATH</string></dict>", "is not expanded"),
        ("<key>EnvironmentVariables</key><dict><key>N</key><integer>1</integer></dict>", "is no string"),
        ("<key>StandardOutPath</key><string>/tmp/a & b.log</string>", "write &amp; for an ampersand"),
    ] {
        let (passed, said) = lint(&format!("{SOUND}{body}"), "com.example.job.plist", false);
        assert!(!passed && said.contains(expected), "{body}: {said}");
    }
    let (passed, said) = lint(SOUND, "com.example.other.plist", false);
    assert!(!passed && said.contains("name it com.example.job.plist"), "{said}");
    let (passed, said) = lint("<key>Label</key><string>com.example.job</string>", "com.example.job.plist", false);
    assert!(!passed && said.contains("there is nothing to run"), "{said}");
    let (passed, said) = lint(SOUND, "com.example.job.plist", true);
    assert!(passed && said.is_empty(), "{said}");
}

#[test]
fn what_this_machine_lacks_is_a_warning_and_strict_makes_it_an_error() {
    let body = "<key>Label</key><string>com.example.job</string>
        <key>ProgramArguments</key><array><string>/no/such/program</string></array>
        <key>StandardOutPath</key><string>/no/such/folder/x.log</string>";
    let (passed, said) = lint(body, "com.example.job.plist", false);
    assert!(
        passed && said.contains("/no/such/program does not exist") && said.contains("/no/such/folder does"),
        "{said}"
    );
    assert!(!lint(body, "com.example.job.plist", true).0);
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
    assert!(!said.contains("MAYBE") && !said.contains("s3cret-value"), "{said}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command
        .args(["launchd", "render", "--config"])
        .arg(&config)
        .env("MY_TOKEN", "s3cret-value")
        .env("HOME", folder.path());
    assert!(!text(&run(command, WITHIN)).contains("s3cret-value"));
}

/// Stands in for launchctl or systemctl: writes down what it is told, and remembers
/// what is loaded.
struct Recorder {
    folder: Scratch,
}

impl Recorder {
    fn new() -> Self {
        let folder = Scratch::new();
        let loaded = folder.file("loaded");
        fs::create_dir(&loaded).expect("a folder");
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> '{log}'\ncd '{loaded}' || exit 9\n[ \"$1\" = --user ] && shift\ncase \"$1\" in\n\
             print) test -e \"$(basename \"$2\")\" ;;\n\
             bootstrap) touch \"$(basename \"$3\" .plist)\" ;;\n\
             bootout) rm \"$(basename \"$2\")\" ;;\n\
             is-enabled|is-active) test -e \"$2\" ;;\n\
             enable) [ $# -lt 3 ] || touch \"$3\" ;;\n\
             disable) rm \"$3\" ;;\n\
             show-user) echo Linger=no ;;\n\
             --version) echo 'systemd 256 (256)' ;;\nesac\n",
            log = folder.file("log").display(),
            loaded = loaded.display(),
        );
        let program = folder.write("recorder", &script);
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("executable");
        Recorder { folder }
    }

    fn program(&self) -> String {
        self.folder.file("recorder").to_str().expect("UTF-8").to_owned()
    }

    /// What it was told since the last time, questions left out.
    fn told(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.file("log")).unwrap_or_default();
        let _ = fs::remove_file(self.folder.file("log"));
        let question =
            |line: &&str| !["print", "is-", "show-user", "--version", "--user is-"].iter().any(|q| line.starts_with(q));
        log.lines().filter(question).map(str::to_owned).collect()
    }
}

const TWO: &str = "[services.one]\ncommand = [\"sleep\", \"9\"]\n[services.nightly]\ncommand = [\"true\"]\nschedule = \"daily 03:30\"\n";

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
    fs::write(plist("one"), "edited by hand").expect("written");
    let differs = seawall(&["launchd", "diff"], &config, home.path());
    assert_eq!(differs.status.code(), Some(1));
    assert!(text(&differs).contains("- edited by hand"));
    does(&["install"]);
    assert_eq!(recorder.told()[0], format!("bootout gui/{uid}/dev.seawall.one"));
    let backups: Vec<_> = fs::read_dir(&agents)
        .expect("a folder")
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().contains(".backup-"))
        .collect();
    assert_eq!(backups.len(), 1);
    assert_eq!(fs::read_to_string(backups[0].path()).expect("a backup"), "edited by hand");
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
    does(&["uninstall"]);
    assert_eq!(recorder.told().len(), 3);
    assert!(!units.join("seawall-one.service").exists());
}
