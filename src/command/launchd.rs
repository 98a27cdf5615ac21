//! `seawall launchd`: the services as jobs of launchd.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Subcommand;

use super::units::{Options, Tool, Wanted, print_findings};
use crate::unit::{
    Unit, launchd,
    lint::{self, Finding, Severity},
};

mod jobs;

use jobs::Jobs;

const EXAMPLES: &str = "\
Examples:
  seawall launchd render gateway          what launchd would be told
  seawall launchd lint                    is that right, and is it right for this Mac?
  seawall launchd lint ~/Library/LaunchAgents/*.plist
  seawall launchd install --dry-run       what an install would do
  seawall launchd install                 start the services at every login
  seawall launchd status";

/// Write, check and install the services as jobs of launchd
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    action: Action,

    /// The launchctl to use
    #[arg(long, value_name = "PATH", default_value = "launchctl", hide = true, global = true)]
    launchctl: String,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the property lists, or write them into a folder
    #[command(after_help = "Example: seawall launchd render --out ./units")]
    Render {
        #[command(flatten)]
        options: Options,
        /// Write one file for each here
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Say what is wrong with property lists: these files, or those of servers.toml
    #[command(after_help = "Example: seawall launchd lint --strict")]
    Lint {
        /// Files ending in .plist, or names of services
        #[arg(value_name = "FILE|NAME")]
        what: Vec<String>,
        #[command(flatten)]
        options: LintOptions,
    },
    /// Compare what is installed with what servers.toml says; exits with 1 where they differ
    #[command(after_help = "Example: seawall launchd diff")]
    Diff {
        #[command(flatten)]
        options: Options,
    },
    /// Install and start them; what is there already and unchanged is left alone
    #[command(after_help = "Example: seawall launchd install --dry-run")]
    Install {
        #[command(flatten)]
        options: Options,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Restart also those that have not changed, as after an update of seawall
        #[arg(long)]
        restart: bool,
    },
    /// Stop and remove them
    #[command(after_help = "Example: seawall launchd uninstall emit-server")]
    Uninstall {
        #[command(flatten)]
        options: Options,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Show what launchd says of each
    #[command(after_help = "Example: seawall launchd status")]
    Status {
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Debug, clap::Args)]
struct LintOptions {
    /// Warnings fail the check too
    #[arg(long)]
    strict: bool,
    /// The seawall that the units start [default: this one]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Check for another home
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Check what `--daemon` would install
    #[arg(long)]
    daemon: bool,
}

const LOGS: &str = "Library/Logs/seawall";

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let tool = |dry_run| Tool { program: args.launchctl.clone(), dry_run };
    match args.action {
        Action::Render { options, out } => render(&options.wanted(config, LOGS)?, out.as_deref()),
        Action::Lint { what, options } => lint_all(&what, &options, config),
        Action::Diff { options } => {
            let jobs = Jobs::new(&options, options.wanted(config, LOGS)?, tool(false))?;
            Ok(jobs.diff())
        }
        Action::Install { options, dry_run, restart } => {
            Jobs::new(&options, options.wanted(config, LOGS)?, tool(dry_run))?.install(restart)
        }
        Action::Uninstall { options, dry_run } => {
            Jobs::new(&options, options.wanted(config, LOGS)?, tool(dry_run))?.uninstall()
        }
        Action::Status { options } => Jobs::new(&options, options.wanted(config, LOGS)?, tool(false))?.status(),
    }
}

fn render(wanted: &Wanted, out: Option<&Path>) -> anyhow::Result<ExitCode> {
    for unit in &wanted.units {
        let text = launchd::plist(unit);
        match out {
            None => print!("{text}"),
            Some(folder) => {
                fs::create_dir_all(folder)?;
                let path = folder.join(launchd::file_name(unit));
                fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn lint_all(what: &[String], options: &LintOptions, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (files, names): (Vec<&String>, Vec<&String>) = what.iter().partition(|word| is_file(word));
    let mut failed = false;
    for file in &files {
        let text = fs::read(file).with_context(|| format!("{file} cannot be read"))?;
        let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy().into_owned();
        failed |= print_findings(file, &checked(&String::from_utf8_lossy(&text), &name, true), options.strict);
    }
    if files.is_empty() || !names.is_empty() {
        let wanted = Options {
            names: names.into_iter().cloned().collect(),
            daemon: options.daemon,
            user: None,
            program: options.program.clone(),
            home: options.home.clone(),
            folder: None,
        }
        .wanted(config, LOGS)?;
        for unit in &wanted.units {
            let findings = checked(&launchd::plist(unit), &launchd::file_name(unit), wanted.is_here);
            failed |= print_findings(&launchd::file_name(unit), &findings, options.strict);
        }
        failed |= print_findings("servers.toml", &wanted.variables(), options.strict);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A property list in another form than XML, or of no such ending, is one all the same.
fn is_file(word: &str) -> bool {
    word.contains('/') || word.contains('.')
}

/// What is wrong with a text, and, `here`, what this machine lacks for it.
fn checked(text: &str, file_name: &str, here: bool) -> Vec<Finding> {
    let lint::Checked { mut findings, paths } = lint::check(text, file_name);
    let missing = paths.iter().filter(|needed| here && !needed.must_exist().exists());
    findings.extend(missing.map(|needed| Finding {
        severity: Severity::Warning,
        line: None,
        key: needed.key.to_owned(),
        message: format!("{} does not exist on this machine", needed.must_exist().display()),
    }));
    findings
}

/// What of `launchctl print` is worth showing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Printed {
    pub(super) pid: Option<u32>,
    pub(super) last_exit: Option<String>,
    pub(super) runs: Option<u32>,
}

impl Printed {
    pub(super) fn of(text: &str) -> Self {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.trim().split_once(" = "))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim())
        };
        Printed {
            pid: value("pid").and_then(|pid| pid.parse().ok()),
            last_exit: value("last exit code").or_else(|| value("last terminating signal")).map(str::to_owned),
            runs: value("runs").and_then(|runs| runs.parse().ok()),
        }
    }

    fn in_words(&self, unit: &Unit) -> String {
        let runs = self.runs.map(|runs| format!(", {runs} runs")).unwrap_or_default();
        let last = self.last_exit.as_ref().map(|last| format!(", last exit {last}")).unwrap_or_default();
        match self.pid {
            Some(pid) => format!("running as pid {pid}{runs}{last}"),
            None if unit.schedule.is_some() => format!("waiting for its time{runs}{last}"),
            None => format!("not running{runs}{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_launchctl_are_understood() {
        let printed = Printed::of(
            "gui/501/dev.seawall.gateway = {\n\tactive count = 1\n\tstate = running\n\truns = 3\n\tpid = 812\n\tlast exit code = 1\n}\n",
        );
        assert_eq!(printed, Printed { pid: Some(812), last_exit: Some("1".to_owned()), runs: Some(3) });
        assert_eq!(Printed::of("nothing of the kind"), Printed::default());
    }
}
