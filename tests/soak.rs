//! The short form of the long runs: the same programs as in benches/soak.rs, with small
//! numbers. What they demand of every run is demanded here.

#[path = "../benches/soak/calls.rs"]
mod calls;
#[path = "support/census.rs"]
#[allow(dead_code, unreachable_pub)]
mod census;
#[path = "../benches/soak/chaos.rs"]
mod chaos;
#[path = "../benches/soak/clients.rs"]
mod clients;
#[path = "support/database.rs"]
#[allow(unreachable_pub)]
mod database;
#[path = "support/disk.rs"]
#[allow(dead_code, unreachable_pub)]
mod disk;
#[path = "../benches/soak/edits.rs"]
mod edits;
#[path = "support/fixture.rs"]
#[allow(dead_code, unreachable_pub)]
mod fixture;
#[path = "../benches/soak/gateway.rs"]
mod gateway;
#[path = "../benches/soak/gateway_kill.rs"]
mod gateway_kill;
#[path = "support/http.rs"]
#[allow(dead_code, unreachable_pub)]
mod http;
#[path = "../benches/soak/kill.rs"]
mod kill;
#[path = "../benches/soak/lane.rs"]
mod lane;
#[path = "support/launchd.rs"]
#[allow(dead_code, unreachable_pub)]
mod launchd;
#[path = "../benches/load/machine.rs"]
#[allow(dead_code)]
mod machine;
#[path = "../benches/soak/options.rs"]
#[allow(dead_code)]
mod options;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub)]
mod process;
#[path = "../benches/soak/report.rs"]
#[allow(dead_code)]
mod report;
#[path = "support/scratch.rs"]
#[allow(dead_code, unreachable_pub)]
mod scratch;
#[path = "../benches/soak/services.rs"]
mod services;
#[path = "../benches/load/spawn.rs"]
#[allow(dead_code)]
mod spawn;
#[path = "../benches/soak/tally.rs"]
mod tally;
#[path = "support/tools.rs"]
#[allow(dead_code, unreachable_pub)]
mod tools;
#[path = "support/tree.rs"]
#[allow(dead_code, unreachable_pub)]
mod tree;
#[path = "../benches/soak/vitals.rs"]
mod vitals;
#[path = "support/wait.rs"]
#[allow(dead_code, unreachable_pub)]
mod wait;

use options::{Calls, GatewayKill, HalfHour, Kill, Services};
use report::Report;

fn passes(report: &Report) {
    assert!(report.is_good(), "{report}");
}

#[tokio::test]
async fn thousands_of_calls_through_one_life_get_their_own_answers() {
    fixture::fixture_server();
    passes(&calls::run(&Calls { stdio: 2000, in_process: 0, lanes: 8 }).await);
}

#[tokio::test]
async fn calls_of_a_server_that_is_killed_all_the_time_end_once_and_are_on_record() {
    fixture::fixture_server();
    passes(&kill::run(&Kill { calls: 300, default_calls: 110, every: 50 }).await);
}

#[tokio::test]
async fn a_gateway_that_is_killed_under_load_leaves_nothing_but_a_record() {
    fixture::fixture_server();
    passes(&gateway_kill::run(&GatewayKill { times: 2, seed: 1 }).await);
}

/// Each kind of edit once, restarts and recycles meanwhile.
#[tokio::test]
async fn no_edit_and_no_neighbour_disturbs_a_server_that_works() {
    fixture::fixture_server();
    passes(&chaos::run(&HalfHour { minutes: 0.05, edit_pause_ms: 10, seed: 1 }).await);
}

/// Each day once, each service struck at least once on the way.
#[tokio::test]
async fn the_services_outlive_a_week_of_kills_hangs_and_full_disks() {
    passes(&services::run(&Services { days: 7, faults_a_day: 1, seed: 1 }).await);
}
