//! A server that answers nothing any more, and one that a tool of it kills: what the
//! layers above and the upstream below make of it together. With a paused clock.

#[path = "support/fake.rs"]
mod fake;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fake::{Rig, class_of, pass, settled};
use seawall::{
    call::CallService,
    failure::{Class, Failure, Recording},
    layer::{
        Keeper, Policy,
        breaker::{self, BreakerState},
        deadline,
        memory::Memory,
    },
    stack::{self, Shared, ToolState},
    store::{Event, FailureRow},
    testing,
    upstream::Lifecycle,
};
use tower::Service;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

struct Nobody;

impl Keeper for Nobody {
    fn failure(&self, _: FailureRow, _: Recording) {}
    fn event(&self, _: Event) {}
}

/// The real layers over the real upstream.
fn stacked(rig: &Rig, policy: &Policy) -> (CallService<std::convert::Infallible>, ToolState) {
    let keeper: Arc<dyn Keeper> = Arc::new(Nobody);
    let state = ToolState::new(&"files".into(), Some(&"die".into()), policy, &keeper);
    let upstream: CallService<Failure> = rig.upstream.service();
    (stack::build(policy, &state, &Shared::new(Memory::default(), keeper), upstream), state)
}

fn late_after(timeout: Duration) -> Policy {
    let deadline = deadline::Settings { timeout: Some(timeout), max_duration: None };
    Policy { breaker: None, rate_limit: None, concurrency: None, deadline, ..Policy::default() }
}

async fn through(stack: &CallService<std::convert::Infallible>, tool: &str) -> Class {
    let Ok(reply) = stack.clone().call(testing::call("files", tool)).await;
    reply.class
}

#[tokio::test(start_paused = true)]
async fn who_times_out_again_and_again_and_answers_no_ping_is_replaced() {
    let rig = Rig::new(Lifecycle::default()).await;
    let (stack, _) = stacked(&rig, &late_after(secs(2)));
    rig.fake.world().is_silent_to_ping.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(through(&stack, "hang").await, Class::Timeout);
    }
    pass(secs(60)).await;
    assert!(rig.fake.received("ping").is_empty(), "two are no habit");
    assert_eq!(through(&stack, "hang").await, Class::Timeout);
    let in_flight = rig.start(testing::call("files", "hang")).await;
    pass(secs(4)).await;
    assert_eq!(rig.fake.started(), 1);
    pass(secs(2)).await;
    assert_eq!((rig.fake.started(), rig.state(), rig.fake.live()), (2, "ready", 1));
    let failure = in_flight.await.expect("no panic").expect_err("it hung");
    assert_eq!((failure.class, failure.outcome_unknown), (Class::Lost, true));
    assert!(failure.message.contains("hung"), "{failure}");
    let down = rig.events("server_down");
    assert_eq!((down.len(), &down[0]["reason"]), (1, &serde_json::json!("hung")));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_answers_its_ping_is_never_replaced() {
    let rig = Rig::new(Lifecycle::default()).await;
    let (stack, _) = stacked(&rig, &late_after(secs(1)));
    for _ in 0..10 {
        assert_eq!(through(&stack, "hang").await, Class::Timeout);
        settled().await;
    }
    pass(secs(60)).await;
    assert_eq!(rig.fake.received("ping").len(), 3, "asked again after three more each");
    assert_eq!(rig.fake.started(), 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn silence_to_ping_is_not_death_where_other_calls_are_answered() {
    let rig = Rig::new(Lifecycle::default()).await;
    let (stack, _) = stacked(&rig, &late_after(secs(1)));
    rig.fake.world().is_silent_to_ping.store(true, Ordering::Relaxed);
    for _ in 0..5 {
        for _ in 0..3 {
            assert_eq!(through(&stack, "hang").await, Class::Timeout);
        }
        settled().await;
        // While the ping waits, somebody else is served.
        assert_eq!(through(&stack, "echo").await, Class::Ok);
        pass(secs(10)).await;
    }
    for _ in 0..20 {
        assert_eq!(through(&stack, "hang").await, Class::Timeout);
        assert_eq!(through(&stack, "echo").await, Class::Ok);
    }
    pass(secs(60)).await;
    assert_eq!((rig.fake.received("ping").len(), rig.fake.started()), (5, 1));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn clients_that_give_up_say_nothing_about_a_server() {
    let rig = Rig::new(Lifecycle::default()).await;
    rig.fake.world().is_silent_to_ping.store(true, Ordering::Relaxed);
    for _ in 0..10 {
        let call = rig.start(testing::call("files", "hang")).await;
        call.abort();
        pass(secs(1)).await;
    }
    pass(secs(60)).await;
    assert!(rig.fake.received("ping").is_empty());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_kills_its_server_each_time_is_stopped_by_its_breaker() {
    let rig = Rig::new(Lifecycle::default()).await;
    let settings = breaker::Settings { failures: 1, ..breaker::Settings::default() };
    let (stack, state) = stacked(&rig, &Policy { breaker: Some(settings), ..late_after(secs(60)) });
    let open = || state.breaker.as_ref().expect("a breaker").status().state == BreakerState::Open;
    for death in 1..=3 {
        assert!(!open(), "death {death}");
        assert_eq!(through(&stack, "die").await, Class::Lost);
        pass(secs(5)).await;
    }
    assert!(open());
    assert_eq!(through(&stack, "die").await, Class::BreakerOpen);
    assert_eq!(rig.fake.received("tools/call die").len(), 3);
    assert_eq!(class_of(&rig.call("echo").await), "ok", "its siblings go on");
    rig.stop().await;
}
