//! Consecutive calls through one life of one server: each its own answer, none lost,
//! none sent twice, and nothing held afterwards that was not held before.

use std::time::Duration;

use serde_json::json;

use crate::{
    gateway::{Gateway, Launch, fixture, write_config},
    options::Calls,
    report::Report,
    tally::{Tally, judge},
    vitals::{RULE, Watch},
};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Fewer than that are over before anything has warmed up.
const LONG_ENOUGH: u64 = 100_000;
/// Above what a machine can do: no call is to be refused.
pub(crate) const NO_LIMITS: &str = "[defaults]\nrate_limit = { per_minute = 60000000, burst = 1000000 }\n";

pub(crate) async fn run(settings: &Calls) -> Report {
    let mut report = Report::default();
    let folder = tempfile::Builder::new().prefix("seawall-soak-").tempdir().expect("a temporary folder can be made");
    if settings.stdio > 0 {
        write_config(folder.path(), &format!("{NO_LIMITS}{}", fixture("soak", &[])));
        let gateway = Launch::serve().start(folder.path()).await;
        gateway.server_is_ready("soak").await;
        report.say("**One stdio server**\n");
        through(&gateway, settings.stdio, settings.lanes, &mut report).await;
        let server = gateway.status().await["servers"]["soak"].clone();
        let untroubled = server["restarts"] == 0 && server["failures"] == 0;
        report.demand(untroubled, format!("the server did not live through it untroubled: {server}"));
        report.demand(gateway.stop().await.success(), "the gateway did not end well");
    }
    if settings.in_process > 0 {
        let own = std::env::current_exe().expect("a program knows its path");
        let gateway = Launch { program: own, words: vec!["inside".to_owned()] }.start(folder.path()).await;
        report.say("\n**One in-process server**\n");
        through(&gateway, settings.in_process, settings.lanes, &mut report).await;
        report.demand(gateway.stop().await.success(), "the gateway did not end with an empty tracker of tasks");
    }
    report.say(format!("\nFlat means: {RULE}."));
    report
}

async fn through(gateway: &Gateway, calls: u64, lanes: u64, report: &mut Report) {
    let watch = Watch::of(gateway.pid(), LOOK_EVERY);
    let per_lane = calls.div_ceil(lanes);
    let mut tasks = Vec::new();
    for number in 0..lanes {
        let mut lane = gateway.lane("/mcp/soak").await;
        tasks.push(tokio::spawn(async move {
            let mut tally = Tally::default();
            for n in 0..per_lane {
                let arguments = json!({ "lane": number, "n": n, "text": "häfen" });
                let reply = lane.call("echo", &arguments).await;
                tally.count(&judge(&arguments, &reply));
                if reply.is_err() {
                    // The connection is of no further use: one complaint says it all.
                    break;
                }
            }
            (tally, lane.leave().await)
        }));
    }
    let mut tally = Tally::default();
    for task in tasks {
        let (own, left) = task.await.expect("a lane does not panic");
        report.demand(left.is_ok(), format!("a session could not be ended: {left:?}"));
        tally.add(own);
    }
    let (series, took) = watch.end();
    let told = gateway.lane("/mcp/soak").await.call("counter", &json!({})).await;
    let received = told.as_ref().map_or(0, |told| told["result"]["structuredContent"]["calls"].as_u64().unwrap_or(0));
    report.say(format!(
        "{tally}, in {:.0} s, {lanes} at once; the server received {} in one life.\n",
        took.as_secs_f64(),
        received - 1
    ));
    report.say(&series);
    report.demand(received == tally.calls + 1, format!("{} calls were made, {told:?} were received", tally.calls));
    report.demand(tally.of("ok") == tally.calls, format!("not every call was answered: {tally}"));
    report.blame(tally.complaints());
    if calls >= LONG_ENOUGH {
        report.blame(series.complaints("the gateway"));
    }
}
