//! `seawall systemd`: the services as units of systemd, the scheduled ones with timers.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use super::units::{self, Options, Tool, UnitFile, Wanted, print_findings};
use crate::unit::{
    Unit,
    lint::{Finding, Severity},
    systemd,
};

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
    },
    /// Stop and remove them
    #[command(after_help = "Example: seawall systemd uninstall emit-server")]
    Uninstall {
        #[command(flatten)]
        options: Options,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
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

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let version = args.systemd_version;
    let tools =
        |dry_run| (Tool { program: args.systemctl.clone(), dry_run }, Tool { program: args.loginctl.clone(), dry_run });
    let units = |options: &Options, dry_run| -> anyhow::Result<Units> {
        Units::new(options, options.wanted(config.clone(), LOGS)?, tools(dry_run), version)
    };
    match args.action {
        Action::Render { options, out } => units(&options, false)?.render(out),
        Action::Lint { options, strict } => units(&options, false)?.lint(strict),
        Action::Diff { options } => Ok(units(&options, false)?.diff()),
        Action::Install { options, dry_run, restart } => units(&options, dry_run)?.install(restart),
        Action::Uninstall { options, dry_run } => units(&options, dry_run)?.uninstall(),
        Action::Status { options } => units(&options, false)?.status(),
    }
}

/// The units, the folder they are in, and the systemd they are of.
struct Units {
    wanted: Wanted,
    folder: PathBuf,
    is_daemon: bool,
    systemctl: Tool,
    loginctl: Tool,
    version: u32,
}

impl Units {
    fn new(options: &Options, wanted: Wanted, tools: (Tool, Tool), version: Option<u32>) -> anyhow::Result<Self> {
        let (systemctl, loginctl) = tools;
        let config_home = std::env::var_os("XDG_CONFIG_HOME").filter(|home| !home.is_empty() && wanted.is_here);
        let folder = match (&options.folder, options.daemon) {
            (Some(folder), _) => folder.clone(),
            (None, true) => PathBuf::from("/etc/systemd/system"),
            (None, false) => {
                config_home.map_or_else(|| wanted.place.home.join(".config"), PathBuf::from).join("systemd/user")
            }
        };
        let version = version.or_else(|| version_of(&systemctl)).unwrap_or(VERSION_ELSEWHERE);
        Ok(Units { wanted, folder, is_daemon: options.daemon, systemctl, loginctl, version })
    }

    fn files(&self, unit: &Unit) -> Vec<UnitFile> {
        let files = systemd::files(unit, self.version).into_iter();
        files.map(|file| UnitFile { path: self.folder.join(file.name), text: file.text }).collect()
    }

    fn tell(&self, words: &[&str]) -> anyhow::Result<()> {
        self.systemctl.tell(&self.scoped(words))
    }

    fn ask(&self, words: &[&str]) -> Option<String> {
        self.systemctl.ask(&self.scoped(words))
    }

    fn scoped<'a>(&self, words: &[&'a str]) -> Vec<&'a str> {
        let scope = if self.is_daemon { None } else { Some("--user") };
        scope.into_iter().chain(words.iter().copied()).collect()
    }

    fn render(&self, out: Option<PathBuf>) -> anyhow::Result<ExitCode> {
        for file in self.wanted.units.iter().flat_map(|unit| systemd::files(unit, self.version)) {
            match &out {
                None => print!("# {}\n{}\n", file.name, file.text),
                Some(folder) => {
                    fs::create_dir_all(folder)?;
                    let path = folder.join(&file.name);
                    fs::write(&path, &file.text).with_context(|| format!("{} cannot be written", path.display()))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn lint(&self, strict: bool) -> anyhow::Result<ExitCode> {
        let program = &self.wanted.place.program;
        let mut findings = self.wanted.variables();
        if self.wanted.is_here && !program.exists() {
            findings.push(Finding {
                severity: Severity::Warning,
                line: None,
                key: "ExecStart".to_owned(),
                message: format!("{} does not exist on this machine", program.display()),
            });
        }
        let mut failed = print_findings("servers.toml", &findings, strict);
        if let Some(said) = self.verified()? {
            print!("{said}");
            failed = true;
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// What systemd itself has to say of the units; nothing where it is not here. It
    /// complains of a program that is missing, which is of this machine only.
    fn verified(&self) -> anyhow::Result<Option<String>> {
        let folder = std::env::temp_dir().join(format!("seawall-lint-{}-{}", std::process::id(), crate::id::Id::now()));
        fs::create_dir_all(&folder)?;
        let here = std::env::current_exe()?;
        let mut paths = Vec::new();
        for unit in &self.wanted.units {
            let mut unit = unit.clone();
            if let Some(program) = unit.argv.first_mut().filter(|program| !std::path::Path::new(program).exists()) {
                *program = here.to_string_lossy().into_owned();
            }
            for file in systemd::files(&unit, self.version) {
                fs::write(folder.join(&file.name), file.text)?;
                paths.push(folder.join(file.name).to_string_lossy().into_owned());
            }
        }
        let scope = if self.is_daemon { "--system" } else { "--user" };
        let mut analyze = std::process::Command::new("systemd-analyze");
        analyze.args([scope, "--man=no", "verify"]).args(&paths);
        if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
            // It insists on one for units of a user, and needs nothing in it.
            analyze.env("XDG_RUNTIME_DIR", &folder);
        }
        let output = analyze.output();
        fs::remove_dir_all(&folder)?;
        let Ok(output) = output else {
            println!("systemd-analyze is not here: not verified by systemd itself");
            return Ok(None);
        };
        let said = String::from_utf8_lossy(&output.stderr).replace(&*folder.to_string_lossy(), "");
        Ok((!output.status.success() || !said.trim().is_empty()).then_some(said))
    }

    fn diff(&self) -> ExitCode {
        let mut differ = false;
        for file in self.wanted.units.iter().flat_map(|unit| self.files(unit)) {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match file.installed() {
                None => println!("{name}: not installed"),
                Some(installed) if installed == file.text => continue,
                Some(installed) => print!("{name}:\n{}", units::diff(&installed, &file.text)),
            }
            differ = true;
        }
        if differ { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn install(&self, restart: bool) -> anyhow::Result<ExitCode> {
        print_findings("servers.toml", &self.wanted.variables(), false);
        let mut changed = Vec::new();
        for unit in &self.wanted.units {
            let stale: Vec<UnitFile> = self.files(unit).into_iter().filter(|file| !file.is_current()).collect();
            for file in &stale {
                println!("{} {}", if self.systemctl.dry_run { "would write" } else { "write" }, file.path.display());
                if !self.systemctl.dry_run {
                    file.write()?;
                }
            }
            if !stale.is_empty() {
                changed.push(unit.name.clone());
            }
        }
        if !changed.is_empty() {
            self.tell(&["daemon-reload"])?;
        }
        for unit in &self.wanted.units {
            let name = systemd::starting_unit(unit);
            let is_on = self.ask(&["is-enabled", &name]).is_some() && self.ask(&["is-active", &name]).is_some();
            if !is_on {
                self.tell(&["enable", "--now", &name])?;
            } else if changed.contains(&unit.name) || restart {
                self.tell(&["restart", &name])?;
            } else {
                println!("{name}: unchanged");
            }
        }
        self.tell_of_lingering();
        Ok(ExitCode::SUCCESS)
    }

    /// Without it, the user's units end with the last session and do not start at boot.
    fn tell_of_lingering(&self) {
        if self.is_daemon {
            return;
        }
        let Some(user) = units::own_name() else { return };
        let shown = self.loginctl.ask(&["show-user", &user, "--property=Linger"]);
        if shown.as_deref().map(str::trim) != Some("Linger=yes") {
            println!(
                "note: lingering is off for {user}: the services run only while you are logged in. \
                 `loginctl enable-linger {user}` starts them at boot."
            );
        }
    }

    fn uninstall(&self) -> anyhow::Result<ExitCode> {
        let mut removed = false;
        for unit in &self.wanted.units {
            let files: Vec<UnitFile> = self.files(unit).into_iter().filter(|file| file.path.exists()).collect();
            if files.is_empty() {
                println!("{}: not installed", unit.name);
                continue;
            }
            self.tell(&["disable", "--now", &systemd::starting_unit(unit)])?;
            for file in files {
                println!("{} {}", if self.systemctl.dry_run { "would remove" } else { "remove" }, file.path.display());
                if !self.systemctl.dry_run {
                    units::back_up(&file.path)?;
                    fs::remove_file(&file.path)
                        .with_context(|| format!("{} cannot be removed", file.path.display()))?;
                }
            }
            removed = true;
        }
        if removed {
            self.tell(&["daemon-reload"])?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn status(&self) -> anyhow::Result<ExitCode> {
        if !self.systemctl.is_there() {
            bail!("there is no systemctl here");
        }
        for unit in &self.wanted.units {
            let files = self.files(unit);
            let installed = match files.iter().all(|file| file.path.exists()) {
                false => "not installed",
                true if files.iter().all(UnitFile::is_current) => "installed",
                true => "installed, differs from servers.toml",
            };
            let name = systemd::starting_unit(unit);
            let shown = self.ask(&["show", &name, "--property=ActiveState,SubState,MainPID,NRestarts"]);
            println!(
                "{name:<32} {installed}; {}",
                shown.map_or_else(|| "systemd does not answer".to_owned(), |text| in_words(&text))
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn in_words(shown: &str) -> String {
    let value = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or("");
    let pid = Some(value("MainPID")).filter(|pid| !matches!(*pid, "" | "0")).map(|pid| format!(", pid {pid}"));
    let restarts = Some(value("NRestarts")).filter(|n| !matches!(*n, "" | "0")).map(|n| format!(", {n} restarts"));
    format!(
        "{} ({}){}{}",
        value("ActiveState"),
        value("SubState"),
        pid.unwrap_or_default(),
        restarts.unwrap_or_default()
    )
}

/// `systemd 252 (252.38-1~deb12u1)`
fn version_of(systemctl: &Tool) -> Option<u32> {
    systemctl.ask(&["--version"])?.split_whitespace().nth(1)?.parse().ok()
}
