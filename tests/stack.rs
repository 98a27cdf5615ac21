//! The stack as a whole: what its order is for, and what outlives a reload.

#[path = "support/bench.rs"]
mod bench;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bench::{Bench, Kept, bare, ends, facts, hangs, held, other_request, outcome_of, settled};
use seawall::{
    call::{Answer, Call, Payload, Replay, Reply},
    failure::Class,
    layer::{
        Keeper, Policy,
        breaker::{self, BreakerState},
        concurrency, deadline,
        memory::{Memory, SERVER_MAX_BYTES, SMALL_MAX_BYTES},
        rate_limit,
    },
    stack::{Shared, ToolState},
    store::EventType,
    testing,
};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, advance},
};

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_in_a_row_pass_with_the_defaults() {
    let bench = Bench::new(Policy::default());
    assert_eq!(bench.calls(1000).await, [Class::Ok; 1000]);
    let snapshot = bench.snapshot();
    assert_eq!((snapshot.calls, snapshot.ended(Class::Ok), snapshot.in_flight), (1000, 1000, 0));
    assert!(bench.kept.rows().is_empty());
}

/// Everything on, and open; the next call is the probe.
async fn awaiting_a_probe(policy: Policy) -> Bench {
    let bench = Bench::new(Policy { breaker: Some(breaker::Settings::default()), ..policy });
    bench.upstream(ends(Class::ServerError));
    bench.calls(5).await;
    advance(Duration::from_secs(66)).await;
    assert_eq!(bench.breaker(), BreakerState::HalfOpen);
    bench
}

/// A call that hangs in a stack beside that of `bench`, which shares only its permits.
async fn take_a_permit(bench: &Bench) -> JoinHandle<Reply> {
    let mut state = bench.state.clone();
    state.breaker = None;
    let beside = Bench::with_state(bare(), state, bench.kept.clone(), bench.kept.clone());
    beside.upstream(hangs());
    beside.start().await
}

#[tokio::test(start_paused = true)]
async fn a_rate_limited_call_does_not_consume_the_probe() {
    let rate_limit = Some(rate_limit::Settings { per_minute: 1, burst: 5 });
    let bench = awaiting_a_probe(Policy { rate_limit, ..bare() }).await;
    // One call was regained in the minute that it was open. It is the probe, and leaves.
    bench.upstream(hangs());
    let probe = bench.start().await;
    assert_eq!(bench.calls(1).await, [Class::RateLimited], "the limiter is asked first");
    probe.abort();
    settled().await;
    assert_eq!(bench.calls(10).await, [Class::RateLimited; 10]);
    assert_eq!(bench.breaker(), BreakerState::HalfOpen);
    advance(Duration::from_secs(60)).await;
    bench.upstream(ends(Class::Ok));
    assert_eq!(bench.calls(1).await, [Class::Ok]);
    assert_eq!(bench.breaker(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_finds_the_tool_busy_gives_its_permit_back() {
    let concurrency = Some(concurrency::Settings { calls: 1 });
    let bench = awaiting_a_probe(Policy { concurrency, ..bare() }).await;
    let hanging = take_a_permit(&bench).await;
    bench.upstream(ends(Class::Ok));
    assert_eq!(bench.calls(3).await, [Class::Overloaded; 3], "each of them was the probe");
    assert_eq!(bench.breaker(), BreakerState::HalfOpen);
    hanging.abort();
    settled().await;
    assert_eq!(bench.calls(1).await, [Class::Ok]);
    assert_eq!(bench.breaker(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_refuses_at_once_though_every_permit_is_taken() {
    let concurrency = Some(concurrency::Settings { calls: 1 });
    let bench = Bench::new(Policy { concurrency, breaker: Some(breaker::Settings::default()), ..bare() });
    bench.upstream(ends(Class::ServerError));
    bench.calls(5).await;
    let hanging = take_a_permit(&bench).await;
    let began = Instant::now();
    assert_eq!(bench.calls(10).await, [Class::BreakerOpen; 10]);
    assert_eq!(began.elapsed(), Duration::ZERO);
    hanging.abort();
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_permit_is_not_the_servers_time() {
    let deadline = deadline::Settings { timeout: None, max_duration: Some(Duration::from_millis(60)) };
    let concurrency = Some(concurrency::Settings { calls: 1 });
    let bench = Bench::new(Policy { concurrency, deadline, ..bare() });
    let hanging = take_a_permit(&bench).await;
    let waiting = bench.start().await;
    advance(Duration::from_millis(80)).await;
    hanging.abort();
    assert_eq!(waiting.await.expect("no panic").class, Class::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_a_moment_for_a_permit_and_not_longer() {
    let concurrency = Some(concurrency::Settings { calls: 2 });
    let bench = Bench::new(Policy { concurrency, ..bare() });
    let gate = Arc::new(Semaphore::new(0));
    bench.upstream(held(&gate, Class::Ok));
    let first = bench.start().await;
    let second = bench.start().await;
    let began = Instant::now();
    assert_eq!(bench.calls(1).await, [Class::Overloaded]);
    assert!((100..=101).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(bench.reached(), 2);

    let waiting = bench.start().await;
    advance(Duration::from_millis(50)).await;
    gate.add_permits(3);
    for call in [first, second, waiting] {
        assert_eq!(call.await.expect("no panic").class, Class::Ok);
    }
}

#[tokio::test(start_paused = true)]
async fn permits_come_back_from_calls_whose_clients_left() {
    let concurrency = Some(concurrency::Settings { calls: 2 });
    let bench = Bench::new(Policy { concurrency, ..bare() });
    bench.upstream(hangs());
    for _ in 0..100 {
        bench.start().await.abort();
        settled().await;
    }
    bench.upstream(ends(Class::Ok));
    assert_eq!(bench.calls(10).await, [Class::Ok; 10]);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_server_opens_the_breaker() {
    let bench = Bench::new(Policy::default());
    bench.upstream(hangs());
    assert_eq!(bench.calls(6).await[4..], [Class::Timeout, Class::BreakerOpen]);
    assert_eq!((bench.reached(), bench.abandoned()), (5, 5), "and was told each time");
}

#[tokio::test(start_paused = true)]
async fn requests_that_name_no_tool_pass_the_same_layers() {
    let bench = Bench::new(Policy::default());
    bench.upstream(ends(Class::ServerError));
    for _ in 0..5 {
        let reply = bench.send(other_request()).await;
        let Answer::Error(error) = reply.answer else { panic!("an error was due") };
        assert_eq!(error.error_code(), Some(-32603), "the server's own code");
    }
    let reply = bench.send(other_request()).await;
    let Answer::Error(error) = reply.answer else { panic!("an error was due") };
    assert_eq!((reply.class, error.error_code()), (Class::BreakerOpen, Some(-32000)));
    assert_eq!(bench.kept.rows()[0].0.tool, "resources/read");
}

#[tokio::test(start_paused = true)]
async fn the_policy_says_what_may_be_sent_again() {
    for replay in [Replay::Never, Replay::Unsent, Replay::Annotated] {
        let seen = Arc::new(Mutex::new(None));
        let bench = Bench::new(Policy { replay, ..bare() });
        let upstream = seen.clone();
        bench.upstream(bench::act(move |call| {
            *upstream.lock().expect("no test panics here") = Some(call.replay);
            async { outcome_of(Class::Ok) }
        }));
        bench.call().await;
        assert_eq!(*seen.lock().expect("no test panics here"), Some(replay));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_each_piece_of_state_that_it_does_not_change() {
    let old = Policy {
        rate_limit: Some(rate_limit::Settings { per_minute: 1, burst: 7 }),
        concurrency: Some(concurrency::Settings { calls: 1 }),
        ..Policy::default()
    };
    let before = Bench::new(old.clone());
    before.upstream(hangs());
    let hanging = before.start().await;
    before.upstream(ends(Class::ServerError));

    // Nothing of it changed: the permit is still taken and its calls are still counted.
    let new = Policy { replay: Replay::Never, ..old.clone() };
    let state = before.state.carried_over(&old, &new);
    let same = Bench::with_state(new, state, before.kept.clone(), before.kept.clone());
    assert_eq!(same.calls(1).await, [Class::Overloaded]);

    // More permits: only these are new.
    let new = Policy { concurrency: Some(concurrency::Settings { calls: 2 }), ..old.clone() };
    let state = before.state.carried_over(&old, &new);
    let after = Bench::with_state(new, state, before.kept.clone(), before.kept.clone());
    after.upstream(ends(Class::ServerError));
    assert_eq!(after.calls(5).await, [Class::ServerError; 5]);
    assert_eq!(after.calls(1).await, [Class::RateLimited], "seven were let in, before and after");
    assert_eq!(before.breaker(), BreakerState::Open, "one breaker, whichever stack a call came through");
    assert_eq!(before.kept.events(EventType::BreakerOpened).len(), 1);

    // Another limit for the breaker: it begins anew.
    let changed = breaker::Settings { failures: 9, ..breaker::Settings::default() };
    let state = before.state.carried_over(&old, &Policy { breaker: Some(changed), ..old.clone() });
    assert_eq!(state.breaker.expect("a breaker").status().failures, 0);
    let state = before.state.carried_over(&old, &Policy { breaker: None, ..old.clone() });
    assert!(state.breaker.is_none() && state.limiter.is_some() && state.permits.is_some());
    hanging.abort();
}

#[tokio::test(start_paused = true)]
async fn the_tally_knows_what_is_under_way() {
    let bench = Bench::new(Policy::default());
    bench.upstream(hangs());
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(bench.start().await);
    }
    assert_eq!((bench.snapshot().calls, bench.snapshot().in_flight), (3, 3));
    for call in calls {
        assert_eq!(call.await.expect("no panic").class, Class::Timeout);
    }
    let snapshot = bench.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.ended(Class::Timeout), snapshot.failures()), (0, 3, 3));
}

fn call_of(params: &Payload) -> Call {
    Call { params: params.clone(), ..testing::call("files", "read") }
}

fn says(refused: &Reply, sentence: &str) {
    let Answer::Result(json) = &refused.answer else { panic!("a tool call ends in a result") };
    assert!(json.as_str().contains(sentence), "{}", json.as_str());
}

#[tokio::test(start_paused = true)]
async fn what_the_arguments_of_calls_under_way_may_take_is_bounded() {
    let memory = Memory::default();
    let of_server = |name: &str| {
        let kept = Arc::new(Kept::default());
        let state = ToolState::new(&name.into(), None, &bare(), &(kept.clone() as Arc<dyn Keeper>));
        let shared = Shared::new(memory.of_another_server(), kept.clone());
        let bench = Bench::of_server(bare(), state, shared, kept);
        bench.upstream(hangs());
        bench
    };
    let [first, second, third] = ["a", "b", "c"].map(of_server);
    let [small, large, eighth, enormous] =
        [SMALL_MAX_BYTES, SMALL_MAX_BYTES + 1, SERVER_MAX_BYTES / 8, SERVER_MAX_BYTES + 1]
            .map(|bytes| Payload::of(&"x".repeat(bytes - 2)));
    let mut hanging = Vec::new();
    for _ in 0..8 {
        hanging.push(first.start_with(call_of(&eighth)).await);
    }
    let refused = first.send(call_of(&large)).await;
    assert_eq!(refused.class, Class::Overloaded);
    says(&refused, "the arguments of its calls under way may take 128 MiB together");
    assert_eq!(facts(&refused.answer)["retryAfterMs"], 1000);
    let small = first.start_with(call_of(&small)).await;
    assert_eq!((first.reached(), small.is_finished()), (9, false), "it needs none");

    // The neighbours have their half, one message of any size has it to itself, and then all is taken.
    hanging.push(second.start_with(call_of(&enormous)).await);
    assert_eq!(second.reached(), 1);
    let refused = third.send(call_of(&eighth)).await;
    says(&refused, "of all calls under way may take 256 MiB together");

    // Given back however a call ends.
    hanging.drain(..1).for_each(|call| call.abort());
    settled().await;
    third.upstream(ends(Class::Ok));
    for _ in 0..100 {
        assert_eq!(third.send(call_of(&eighth)).await.class, Class::Ok);
    }
    assert_eq!(first.snapshot().ended(Class::Overloaded), 1);
}
