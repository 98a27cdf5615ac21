//! Who calls all the while: some that ask of servers that work and must not notice
//! anything, some that have servers fail, some that come and go.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    chaos::{FAILING, HEALTHY},
    lane::Lane,
    tally::{End, Tally, class_of, judge},
};

const VISITORS: usize = 2;
pub(crate) const AT_ONCE: usize = HEALTHY.len() + FAILING.len() + VISITORS;
const PACE: Duration = Duration::from_millis(8);
/// Long enough for a server that is stopped when idle to be stopped.
const REST: Duration = Duration::from_millis(3500);
const AFTER_A_REFUSAL: Duration = Duration::from_millis(100);
/// A server that dies unproven is given more time each time: between two faults it
/// answers so many calls, so that there is more to see than waiting.
const ANSWERS_BETWEEN_FAULTS: u32 = 24;

/// Whether they are to go on.
type Open = Arc<AtomicBool>;

pub(crate) struct Company {
    is_open: Open,
    healthy: Vec<JoinHandle<Tally>>,
    failing: Vec<JoinHandle<Tally>>,
}

impl Company {
    pub(crate) fn start(address: SocketAddr, seed: u64) -> Company {
        let is_open: Open = Arc::new(AtomicBool::new(true));
        let open = || is_open.clone();
        let healthy = HEALTHY.iter().map(|server| tokio::spawn(ask_of_healthy(address, server, open()))).collect();
        let chance = |number: usize| StdRng::seed_from_u64(seed.wrapping_mul(1000) + number as u64);
        let failing = FAILING.iter().enumerate();
        let failing = failing.map(|(number, server)| tokio::spawn(have_fail(address, server, open(), chance(number))));
        let visitors = (0..VISITORS).map(|number| tokio::spawn(visit(address, open(), chance(100 + number))));
        let failing = failing.chain(visitors).collect();
        Company { healthy, failing, is_open }
    }

    pub(crate) async fn end(self) -> (Tally, Tally) {
        self.is_open.store(false, Ordering::Relaxed);
        let (mut healthy, mut failing) = (Tally::default(), Tally::default());
        for task in self.healthy {
            healthy.add(task.await.expect("a client does not panic"));
        }
        for task in self.failing {
            failing.add(task.await.expect("a client does not panic"));
        }
        (healthy, failing)
    }
}

async fn lane(address: SocketAddr, path: &str) -> Lane {
    Lane::open(address, path).await.expect("the gateway takes sessions")
}

async fn ask_of_healthy(address: SocketAddr, server: &str, open: Open) -> Tally {
    let mut lane = lane(address, &format!("/mcp/{server}")).await;
    let mut tally = Tally::default();
    while open.load(Ordering::Relaxed) {
        let arguments = json!({ "n": tally.calls, "server": server });
        let end = match (server, tally.calls % 4) {
            ("hoarder", 0) => class_of(&lane.call("hoard", &json!({ "bytes": 256 << 10 })).await),
            // Some are under way whenever something happens.
            (_, 1) => class_of(&lane.call("slow", &json!({ "ms": 30 })).await),
            _ => judge(&arguments, &lane.call("echo", &arguments).await),
        };
        if end != End::Own {
            eprintln!("soak: {server}: {end:?}");
        }
        tally.count(&end);
        let rests = server == "idle" && tally.calls % 20 == 0;
        sleep(if rests { REST } else { PACE }).await;
    }
    tally.blame_unless_ok(lane.leave().await);
    tally
}

async fn have_fail(address: SocketAddr, server: &str, open: Open, mut chance: StdRng) -> Tally {
    let path = format!("/mcp/{server}");
    // The first session waits for a first start that may never come.
    let mut lane = lane(address, if server == "never" { "/mcp" } else { &path }).await;
    let mut tally = Tally::default();
    while open.load(Ordering::Relaxed) {
        let is_fault = server.starts_with("rogue") && chance.random_ratio(1, ANSWERS_BETWEEN_FAULTS);
        let end = if is_fault {
            let (tool, arguments) = fault(&mut chance);
            class_of(&lane.call(tool, &arguments).await)
        } else {
            let tool = if server == "never" { "never__echo" } else { "echo" };
            let arguments = json!({ "n": tally.calls, "server": server });
            judge(&arguments, &lane.call(tool, &arguments).await)
        };
        tally.count(&end);
        sleep(if end == End::Own { PACE } else { AFTER_A_REFUSAL }).await;
    }
    tally.blame_unless_ok(lane.leave().await);
    tally
}

/// One of all the ways to fail that fixtures/README.md lists.
fn fault(chance: &mut StdRng) -> (&'static str, Value) {
    let signal = ["KILL", "SEGV", "ABRT", "TERM"].choose(chance).expect("there are some");
    let faults = [
        ("fail", json!({})),
        ("rpc_error", json!({})),
        ("hang", json!({})),
        ("late", json!({ "within_ms": 2000 })),
        ("exit", json!({ "code": 3, "after_ms": 5 })),
        ("kill", json!({ "signal": signal })),
        ("stop", json!({})),
        ("orphan", json!({ "seconds": 5 })),
        ("garbage", json!({ "lines": 20 })),
        ("half", json!({})),
        ("endless", json!({ "bytes": 4 << 20 })),
        ("size", json!({ "bytes": 2 << 20 })),
        ("invalid_utf8", json!({})),
        ("deep", json!({ "depth": 100 })),
        ("dribble", json!({ "every_ms": 1 })),
        ("flood_stderr", json!({ "bytes": 1 << 20 })),
        ("close_stdout", json!({})),
        ("close_stdin", json!({})),
        ("deaf", json!({})),
        ("wrong_id", json!({})),
        ("double", json!({})),
        ("ask", json!({})),
        ("progress", json!({ "steps": 50 })),
        ("log", json!({ "count": 50 })),
        ("change_tools", json!({ "count": chance.random_range(0..8) })),
        ("escape", json!({})),
        ("hoard", json!({ "bytes": 4 << 20 })),
    ];
    faults.choose(chance).expect("there are some").clone()
}

/// Comes, calls whatever is there under its public name, and leaves.
async fn visit(address: SocketAddr, open: Open, mut chance: StdRng) -> Tally {
    let mut tally = Tally::default();
    while open.load(Ordering::Relaxed) {
        let mut lane = lane(address, "/mcp").await;
        for _ in 0..chance.random_range(1..20) {
            // `extra` is there at times only.
            let server = ["steady", "mine", "mine", "extra", "dying", "aged"].choose(&mut chance).expect("some");
            let arguments = json!({ "n": tally.calls, "visitor": server });
            tally.count(&judge(&arguments, &lane.call(&format!("{server}__echo"), &arguments).await));
            sleep(PACE).await;
        }
        tally.blame_unless_ok(lane.leave().await);
        sleep(AFTER_A_REFUSAL).await;
    }
    tally
}
