//! Seven days of all six services under a small launchd, in compressed time: killed, hung,
//! leaking and on a full disk by turns. In the end all are up, every end has its record with
//! the right cause, what was acknowledged is there once, and nothing is left over.

use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

#[path = "services/faults.rs"]
mod faults;
#[path = "services/mac.rs"]
mod mac;
#[path = "services/work.rs"]
mod work;

use crate::{census::Census, options::Services, report::Report, tools, wait::wait_until};
use faults::{Fault, Toll};
use mac::Mac;
use work::Work;

/// Also after a fault, on a machine that has other things to do.
const WITHIN: Duration = Duration::from_secs(90);
/// What a process may have more at its end than after its start.
const DESCRIPTORS_SLACK: usize = 12;
/// The disk is full when it is filled, and at no other time.
const ROOM_MIN_BYTES: u64 = 8 * 1024 * 1024;

pub(crate) async fn run(settings: &Services) -> Report {
    let mut report = Report::default();
    let census = Census::new();
    let mut mac = Mac::install(census.mark(), tools::model().as_deref());
    mac.load_all();
    let began = Instant::now();
    mac.is_well("at the start").await;
    let before = mac.descriptors();
    let work = Work::begin(&mac);

    let mut random = StdRng::seed_from_u64(settings.seed);
    let mut toll = Toll::default();
    for day in 1..=settings.days {
        mac.fire("daily-tasks");
        if day % 7 == 0 {
            mac.fire("weekly-tasks");
        }
        for _ in 0..settings.faults_a_day {
            let hit = mac.some_of(&mut random);
            for name in hit {
                let fault = *Fault::ALL.choose(&mut random).expect("there are some");
                toll.strike(&mac, name, fault).await;
            }
            toll.is_on_record(&mac, WITHIN).await;
            mac.is_well("after they were struck").await;
            assert!(mac.room_bytes() >= ROOM_MIN_BYTES, "the work fills the disk: {}", mac.state_of_the_database());
        }
        if random.random_bool(0.3) || day == settings.days {
            toll.full_disk(&mac, &mut random, Duration::from_millis(1500)).await;
            toll.is_on_record(&mac, WITHIN).await;
            mac.is_well("after a full disk").await;
        }
    }
    wait_until(WITHIN, "the leak to be told", async || (mac.count("leaky", "memory_growth") > 0).then_some(())).await;
    mac.tasks_succeed(WITHIN).await;

    let done = work.end(&mac, &mut report).await;
    report.say(format!("{} days in {} s.\n", settings.days, began.elapsed().as_secs()));
    report.say(toll.table(&mac));
    report.say(done);
    let after = mac.descriptors();
    for (name, before) in &before {
        let after = after.get(name).copied().unwrap_or_default();
        report.demand(
            after <= before + DESCRIPTORS_SLACK,
            format!("{name} had {before} descriptors at its start and has {after} at the end"),
        );
    }
    let ends = mac.bootout_all();
    mac.every_end_is_on_record(&ends, &mut report);
    report.demand(mac.integrity() == "ok", format!("the database is not whole: {}", mac.integrity()));
    let gone = crate::wait::poll(Duration::from_secs(20), || (census.count() == 0).then_some(()));
    report.demand(gone.is_some(), format!("processes are left over: {:?}", census.left()));
    let leftovers = mac.leftovers();
    report.demand(leftovers.is_empty(), format!("temporary files are left over: {leftovers:?}"));
    report
}
