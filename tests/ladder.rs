//! When a server is started again, life after life, against a model of the ladder.

#[path = "support/fake.rs"]
mod fake;

use std::time::Duration;

use fake::{Fake, Rig, Start, class_of, lock, pass};
use proptest::prelude::*;
use seawall::upstream::{Instances, Lifecycle};
use tokio::time::Instant;

/// One start, and what comes of it.
#[derive(Clone, Copy, Debug)]
enum Life {
    Fails,
    /// It answers so many calls and dies so long after it was ready, if not later.
    Dies {
        answers: usize,
        after_ms: u64,
    },
}

fn life() -> impl Strategy<Value = Life> {
    // Around the minute and the twenty answers that prove an instance.
    let answers = prop_oneof![3 => 0..3_usize, 1 => 18..22_usize];
    let after_ms = prop_oneof![3 => 0..5_000_u64, 1 => 59_900..60_100_u64, 1 => 0..200_000_u64];
    prop_oneof![
        2 => Just(Life::Fails),
        3 => (answers, after_ms).prop_map(|(answers, after_ms)| Life::Dies { answers, after_ms }),
    ]
}

/// How long the next start may take to come.
#[derive(Default)]
struct Ladder {
    rung: u32,
}

impl Ladder {
    /// `age` is how long it was ready.
    fn after(&mut self, life: Life, age: Duration) -> std::ops::RangeInclusive<Duration> {
        let has_served = matches!(life, Life::Dies { answers, .. } if answers >= 20 || age.as_secs() >= 60);
        if has_served {
            self.rung = 0;
            return Duration::ZERO..=Duration::ZERO;
        }
        let whole = Duration::from_millis(500).saturating_mul(1 << self.rung.min(20)).min(Duration::from_secs(60));
        self.rung += 1;
        whole / 2..=whole
    }
}

/// A timer is as exact as a millisecond.
const GRAIN: Duration = Duration::from_millis(2);

async fn play(lives: Vec<Life>) {
    let fake = Fake::default();
    let start_of = |life: &Life| if matches!(life, Life::Fails) { Start::Fails } else { Start::Well };
    fake.starts(lives.iter().map(start_of));
    let rig = Rig::light(fake, Lifecycle::default(), Instances::Shared).await;
    let mut model = Ladder::default();
    for (at, life) in lives.iter().enumerate() {
        let began = lock(&rig.fake.world().began)[at];
        let mut ended = began;
        if let Life::Dies { answers, after_ms } = *life {
            for _ in 0..answers {
                assert_eq!(class_of(&rig.call("echo").await), "ok");
            }
            let due = began + Duration::from_millis(after_ms);
            pass(due.saturating_duration_since(Instant::now())).await;
            ended = Instant::now();
            rig.fake.link().die();
        }
        let allowed = model.after(*life, ended - began);
        // A millisecond before its time nothing is started, and at the latest nothing is awaited.
        pass(*allowed.end() + GRAIN).await;
        assert!(rig.fake.started() > at + 1, "{life:?}, the {at}th, was not followed within {allowed:?}");
        let waited = lock(&rig.fake.world().began)[at + 1] - ended;
        assert!(
            (allowed.start().saturating_sub(GRAIN)..=*allowed.end() + GRAIN).contains(&waited),
            "after {life:?}, the {at}th, it waited {waited:?}, not {allowed:?}"
        );
        assert_eq!(rig.fake.world().starting_max.load(std::sync::atomic::Ordering::Relaxed), 1, "one start at a time");
        if matches!(lives.get(at + 1), Some(Life::Dies { .. }) | None) {
            assert_eq!(rig.state(), "ready");
        }
    }
    rig.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_start_comes_when_the_ladder_says(lives in prop::collection::vec(life(), 1..14)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(play(lives));
    }
}
