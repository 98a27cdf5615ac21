//! `seawall sandbox`: what a server's sandbox is, and trying it: with one command, in a
//! shell, by everything that a hostile server would try.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncWriteExt as _, copy};
use tokio_util::task::TaskTracker;

use super::{block_on, load_config};
use crate::{
    config::{Config, Server},
    egress::{Egress, Rule},
    gateway::{self, reload::Overrides},
    process::{Child, Command, Exit, Pipes},
    sandbox::{Network, Plan, Policy, Report},
    say::{note, say},
    text,
};

mod check;
#[cfg(target_os = "linux")]
mod explain;
mod shell;

/// Show a server's sandbox, or try it from a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  seawall sandbox show files\n  seawall sandbox run files -- ls -la\n  \
                        seawall sandbox run -- python3 server.py\n  seawall sandbox shell files\n  \
                        seawall sandbox explain files\n  seawall sandbox check")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// What a server may touch, and what of that this machine really enforces
    #[command(after_help = "Example: seawall sandbox show files")]
    Show {
        /// The server, as servers.toml has it
        name: String,
    },
    /// Run a command as a server is run; without NAME under the standard profile
    #[command(after_help = "Example: seawall sandbox run files -- ls -la")]
    Run {
        /// The server whose policy it gets, as servers.toml has it
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// A program and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Open a shell where a server runs
    #[command(after_help = "Examples:\n  seawall sandbox shell files\n  echo 'ls ~' | seawall sandbox shell files")]
    Shell {
        /// The server whose policy it gets, as servers.toml has it
        name: String,
    },
    /// Run a server observed and propose its smallest policy
    ///
    /// It is started, asked for its tools and ended. Meanwhile it may read what its user may,
    /// write nothing outside, and reach nobody; each file and host that it asks for beyond
    /// what every server has is in the proposal.
    #[command(after_help = "Example: seawall sandbox explain files")]
    Explain {
        /// The server, as servers.toml has it
        name: String,
    },
    /// Try to escape from a server's sandbox
    ///
    /// Each attempt is made by a process of its own under the server's real policy, and
    /// once more without a sandbox, to see that it would have succeeded. Without NAME every
    /// command server is checked. Exits with 1 where an attempt gets through that the policy
    /// does not give.
    #[command(after_help = "Examples:\n  seawall sandbox check files\n  seawall sandbox check --json")]
    Check {
        /// The server, as servers.toml has it; every command server where it is left out
        name: Option<String>,
        /// One object for each attempt, as JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Show { name } => show(&name, config),
        What::Run { name, command } => {
            let command = match name {
                Some(name) => {
                    let own = as_server(command_of(config, &name)?)?;
                    with_words(Command { cwd: std::env::current_dir()?, ..own }, &command)
                }
                None => with_words(bare("shell", Policy::default())?, &command),
            };
            block_on(run_here(command))
        }
        What::Shell { name } => shell::run(as_server(command_of(config, &name)?)?),
        #[cfg(target_os = "linux")]
        What::Explain { name } => explain::run(command_of(config, &name)?),
        #[cfg(not(target_os = "linux"))]
        What::Explain { .. } => bail!("a server can be observed on Linux only"),
        What::Check { name, json } => check::run(name, json, config),
    }
}

fn command_of(config: Option<PathBuf>, name: &str) -> anyhow::Result<Command> {
    let (config, server) = server(config, name)?;
    block_on(async {
        let command = gateway::command_of(&config, &server).await;
        Ok(command.context("only a command server has a sandbox")??)
    })
}

/// With all that the server itself may read, whatever is run in its place.
fn as_server(mut command: Command) -> anyhow::Result<Command> {
    let plan = command.plan()?;
    command.sandbox.read.extend(plan.read);
    Ok(command)
}

fn server(config: Option<PathBuf>, name: &str) -> anyhow::Result<(Config, Server)> {
    let (_, config) = load_config(config, Overrides::default())?;
    match config.servers.iter().find(|server| &*server.name == name).cloned() {
        Some(server) => Ok((config, server)),
        None => bail!("there is no server {name:?} in {}", config.path.display()),
    }
}

/// A command of no server.
pub(super) fn bare(name: &str, sandbox: Policy) -> anyhow::Result<Command> {
    Ok(Command {
        program: String::new(),
        args: Vec::new(),
        env: Vec::new(),
        cwd: std::env::current_dir()?,
        name: name.to_owned(),
        sandbox,
        protected: Vec::new(),
        ledger: None,
    })
}

pub(super) fn with_words(command: Command, words: &[String]) -> Command {
    let (program, args) =
        words.split_first().map(|(p, a)| (p.clone(), a.iter().map(Into::into).collect())).unwrap_or_default();
    Command { program, args, ..command }
}

async fn run_here(command: Command) -> anyhow::Result<ExitCode> {
    let tasks = TaskTracker::new();
    let (child, pipes) = command.spawn(&tasks).await?;
    note!("seawall: {}", in_a_line(child.report()));
    let exit = carry(&command, &child, pipes).await;
    exit_code(exit)
}

fn exit_code(exit: Exit) -> anyhow::Result<ExitCode> {
    Ok(match exit {
        Exit::Code(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Exit::Signal(signal) => {
            note!("seawall: it ended by {}", Exit::Signal(signal));
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
        }
        Exit::Unknown(why) => bail!("{why}"),
    })
}

/// Carries the three streams between this terminal and the program, until it ends.
async fn carry(command: &Command, child: &Child, mut pipes: Pipes) -> Exit {
    let_out(command, std::mem::take(&mut pipes.listeners));
    let mut stdin = pipes.stdin;
    tokio::spawn(async move {
        let _ = copy(&mut tokio::io::stdin(), &mut stdin).await;
        let _ = stdin.shutdown().await;
    });
    let errors = tokio::spawn(async move {
        let _ = copy(&mut pipes.stderr, &mut tokio::io::stderr()).await;
    });
    let mut out = tokio::io::stdout();
    let _ = copy(&mut pipes.stdout, &mut out).await;
    let _ = out.flush().await;
    let _ = errors.await;
    child.exited().await
}

/// Serves the sockets that listen in the network of one with an allow list.
fn let_out(command: &Command, listeners: Vec<std::os::fd::OwnedFd>) {
    if let Network::Allow(allowed) = &command.sandbox.network {
        let rule = Rule::new(&command.name, allowed, Arc::default());
        let egress = Egress::new(rule, Arc::new(|denial| note!("seawall: {denial}")));
        tokio::spawn(egress.serve(listeners));
    }
}

fn show(name: &str, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let command = command_of(config, name)?;
    let plan = command.plan()?;
    say!("{}", in_words(name, &command, &plan).trim_end())?;
    let tried = block_on(probe(command));
    match tried {
        Ok(report) => say!("really enforced here: {}", in_a_line(&report))?,
        Err(error) => {
            say!("refused here: {error:#}")?;
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What holds for a program under this command's policy: one is started.
pub(super) async fn probe(command: Command) -> anyhow::Result<Report> {
    let tasks = TaskTracker::new();
    let harmless = with_words(command, &["/bin/sh".to_owned(), "-c".to_owned(), ":".to_owned()]);
    let (child, _pipes) = harmless.spawn(&tasks).await?;
    let report = child.report().clone();
    child.exited().await;
    Ok(report)
}

fn in_words(name: &str, command: &Command, plan: &Plan) -> String {
    let mut out = String::new();
    let mut line = |what: &str, values: Vec<String>| {
        let shown = if values.is_empty() { "nothing".to_owned() } else { values.join("\n           ") };
        let _ = writeln!(out, "{what:<10} {shown}");
    };
    let paths = |paths: &[PathBuf]| paths.iter().map(|path| text::harmless(&path.display().to_string())).collect();
    line("server", vec![name.to_owned()]);
    line("profile", vec![plan.profile.name().to_owned()]);
    if plan.is_off() {
        line("may touch", vec!["everything that the user who runs seawall may".to_owned()]);
        return out;
    }
    line(
        "runs as",
        vec![plan.identity.as_ref().map_or("the user who runs seawall".to_owned(), |user| user.name.clone())],
    );
    line("reads", paths(&plan.read));
    line("writes", paths(&plan.write));
    line("not seen", paths(&plan.masked));
    line("home", vec!["private and empty, gone with the server".to_owned()]);
    let network = match &plan.network {
        Network::Allow(allowed) => allowed.iter().map(|to| format!("{}:{}", to.host, to.port)).collect(),
        other => vec![other.name().to_owned()],
    };
    line("network", network);
    let given = command.env.iter().map(|(name, _)| format!("{name} (from servers.toml)"));
    line("variables", command.sandbox.env.iter().cloned().chain(given).collect());
    line("needs all", plan.needs_full.clone());
    out
}

pub(super) fn in_a_line(report: &Report) -> String {
    let mut line = format!(
        "profile {}, tier {}, network {}, end of the whole tree {}",
        report.profile, report.tier, report.network, report.tree_kill
    );
    if report.landlock_abi > 0 {
        let _ = write!(line, ", Landlock {}", report.landlock_abi);
    }
    if !report.limits.is_empty() {
        let _ = write!(line, "; limits: {}", report.limits.join(", "));
    }
    if !report.not_enforced.is_empty() {
        let _ = write!(line, "; not enforced: {}", text::harmless(&report.not_enforced.join(", ")));
    }
    line
}
