//! What `seawall launchd` and `seawall systemd` have in common: which units, of which
//! servers.toml, for which machine; and changing files so that nothing is lost.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{
    config::{self, Config, ServiceKind},
    gateway::reload,
    id::unix_ms,
    text,
    unit::{
        self, Described, Place, Scope, Unit,
        lint::{Finding, Severity, unreachable_variable},
    },
};

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
    #[arg(long, value_name = "PATH")]
    pub(super) program: Option<PathBuf>,

    /// Write for another home: servers.toml is then expected in its .config/seawall
    #[arg(long, value_name = "DIR")]
    pub(super) home: Option<PathBuf>,

    /// The folder of the unit files
    #[arg(long, value_name = "DIR", hide = true)]
    pub(super) folder: Option<PathBuf>,
}

/// The units that are wanted, and the servers.toml that they are of.
pub(super) struct Wanted {
    pub(super) units: Vec<Unit>,
    pub(super) place: Place,
    pub(super) config: Config,
    /// Whether they are for the machine and the user at hand.
    pub(super) is_here: bool,
}

impl Options {
    /// Reads servers.toml. `log_folder` is the folder of logs within a home.
    pub(super) fn wanted(&self, config: Option<PathBuf>, log_folder: &str) -> anyhow::Result<Wanted> {
        let (_, config) = super::load_config(config, reload::Overrides::default())?;
        let described: Vec<Described> = config.services.iter().map(describe).collect();
        for name in &self.names {
            if !described.iter().any(|service| service.name == *name) {
                let there: Vec<&str> = described.iter().map(|service| service.name.as_str()).collect();
                bail!("there is no [services.{name}] in {}; there are {}", config.path.display(), there.join(", "));
            }
        }
        let place = self.place(&config, log_folder)?;
        let mut units = unit::units(&described, &place);
        units.retain(|unit| self.names.is_empty() || self.names.contains(&unit.name));
        if units.is_empty() {
            bail!("{} has no [services.NAME]", config.path.display());
        }
        Ok(Wanted { units, place, config, is_here: self.home.is_none() })
    }

    fn place(&self, config: &Config, log_folder: &str) -> anyhow::Result<Place> {
        let (home, path, extra_path) = match &self.home {
            Some(home) => (home.clone(), home.join(".config/seawall/servers.toml"), Vec::new()),
            None => (own_home()?, config.path.clone(), launchers()),
        };
        let program = match &self.program {
            Some(program) => std::path::absolute(program).context("--program is no path")?,
            None => std::env::current_exe().context("this program has no path of its own")?,
        };
        let scope = match self.daemon {
            true => {
                Scope::Daemon { user: self.user.clone().or_else(own_name).context("--user is needed: who are you?")? }
            }
            false => Scope::Agent,
        };
        Ok(Place { logs: home.join(log_folder), home, program, config: path, extra_path, scope })
    }
}

fn describe(service: &config::Service) -> Described {
    Described { name: service.name.clone(), schedule: service.schedule, run_at_load: service.run_at_load }
}

pub(super) fn own_home() -> anyhow::Result<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).context("HOME is not set")
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
    /// Variables of servers.toml that the units will not have although this shell may.
    pub(super) fn variables(&self) -> Vec<Finding> {
        let path = self.units.first().map(|unit| unit.path.clone()).unwrap_or_default();
        let home = self.place.home.to_string_lossy().into_owned();
        // What a supervisor gives of its own accord, and what the units set.
        let env = |name: &str| match name {
            "PATH" => Some(path.clone()),
            "HOME" => Some(home.clone()),
            "USER" | "LOGNAME" | "SHELL" => Some("set".to_owned()),
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

    fn has(&self, name: &str) -> bool {
        self.units.iter().any(|unit| unit.name == name)
    }
}

/// Prints findings as a compiler would, and says whether they fail the check.
pub(super) fn print_findings(file: &str, findings: &[Finding], strict: bool) -> bool {
    for finding in findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
        let key = if finding.key.is_empty() { String::new() } else { format!("{}: ", text::quote(&finding.key, 80)) };
        println!("{file}{line}: {severity}: {key}{}", text::quote(&finding.message, 400));
    }
    findings.iter().any(|finding| strict || finding.severity == Severity::Error)
}

/// One file that a unit is written to.
#[derive(Clone, Debug)]
pub(super) struct UnitFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl UnitFile {
    pub(super) fn installed(&self) -> Option<String> {
        fs::read_to_string(&self.path).ok()
    }

    pub(super) fn is_current(&self) -> bool {
        self.installed().as_ref() == Some(&self.text)
    }

    /// Puts the file in place whole; what was there before stays beside it.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let folder = self.path.parent().context("a file has a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        back_up(&self.path)?;
        let half = self.path.with_extension("half-written");
        let written = fs::write(&half, &self.text)
            .and_then(|()| fs::set_permissions(&half, fs::Permissions::from_mode(0o644)))
            .and_then(|()| fs::rename(&half, &self.path));
        written.with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

/// Copies a file to a name that no supervisor reads.
pub(super) fn back_up(path: &Path) -> anyhow::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".backup-{}", unix_ms()));
    match fs::copy(path, PathBuf::from(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be copied before it is changed", path.display()))
        }
        _ => Ok(()),
    }
}

/// The program that a supervisor is spoken to with.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) program: String,
    pub(super) dry_run: bool,
}

impl Tool {
    /// Asks something that changes nothing; `None` where it cannot be asked or says no.
    pub(super) fn ask(&self, words: &[&str]) -> Option<String> {
        let output = self.output(words).ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Tells it to do something, and says so.
    pub(super) fn tell(&self, words: &[&str]) -> anyhow::Result<()> {
        println!("  {} {} {}", if self.dry_run { "would run" } else { "run" }, self.program, words.join(" "));
        if self.dry_run {
            return Ok(());
        }
        let output = self.output(words).with_context(|| format!("{} cannot be run", self.program))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} {} failed ({}): {}", self.program, words.join(" "), output.status, text::quote(said.trim(), 400))
    }

    pub(super) fn is_there(&self) -> bool {
        self.output(&["--version"]).is_ok() || self.output(&["help"]).is_ok()
    }

    fn output(&self, words: &[&str]) -> io::Result<Output> {
        Command::new(&self.program).args(words).stdin(Stdio::null()).output()
    }
}

/// The lines that differ, with a few around them left out: what a person compares.
pub(super) fn diff(before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    // Longest common tails; the files are short.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            out.push_str(&format!("- {}\n", old[i]));
            i += 1;
        } else {
            out.push_str(&format!("+ {}\n", new[j]));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_has_the_lines_that_differ() {
        assert_eq!(diff("a\nb\nc\n", "a\nx\nc\nd\n"), "- b\n+ x\n+ d\n");
        assert_eq!(diff("a\n", "a\n"), "");
        assert_eq!(diff("", "a\n"), "+ a\n");
    }
}
