//! `seawall systemd`: the services as units of systemd, the scheduled ones with timers.

use std::{fs, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Subcommand;

use super::units::{Options, Wanted, Wishes, tool::Tool};
use crate::{say, unit::systemd};

mod install;
mod installed;
mod uninstall;
mod verify;
mod whose;

use installed::Units;

const EXAMPLES: &str = "\
Examples:
  seawall systemd render gateway          what systemd would be told
  seawall systemd lint                    is that right, and is it right for this machine?
  seawall systemd install --dry-run       what an install would do
  seawall systemd install                 start the services at every login
  seawall systemd status";

/// Write, check and install the services as units of systemd
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    action: Action,

    /// The systemctl to use
    #[arg(long, value_name = "PATH", default_value = "systemctl", hide = true, global = true)]
    systemctl: String,
    /// The loginctl to use
    #[arg(long, value_name = "PATH", default_value = "loginctl", hide = true, global = true)]
    loginctl: String,
    /// Write for this version of systemd [default: the one that is here]
    #[arg(long, value_name = "N", global = true)]
    systemd_version: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the units, or write them into a folder
    #[command(after_help = "Example: seawall systemd render --out ./units")]
    Render {
        #[command(flatten)]
        options: Options,
        /// Write one file for each here
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Say what is wrong with the units, by systemd's own `systemd-analyze verify` too
    #[command(after_help = "Example: seawall systemd lint --strict")]
    Lint {
        #[command(flatten)]
        options: Options,
        /// Warnings fail the check too
        #[arg(long)]
        strict: bool,
    },
    /// Compare what is installed with what servers.toml says; exits with 1 where they differ
    #[command(after_help = "Example: seawall systemd diff")]
    Diff {
        #[command(flatten)]
        options: Options,
    },
    /// Install and start them; what is there already and unchanged is left alone
    #[command(after_help = "Example: seawall systemd install --dry-run")]
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
    #[command(after_help = "Example: seawall systemd uninstall emit-server")]
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
    /// Show what systemd says of each
    #[command(after_help = "Example: seawall systemd status")]
    Status {
        #[command(flatten)]
        options: Options,
    },
}

/// Not used by the units, whose words go to the journal.
const LOGS: &str = ".local/state/seawall";
/// Where none is here to ask, a recent one is meant.
const VERSION_ELSEWHERE: u32 = 256;

/// What a unit has in its environment without being told, systemd.exec(5): one of a user,
/// what that user's manager has; one of the machine, what goes with its `User=`.
fn given(is_daemon: bool) -> &'static [&'static str] {
    if is_daemon { &["USER", "LOGNAME", "SHELL"] } else { &["USER", "LOGNAME", "SHELL", "XDG_RUNTIME_DIR"] }
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let version = args.systemd_version;
    let units = |options: &Options, wanted: Wanted, dry_run| {
        let tool = |program: &String| Tool { program: program.clone(), dry_run };
        Units::new(options, wanted, tool(&args.systemctl), tool(&args.loginctl), version)
    };
    match args.action {
        Action::Render { options, out } => units(&options, options.wanted(config, LOGS)?, false).render(out),
        Action::Lint { options, strict } => units(&options, options.wanted(config, LOGS)?, false).lint(strict),
        Action::Install { options, dry_run, restart, foreign } => {
            units(&options, options.wanted(config, LOGS)?, dry_run).install(Wishes { restart, foreign })
        }
        // Where units of services that are gone are meant too.
        Action::Diff { options } => units(&options, options.wanted_or_left(config, LOGS)?, false).diff(),
        Action::Uninstall { options, dry_run, foreign } => {
            units(&options, options.wanted_or_left(config, LOGS)?, dry_run).uninstall(foreign)
        }
        Action::Status { options } => units(&options, options.wanted_or_left(config, LOGS)?, false).status(),
    }
}

impl Units {
    fn render(&self, out: Option<PathBuf>) -> anyhow::Result<ExitCode> {
        for file in self.wanted.units.iter().flat_map(|unit| systemd::files(unit, self.version)) {
            match &out {
                None => write!(say::out(), "# {}\n{}\n", file.name, file.text)?,
                Some(folder) => {
                    fs::create_dir_all(folder)?;
                    let path = folder.join(&file.name);
                    fs::write(&path, &file.text).with_context(|| format!("{} cannot be written", path.display()))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
