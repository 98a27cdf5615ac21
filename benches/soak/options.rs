//! The command line of the soak.

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "soak", about = "Long runs at the end of which everything must be as it was at the beginning")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) run: Option<Run>,

    /// Write the result into docs/soak.md, into the section of this run.
    #[arg(long, global = true)]
    pub(crate) write_docs: bool,

    /// Said by `cargo bench`.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Run {
    /// Consecutive calls through one stdio server, and through one in-process server
    Calls(Calls),
    /// Calls while the server is killed -9 again and again
    Kill(Kill),
    /// The gateway killed -9 under load, again and again
    GatewayKill(GatewayKill),
    /// Healthy and failing servers, several clients, edits of servers.toml, recycles
    HalfHour(HalfHour),
    /// All services under a small launchd, struck by faults, in compressed time
    Services(Services),
    /// Be the gateway with an in-process server
    #[command(hide = true)]
    Inside,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Calls {
    /// Through the stdio server.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) stdio: u64,
    /// Through the in-process server.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) in_process: u64,
    /// Connections, each with a session of its own and one call under way.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=32))]
    pub(crate) lanes: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Kill {
    /// Calls with limits that are set high.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) calls: u64,
    /// Calls with the limits of an empty servers.toml.
    #[arg(long, default_value_t = 1000)]
    pub(crate) default_calls: u64,
    /// The server is killed every so many calls.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) every: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct GatewayKill {
    /// So many lives of a gateway.
    #[arg(long, default_value_t = 200)]
    pub(crate) times: u64,
    /// Decides when each is killed.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HalfHour {
    #[arg(long, default_value_t = 30.0, value_parser = minutes)]
    pub(crate) minutes: f64,
    /// From one edit of servers.toml to the next, at most.
    #[arg(long, default_value_t = 4000)]
    pub(crate) edit_pause_ms: u64,
    /// Decides which faults come when.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Services {
    /// Each fires the daily tasks once, each seventh the weekly ones.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) days: u64,
    /// So often a day something is done to one service, or to several at once.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) faults_a_day: u64,
    /// Decides what is done to whom.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Run {
    /// Its section in docs/soak.md, and its word on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Run::Calls(_) => "calls",
            Run::Kill(_) => "kill",
            Run::GatewayKill(_) => "gateway-kill",
            Run::HalfHour(_) => "half-hour",
            Run::Services(_) => "services",
            Run::Inside => "inside",
        }
    }
}

/// Bounded, so that no mistyped number keeps a machine busy for a week.
fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=1440.0).contains(&minutes) { Ok(minutes) } else { Err("between 0.1 and 1440".to_owned()) }
}
