//! A runaway loop is stopped, told when to come back, and hurts nobody else.

#[path = "support/bench.rs"]
mod bench;

use std::time::Duration;

use bench::{Bench, bare, facts};
use seawall::{
    failure::Class,
    layer::{Policy, breaker, rate_limit::Settings},
};
use tokio::time::{Instant, advance};

fn limited(per_minute: u32, burst: u32) -> Policy {
    let breaker = Some(breaker::Settings::default());
    Policy { rate_limit: Some(Settings { per_minute, burst }), breaker, ..bare() }
}

#[tokio::test(start_paused = true)]
async fn a_burst_passes_and_then_one_call_at_a_time() {
    let bench = Bench::new(limited(60, 10));
    assert_eq!(bench.calls(11).await[..], [[Class::Ok; 10].as_slice(), &[Class::RateLimited]].concat());
    advance(Duration::from_secs(1)).await;
    assert_eq!(bench.calls(2).await, [Class::Ok, Class::RateLimited]);
    advance(Duration::from_secs(3600)).await;
    assert_eq!(bench.calls(11).await[..], [[Class::Ok; 10].as_slice(), &[Class::RateLimited]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_flood_gets_its_quota_and_not_a_call_more() {
    let bench = Bench::new(limited(6000, 1000));
    let began = Instant::now();
    for _ in 0..10_000 {
        bench.call().await;
        advance(Duration::from_micros(100)).await;
    }
    // 1000 at once, and one every 10 ms of the second that it took.
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert!(bench.reached().abs_diff(1100) <= 1, "{}", bench.reached());
    let snapshot = bench.snapshot();
    assert_eq!(snapshot.ended(Class::Ok) + snapshot.ended(Class::RateLimited), 10_000);
    let status = bench.state.breaker.as_ref().expect("a breaker").status();
    assert_eq!((status.failures, status.generation), (0, 0), "a refusal is no failure of the tool");
}

#[tokio::test(start_paused = true)]
async fn who_waits_as_long_as_told_is_let_in_and_never_a_moment_early() {
    // A quota whose interval is no whole number of milliseconds: 8.57… ms.
    let bench = Bench::new(limited(7000, 3));
    bench.calls(3).await;
    for _ in 0..50 {
        let refused = bench.call().await;
        assert_eq!(refused.class, Class::RateLimited);
        let retry_after_ms = facts(&refused.answer)["retryAfterMs"].as_u64().expect("when to come back");
        advance(Duration::from_millis(retry_after_ms - 1)).await;
        assert_eq!(bench.call().await.class, Class::RateLimited, "the promise is not longer than needed");
        advance(Duration::from_millis(1)).await;
        assert_eq!(bench.call().await.class, Class::Ok);
    }
}

#[tokio::test(start_paused = true)]
async fn it_never_waits() {
    let bench = Bench::new(limited(1, 1));
    let began = Instant::now();
    bench.calls(100).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}
