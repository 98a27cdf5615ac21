//! A tool that fails again and again is left alone for a while, and tried again
//! with one call at a time.

#[path = "support/bench.rs"]
mod bench;

use std::{sync::Arc, time::Duration};

use bench::{Bench, after, bare, ends, facts, hangs, held, settled};
use seawall::{
    call::{Answer, Reply},
    failure::Class,
    layer::{
        Policy,
        breaker::{Breaker, BreakerState, Settings},
        deadline,
    },
    store::EventType,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, advance},
};

const OPEN_FOR: Duration = Duration::from_secs(60);
const LONGEST_OPEN: Duration = Duration::from_secs(66);

fn breaking() -> Policy {
    Policy { breaker: Some(Settings::default()), ..bare() }
}

fn breaker(bench: &Bench) -> &Breaker {
    bench.state.breaker.as_ref().expect("this policy has a breaker")
}

/// A bench whose breaker has just opened.
async fn open(policy: Policy) -> Bench {
    let bench = Bench::new(policy);
    bench.upstream(ends(Class::ServerError));
    bench.calls(5).await;
    assert_eq!(bench.breaker(), BreakerState::Open);
    bench
}

/// A bench whose breaker awaits its probe.
async fn half_open(policy: Policy) -> Bench {
    let bench = open(policy).await;
    advance(LONGEST_OPEN).await;
    assert_eq!(bench.breaker(), BreakerState::HalfOpen);
    bench
}

fn text(reply: &Reply) -> &str {
    let Answer::Result(result) = &reply.answer else { panic!("a result was due") };
    result.as_str()
}

#[tokio::test(start_paused = true)]
async fn it_opens_at_exactly_five_failures_in_a_row() {
    let bench = Bench::new(breaking());
    bench.upstream(ends(Class::Timeout));
    assert_eq!(bench.calls(4).await, [Class::Timeout; 4]);
    assert_eq!(bench.breaker(), BreakerState::Closed);
    assert_eq!(bench.calls(1).await, [Class::Timeout]);
    assert_eq!(bench.breaker(), BreakerState::Open);
    let refused = bench.call().await;
    assert_eq!((refused.class, bench.reached()), (Class::BreakerOpen, 5), "the sixth was not sent");
    assert!(
        text(&refused).contains(
            "is paused after repeated failures: 5 failures in a row, the last: timeout: it happened; \
             nothing was done, retry in 6"
        ),
        "{}",
        text(&refused)
    );
    let retry_after_ms = facts(&refused.answer)["retryAfterMs"].as_u64().expect("when to come back");
    assert!((60_000..=66_000).contains(&retry_after_ms), "{retry_after_ms}");
}

#[tokio::test(start_paused = true)]
async fn success_resets_consecutive_count() {
    let bench = Bench::new(breaking());
    for _ in 0..10 {
        bench.upstream(ends(Class::ServerError));
        bench.calls(4).await;
        bench.upstream(ends(Class::Ok));
        bench.calls(1).await;
    }
    assert_eq!(bench.breaker(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn no_call_passes_before_its_time_and_one_does_after() {
    for _ in 0..20 {
        let bench = open(breaking()).await;
        bench.upstream(ends(Class::Ok));
        advance(OPEN_FOR - Duration::from_millis(1)).await;
        assert_eq!(bench.calls(1).await, [Class::BreakerOpen], "jitter only lengthens");
        advance(LONGEST_OPEN - OPEN_FOR + Duration::from_millis(1)).await;
        assert_eq!(bench.calls(2).await, [Class::Ok; 2], "and by a tenth at most");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_as_long_as_told_is_the_probe() {
    let bench = open(breaking()).await;
    let refused = bench.call().await;
    let retry_after_ms = facts(&refused.answer)["retryAfterMs"].as_u64().expect("when to come back");
    bench.upstream(ends(Class::Ok));
    advance(Duration::from_millis(retry_after_ms)).await;
    assert_eq!(bench.calls(1).await, [Class::Ok]);
}

#[tokio::test(start_paused = true)]
async fn probation_admits_single_probe() {
    let bench = half_open(breaking()).await;
    let (gate, reached) = (Arc::new(Semaphore::new(0)), bench.reached());
    bench.upstream(held(&gate, Class::Ok));
    let mut calls = Vec::new();
    for _ in 0..100 {
        calls.push(bench.start().await);
    }
    assert_eq!(bench.reached(), reached + 1);
    gate.add_permits(100);
    let mut classes = Vec::new();
    for call in calls {
        let reply = call.await.expect("no panic");
        if reply.class == Class::BreakerOpen {
            assert!(text(&reply).contains("one call is trying it after 5 failures in a row"), "{}", text(&reply));
            assert!(facts(&reply.answer)["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0));
        }
        classes.push(reply.class);
    }
    assert_eq!(classes[0], Class::Ok);
    assert!(classes[1..].iter().all(|class| *class == Class::BreakerOpen));
    assert_eq!(bench.breaker(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_permit_comes_back_when_the_probes_client_leaves() {
    let bench = half_open(breaking()).await;
    bench.upstream(hangs());
    let probe = bench.start().await;
    assert_eq!(bench.calls(1).await, [Class::BreakerOpen]);
    probe.abort();
    settled().await;
    bench.upstream(ends(Class::Ok));
    assert_eq!(bench.calls(1).await, [Class::Ok]);
    assert_eq!(bench.breaker(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_permit_comes_back_when_the_probes_outcome_says_nothing() {
    let bench = half_open(breaking()).await;
    for class in [Class::Unavailable, Class::Lost, Class::HttpBusy, Class::Auth, Class::Draining, Class::Cancelled] {
        bench.upstream(ends(class));
        assert_eq!(bench.calls(1).await, [class], "no probe into a dead connection counts");
        assert_eq!(bench.breaker(), BreakerState::HalfOpen);
    }
    bench.upstream(ends(Class::Ok));
    assert_eq!(bench.calls(1).await, [Class::Ok]);
}

#[tokio::test(start_paused = true)]
async fn the_permit_comes_back_when_a_layer_panics_under_the_probe() {
    let bench = half_open(breaking()).await;
    bench.upstream(bench::act(|_| async { panic!("a bug of ours") }));
    assert_eq!(bench.calls(1).await, [Class::Internal]);
    bench.upstream(ends(Class::Ok));
    assert_eq!(bench.calls(1).await, [Class::Ok]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_opens_it_again_at_its_timeout_and_for_longer() {
    let settings = Settings { backoff_factor: 2.0, ..Settings::default() };
    let bench = half_open(Policy { breaker: Some(settings), ..bare() }).await;
    bench.upstream(hangs());
    let began = Instant::now();
    assert_eq!(bench.calls(1).await, [Class::Timeout]);
    assert!(began.elapsed() < Duration::from_millis(50_010));
    let until = breaker(&bench).status().until.expect("it is open");
    let open_for = until - Instant::now();
    assert!((2 * OPEN_FOR..=2 * LONGEST_OPEN).contains(&open_for), "{open_for:?}");
    assert_eq!(breaker(&bench).status().failures, 6);
}

#[tokio::test(start_paused = true)]
async fn a_slow_healthy_probe_closes_it() {
    let bench = half_open(breaking()).await;
    bench.upstream(after(Duration::from_secs(45), Class::ToolError));
    assert_eq!(bench.calls(1).await, [Class::ToolError]);
    assert_eq!(bench.breaker(), BreakerState::Closed, "the server is healthy: it answered");
}

/// Ends of calls that began before the trip, while it is open, half open and closed.
#[tokio::test(start_paused = true)]
async fn pre_trip_results_are_ignored() {
    // The early calls outlast the time that the breaker is open.
    let hour = Some(Duration::from_secs(3600));
    let patient = Policy { deadline: deadline::Settings { timeout: hour, max_duration: hour }, ..breaking() };
    for (class, in_a_row) in [(Class::Ok, 1), (Class::ServerError, 10)] {
        let bench = Bench::new(patient.clone());
        let gate = Arc::new(Semaphore::new(0));
        bench.upstream(held(&gate, class));
        let mut early = Vec::new();
        for _ in 0..3 * in_a_row {
            early.push(bench.start().await);
        }
        bench.upstream(ends(Class::ServerError));
        bench.calls(5).await;
        let open = breaker(&bench).status();

        gate.add_permits(in_a_row);
        settled().await;
        assert_eq!(breaker(&bench).status(), open, "while open, {class}");

        advance(LONGEST_OPEN).await;
        bench.upstream(hangs());
        let probe = bench.start().await;
        gate.add_permits(in_a_row);
        settled().await;
        assert_eq!(bench.breaker(), BreakerState::HalfOpen, "while probing, {class}");
        assert_eq!(bench.calls(1).await, [Class::BreakerOpen], "the probe is still out");

        probe.abort();
        settled().await;
        bench.upstream(ends(Class::Ok));
        bench.calls(1).await;
        gate.add_permits(in_a_row);
        for call in early {
            assert_eq!(call.await.expect("no panic").class, class, "each still gets its own answer");
        }
        assert_eq!((bench.breaker(), breaker(&bench).status().failures), (BreakerState::Closed, 0), "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn simultaneous_failures_open_it_once() {
    let bench = Bench::new(breaking());
    let gate = Arc::new(Semaphore::new(0));
    bench.upstream(held(&gate, Class::Protocol));
    let mut calls = Vec::new();
    for _ in 0..50 {
        calls.push(bench.start().await);
    }
    gate.add_permits(50);
    for call in calls {
        assert_eq!(call.await.expect("no panic").class, Class::Protocol);
    }
    assert_eq!(bench.kept.events(EventType::BreakerOpened).len(), 1);
    assert_eq!(breaker(&bench).status().failures, 5);
}

#[tokio::test(start_paused = true)]
async fn every_transition_is_an_event() {
    let bench = half_open(breaking()).await;
    bench.calls(1).await;
    advance(LONGEST_OPEN).await;
    bench.upstream(ends(Class::Ok));
    bench.calls(10).await;

    let opened = bench.kept.events(EventType::BreakerOpened);
    assert_eq!(opened.len(), 2);
    for (event, failures, generation) in [(&opened[0], 5, 1), (&opened[1], 6, 2)] {
        assert_eq!((event.service_name.as_str(), &event.metadata["tool"]), ("files", &"read".into()));
        assert_eq!(event.metadata["cause"], "server_error: it answered an error");
        assert_eq!(event.metadata["failures"], failures);
        assert_eq!(event.metadata["generation"], generation);
        assert!(event.metadata["open_for_ms"].as_u64().is_some_and(|ms| (60_000..=66_000).contains(&ms)));
    }
    let closed = bench.kept.events(EventType::BreakerClosed);
    assert_eq!(closed.len(), 1);
    assert_eq!((&closed[0].metadata["tool"], &closed[0].metadata["generation"]), (&"read".into(), &3.into()));
}

#[tokio::test(start_paused = true)]
async fn status_tells_where_it_stands_and_reset_closes_it() {
    let bench = Bench::new(breaking());
    bench.upstream(ends(Class::Timeout));
    bench.calls(2).await;
    let status = breaker(&bench).status();
    assert_eq!((status.state.name(), status.until, status.failures), ("closed", None, 2));
    bench.calls(3).await;
    let status = breaker(&bench).status();
    assert_eq!((status.state.name(), status.failures), ("open", 5));
    assert_eq!(status.last_cause.as_deref(), Some("timeout: it happened"));
    assert!(status.until.is_some_and(|until| until >= Instant::now() + OPEN_FOR));

    breaker(&bench).reset();
    let status = breaker(&bench).status();
    assert_eq!((status.state, status.failures, status.last_cause), (BreakerState::Closed, 0, None));
    bench.upstream(ends(Class::Ok));
    assert_eq!(bench.calls(1).await, [Class::Ok]);
    let closed = bench.kept.events(EventType::BreakerClosed);
    assert_eq!(closed[0].metadata["cause"], "it was reset by hand");
}
