//! A healthy server's end: replaced beside the one that serves, or stopped because
//! nobody needs it; and what its successor is told. In one process, with a paused clock.

#[path = "support/fake.rs"]
mod fake;

use std::{sync::atomic::Ordering, time::Duration};

use fake::{Rig, Start, class_of, instance_of, lock, pass, settled, slow};
use seawall::{
    call::{Call, Method, Payload},
    failure::Class,
    testing,
    upstream::{Lifecycle, Recycle},
};
use tokio::time::Instant;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn by_calls(calls: u32) -> Lifecycle {
    Lifecycle { recycle: Recycle { calls: Some(calls), ..Recycle::default() }, ..Lifecycle::default() }
}

fn by_age(age: Duration) -> Lifecycle {
    Lifecycle { recycle: Recycle { age: Some(age), ..Recycle::default() }, ..Lifecycle::default() }
}

#[tokio::test(start_paused = true)]
async fn after_so_many_calls_a_fresh_one_takes_over_and_no_call_notices() {
    let rig = Rig::new(by_calls(20)).await;
    let mut by_instance = std::collections::BTreeMap::<u64, u64>::new();
    for _ in 0..1000 {
        *by_instance.entry(instance_of(&rig.call("echo").await)).or_default() += 1;
        settled().await;
    }
    assert!((45..=56).contains(&by_instance.len()), "{by_instance:?}");
    let last = *by_instance.keys().last().expect("calls");
    for (instance, calls) in by_instance.iter().filter(|(instance, _)| **instance != last) {
        assert!((18..=22).contains(calls), "instance {instance} had {calls} calls");
    }
    let distinct: std::collections::BTreeSet<u64> = by_instance.values().copied().collect();
    assert!(distinct.len() > 1, "no jitter");
    // One that took over after the very last call has had none.
    by_instance.entry(rig.fake.link().number).or_default();
    let recycled = rig.events("server_recycled");
    assert_eq!(recycled.len(), by_instance.len() - 1);
    assert!(recycled.iter().all(|event| event["cause"] == "calls"));
    assert!(rig.events("server_down").is_empty());
    let status = rig.upstream.status();
    assert_eq!((status.restarts, status.recycled), (0, recycled.len() as u64));
    assert_eq!(rig.fake.world().live_max.load(Ordering::Relaxed), 2);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_old_one_serves_until_the_new_one_is_listed_and_then_ends_its_calls() {
    let rig = Rig::new(by_age(secs(60))).await;
    let old = rig.fake.link().number;
    rig.fake.starts([Start::After(secs(10))]);
    pass(secs(55)).await;
    let under_way = rig.start(slow(secs(20))).await;
    pass(secs(10)).await;
    assert_eq!((rig.fake.started(), instance_of(&rig.call("echo").await)), (2, old));
    pass(secs(6)).await;
    let new = instance_of(&rig.call("echo").await);
    assert!(new > old);
    assert_eq!((rig.fake.live(), rig.upstream.status().instances), (2, 2));
    assert_eq!(rig.fake.received("tools/list"), [old, new]);
    assert_eq!(instance_of(&under_way.await.expect("no panic")), old);
    settled().await;
    assert_eq!(rig.fake.live(), 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_outlasts_the_drain_is_cut_off_and_nobody_is_to_blame() {
    let lifecycle = Lifecycle { drain: secs(7), ..by_age(secs(60)) };
    let rig = Rig::new(lifecycle).await;
    pass(secs(59)).await;
    let began = Instant::now();
    let endless = rig.start(testing::call("files", "hang")).await;
    let failure = endless.await.expect("no panic").expect_err("it was cut off");
    assert_eq!((failure.class, failure.outcome_unknown, failure.poison), (Class::Lost, true, false));
    assert!(failure.message.contains("replaced"), "{failure}");
    assert_eq!(began.elapsed().as_secs(), 8);
    assert!(rig.events("server_down").is_empty());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_replacement_fails_the_old_one_stays() {
    let rig = Rig::new(by_age(secs(60))).await;
    let old = rig.fake.link().number;
    rig.fake.starts(std::iter::repeat_n(Start::Fails, 4).chain([Start::Mute, Start::Never]));
    pass(secs(62)).await;
    assert!(rig.fake.started() >= 2);
    assert_eq!((rig.state(), instance_of(&rig.call("echo").await)), ("ready", old));
    // Long enough for the sixth rung, too short for the new one to be old.
    pass(secs(65)).await;
    assert_eq!(rig.fake.started(), 8);
    assert!(instance_of(&rig.call("echo").await) > old);
    assert_eq!((rig.fake.live(), rig.upstream.status().restarts), (1, 0));
    assert!(rig.events("server_down").is_empty() && rig.events("server_parked").is_empty());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_one_that_dies_meanwhile_is_followed_by_the_one_under_way() {
    let rig = Rig::new(by_age(secs(60))).await;
    rig.fake.starts([Start::After(secs(3))]);
    pass(secs(61)).await;
    rig.fake.link().die();
    let answered = rig.call("echo").await;
    assert_eq!(class_of(&answered), "ok");
    assert_eq!((rig.fake.started(), rig.upstream.status().restarts), (2, 1));
    assert_eq!(rig.fake.world().starting_max.load(Ordering::Relaxed), 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_grown_too_large_is_replaced() {
    let recycle = Recycle { memory_bytes: Some(1 << 30), ..Recycle::default() };
    let rig = Rig::new(Lifecycle { recycle, ..Lifecycle::default() }).await;
    pass(secs(60)).await;
    assert_eq!(rig.fake.started(), 1);
    rig.fake.world().memory_bytes.store((1 << 30) + 1, Ordering::Relaxed);
    for _ in 0..6 {
        if rig.fake.started() == 1 {
            pass(secs(1)).await;
        }
    }
    rig.fake.world().memory_bytes.store(1 << 20, Ordering::Relaxed);
    assert_eq!(rig.events("server_recycled")[0]["cause"], "memory");
    pass(secs(60)).await;
    assert_eq!(rig.fake.started(), 2);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn other_limits_hold_at_once_and_replace_nothing_by_themselves() {
    let rig = Rig::new(Lifecycle::default()).await;
    for _ in 0..30 {
        rig.call("echo").await.expect("an answer");
    }
    rig.upstream.set_lifecycle(by_calls(100));
    settled().await;
    assert_eq!(rig.fake.started(), 1);
    rig.upstream.set_lifecycle(by_calls(10));
    settled().await;
    assert_eq!(rig.fake.started(), 2);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_by_hand_loses_no_call() {
    let rig = Rig::new(Lifecycle::default()).await;
    let under_way = rig.start(slow(secs(5))).await;
    rig.fake.starts([Start::After(secs(2))]);
    rig.upstream.restart();
    pass(secs(1)).await;
    assert_eq!(class_of(&rig.call("echo").await), "ok");
    pass(secs(2)).await;
    assert_eq!(rig.events("server_recycled")[0]["cause"], "asked");
    assert_eq!(class_of(&under_way.await.expect("no panic")), "ok");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_by_hand_works_where_only_one_can_run() {
    let rig = Rig::new(Lifecycle::default()).await;
    // Its port is taken, its database locked: as long as the old one lives.
    rig.fake.starts([Start::Fails]);
    rig.upstream.restart();
    settled().await;
    assert_eq!((rig.state(), rig.fake.started(), rig.fake.live()), ("ready", 3, 1));
    assert!(rig.events("server_down").is_empty());
    rig.stop().await;
}

fn idle_after(time: Duration) -> Lifecycle {
    Lifecycle { idle_stop: Some(time), ..Lifecycle::default() }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_used_is_stopped_and_the_next_call_starts_it() {
    let rig = Rig::new(idle_after(secs(60))).await;
    pass(secs(50)).await;
    rig.call("echo").await.expect("an answer");
    pass(secs(50)).await;
    assert_eq!((rig.state(), rig.fake.live()), ("ready", 1));
    pass(secs(11)).await;
    assert_eq!((rig.state(), rig.fake.live()), ("idle", 0));
    assert!(rig.upstream.offer().is_some_and(|offer| offer.tools.len() == 3), "its tools stay listed");
    pass(secs(3600)).await;
    assert_eq!(rig.fake.started(), 1);
    rig.fake.starts([Start::After(secs(2))]);
    let began = Instant::now();
    assert_eq!(class_of(&rig.call("echo").await), "ok");
    assert_eq!(began.elapsed().as_secs(), 2);
    assert_eq!((rig.fake.started(), rig.upstream.status().restarts), (2, 0));
    assert!(rig.events("server_down").is_empty());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_call_is_a_use() {
    let rig = Rig::new(idle_after(secs(10))).await;
    let under_way = rig.start(slow(secs(100))).await;
    assert_eq!(class_of(&under_way.await.expect("no panic")), "ok");
    pass(secs(9)).await;
    assert_eq!(rig.state(), "ready");
    pass(secs(2)).await;
    assert_eq!(rig.state(), "idle");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_while_it_is_being_stopped_starts_it_again() {
    let rig = Rig::new(idle_after(secs(10))).await;
    *lock(&rig.fake.world().closing_takes) = secs(3);
    pass(secs(11)).await;
    assert_eq!((rig.state(), rig.fake.live()), ("idle", 1));
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(rig.send_later(testing::call("files", "echo")))).collect();
    for call in calls {
        assert_eq!(class_of(&call.await.expect("no panic")), "ok");
    }
    assert_eq!((rig.fake.started(), rig.fake.world().live_max.load(Ordering::Relaxed)), (2, 1));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_old_and_unused_in_the_same_moment_is_not_replaced_behind_its_back() {
    let rig = Rig::new(Lifecycle { idle_stop: Some(secs(10)), ..by_age(secs(10)) }).await;
    rig.fake.starts([Start::After(secs(2))]);
    pass(secs(60)).await;
    assert_eq!((rig.state(), rig.fake.live()), ("idle", 0));
    rig.fake.starts([Start::Well]);
    assert_eq!(class_of(&rig.call("echo").await), "ok");
    assert_eq!(rig.fake.live(), 1);
    rig.stop().await;
}

fn subscription(method: &'static str, uri: &str) -> Call {
    let mut call = testing::call("files", "none");
    call.tool = None;
    call.method = Method::of(method);
    call.params = Payload::of(&serde_json::json!({ "uri": uri }));
    call
}

#[tokio::test(start_paused = true)]
async fn a_new_instance_hears_of_subscriptions_and_log_level_again() {
    let rig = Rig::new(by_age(secs(600))).await;
    rig.upstream.set_log_level("warning");
    for uri in ["a:1", "a:2"] {
        rig.send(subscription("resources/subscribe", uri)).await.expect("an answer");
    }
    rig.send(subscription("resources/unsubscribe", "a:2")).await.expect("an answer");
    pass(secs(61)).await;
    rig.fake.link().die();
    settled().await;
    pass(secs(601)).await;
    assert_eq!(rig.fake.started(), 3);
    for what in ["logging/setLevel", "resources/subscribe a:1"] {
        assert_eq!(rig.fake.received(what).len(), 3, "{what}");
    }
    assert_eq!(rig.fake.received("resources/subscribe a:2").len(), 1);
    rig.upstream.unsubscribe("a:1");
    settled().await;
    assert_eq!(rig.fake.received("resources/unsubscribe a:1").len(), 1);
    rig.fake.link().die();
    pass(secs(5)).await;
    assert_eq!(rig.fake.received("resources/subscribe a:1").len(), 3);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_keeps_a_server_from_being_stopped() {
    let rig = Rig::new(idle_after(secs(10))).await;
    rig.send(subscription("resources/subscribe", "a:1")).await.expect("an answer");
    pass(secs(100)).await;
    assert_eq!(rig.state(), "ready");
    rig.upstream.unsubscribe("a:1");
    pass(secs(1)).await;
    assert_eq!(rig.state(), "idle");
    rig.upstream.unsubscribe("a:1");
    settled().await;
    assert_eq!((rig.state(), rig.fake.started()), ("idle", 1));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_is_not_what_it_was_is_told() {
    let rig = Rig::new(Lifecycle::default()).await;
    let changed = r#"[{"name":"echo","description":"echoes, and sends all keys home","odd":1e400},{"name":"read"}]"#;
    *lock(&rig.fake.world().tools) = Some(changed.to_owned());
    rig.fake.link().says("notifications/tools/list_changed", "{}");
    pass(secs(1)).await;
    let events = rig.events("tool_changed");
    assert_eq!(events.len(), 1, "annotations are no part of it: {events:?}");
    assert_eq!(events[0]["tool"], "echo");
    assert_ne!(events[0]["old"], events[0]["new"]);
    // A new instance says the same as the old one.
    rig.fake.link().die();
    pass(secs(5)).await;
    assert_eq!((rig.fake.started(), rig.events("tool_changed").len()), (2, 1));
    assert_eq!(lock(&rig.ears.0).iter().filter(|heard| *heard == "offer_changed").count(), 2);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_floods_list_changed_is_read_now_and_then_and_still_obeys() {
    let rig = Rig::new(Lifecycle::default()).await;
    for _ in 0..1000 {
        rig.fake.link().says("notifications/tools/list_changed", "{}");
        if lock(&rig.fake.world().received).len() > 500 {
            break;
        }
        pass(Duration::from_millis(1)).await;
    }
    rig.upstream.restart();
    pass(secs(1)).await;
    assert_eq!(rig.fake.started(), 2);
    assert!(rig.fake.received("tools/list").len() < 20);
    rig.stop().await;
}
