//! What the launcher and the sandbox add to the start of a server: the time from the start
//! of its process to its answer to `initialize`, against the same program started directly.
//!
//!     cargo bench --bench start                   the whole table
//!     cargo bench --bench start -- --quick        an impression
//!     cargo bench --bench start -- --write-docs   also into docs/speed.md
//!
//! Each way of starting is a worker of its own, and they take turns, one start each, so that
//! a busy machine is busy for all of them. Compared are the medians, and the fastest starts:
//! a machine that does other things makes single starts slower, never faster. Every child is ended
//! before the next begins.

use std::process::ExitCode;

use clap::Parser;

#[path = "load/docs.rs"]
mod docs;
#[path = "load/machine.rs"]
#[allow(dead_code, reason = "the load driver uses the rest")]
mod machine;
#[path = "start/report.rs"]
mod report;
#[path = "load/spawn.rs"]
#[allow(dead_code, reason = "the load driver uses the rest")]
mod spawn;
#[path = "start/turns.rs"]
mod turns;
#[path = "start/worker.rs"]
mod worker;

#[derive(Debug, Parser)]
#[command(name = "start", about = "Measures what the launcher and the sandbox add to a server's start")]
pub(crate) struct Options {
    /// Starts of each kind.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(5..=5000))]
    starts: u32,

    /// Fifteen starts of each kind.
    #[arg(long)]
    quick: bool,

    /// Write the table into docs/speed.md, between its markers.
    #[arg(long)]
    write_docs: bool,

    /// What a worker does: one start of this kind for each line that it is told.
    #[arg(long, hide = true, num_args = 2.., allow_hyphen_values = true)]
    work: Option<Vec<String>>,

    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // This may be the process that becomes a server.
    if let Some(code) = seawall::process::launcher::enter() {
        return code;
    }
    let options = Options::parse();
    if let Some(words) = options.work {
        worker::work(&words);
        return ExitCode::SUCCESS;
    }
    if !options.bench {
        // `cargo test --all-targets` runs this too.
        println!("starts are measured by: cargo bench --bench start");
        return ExitCode::SUCCESS;
    }
    spawn::build_example("fixture-server");
    spawn::build_example("hostile");
    let report = turns::all(if options.quick { 15 } else { options.starts });
    println!("{report}");
    if options.write_docs {
        docs::write("speed.md", "start", &report);
    }
    ExitCode::SUCCESS
}
