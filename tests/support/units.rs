//! `seawall launchd` and `seawall systemd` in a home of their own, and what stands in for
//! the programs that speak to the two.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use super::{process::run, scratch::Scratch};

const WITHIN: Duration = Duration::from_secs(60);

/// `seawall WORDS`, with a home of its own and no variables of this shell.
pub fn seawall(words: &[&str], config: &Path, home: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(words).arg("--config").arg(config).current_dir(home);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home).env("USER", "you");
    run(command, WITHIN)
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A program of the machine that a test cannot do without. Said in one line where it is
/// missing; in CI that is a failure.
pub fn tool(name: &str) -> bool {
    let there =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(name).is_file());
    if !there {
        assert!(std::env::var_os("CI").is_none(), "{name} is not installed, and CI must have it");
        eprintln!("skipped: {name} is not installed");
    }
    there
}

pub const TWO: &str = "[services.one]\ncommand = [\"sleep\", \"9\"]\n[services.nightly]\ncommand = [\"true\"]\nschedule = \"daily 03:30\"\n";

/// Stands in for launchctl or systemctl: writes down what it is told, and remembers
/// what is loaded.
pub struct Recorder {
    folder: Scratch,
}

impl Recorder {
    pub fn new() -> Self {
        let folder = Scratch::new();
        let loaded = folder.file("loaded");
        fs::create_dir(&loaded).expect("a folder");
        folder.write("linger", "Linger=no\n");
        folder.write("shown", "");
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> '{log}'\ncd '{loaded}' || exit 9\n[ \"$1\" = --user ] && shift\n\
             if [ -e \"../fails-$1\" ]; then rm \"../fails-$1\"; echo broken >&2; exit 5; fi\ncase \"$1\" in\n\
             print) cat \"$(basename \"$2\")\" ;;\n\
             show) cat ../shown ;;\n\
             bootstrap) if [ -e ../refuses ]; then rm ../refuses; exit 5; fi\n\
             touch \"$(basename \"$3\" .plist)\" ;;\n\
             bootout) rm \"$(basename \"$2\")\"; if [ -e ../late-bootout ]; then rm ../late-bootout; exit 36; fi ;;\n\
             is-enabled|is-active) test -e \"$2\" ;;\n\
             enable) [ $# -lt 3 ] || touch \"$3\" ;;\n\
             disable) for unit; do rm -f -- \"$unit\"; done ;;\n\
             show-user) cat ../linger ;;\n\
             --version) echo 'systemd 256 (256)' ;;\nesac\n",
            log = folder.file("log").display(),
            loaded = loaded.display(),
        );
        let program = folder.write("recorder", &script);
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("executable");
        Recorder { folder }
    }

    pub fn program(&self) -> String {
        self.folder.file("recorder").to_str().expect("UTF-8").to_owned()
    }

    /// The next bootstrap fails, as one does while the job before is still going away.
    pub fn refuse_once(&self) {
        self.folder.write("refuses", "");
    }

    /// The next time it is told this, it fails and changes nothing.
    pub fn fail_once(&self, verb: &str) {
        self.folder.write(&format!("fails-{verb}"), "");
    }

    /// The next time it is told this, it does so and says that it failed.
    pub fn fail_late(&self, verb: &str) {
        self.folder.write(&format!("late-{verb}"), "");
    }

    /// Whether a failure that was ordered has not come yet.
    pub fn is_to_fail(&self, verb: &str) -> bool {
        self.folder.file(&format!("fails-{verb}")).exists()
    }

    /// A job is loaded, and this is what launchctl prints of it.
    pub fn prints(&self, label: &str, said: &str) {
        self.folder.write(&format!("loaded/{label}"), said);
    }

    /// What systemctl shows of every unit.
    pub fn shows(&self, said: &str) {
        self.folder.write("shown", said);
    }

    /// What loginctl says of lingering.
    pub fn linger(&self, said: &str) {
        self.folder.write("linger", said);
    }

    /// What it was told since the last time, questions left out.
    pub fn told(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.file("log")).unwrap_or_default();
        let _ = fs::remove_file(self.folder.file("log"));
        let question = |line: &&str| {
            !["print", "is-", "show-user", "--version", "--user is-", "--user show"].iter().any(|q| line.starts_with(q))
        };
        log.lines().filter(question).map(str::to_owned).collect()
    }
}
