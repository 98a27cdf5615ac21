//! `seawall sandbox`: what a server's sandbox is, and trying it from a shell.

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
    text,
};

/// Show a server's sandbox, or try it from a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  seawall sandbox show files\n  seawall sandbox run files -- ls -la\n  \
                        seawall sandbox run -- python3 server.py")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// What a server may touch, and what of that this machine really enforces
    #[command(after_help = "Example: seawall sandbox show files")]
    Show { name: String },
    /// Run a command as a server is run; without NAME under the standard profile
    #[command(after_help = "Example: seawall sandbox run files -- ls -la")]
    Run {
        #[arg(value_name = "NAME")]
        name: Option<String>,
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Show { name } => show(&name, config),
        What::Run { name, command } => {
            let command = match name {
                Some(name) => {
                    let (config, server) = server(config, &name)?;
                    let own = gateway::command_of(&config, &server).context("only a command server has a sandbox")?;
                    with_words(Command { cwd: std::env::current_dir()?, ..own }, &command)
                }
                None => with_words(bare("shell", Policy::default())?, &command),
            };
            block_on(run_here(command))
        }
    }
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
    let (program, args) = words.split_first().map(|(p, a)| (p.clone(), a.to_vec())).unwrap_or_default();
    Command { program, args, ..command }
}

async fn run_here(command: Command) -> anyhow::Result<ExitCode> {
    let tasks = TaskTracker::new();
    let (child, pipes) = command.spawn(&tasks).await?;
    eprintln!("seawall: {}", in_a_line(child.report()));
    let exit = carry(&command, &child, pipes).await;
    Ok(match exit {
        Exit::Code(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Exit::Signal(signal) => {
            eprintln!("seawall: it ended by {}", Exit::Signal(signal));
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
        }
        Exit::Unknown(why) => bail!("{why}"),
    })
}

/// Carries the three streams between this terminal and the program, until it ends.
async fn carry(command: &Command, child: &Child, mut pipes: Pipes) -> Exit {
    if let Network::Allow(allowed) = &command.sandbox.network {
        let rule = Rule::new(&command.name, allowed, Arc::default());
        let egress = Egress::new(rule, Arc::new(|denial| eprintln!("seawall: {denial}")));
        tokio::spawn(egress.serve(std::mem::take(&mut pipes.listeners)));
    }
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

fn show(name: &str, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (config, server) = server(config, name)?;
    let command = gateway::command_of(&config, &server).context("only a command server has a sandbox")?;
    let plan = command.plan()?;
    print!("{}", in_words(name, &command, &plan));
    let tried = block_on(probe(command));
    match tried {
        Ok(report) => println!("really enforced here: {}", in_a_line(&report)),
        Err(error) => {
            println!("refused here: {error:#}");
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
