//! A server that dies, or does not start: how it comes back, and what its callers
//! hear meanwhile. In one process, with a paused clock and servers made of script.

#[path = "support/fake.rs"]
mod fake;

use std::{sync::atomic::Ordering, time::Duration};

use fake::{Fake, Rig, Start, class_of, instance_of, lock, pass, settled, slow};
use seawall::{
    call::Replay,
    failure::Class,
    testing,
    upstream::{Instances, Lifecycle},
};
use tokio::time::Instant;

const NOW: Duration = Duration::ZERO;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn gaps(fake: &Fake) -> Vec<Duration> {
    let began = lock(&fake.world().began).clone();
    began.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn who_dies_unproven_climbs_the_ladder_and_never_gives_up() {
    let fake = Fake::default();
    fake.always(Start::Dies(NOW));
    let rig = Rig::of(fake, Lifecycle::default(), Instances::Shared).await;
    pass(secs(3600)).await;
    let gaps = gaps(&rig.fake);
    assert!(gaps.len() > 60, "it gave up after {} starts", gaps.len());
    for (rung, gap) in gaps.iter().enumerate() {
        let full = Duration::from_millis(500).saturating_mul(1 << rung.min(7)).min(secs(60));
        assert!(
            *gap <= full + Duration::from_millis(2) && *gap >= full.mul_f64(0.49),
            "rung {rung}: {gap:?} of {full:?}"
        );
    }
    assert_eq!(rig.fake.world().starting_max.load(Ordering::Relaxed), 1);
    assert_eq!(rig.fake.world().live_max.load(Ordering::Relaxed), 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_climbs_the_same_ladder() {
    let fake = Fake::default();
    fake.starts([Start::Fails, Start::Fails, Start::Well]);
    let rig = Rig::of(fake, Lifecycle::default(), Instances::Shared).await;
    assert_eq!(rig.state(), "backoff");
    pass(secs(2)).await;
    assert_eq!((rig.state(), rig.fake.started()), ("ready", 3));
    assert_eq!(rig.upstream.status().restarts, 2);
    assert_eq!(rig.events("server_down").len(), 2);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_was_ready_for_a_minute_is_replaced_at_once() {
    let fake = Fake::default();
    fake.starts([Start::Fails, Start::Fails, Start::Fails, Start::Dies(secs(61)), Start::Dies(NOW)]);
    let rig = Rig::of(fake, Lifecycle::default(), Instances::Shared).await;
    pass(secs(120)).await;
    let gaps = gaps(&rig.fake);
    assert!(gaps[3] < secs(61) + Duration::from_millis(10), "{gaps:?}");
    assert!(gaps[4] <= Duration::from_millis(510), "the ladder began anew: {gaps:?}");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_gave_twenty_answers_is_replaced_at_once() {
    let rig = Rig::new(Lifecycle::default()).await;
    for _ in 0..20 {
        rig.call("echo").await.expect("an answer");
    }
    rig.fake.link().die();
    settled().await;
    assert_eq!((rig.fake.started(), rig.state()), (2, "ready"));
    rig.fake.link().die();
    settled().await;
    assert_eq!(rig.state(), "backoff", "the second one had proven nothing");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_server_is_tried_again_on_use_but_not_all_the_time() {
    let fake = Fake::default();
    fake.always(Start::Never);
    let rig = Rig::of(fake, Lifecycle::default(), Instances::Shared).await;
    pass(secs(600)).await;
    assert_eq!((rig.state(), rig.fake.started()), ("parked", 1));
    for _ in 0..100 {
        assert_eq!(class_of(&rig.call("echo").await), "unavailable");
    }
    assert_eq!(rig.fake.started(), 2, "one of the hundred woke it");
    pass(secs(5)).await;
    let failure = rig.call("echo").await.expect_err("it is still not there");
    assert!(failure.message.contains("no such command") && failure.retry_after.is_some());
    assert_eq!(rig.fake.started(), 3);
    assert_eq!(rig.events("server_parked").len(), 1, "the same reason is said once");
    rig.fake.always(Start::Well);
    pass(secs(5)).await;
    assert_eq!(class_of(&rig.call("echo").await), "ok");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_wakes_a_parked_server() {
    let fake = Fake::default();
    fake.starts([Start::Never]);
    let rig = Rig::of(fake, Lifecycle::default(), Instances::Shared).await;
    rig.upstream.restart();
    settled().await;
    assert_eq!(rig.state(), "ready");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_five_seconds_or_their_timeout() {
    let fake = Fake::default();
    fake.always(Start::Mute);
    let rig = Rig::of(fake, Lifecycle::default(), Instances::Shared).await;
    let mut impatient = testing::call("files", "echo");
    impatient.patience = secs(2);
    for (call, expected) in [(testing::call("files", "echo"), secs(5)), (impatient, secs(2))] {
        let began = Instant::now();
        let failure = rig.send(call).await.expect_err("it never answers");
        assert_eq!(failure.class, Class::Unavailable);
        assert!(failure.retry_after.is_some());
        assert_eq!(began.elapsed().as_secs(), expected.as_secs());
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backoff_that_lasts_too_long_is_told_at_once() {
    let fake = Fake::default();
    fake.always(Start::Fails);
    let rig = Rig::of(fake, Lifecycle::default(), Instances::Shared).await;
    pass(secs(120)).await;
    while rig.upstream.status().retry_in_ms.is_none_or(|ms| ms < 20_000) {
        pass(secs(1)).await;
    }
    let began = Instant::now();
    let failure = rig.call("echo").await.expect_err("it is away");
    assert!(began.elapsed() < Duration::from_millis(10));
    assert!(failure.retry_after > Some(secs(19)), "{failure:?}");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_initializes_does_not_live_on_while_it_waits() {
    let fake = Fake::default();
    fake.always(Start::Mute);
    let rig = Rig::of(fake, Lifecycle::default(), Instances::Shared).await;
    assert_eq!(rig.fake.live(), 1);
    pass(Duration::from_millis(30_050)).await;
    assert_eq!((rig.state(), rig.fake.live()), ("backoff", 0));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_comes_too_late_is_closed() {
    let fake = Fake::default();
    fake.starts([Start::After(secs(40)), Start::Fails, Start::Fails, Start::Fails, Start::Fails, Start::Fails]);
    fake.always(Start::Fails);
    let rig = Rig::of(fake, Lifecycle::default(), Instances::Shared).await;
    pass(secs(41)).await;
    assert_eq!(lock(&rig.fake.world().links).len(), 1, "it came");
    assert_eq!(rig.fake.live(), 0);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_comes_after_the_end_is_closed() {
    let fake = Fake::default();
    fake.always(Start::After(secs(3)));
    let rig = Rig::of(fake, Lifecycle::default(), Instances::Shared).await;
    pass(secs(1)).await;
    let waiting = rig.start(testing::call("files", "echo")).await;
    let began = Instant::now();
    rig.upstream.stop().await;
    assert_eq!(class_of(&waiting.await.expect("no panic")), "draining");
    assert!(began.elapsed() < Duration::from_millis(100));
    pass(secs(5)).await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_at_a_death_end_at_once() {
    let rig = Rig::new(Lifecycle::default()).await;
    let mut calls = Vec::new();
    for _ in 0..50 {
        calls.push(rig.start(testing::call("files", "hang")).await);
    }
    let began = Instant::now();
    rig.fake.link().die();
    for call in calls {
        let failure = call.await.expect("no panic").expect_err("it died");
        assert_eq!(failure.class, Class::Lost);
        assert!(failure.outcome_unknown);
    }
    assert!(began.elapsed() <= Duration::from_millis(100));
    assert_eq!(rig.fake.received("tools/call hang").len(), 50, "none was sent twice");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_on_a_dead_server_start_it_once() {
    let rig = Rig::new(Lifecycle::default()).await;
    for _ in 0..20 {
        rig.call("echo").await.expect("an answer");
    }
    rig.fake.starts([Start::After(secs(1))]);
    rig.fake.link().die();
    let began = Instant::now();
    let calls: Vec<_> = (0..1000).map(|_| tokio::spawn(rig.send_later(testing::call("files", "echo")))).collect();
    settled().await;
    let refused_at_once = calls.iter().filter(|call| call.is_finished()).count();
    assert_eq!(refused_at_once, 968);
    let mut ends = std::collections::BTreeMap::new();
    for call in calls {
        *ends.entry(class_of(&call.await.expect("no panic"))).or_insert(0) += 1;
    }
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), [("ok", 32), ("unavailable", 968)]);
    assert_eq!(rig.fake.started(), 2);
    assert_eq!(began.elapsed().as_secs(), 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_full_is_no_dead_one() {
    let rig = Rig::new(Lifecycle::default()).await;
    rig.fake.world().is_full.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let failure = rig.call("echo").await.expect_err("it is full");
        assert_eq!(failure.class, Class::Unavailable);
        assert!(failure.message.contains("full"), "{failure}");
    }
    rig.fake.world().is_full.store(false, Ordering::Relaxed);
    assert_eq!(class_of(&rig.call("echo").await), "ok");
    assert_eq!(rig.fake.started(), 1);
    rig.stop().await;
}

/// The outcome of a call whose instance died with it, and how often it was sent.
async fn replayed(tool: &str, replay: Replay) -> (&'static str, usize) {
    let rig = Rig::new(Lifecycle::default()).await;
    for _ in 0..20 {
        rig.call("echo").await.expect("an answer");
    }
    // `read` is said to be harmless; here it also takes long enough to be caught.
    let mut call = slow(secs(60));
    call.tool = Some(tool.into());
    call.replay = replay;
    let under_way = rig.start(call).await;
    rig.fake.link().die();
    settled().await;
    // The second life is a short one too.
    rig.fake.link().die();
    let class = class_of(&under_way.await.expect("no panic"));
    let sent = rig.fake.received("tools/call slow").len();
    rig.stop().await;
    (class, sent)
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_is_sent_again_only_where_it_may_and_only_once() {
    assert_eq!(replayed("read", Replay::Annotated).await, ("lost", 2));
    assert_eq!(replayed("echo", Replay::Annotated).await, ("lost", 1));
    assert_eq!(replayed("read", Replay::Unsent).await, ("lost", 1));
    assert_eq!(replayed("read", Replay::Never).await, ("lost", 1));
}

#[tokio::test(start_paused = true)]
async fn a_harmless_call_survives_the_death_of_its_instance() {
    let rig = Rig::new(Lifecycle::default()).await;
    for _ in 0..20 {
        rig.call("echo").await.expect("an answer");
    }
    // Longer under way than it could ever wait for an instance.
    let mut call = slow(secs(20));
    call.tool = Some("read".into());
    call.replay = Replay::Annotated;
    let under_way = rig.start(call).await;
    pass(secs(10)).await;
    rig.fake.starts([Start::After(secs(2))]);
    let first = rig.fake.link().number;
    rig.fake.link().die();
    assert!(instance_of(&under_way.await.expect("no panic")) > first);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_in_vain_does_not_hide_that_the_first_was_sent() {
    let rig = Rig::new(Lifecycle::default()).await;
    let mut call = slow(secs(20));
    call.tool = Some("read".into());
    call.replay = Replay::Annotated;
    rig.fake.always(Start::Fails);
    let under_way = rig.start(call).await;
    rig.fake.link().die();
    let failure = under_way.await.expect("no panic").expect_err("it died");
    assert_eq!(failure.class, Class::Lost);
    assert!(failure.outcome_unknown);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_client_gave_up_is_never_sent_again() {
    let rig = Rig::new(Lifecycle::default()).await;
    for _ in 0..20 {
        rig.call("echo").await.expect("an answer");
    }
    let mut call = slow(secs(60));
    call.tool = Some("read".into());
    call.replay = Replay::Annotated;
    let under_way = rig.start(call).await;
    rig.fake.starts([Start::After(secs(1))]);
    rig.fake.link().die();
    settled().await;
    under_way.abort();
    pass(secs(10)).await;
    assert_eq!((rig.state(), rig.fake.received("tools/call slow").len()), ("ready", 1));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_never_left_is_sent_to_the_next_instance() {
    for (replay, expected) in [(Replay::Unsent, "ok"), (Replay::Annotated, "ok"), (Replay::Never, "unavailable")] {
        let rig = Rig::new(Lifecycle::default()).await;
        for _ in 0..20 {
            rig.call("echo").await.expect("an answer");
        }
        // Dead, and the task has not come to look yet.
        rig.fake.link().die();
        let mut call = testing::call("files", "echo");
        call.replay = replay;
        assert_eq!(class_of(&rig.send(call).await), expected);
        rig.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_server_takes_no_calls_and_finishes_those_it_has() {
    let rig = Rig::new(Lifecycle::default()).await;
    let quick = rig.start(slow(secs(5))).await;
    let endless = rig.start(testing::call("files", "hang")).await;
    let upstream = rig.upstream.clone();
    let retiring = tokio::spawn(async move { upstream.retire(secs(30)).await });
    settled().await;
    assert_eq!(rig.state(), "draining");
    let refused = rig.call("echo").await.expect_err("it is closed");
    assert_eq!(refused.class, Class::Draining);
    let began = Instant::now();
    assert_eq!(class_of(&quick.await.expect("no panic")), "ok");
    let failure = endless.await.expect("no panic").expect_err("it was cut off");
    assert_eq!((failure.class, failure.outcome_unknown), (Class::Draining, true));
    assert_eq!(began.elapsed().as_secs(), 30);
    retiring.await.expect("no panic");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_without_calls_retires_at_once() {
    let rig = Rig::new(Lifecycle::default()).await;
    let began = Instant::now();
    rig.upstream.retire(secs(30)).await;
    assert_eq!(began.elapsed(), NOW);
    assert_eq!(rig.state(), "down");
    rig.stop().await;
}
