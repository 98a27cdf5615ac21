//! The command line of the load driver.

use std::time::Duration;

use clap::{Parser, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "load", about = "Compares calls through seawall with calls without, side by side in one run")]
pub(crate) struct Options {
    /// Each number is the best of so many rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,

    /// How long each measurement of a round takes.
    #[arg(long, default_value_t = 1.2, value_parser = seconds)]
    seconds: f64,

    /// One round of 0.3 s each.
    #[arg(long)]
    quick: bool,

    /// Write the table into docs/speed.md, between its markers.
    #[arg(long)]
    pub(crate) write_docs: bool,

    /// Measure only these.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Subject::ALL)]
    pub(crate) only: Vec<Subject>,

    /// What servers.toml says about the server's sandbox.
    #[arg(long, default_value = "standard")]
    pub(crate) sandbox: String,

    /// Another gateway over Streamable HTTP, as a shell would take it: `{port}` is the
    /// port to listen on, `{server}` the MCP server to run.
    #[arg(long)]
    pub(crate) gateway_cmd: Option<String>,

    /// Where the other gateway has its MCP endpoint.
    #[arg(long, default_value = "/mcp")]
    pub(crate) gateway_path: String,

    /// What to call the other gateway.
    #[arg(long, default_value = "other gateway")]
    pub(crate) gateway_name: String,

    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,

    /// Be the server that does nothing.
    #[arg(long, hide = true)]
    pub(crate) ceiling: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    Ceiling,
    Pipes,
    Http,
    Stdio,
}

impl Subject {
    const ALL: [Subject; 4] = [Subject::Ceiling, Subject::Pipes, Subject::Http, Subject::Stdio];
}

impl Options {
    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs_f64(if self.quick { 0.3 } else { self.seconds })
    }
}

/// Bounded, so that no mistyped number keeps a machine busy for a day.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.05..=60.0).contains(&seconds) { Ok(seconds) } else { Err("between 0.05 and 60".to_owned()) }
}
