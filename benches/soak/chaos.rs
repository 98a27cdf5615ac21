//! Half an hour of a real machine's life: servers that work beside servers that fail in
//! every way there is, clients that come and go, edits of servers.toml, restarts and
//! recycles. Who calls a server that works must not notice anything.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rand::{SeedableRng as _, rngs::StdRng};

use crate::{
    census::Census,
    clients::{self, Company},
    edits,
    gateway::{Gateway, Launch, count, fixture, integrity, write_config},
    options::HalfHour,
    report::Report,
    vitals::{RULE, Watch},
};

/// Servers whose callers must not notice anything.
pub(crate) const HEALTHY: [&str; 6] = ["steady", "aged", "hoarder", "idle", "confined", "annotated"];
/// Servers that fail as they are told by their callers, or by themselves.
pub(crate) const FAILING: [&str; 6] = ["rogue-one", "rogue-two", "rogue-three", "dying", "never", "chatty"];
/// Before that nothing can be flat: it has not warmed up.
const LONG_ENOUGH_MINUTES: f64 = 5.0;
const SHOWN_EVENTS: &str = "SELECT group_concat(event_type || ' ' || n, ', ') FROM \
     (SELECT event_type, count(*) AS n FROM events GROUP BY event_type ORDER BY event_type)";

pub(crate) async fn run(settings: &HalfHour) -> Report {
    let mut report = Report::default();
    let folder = tempfile::Builder::new().prefix("seawall-soak-").tempdir().expect("a temporary folder can be made");
    let census = Census::new();
    let config = servers_toml(&census);
    write_config(folder.path(), &config);
    let gateway = Launch::serve().start(folder.path()).await;
    for server in HEALTHY {
        gateway.server_is_ready(server).await;
    }
    let time = Duration::from_secs_f64(settings.minutes * 60.0);
    let (until, look_every) = (Instant::now() + time, (time / 400).max(Duration::from_millis(250)));
    let watch = Watch::of(gateway.pid(), look_every);
    let company = Company::start(gateway.address, settings.seed);
    let mut chance = StdRng::seed_from_u64(settings.seed);
    let edited = edits::until(&gateway, folder.path(), &config, (until, settings.edit_pause_ms), &mut chance).await;
    let (healthy, failing) = company.end().await;
    let (series, took) = watch.end();

    report.say(format!(
        "{:.1} minutes with {} servers that work, {} that fail, {} clients at once and {} edits, restarts and \
         hang-ups; seed {}.\n",
        took.as_secs_f64() / 60.0,
        HEALTHY.len(),
        FAILING.len(),
        clients::AT_ONCE,
        edited.done,
        settings.seed
    ));
    report.say(format!("- servers that work: {healthy}"));
    report.say(format!("- servers that fail, and visitors: {failing}\n"));
    report.say(&series);
    report.demand(healthy.of("ok") == healthy.calls, format!("a server that works was disturbed: {healthy}"));
    report.blame(healthy.complaints().into_iter().chain(failing.complaints()).chain(edited.complaints));
    if settings.minutes >= LONG_ENOUGH_MINUTES {
        report.blame(series.complaints("the gateway"));
    }
    end(gateway, folder.path(), &census, &mut report).await;
    report.say(format!("Flat means: {RULE}."));
    report
}

async fn end(gateway: Gateway, folder: &Path, census: &Census, report: &mut Report) {
    let status = gateway.status().await;
    let servers = status["servers"].as_object().expect("status has its servers");
    for (name, server) in servers.iter().filter(|(_, server)| server["in_flight"] != 0) {
        report.demand(false, format!("{name} still has calls in hand: {}", server["in_flight"]));
    }
    report.demand(status["gateway"]["database"]["degraded"].is_null(), format!("{}", status["gateway"]["database"]));
    report.demand(gateway.stop().await.success(), "the gateway did not end well");
    report.demand(census.count() == 0, format!("left behind: {:?}", census.left()));
    let verdict = integrity(folder);
    report.demand(verdict == "ok", format!("integrity_check says {verdict}"));
    let failures = count(folder, "SELECT count(*) FROM failures");
    report.say(format!("On record: {failures} failures, and of events {}.\n", events(folder)));
}

fn events(folder: &Path) -> String {
    let database = rusqlite::Connection::open(folder.join("seawall.db")).expect("the database opens");
    database.query_row(SHOWN_EVENTS, [], |row| row.get(0)).expect("there are events")
}

fn servers_toml(census: &Census) -> String {
    let env = format!("env = {{ CENSUS = \"{}\" }}\n", census.mark());
    let server = |name: &str, flags: &[&str], keys: &str| format!("{}{env}{keys}", fixture(name, flags));
    let rogue = "timeout = \"300ms\"\nbreaker = { failures = 5, open_for = \"2s\" }\n";
    [
        "[gateway]\nmax_message = \"1MiB\"\n\n[defaults]\nrate_limit = \"off\"\n".to_owned(),
        server("steady", &[], "recycle = { calls = 500 }\n"),
        server("aged", &[], "recycle = { age = \"20s\" }\n"),
        server("hoarder", &[], "recycle = { memory = \"64MiB\" }\n"),
        server("idle", &[], "idle_stop = \"2s\"\n"),
        server("confined", &[], "").replace("sandbox = \"off\"", "sandbox = \"standard\""),
        server("annotated", &["--resources"], "replay = \"annotated\"\n"),
        server("mine", &[], "instances = { per_session = 4 }\n"),
        server("rogue-one", &["--ignore-cancel"], rogue),
        server("rogue-two", &["--ignore-sigterm", "--ignore-eof"], rogue),
        server("rogue-three", &["--hostile", "--resources"], rogue),
        server("dying", &["--exit-after-calls", "40"], ""),
        server("never", &["--exit-at-start", "3"], ""),
        server("chatty", &["--stdout-logs"], ""),
    ]
    .concat()
}
