//! The server is killed -9 again and again while calls run: each call ends as its own
//! answer or as a class of the table of outcomes, none reaches the server twice, and
//! how long it takes until calls are answered again is measured.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use crate::{
    calls::NO_LIMITS,
    gateway::{self, Gateway, Launch, count, fixture, write_config},
    lane::Lane,
    options::Kill,
    report::{Report, times},
    tally::{End, Tally, class_of, judge},
    vitals::{RULE, Series},
};

const LANES: usize = 8;
/// The ladder's highest rung, and a start.
const RECOVERY_MAX: Duration = Duration::from_secs(90);
/// Short while an answer is due, longer where the server is in backoff.
const PROBE_PAUSE: Duration = Duration::from_millis(2);
const PROBE_PAUSE_LATER: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_secs(1);

pub(crate) async fn run(settings: &Kill) -> Report {
    let mut report = Report::default();
    let high = format!("{NO_LIMITS}breaker = \"off\"\n");
    for (name, calls, limits) in [
        ("Limits set high", settings.calls, high.as_str()),
        ("The limits of an empty servers.toml", settings.default_calls, ""),
    ] {
        if calls > 0 {
            report.say(format!("\n**{name}**\n"));
            under_fire(calls, settings.every, limits, &mut report).await;
        }
    }
    report.say(format!("\nFlat means: {RULE}. A sample is taken after each recovery."));
    report
}

/// What callers, killer and prober share.
struct Field {
    calls: u64,
    every: u64,
    tickets: AtomicU64,
    /// The server's, while it is known to answer.
    life: watch::Sender<Option<Life>>,
    killed_at: Mutex<Option<(Life, Instant)>>,
}

/// One process of the server. Within its pid namespace it may be called otherwise than
/// outside, where another process may have the name that it has inside.
#[derive(Clone, Copy)]
struct Life {
    inside: u32,
    outside: u32,
}

impl Field {
    async fn kill(&self) {
        let mut known = self.life.subscribe();
        let life = loop {
            let _ = known.wait_for(Option::is_some).await.expect("the sender is in self");
            let mut taken = None;
            self.life.send_if_modified(|life| {
                taken = life.take();
                false
            });
            if let Some(life) = taken {
                break life;
            }
        };
        *self.killed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some((life, Instant::now()));
        gateway::signal(life.outside, Signal::KILL);
        self.life.send_replace(None);
    }
}

async fn under_fire(calls: u64, every: u64, limits: &str, report: &mut Report) {
    let folder = tempfile::Builder::new().prefix("seawall-soak-").tempdir().expect("a temporary folder can be made");
    let journal = folder.path().join("journal");
    write_config(folder.path(), &format!("{limits}{}", fixture("soak", &["--journal", &journal.to_string_lossy()])));
    let gateway = Arc::new(Launch::serve().start(folder.path()).await);
    gateway.server_is_ready("soak").await;
    let field = Arc::new(Field {
        calls,
        every,
        tickets: AtomicU64::new(0),
        life: watch::Sender::new(None),
        killed_at: Mutex::new(None),
    });
    let prober = tokio::spawn(probe(gateway.lane("/mcp/soak").await, field.clone(), gateway.clone()));
    let mut callers = Vec::new();
    for _ in 0..LANES {
        callers.push(tokio::spawn(call(gateway.lane("/mcp/soak").await, field.clone())));
    }
    let (mut tally, mut ends) = (Tally::default(), HashMap::new());
    for caller in callers {
        let (own, of_each) = caller.await.expect("a caller does not panic");
        tally.add(own);
        ends.extend(of_each);
    }
    field.calls_are_over();
    let (probes, mut recoveries, series) = prober.await.expect("the prober does not panic");
    let restarts = gateway.status().await["servers"]["soak"]["restarts"].as_u64();
    let gateway = Arc::into_inner(gateway).expect("the prober has ended");
    report.demand(gateway.stop().await.success(), "the gateway did not end well");

    let kills = (calls - 1) / every;
    report.say(format!("{tally}; {kills} kills. The prober, which asks until somebody answers: {probes}.\n"));
    report.say(times("from kill -9 to the next answer", &mut recoveries));
    report.say(&series);
    report.demand(recoveries.len() as u64 == kills, format!("{kills} kills, {} recoveries", recoveries.len()));
    report.demand(restarts == Some(kills), format!("{kills} kills, {restarts:?} restarts"));
    report.demand(tally.calls == calls, format!("{calls} calls were to be made, {} ended", tally.calls));
    let down = count(folder.path(), "SELECT count(*) FROM events WHERE event_type = 'server_down'");
    report.demand(down == kills, format!("{kills} kills, {down} on record"));
    let lost = count(folder.path(), "SELECT count(*) FROM failures WHERE class = 'lost'");
    let told = tally.of("lost") + probes.of("lost");
    report.demand(lost == told, format!("{told} calls ended as lost, {lost} are on record"));
    report.blame(sent_once(&journal, &ends));
    report.blame(tally.complaints());
    report.blame(probes.complaints());
    if kills >= 30 {
        report.blame(series.complaints("the gateway"));
    }
}

impl Field {
    fn calls_are_over(&self) {
        // A prober that waits for the next kill sees that there will be none.
        self.tickets.store(u64::MAX, Ordering::Relaxed);
        self.life.send_modify(|_| {});
    }

    fn is_over(&self) -> bool {
        self.tickets.load(Ordering::Relaxed) == u64::MAX
    }
}

/// Takes numbers until there are no more; the one who takes a fiftieth kills first.
async fn call(mut lane: Lane, field: Arc<Field>) -> (Tally, Vec<(u64, End)>) {
    let (mut tally, mut ends) = (Tally::default(), Vec::new());
    loop {
        let n = field.tickets.fetch_add(1, Ordering::Relaxed);
        if n >= field.calls {
            return (tally, ends);
        }
        if n > 0 && n.is_multiple_of(field.every) {
            field.kill().await;
        }
        // Some take a while, so that there is always one in the server's hands.
        let end = if n.is_multiple_of(5) {
            class_of(&lane.call("slow", &json!({ "n": n, "ms": 3 })).await)
        } else {
            let arguments = json!({ "n": n });
            judge(&arguments, &lane.call("echo", &arguments).await)
        };
        tally.count(&end);
        ends.push((n, end));
    }
}

/// Learns which process serves, and after each kill when the next one does.
async fn probe(mut lane: Lane, field: Arc<Field>, gateway: Arc<Gateway>) -> (Tally, Vec<Duration>, Series) {
    let (mut tally, mut recoveries, mut series) = (Tally::default(), Vec::new(), Series::default());
    let mut known = field.life.subscribe();
    loop {
        let killed = *field.killed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        loop {
            let reply = lane.call("pid", &json!({})).await;
            let end = class_of(&reply);
            tally.count(&end);
            let pid = reply.ok().and_then(|reply| reply["result"]["structuredContent"]["pid"].as_u64());
            let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|_| end == End::Own);
            if let Some(inside) = pid.filter(|pid| killed.is_none_or(|(old, _)| old.inside != *pid)) {
                recoveries.extend(killed.map(|(_, at)| at.elapsed()));
                series.look(gateway.pid());
                let outside = gateway.status().await["servers"]["soak"]["pid"].as_u64();
                let outside = outside.and_then(|pid| u32::try_from(pid).ok()).expect("it has just answered");
                field.life.send_replace(Some(Life { inside, outside }));
                break;
            }
            assert!(began.elapsed() < RECOVERY_MAX, "nobody answers any more: {tally}");
            sleep(if began.elapsed() < LATER { PROBE_PAUSE } else { PROBE_PAUSE_LATER }).await;
        }
        known.mark_unchanged();
        if !field.is_over() {
            let _ = known.wait_for(|life| life.is_none() || field.is_over()).await;
        }
        if field.life.borrow().is_some() {
            return (tally, recoveries, series);
        }
    }
}

/// What the servers, over all their lives, have received: at most once each call, and
/// what was answered exactly once.
fn sent_once(journal: &Path, ends: &HashMap<u64, End>) -> Vec<String> {
    let mut received = BTreeMap::<u64, u64>::new();
    let text = std::fs::read_to_string(journal).unwrap_or_default();
    for line in text.lines() {
        // A life that was cut short may leave half a line.
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        if let Some(n) = line["params"]["arguments"]["n"].as_u64() {
            *received.entry(n).or_default() += 1;
        }
    }
    let odd = ends.iter().filter_map(|(n, end)| {
        let times = received.get(n).copied().unwrap_or_default();
        let is_right = match end {
            End::Own => times == 1,
            End::Class("lost" | "timeout" | "tool_error") => times <= 1,
            End::Class(_) => times == 0,
            // Blamed elsewhere.
            End::Wrong(_) => true,
        };
        (!is_right).then(|| format!("call {n} ended as {end:?} and was received {times} times"))
    });
    odd.collect()
}
