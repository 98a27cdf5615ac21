//! The services as data, for the machine's own supervisor: each as a [`Unit`], which
//! launchd.rs writes as a property list and systemd.rs as unit files; lint.rs reads
//! any property list and says what launchd would make of it.
//!
//! Pure text: nothing here reads or writes a file, runs a program or asks the time.

use std::path::{Path, PathBuf};

use crate::service::schedule::Schedule;

pub mod launchd;
pub mod lint;
mod read;
pub mod systemd;

/// What a supervisor is told of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The name in servers.toml.
    pub name: String,
    /// Program and arguments, the program absolute.
    pub argv: Vec<String>,
    pub path: String,
    pub home: PathBuf,
    pub cwd: PathBuf,
    pub log: PathBuf,
    /// `None` runs for good.
    pub schedule: Option<Schedule>,
    pub run_at_load: bool,
    pub scope: Scope,
}

/// For whom it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// When its user logs in.
    Agent,
    /// When the machine starts, as this user.
    Daemon { user: String },
}

/// Where things are on the machine that the units are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub home: PathBuf,
    /// The seawall that the units start.
    pub program: PathBuf,
    /// The servers.toml that they name.
    pub config: PathBuf,
    /// Folders searched before the usual ones, such as that of an npx elsewhere.
    pub extra_path: Vec<PathBuf>,
    pub logs: PathBuf,
    pub scope: Scope,
}

/// What a unit needs to know of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub name: String,
    pub schedule: Option<Schedule>,
    pub run_at_load: bool,
}

/// What an installed unit is for, by the command that it starts: no other mark is needed,
/// and one that somebody has edited keeps it as long as it runs at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The name in servers.toml.
    pub name: String,
    /// The servers.toml that it names.
    pub config: PathBuf,
}

impl Installed {
    /// `None` where this is no command of a unit of ours.
    fn of(argv: &[String]) -> Option<Self> {
        match argv {
            [_, run, name, flag, config] if run == "run" && flag == "--config" => {
                Some(Installed { name: name.clone(), config: PathBuf::from(config) })
            }
            _ => None,
        }
    }
}

/// How long a service may take to end: calls have 30 s, and launchd's own 20 would
/// kill it in the midst of them.
pub const STOP_WITHIN_S: u32 = 45;
/// launchd never starts a job again sooner, whatever is written.
pub const THROTTLE_S: u32 = 10;
/// Before the name of a service: what its label begins with.
pub const LABEL_PREFIX: &str = "dev.seawall.";

/// Each service as a unit that starts `seawall run NAME`.
pub fn units(services: &[Described], place: &Place) -> Vec<Unit> {
    services.iter().map(|service| unit(service, place)).collect()
}

fn unit(service: &Described, place: &Place) -> Unit {
    let words = ["run", &service.name, "--config"].map(str::to_owned);
    let argv = [shown(&place.program)].into_iter().chain(words).chain([shown(&place.config)]).collect();
    Unit {
        name: service.name.clone(),
        argv,
        path: search_path(&place.home, &place.extra_path),
        home: place.home.clone(),
        cwd: place.config.parent().unwrap_or(&place.home).to_owned(),
        log: place.logs.join(format!("{}.log", service.name)),
        schedule: service.schedule,
        run_at_load: service.run_at_load,
        scope: place.scope.clone(),
    }
}

impl Unit {
    pub fn label(&self) -> String {
        format!("{LABEL_PREFIX}{}", self.name)
    }
}

/// A supervisor's own PATH has neither npx nor uvx nor Homebrew on it.
fn search_path(home: &Path, extra: &[PathBuf]) -> String {
    const USUAL: [&str; 7] =
        ["/opt/homebrew/bin", "/opt/homebrew/sbin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];
    let own = [".local/bin", ".cargo/bin", ".volta/bin"].map(|folder| home.join(folder));
    let mut folders: Vec<PathBuf> = Vec::new();
    let extra = extra.iter().filter(|folder| !USUAL.iter().any(|usual| Path::new(usual) == folder.as_path())).cloned();
    for folder in extra.chain(own).chain(USUAL.map(PathBuf::from)) {
        // A colon cannot be part of a folder's name here.
        if !folders.contains(&folder) && !shown(&folder).contains(':') {
            folders.push(folder);
        }
    }
    folders.iter().map(|folder| shown(folder)).collect::<Vec<_>>().join(":")
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_known_again_by_what_it_starts() {
        let folders = ["/Users/you", "/a b/\"c\"\\d'e", "/100%/$HOME/%h", "/ü & <x>", "/trailing\\"];
        let schedule = Some(Schedule::Every(std::time::Duration::from_secs(60)));
        for (folder, schedule) in folders.into_iter().zip([None, schedule].into_iter().cycle()) {
            let folder = PathBuf::from(folder);
            let place = Place {
                home: folder.clone(),
                program: folder.join("seawall"),
                config: folder.join("servers.toml"),
                extra_path: Vec::new(),
                logs: folder.join("logs"),
                scope: Scope::Agent,
            };
            let described = Described { name: "one-two".to_owned(), schedule, run_at_load: true };
            let unit = unit(&described, &place);
            let expected = Some(Installed { name: "one-two".to_owned(), config: place.config });
            assert_eq!(launchd::installed(launchd::plist(&unit).as_bytes()), expected, "{}", folder.display());
            let files = systemd::files(&unit, 256);
            assert_eq!(systemd::installed(&files[0].text), expected, "{}", folder.display());
            if let Some(timer) = files.get(1) {
                assert!(systemd::is_timer_of(&timer.text, "one-two") && !systemd::is_timer_of(&timer.text, "one"));
                let elsewhere = timer.text.replace("[Timer]\n", "[Timer]\nUnit=backup.service\n");
                assert!(!systemd::is_timer_of(&elsewhere, "one-two"), "it starts something else");
            }
        }
        for text in ["", "[Service]\nExecStart=/bin/x run\n", "[Service]\nExecStart=\"/bin/x\n"] {
            assert_eq!(systemd::installed(text), None, "{text}");
        }
        let list = "<plist><dict><key>Label</key><string>dev.seawall.a</string><key>ProgramArguments</key><array>\
                    <string>/x</string><string>run</string><string>b</string><string>--config</string>\
                    <string>/y</string></array></dict></plist>";
        assert_eq!(launchd::installed(list.as_bytes()), None, "its label is another one's");
    }
}
