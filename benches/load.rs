//! The load driver: how much slower is a call through seawall than without?
//!
//!     cargo bench --bench load                   the whole table, three rounds
//!     cargo bench --bench load -- --quick        a minute's impression
//!     cargo bench --bench load -- --write-docs   also into docs/speed.md
//!     cargo bench --bench load -- --gateway-cmd 'other --port {port} -- {server}'
//!
//! Everything is compared within one run, because a busy machine is slow for all:
//! an HTTP server that does nothing (the ceiling), the same MCP server over pipes
//! without anything between, seawall over HTTP with every layer on, seawall's stdio
//! front. Loopback only; every loop is bounded in time, every child is ended by pid.

use clap::Parser;

#[path = "load/ceiling.rs"]
mod ceiling;
#[path = "load/docs.rs"]
mod docs;
#[path = "../tests/support/http.rs"]
// The tests use the rest of it.
#[allow(dead_code, unreachable_pub)]
mod http;
#[path = "load/lane.rs"]
mod lane;
#[path = "load/machine.rs"]
mod machine;
#[path = "load/measure.rs"]
mod measure;
#[path = "load/options.rs"]
mod options;
#[path = "load/pipe.rs"]
mod pipe;
#[path = "load/report.rs"]
mod report;
#[path = "load/shape.rs"]
mod shape;
#[path = "load/spawn.rs"]
mod spawn;
#[path = "load/target.rs"]
mod target;
#[path = "load/web.rs"]
mod web;

use options::Options;

fn main() {
    let options = Options::parse();
    if options.ceiling {
        return ceiling::serve();
    }
    if !options.bench {
        // `cargo test --all-targets` runs this too.
        println!("the load driver is run by: cargo bench --bench load");
        return;
    }
    spawn::build_fixture_server();
    // One thread: the other cores belong to what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let report = runtime.block_on(measure::all(&options));
    println!("{report}");
    if options.write_docs {
        docs::write("speed.md", "load", &report);
    }
}
