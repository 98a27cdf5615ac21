//! The command line: clap's types only.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

use seawall::command;

/// A gateway between MCP clients and MCP servers that stays up.
///
/// Without a subcommand it serves, as `seawall serve` does.
#[derive(Debug, Parser)]
#[command(name = "seawall", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// The servers.toml to use [default: ./servers.toml, then the user's config folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// How log lines on stderr are written; RUST_LOG says which ones
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log: LogFormat,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  seawall                          serve what ./servers.toml lists
  seawall check                    is servers.toml right?
  seawall status                   how are the servers?
  seawall failures --since 1h      what went wrong lately?
  seawall why 1qr46d               the story of one failure, by its id or the beginning of it
  seawall services                 how are gateway, embedding-server and the others?
  seawall call files__list_directory '{\"path\":\".\"}'

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no gateway is running, 78 servers.toml is bad.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(command::serve::Args),
    Stdio(command::stdio::Args),
    Check(command::check::Args),
    Status(command::status::Args),
    Tools(command::tools::Args),
    Call(command::call::Args),
    Failures(command::failures::FailuresArgs),
    Events(command::events::EventsArgs),
    Why(command::why::WhyArgs),
    Restart(command::restart::Args),
    Reload(command::reload::Args),
    Breaker(command::breaker::Args),
    Sandbox(command::sandbox::Args),
    Doctor(command::doctor::Args),
    Services(command::services::Args),
    Run(command::run::Args),
    EmitServer(command::emit::Args),
    EmbeddingServer(command::embedding::Args),
    Tasks(command::tasks::Args),
    Launchd(command::launchd::Args),
    Systemd(command::systemd::Args),
    FileWatcher(command::watch::Args),
    Mcp(command::mcp::Args),
    #[command(hide = true)]
    ServiceHelper(command::run::HelperArgs),
}

impl Cli {
    /// `seawall` alone serves.
    pub(crate) fn command(&mut self) -> Command {
        self.command.take().unwrap_or(Command::Serve(command::serve::Args { listen: None::<SocketAddr> }))
    }
}
