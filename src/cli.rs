//! The command line: clap's types only.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

use clap::{
    Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue},
};

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
}

impl Cli {
    /// Reads the command line, or says what is wrong with it and ends.
    pub(crate) fn read() -> Self {
        Cli::try_parse().unwrap_or_else(|mut error| {
            suggest_only_what_is_shown(&mut error);
            error.exit()
        })
    }

    /// `seawall` alone serves.
    pub(crate) fn command(&mut self) -> Command {
        self.command.take().unwrap_or(Command::Serve(command::serve::Args { listen: None::<SocketAddr> }))
    }
}

/// Whoever mistypes a word is not to be sent to one that is for seawall itself.
fn suggest_only_what_is_shown(error: &mut clap::Error) {
    let mut shown = BTreeSet::new();
    collect_shown(&<Cli as clap::CommandFactory>::command(), &mut shown);
    for kind in [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg] {
        let left: Vec<String> = match error.remove(kind) {
            Some(ContextValue::Strings(words)) => words.into_iter().filter(|word| shown.contains(word)).collect(),
            Some(ContextValue::String(word)) => {
                if shown.contains(&word) {
                    error.insert(kind, ContextValue::String(word));
                }
                continue;
            }
            _ => continue,
        };
        if !left.is_empty() {
            error.insert(kind, ContextValue::Strings(left));
        }
    }
}

fn collect_shown(command: &clap::Command, shown: &mut BTreeSet<String>) {
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    shown.extend(arguments.filter_map(|argument| argument.get_long()).map(|long| format!("--{long}")));
    shown.extend(["help", "--help", "--version"].map(str::to_owned));
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        shown.insert(subcommand.get_name().to_owned());
        collect_shown(subcommand, shown);
    }
}
