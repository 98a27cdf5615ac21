//! What `seawall launchd` and `seawall systemd` have in common: which units, of which
//! servers.toml, for which machine.

use std::{io, path::PathBuf};

use anyhow::{Context as _, anyhow};

use crate::{
    config::{self, Config, ServiceKind},
    gateway::reload,
    say::say,
    service::marker,
    text,
    unit::{
        self, Described, Place, Scope, Unit,
        lint::{Finding, Severity, unreachable_variable},
    },
};

pub(super) mod changes;
pub(super) mod diff;
pub(super) mod file;
pub(super) mod left;
pub(super) mod read;
pub(super) mod tool;
pub(super) mod whose;

/// Of a unit that has changed, and whose supervisor may not know it.
pub(super) const UNFINISHED: &str = "the last change of it was not finished";

/// What an install is told beside names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    pub(super) restart: bool,
    /// To replace what is not of this servers.toml.
    pub(super) foreign: bool,
}

/// Which units, and where they are to run.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Only these services [default: all of servers.toml]
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,

    /// Start at boot, as a user of the machine, instead of at login
    #[arg(long)]
    pub(super) daemon: bool,

    /// Whom a daemon runs as [default: you]
    #[arg(long, value_name = "USER", requires = "daemon")]
    pub(super) user: Option<String>,

    /// The seawall that the units start [default: this one]
    #[arg(long, value_name = "PATH", value_parser = absolute)]
    pub(super) program: Option<PathBuf>,

    /// Write for another home: servers.toml is then expected in its .config/seawall
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(super) home: Option<PathBuf>,

    /// The folder of the unit files
    #[arg(long, value_name = "DIR", hide = true, value_parser = absolute)]
    pub(super) folder: Option<PathBuf>,
}

/// A path as a supervisor takes it, which starts everything in a folder of its own.
pub(super) fn absolute(word: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(word);
    match path.is_absolute() {
        true => Ok(path),
        false => Err("it is a relative path, and a unit names absolute ones only".to_owned()),
    }
}

/// The units that are wanted, and the servers.toml that they are of.
pub(super) struct Wanted {
    pub(super) units: Vec<Unit>,
    /// Names that were asked for and that servers.toml has no service of.
    pub(super) others: Vec<String>,
    /// Whether all there are were asked for.
    pub(super) is_all: bool,
    pub(super) place: Place,
    pub(super) config: Config,
    /// Whether they are for the machine and the user at hand.
    pub(super) is_here: bool,
}

impl Options {
    /// Units of services that there are. Reads servers.toml; `log_folder` is the folder of
    /// logs within a home.
    pub(super) fn wanted(&self, config: Option<PathBuf>, log_folder: &str) -> anyhow::Result<Wanted> {
        let wanted = self.wanted_or_left(config, log_folder)?;
        if let Some(name) = wanted.others.first() {
            return Err(wanted.unknown(name));
        }
        if wanted.units.is_empty() {
            return Err(wanted.none());
        }
        Ok(wanted)
    }

    /// Units that there are, or that may be left of services that there were.
    pub(super) fn wanted_or_left(&self, config: Option<PathBuf>, log_folder: &str) -> anyhow::Result<Wanted> {
        let (_, config) = super::load_config(config, reload::Overrides::default())?;
        let described: Vec<Described> = config.services.iter().map(describe).collect();
        let is_there = |name: &String| described.iter().any(|service| service.name == *name);
        let others = self.names.iter().filter(|name| !is_there(name)).cloned().collect();
        let place = self.place(&config, log_folder)?;
        let mut units = unit::units(&described, &place);
        units.retain(|unit| self.names.is_empty() || self.names.contains(&unit.name));
        let (is_all, is_here) = (self.names.is_empty(), self.home.is_none());
        Ok(Wanted { units, others, is_all, place, config, is_here })
    }

    fn place(&self, config: &Config, log_folder: &str) -> anyhow::Result<Place> {
        let scope = match self.daemon {
            true => {
                Scope::Daemon { user: self.user.clone().or_else(own_name).context("--user is needed: who are you?")? }
            }
            false => Scope::Agent,
        };
        let (home, path, extra_path) = match (&self.home, &scope) {
            (Some(home), _) => (home.clone(), home.join(".config/seawall/servers.toml"), Vec::new()),
            (None, Scope::Agent) => (own_home()?, config.path.clone(), launchers()),
            // Who installs it, by sudo for one, need not be who it runs as.
            (None, Scope::Daemon { user }) => {
                (home_of(user).map_or_else(own_home, Ok)?, config.path.clone(), launchers())
            }
        };
        let program = match &self.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("this program has no path of its own")?,
        };
        Ok(Place { logs: home.join(log_folder), home, program, config: path, extra_path, scope })
    }
}

fn describe(service: &config::Service) -> Described {
    Described { name: service.name.clone(), schedule: service.schedule, run_at_load: service.run_at_load }
}

fn own_home() -> anyhow::Result<PathBuf> {
    let home =
        std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).context("HOME is not set")?;
    anyhow::ensure!(home.is_absolute(), "HOME is {}, which is no absolute path", home.display());
    Ok(home)
}

/// As the machine has it on record; `None` where it has not.
fn home_of(user: &str) -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        let dscl = tool::Tool { program: "dscl".to_owned(), dry_run: false };
        let said = dscl.ask(&[".", "-read", &format!("/Users/{user}"), "NFSHomeDirectory"])?;
        return Some(PathBuf::from(said.trim().strip_prefix("NFSHomeDirectory:")?.trim()));
    }
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == user)?;
    line.get(5).filter(|home| home.starts_with('/')).map(PathBuf::from)
}

pub(super) fn own_name() -> Option<String> {
    ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()))
}

/// The folders in which npx and uvx are found now: they may be where no list of usual
/// folders would look.
fn launchers() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let find =
        |name: &str| std::env::split_paths(&path).find(|folder| folder.is_absolute() && folder.join(name).is_file());
    let mut folders: Vec<PathBuf> = ["npx", "uvx"].iter().filter_map(|name| find(name)).collect();
    folders.dedup();
    folders
}

impl Wanted {
    /// What is said where nothing is known of a name.
    pub(super) fn unknown(&self, name: &str) -> anyhow::Error {
        let there: Vec<&str> = self.config.services.iter().map(|service| service.name.as_str()).collect();
        let (path, there) = (self.config.path.display(), there.join(", "));
        anyhow!("there is no [services.{name}] in {path}; there are {there}")
    }

    /// What is said where there is nothing at all.
    pub(super) fn none(&self) -> anyhow::Error {
        anyhow!("{} has no [services.NAME]", self.config.path.display())
    }

    /// Variables of servers.toml that the units will not have although this shell may.
    /// `given` are those that a unit has beside PATH and HOME, without being told.
    pub(super) fn variables(&self, given: &[&str]) -> Vec<Finding> {
        let path = self.units.first().map(|unit| unit.path.clone()).unwrap_or_default();
        let home = self.place.home.to_string_lossy().into_owned();
        // What a supervisor gives of its own accord, and what the units set.
        let env = |name: &str| match name {
            "PATH" => Some(path.clone()),
            "HOME" => Some(home.clone()),
            name if given.contains(&name) => Some("set".to_owned()),
            _ => None,
        };
        let read = config::read(&self.config.path).and_then(|text| reload::parse_with(&text, &self.config.path, &env));
        let config = match read {
            Ok(config) => config,
            // Good in this shell, so it is the environment that makes it bad.
            Err(complaints) => {
                return complaints.iter().map(|one| unreachable_variable(&one.key, &one.message)).collect();
            }
        };
        let is_variable = |problem: &String| problem.contains("environment variable");
        let gateway =
            |service: &config::Service| matches!(&service.kind, ServiceKind::Builtin { name, .. } if name == "gateway");
        let has_gateway = config.services.iter().any(|service| gateway(service) && self.has(&service.name));
        let servers = config
            .servers
            .iter()
            .filter(|_| has_gateway)
            .map(|server| (format!("servers.{}", server.name), &server.problem));
        let services = config.services.iter().filter(|service| self.has(&service.name));
        let services = services.map(|service| (format!("services.{}", service.name), &service.problem));
        let alerts = config.alerts.iter().map(|alert| ("alerts".to_owned(), &alert.problem));
        let problems = services.chain(servers).chain(alerts);
        let problems = problems.filter_map(|(key, problem)| Some((key, problem.as_ref().filter(|p| is_variable(p))?)));
        problems.map(|(key, problem)| unreachable_variable(&key, problem)).collect()
    }

    /// Notes that the scheduled ones are there from now on. What a daemon's user has is not
    /// this user's to write.
    pub(super) fn note_first_seen(&self) {
        let scheduled = self.units.iter().filter(|unit| unit.schedule.is_some() && unit.scope == Scope::Agent);
        scheduled.for_each(|unit| marker::note_first_seen(&self.config.gateway.state, &unit.name));
    }

    fn has(&self, name: &str) -> bool {
        self.units.iter().any(|unit| unit.name == name)
    }
}

/// Prints findings as a compiler would, and says whether they fail the check.
pub(super) fn print_findings(file: &str, findings: &[Finding], strict: bool) -> io::Result<bool> {
    for finding in findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
        let key = if finding.key.is_empty() { String::new() } else { format!("{}: ", text::quote(&finding.key, 80)) };
        say!("{file}{line}: {severity}: {key}{}", text::quote(&finding.message, 400))?;
    }
    Ok(findings.iter().any(|finding| strict || finding.severity == Severity::Error))
}
