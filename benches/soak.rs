//! The soak: long runs at the end of which everything must be as it was at the beginning.
//!
//!     cargo bench --bench soak -- calls          a million calls through one server, of each kind
//!     cargo bench --bench soak -- kill           ten thousand while the server is killed every fifty
//!     cargo bench --bench soak -- gateway-kill   the gateway killed -9 under load, again and again
//!     cargo bench --bench soak -- half-hour      real servers that fail in every way, edits, recycles
//!     cargo bench --bench soak -- services       seven days of all services under a small launchd
//!     … --write-docs                             also into docs/soak.md, the section of that run
//!
//! Every answer is checked to be the one that was asked for, descriptors, threads,
//! children and resident memory of the gateway are sampled all the while, and a run
//! fails where one of them is not flat. Loopback only; every wait is bounded, and what
//! was started is ended by pid.

use std::process::ExitCode;

use clap::Parser;

#[path = "soak/calls.rs"]
mod calls;
#[path = "../tests/support/census.rs"]
#[allow(dead_code, unreachable_pub)]
mod census;
#[path = "soak/chaos.rs"]
mod chaos;
#[path = "soak/clients.rs"]
mod clients;
#[path = "../tests/support/database.rs"]
#[allow(unreachable_pub)]
mod database;
#[path = "../tests/support/disk.rs"]
#[allow(dead_code, unreachable_pub)]
mod disk;
#[path = "load/docs.rs"]
mod docs;
#[path = "soak/edits.rs"]
mod edits;
#[path = "soak/gateway.rs"]
mod gateway;
#[path = "soak/gateway_kill.rs"]
mod gateway_kill;
#[path = "../tests/support/http.rs"]
// The tests use the rest of it.
#[allow(dead_code, unreachable_pub)]
mod http;
#[path = "soak/inside.rs"]
mod inside;
#[path = "soak/kill.rs"]
mod kill;
#[path = "soak/lane.rs"]
mod lane;
#[path = "../tests/support/launchd.rs"]
#[allow(dead_code, unreachable_pub)]
mod launchd;
#[path = "load/machine.rs"]
#[allow(dead_code, reason = "the load driver asks for more")]
mod machine;
#[path = "soak/options.rs"]
mod options;
#[path = "../tests/support/process.rs"]
#[allow(dead_code, unreachable_pub)]
mod process;
#[path = "soak/report.rs"]
mod report;
#[path = "../tests/support/scratch.rs"]
#[allow(dead_code, unreachable_pub)]
mod scratch;
#[path = "soak/services.rs"]
mod services;
#[path = "load/spawn.rs"]
#[allow(dead_code, reason = "the load driver speaks to its children over pipes")]
mod spawn;
#[path = "soak/tally.rs"]
mod tally;
#[path = "../tests/support/tools.rs"]
#[allow(dead_code, unreachable_pub)]
mod tools;
#[path = "../tests/support/tree.rs"]
#[allow(dead_code, unreachable_pub)]
mod tree;
#[path = "soak/vitals.rs"]
mod vitals;
#[path = "../tests/support/wait.rs"]
#[allow(dead_code, unreachable_pub)]
mod wait;

use options::{Options, Run};

fn main() -> ExitCode {
    let options = Options::parse();
    let Some(run) = options.run.clone() else {
        // `cargo test --all-targets` runs this too.
        println!("the soak is run by: cargo bench --bench soak -- calls");
        return ExitCode::SUCCESS;
    };
    if let Run::Inside = run {
        return inside::serve();
    }
    // The services are seawall's own.
    if !matches!(run, Run::Services(_)) {
        spawn::build_fixture_server();
    }
    // One thread: the other cores belong to what is tried.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let report = runtime.block_on(async {
        match &run {
            Run::Calls(settings) => calls::run(settings).await,
            Run::Kill(settings) => kill::run(settings).await,
            Run::GatewayKill(settings) => gateway_kill::run(settings).await,
            Run::HalfHour(settings) => chaos::run(settings).await,
            Run::Services(settings) => services::run(settings).await,
            Run::Inside => unreachable!("it has returned"),
        }
    });
    println!("{report}");
    if options.write_docs {
        docs::write("soak.md", &format!("soak:{}", run.name()), &report);
    }
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
