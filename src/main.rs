//! `seawall`: parse, log, dispatch, exit code.

mod cli;

use std::{io::IsTerminal as _, process::ExitCode};

use tracing_subscriber::EnvFilter;

use cli::{Cli, Command, LogFormat};
use seawall::{command, embedding, process::launcher, say};

/// Samples what is allocated where, for heap profiles, and gives memory back after a flood.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Before anything else: this may be the process that becomes a server, or a model.
    if let Some(code) = launcher::enter().or_else(embedding::enter).or_else(command::run::enter) {
        return code;
    }
    let mut cli = Cli::read();
    let command = cli.command();
    log_to_stderr(cli.log, &command);
    let code = run(command, cli.config).unwrap_or_else(|error| {
        say::aside(format_args!("seawall: {}", command::sentence(&error)));
        command::exit_code(&error)
    });
    say::farewell();
    code
}

fn run(command: Command, config: Option<std::path::PathBuf>) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => command::serve::run(args, config),
        Command::Stdio(args) => command::stdio::run(args, config),
        Command::Check(args) => command::check::run(args, config),
        Command::Status(args) => command::status::run(args, config),
        Command::Tools(args) => command::tools::run(args, config),
        Command::Call(args) => command::call::run(args, config),
        Command::Failures(args) => command::failures::run(&args, &command::database(config)?),
        Command::Events(args) => command::events::run(&args, &command::database(config)?),
        Command::Why(args) => command::why::run(&args, &command::database(config)?),
        Command::Restart(args) => command::restart::run(args, config),
        Command::Reload(args) => command::reload::run(args, config),
        Command::Breaker(args) => command::breaker::run(args, config),
        Command::Sandbox(args) => command::sandbox::run(args, config),
        Command::Doctor(args) => command::doctor::run(args),
        Command::Services(args) => command::services::run(args, config),
        Command::Run(args) => command::run::run(args, config),
        Command::EmitServer(args) => command::emit::run(args, config),
        Command::EmbeddingServer(args) => command::embedding::run(args, config),
        Command::Tasks(args) => command::tasks::run(args, config),
        Command::Launchd(args) => command::launchd::run(args, config),
        Command::Systemd(args) => command::systemd::run(args, config),
        Command::FileWatcher(args) => command::watch::run(args, config),
        Command::Mcp(args) => command::block_on(command::mcp::run(args)),
    }
}

/// `RUST_LOG` decides; else a gateway in the background tells what happens, and one
/// that a person looks at only what is wrong.
fn log_to_stderr(format: LogFormat, command: &Command) {
    let is_quiet = std::io::stderr().is_terminal()
        || !matches!(command, Command::Serve(_) | Command::FileWatcher(_) | Command::EmbeddingServer(_));
    // rmcp tells of every handshake and every end of the builtin servers, and warns of each
    // answer that is an error, which whoever asked has got.
    let default = if is_quiet { "warn,rmcp=error" } else { "info,rmcp=warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let has_colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| say::Stderr).with_ansi(has_colour);
    // Of a stderr that nobody reads any more it would tell by `eprintln!`, which panics there.
    let log = log.log_internal_errors(false);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}
