//! What a failing server costs its neighbours: a healthy tool's latency while something
//! fails, against its latency while nothing does.
//!
//!     cargo bench --bench neighbours                   the whole table
//!     cargo bench --bench neighbours -- --quick        an impression
//!     cargo bench --bench neighbours -- --write-docs   also into docs/reliability.md
//!     cargo bench --bench neighbours -- --only is-killed,database-locked
//!
//! One gateway, one healthy server, and one server for each fault. Quiet and failing turns
//! of a fraction of a second take each other's place, so that a busy machine is
//! busy for both; a ratio is of all samples of the one against all of the other. Loopback
//! only; every loop is bounded in time, every child is ended by its pid.

use clap::Parser;

#[path = "load/docs.rs"]
mod docs;
#[path = "neighbours/faults.rs"]
mod faults;
#[path = "../tests/support/http.rs"]
// The tests use the rest of it.
#[allow(dead_code, unreachable_pub)]
mod http;
#[path = "load/machine.rs"]
#[allow(dead_code, reason = "the load driver uses the rest")]
mod machine;
#[path = "neighbours/measure.rs"]
mod measure;
#[path = "neighbours/report.rs"]
mod report;
#[path = "load/shape.rs"]
#[allow(dead_code, reason = "the load driver uses the rest")]
mod shape;
#[path = "load/spawn.rs"]
#[allow(dead_code, reason = "the load driver uses the rest")]
mod spawn;
#[path = "neighbours/trouble.rs"]
mod trouble;
#[path = "load/web.rs"]
mod web;

#[derive(Debug, Parser)]
#[command(name = "neighbours", about = "Compares a healthy tool's latency with and without a failing neighbour")]
pub(crate) struct Options {
    /// Pairs of a quiet and a failing turn, for each fault.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=200))]
    rounds: u32,

    /// How long a turn takes, in milliseconds.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(20..=5000))]
    turn_ms: u64,

    /// Three pairs for each fault.
    #[arg(long)]
    quick: bool,

    /// Write the table into docs/reliability.md, between its markers.
    #[arg(long)]
    write_docs: bool,

    /// Measure only these faults.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,

    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    if !options.bench {
        // `cargo test --all-targets` runs this too.
        println!("the neighbours are measured by: cargo bench --bench neighbours");
        return;
    }
    spawn::build_fixture_server();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let report = runtime.block_on(measure::all(&options));
    println!("{report}");
    if options.write_docs {
        docs::write("reliability.md", "neighbours", &report);
    }
}
