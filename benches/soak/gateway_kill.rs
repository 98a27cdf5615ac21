//! The gateway itself is killed -9 under load, again and again: nothing of what its
//! servers started survives, the database is whole, and each death is on record.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    calls::NO_LIMITS,
    census::Census,
    gateway::{self, Gateway, Launch, count, fixture, integrity, write_config},
    lane::Lane,
    options::GatewayKill,
    report::{Report, times},
    tally::{End, Tally, judge},
    vitals::{RULE, Series},
    wait::wait_until,
};

const LANES: usize = 4;
/// Two servers, and two daemons.
const MARKED_MIN: usize = 4;
/// Fewer lives have no thirds.
const LONG_ENOUGH: u64 = 30;
const CALLS_MAX: u64 = 400;
const SOON: Duration = Duration::from_secs(20);
/// New sessions, forked twice, their parents gone.
const DAEMONS: &str =
    "(setsid sleep 300 </dev/null >/dev/null 2>&1 &) ; setsid -f sleep 300 >/dev/null 2>&1; echo made";

pub(crate) async fn run(settings: &GatewayKill) -> Report {
    let mut report = Report::default();
    let folder = tempfile::Builder::new().prefix("seawall-soak-").tempdir().expect("a temporary folder can be made");
    let census = Census::new();
    write_config(folder.path(), &servers_toml(&census));
    let mut chance = StdRng::seed_from_u64(settings.seed);
    let (mut tally, mut series, mut gone_after) = (Tally::default(), Series::default(), Vec::new());
    for life in 0..settings.times {
        let calls = chance.random_range(1..=CALLS_MAX);
        let with_wrapper = chance.random_bool(0.5);
        let mut wrapper = run_gateway(folder.path()).await;
        let serving = pid_of(&wrapper).await;
        with_daemons(&wrapper, &census).await;
        series.look(serving);
        tally.add(
            under_load(&wrapper, calls, async || {
                if with_wrapper {
                    gateway::signal(wrapper.pid(), Signal::KILL);
                }
                gateway::signal(serving, Signal::KILL);
            })
            .await,
        );
        let killed = Instant::now();
        wrapper.ended().await;
        wait_until(SOON, &format!("everything of life {life} to be gone: {:?}", census.left()), async || {
            (census.count() == 0).then_some(())
        })
        .await;
        gone_after.push(killed.elapsed());
        let verdict = integrity(folder.path());
        report.demand(verdict == "ok", format!("life {life}: integrity_check says {verdict}"));
    }
    end_well(folder.path(), settings.times, &census, &mut report).await;

    report.say(format!(
        "{} lives, each ended by SIGKILL to the gateway, in half of them to `seawall run` as well. {tally}; \
         a call that was under way is counted as none.\n",
        settings.times
    ));
    report.say(times("from kill -9 until the last process of every server is gone", &mut gone_after));
    report.say(&series);
    report.say(format!("One sample a life, once its servers have answered. Flat means: {RULE}."));
    report.blame(tally.complaints());
    if settings.times >= LONG_ENOUGH {
        report.blame(series.complaints("one life after the other"));
    }
    report
}

fn servers_toml(census: &Census) -> String {
    let env = format!("env = {{ CENSUS = \"{}\" }}\n", census.mark());
    let confined = fixture("confined", &[]).replace("sandbox = \"off\"", "sandbox = \"standard\"");
    let stubborn = fixture("soak", &["--ignore-eof", "--ignore-sigterm"]);
    let serve = r#"["${seawall}", "serve", "--listen", "127.0.0.1:0", "--config", "servers.toml"]"#;
    format!("{NO_LIMITS}{stubborn}{env}{confined}{env}\n[services.one]\ncommand = {serve}\n")
}

async fn run_gateway(folder: &Path) -> Gateway {
    Launch::of(&["run", "one", "--config", "servers.toml"]).start(folder).await
}

async fn pid_of(wrapper: &Gateway) -> u32 {
    for name in ["soak", "confined"] {
        wrapper.server_is_ready(name).await;
    }
    let pid = wrapper.status().await["gateway"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    pid.expect("status tells the gateway's pid")
}

async fn with_daemons(wrapper: &Gateway, census: &Census) {
    let made = wrapper.lane("/mcp/soak").await.call("run", &json!({ "command": ["/bin/sh", "-c", DAEMONS] })).await;
    let made = made.expect("the server answers");
    assert!(made["result"]["content"][0]["text"].as_str().is_some_and(|text| text.trim() == "made"), "{made}");
    wait_until(SOON, "the daemons to be there", async || (census.count() >= MARKED_MIN).then_some(())).await;
}

/// Calls to both servers until so many have ended; then `strike`, with calls under way.
async fn under_load(wrapper: &Gateway, calls: u64, strike: impl AsyncFnOnce()) -> Tally {
    let ended = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for number in 0..LANES {
        let server = if number % 2 == 0 { "/mcp/soak" } else { "/mcp/confined" };
        tasks.push(tokio::spawn(call_to_the_end(wrapper.lane(server).await, ended.clone())));
    }
    wait_until(SOON, "calls to be answered", async || (ended.load(Ordering::Relaxed) >= calls).then_some(())).await;
    strike().await;
    let mut tally = Tally::default();
    for task in tasks {
        tally.add(task.await.expect("a caller does not panic"));
    }
    tally
}

async fn call_to_the_end(mut lane: Lane, ended: Arc<AtomicU64>) -> Tally {
    let mut tally = Tally::default();
    loop {
        let arguments = json!({ "n": tally.calls });
        let reply = lane.call("echo", &arguments).await;
        if reply.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::Other) {
            // The connection ended with the gateway.
            return tally;
        }
        // A server may be gone a moment before its gateway.
        let end = judge(&arguments, &reply);
        if end != End::Class("lost") && end != End::Class("unavailable") {
            tally.count(&end);
        }
        ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// The last life is a good one: it finds the death of the one before, and leaves nothing.
async fn end_well(folder: &Path, times: u64, census: &Census, report: &mut Report) {
    let last = run_gateway(folder).await;
    pid_of(&last).await;
    let marks = std::fs::read_dir(folder.join(".seawall/processes")).map(|notes| notes.flatten().count());
    report.demand(marks.as_ref().is_ok_and(|marks| *marks == 2), format!("two servers, in the ledger {marks:?}"));
    report.demand(last.stop().await.success(), "the last life did not end well");
    report.demand(census.count() == 0, format!("left of the last life: {:?}", census.left()));
    let marks = std::fs::read_dir(folder.join(".seawall/processes")).map_or(0, Iterator::count);
    report.demand(marks == 0, format!("{marks} notes are left in the ledger"));
    let deaths = "SELECT count(*) FROM events WHERE service_name = 'one' \
                  AND event_type IN ('service_crash', 'crash_inferred')";
    let deaths = count(folder, deaths);
    report.demand(deaths == times, format!("{times} lives were ended by force, {deaths} are on record"));
    let verdict = integrity(folder);
    report.demand(verdict == "ok", format!("in the end integrity_check says {verdict}"));
}
