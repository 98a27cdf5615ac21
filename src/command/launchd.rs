//! `seawall launchd`: the services as jobs of launchd.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Subcommand;

use super::units::{Options, Wanted, Wishes, tool::Tool};
use crate::{say, unit::launchd};

mod install;
mod jobs;
mod lint;
mod uninstall;

use jobs::Jobs;
use lint::LintOptions;

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
        /// Replace also what is there under their names and is not of this servers.toml
        #[arg(long)]
        foreign: bool,
    },
    /// Stop and remove them
    #[command(after_help = "Example: seawall launchd uninstall emit-server")]
    Uninstall {
        #[command(flatten)]
        options: Options,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Remove also what is there under their names and is not of this servers.toml
        #[arg(long)]
        foreign: bool,
    },
    /// Show what launchd says of each
    #[command(after_help = "Example: seawall launchd status")]
    Status {
        #[command(flatten)]
        options: Options,
    },
}

const LOGS: &str = "Library/Logs/seawall";

/// What a job has in its environment without being told: an agent, what the session of
/// its user has; a daemon, nothing that launchd.plist(5) would promise.
fn given(is_daemon: bool) -> &'static [&'static str] {
    // The last two are what a daemon's list sets beside HOME and PATH.
    if is_daemon { &["USER", "LOGNAME"] } else { &["USER", "LOGNAME", "SHELL", "TMPDIR"] }
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let tool = |dry_run| Tool { program: args.launchctl.clone(), dry_run };
    match args.action {
        Action::Render { options, out } => render(&options.wanted(config, LOGS)?, out.as_deref()),
        Action::Lint { what, options } => lint::run(&what, &options, config),
        Action::Diff { options } => Jobs::or_left(&options, config, tool(false))?.diff(),
        Action::Install { options, dry_run, restart, foreign } => {
            Jobs::new(&options, options.wanted(config, LOGS)?, tool(dry_run)).install(Wishes { restart, foreign })
        }
        Action::Uninstall { options, dry_run, foreign } => {
            Jobs::or_left(&options, config, tool(dry_run))?.uninstall(foreign)
        }
        Action::Status { options } => Jobs::or_left(&options, config, tool(false))?.status(),
    }
}

fn render(wanted: &Wanted, out: Option<&Path>) -> anyhow::Result<ExitCode> {
    for unit in &wanted.units {
        let text = launchd::plist(unit);
        match out {
            None => write!(say::out(), "{text}")?,
            Some(folder) => {
                fs::create_dir_all(folder)?;
                let path = folder.join(launchd::file_name(unit));
                fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What of `launchctl print` is worth showing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Printed {
    pub(super) pid: Option<u32>,
    pub(super) last_exit: Option<String>,
    pub(super) runs: Option<u32>,
    /// The file that launchd has it from.
    pub(super) path: Option<PathBuf>,
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
            path: value("path").map(PathBuf::from).filter(|path| path.is_absolute()),
        }
    }

    fn in_words(&self, is_scheduled: bool) -> String {
        let runs = self.runs.map(|runs| format!(", {runs} runs")).unwrap_or_default();
        let last = self.last_exit.as_ref().map(|last| format!(", last exit {last}")).unwrap_or_default();
        match self.pid {
            Some(pid) => format!("running as pid {pid}{runs}{last}"),
            None if is_scheduled => format!("waiting for its time{runs}{last}"),
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
            "gui/501/dev.seawall.gateway = {\n\tactive count = 1\n\tpath = /Users/you/Library/LaunchAgents/x.plist\n\tstate = running\n\truns = 3\n\tpid = 812\n\tlast exit code = 1\n}\n",
        );
        let path = Some(PathBuf::from("/Users/you/Library/LaunchAgents/x.plist"));
        assert_eq!(printed, Printed { pid: Some(812), last_exit: Some("1".to_owned()), runs: Some(3), path });
        assert_eq!(Printed::of("nothing of the kind"), Printed::default());
    }
}
