//! Seven days in compressed time: the library in one process on a paused clock, its
//! clients and its servers on in-memory streams, the default timers, and faults by
//! chance. A seed decides which; the one that fails is told.
//!
//! The suite runs two days of it; `SEAWALL_WEEK_SEEDS=100 cargo test --test week` runs so
//! many weeks, each with another seed.

use std::time::Duration;

#[path = "week/client.rs"]
mod client;
#[path = "week/house.rs"]
mod house;
#[path = "week/server.rs"]
mod server;
#[path = "week/world.rs"]
mod world;

use house::House;
use rand::{SeedableRng as _, rngs::StdRng};

const DAY: Duration = Duration::from_secs(24 * 3600);
const DAYS: u32 = 7;
const DAYS_IN_THE_SUITE: u32 = 2;
/// How often the store's clock is put to where tokio's is: that of its own timer.
const TICK: Duration = Duration::from_secs(600);
const CLIENTS: usize = 3;

/// Says which seed it was, whatever goes wrong.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}: SEAWALL_WEEK_SEED={} cargo test --test week", self.0, self.0);
        }
    }
}

async fn live_through(days: u32, seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let house = House::start(&mut chance).await;
    house.store.remember_old_rows();
    let clients: Vec<_> = (0..CLIENTS).map(|number| house.client(number, days * DAY, &mut chance)).collect();
    let mut tasks = Vec::new();
    let until = tokio::time::Instant::now() + days * DAY;
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(TICK).await;
        house.store.passes(TICK);
        house.edit(&mut chance);
        tasks.push(house.tasks.len());
    }
    let mut told = client::Told::default();
    for client in clients {
        told.add(client.await.expect("a client does not panic"));
    }
    told.is_right(&house.world, days);
    is_flat(&tasks);
    house.stop(days).await;
}

/// Tasks come and go with clients, servers and calls, and do not gather.
fn is_flat(tasks: &[usize]) {
    let third = tasks.len() / 3;
    let median = |part: &[usize]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    };
    let (middle, last) = (median(&tasks[third..2 * third]), median(&tasks[2 * third..]));
    assert!(last <= middle + 3, "{middle} tasks became {last}");
}

#[test]
fn a_week_of_faults_loses_no_call_and_leaves_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (first, seeds) = (number("SEAWALL_WEEK_SEED"), number("SEAWALL_WEEK_SEEDS"));
    let days = if first.or(seeds).is_some() { DAYS } else { DAYS_IN_THE_SUITE };
    let first = first.unwrap_or(1);
    for seed in first..first + seeds.unwrap_or(1) {
        let _told_when_it_fails = Seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(live_through(days, seed));
        // What outlives the test is a task that nobody tracks.
        assert_eq!(runtime.metrics().num_alive_tasks(), 0, "tasks are left beside the tracker");
    }
}
