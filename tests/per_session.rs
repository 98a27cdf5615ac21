//! `instances = { per_session = N }`: to each session its own. In one process, with a
//! paused clock.

#[path = "support/fake.rs"]
mod fake;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fake::{Fake, Rig, Start, call_of, class_of, instance_of, lock, pass, session, settled};
use seawall::{
    call::{Answer, BoxFuture, Method, Payload, Wire},
    failure::Class,
    session::Session,
    testing,
    upstream::{Instances, Lifecycle, Offer, Recycle},
};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

async fn pool(max: u32) -> Rig {
    Rig::of(Fake::default(), Lifecycle::default(), Instances::PerSession(max)).await
}

/// A client that writes down what it is told.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Wire for Heard {
    fn tell(&self, method: Method, _: Option<Payload>) {
        lock(&self.0).push(method.to_string());
    }

    fn ask(&self, method: Method, _: Option<Payload>) -> BoxFuture<'_, Answer> {
        lock(&self.0).push(format!("asked {method}"));
        Box::pin(std::future::ready(Answer::Result(Payload::literal("{}"))))
    }
}

fn listener(number: u64) -> (Arc<Session>, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    (Arc::new(Session { number, back: heard.clone(), ..testing::session() }), heard)
}

#[tokio::test(start_paused = true)]
async fn each_session_has_its_own_and_the_catalog_comes_from_none_of_them() {
    let rig = pool(8).await;
    assert_eq!((rig.state(), rig.fake.live()), ("idle", 0), "listed, and stopped again");
    assert!(rig.upstream.offer().is_some());
    let mut instances = Vec::new();
    for round in 0..2 {
        for number in 1..=3 {
            let instance = instance_of(&rig.send(call_of(&session(number), "echo")).await);
            if round == 0 {
                instances.push(instance);
            } else {
                assert_eq!(instance, instances[usize::try_from(number).unwrap() - 1]);
            }
        }
    }
    instances.dedup();
    assert_eq!(instances.len(), 3);
    let status = rig.upstream.status();
    assert_eq!((status.state, status.instances, status.pids.len()), ("ready", 3, 3));
    assert_eq!(rig.fake.received("tools/list").len(), 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn over_the_bound_a_session_is_refused_until_another_ends() {
    let rig = pool(2).await;
    for number in [1, 2] {
        rig.send(call_of(&session(number), "echo")).await.expect("an answer");
    }
    let failure = rig.send(call_of(&session(3), "echo")).await.expect_err("there is no place");
    assert_eq!(failure.class, Class::Overloaded);
    assert!(failure.message.contains("per_session = 2") && failure.retry_after.is_some(), "{failure}");
    rig.upstream.leave(&session(3));
    rig.upstream.leave(&session(1));
    settled().await;
    assert_eq!(rig.fake.live(), 1);
    assert_eq!(class_of(&rig.send(call_of(&session(3), "echo")).await), "ok");
    assert_eq!(rig.fake.live(), 2);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_ends_what_it_has_under_way() {
    let rig = pool(2).await;
    let under_way = rig.start(call_of(&session(1), "hang")).await;
    let other = rig.start(call_of(&session(2), "hang")).await;
    rig.upstream.leave(&session(1));
    settled().await;
    assert!(under_way.is_finished() && !other.is_finished());
    assert_eq!(rig.fake.live(), 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_used_for_ten_minutes_makes_room() {
    let rig = pool(1).await;
    let first = instance_of(&rig.send(call_of(&session(1), "echo")).await);
    pass(secs(590)).await;
    assert_eq!(instance_of(&rig.send(call_of(&session(1), "echo")).await), first);
    pass(secs(590)).await;
    assert_eq!(rig.fake.live(), 1);
    pass(secs(11)).await;
    assert_eq!((rig.fake.live(), rig.state()), (0, "idle"));
    assert!(instance_of(&rig.send(call_of(&session(2), "echo")).await) > first);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_while_its_instance_is_being_stopped_gets_a_new_one() {
    let rig = pool(1).await;
    rig.send(call_of(&session(1), "echo")).await.expect("an answer");
    *lock(&rig.fake.world().closing_takes) = secs(3);
    pass(secs(601)).await;
    assert_eq!(rig.fake.live(), 1);
    assert_eq!(class_of(&rig.send(call_of(&session(1), "echo")).await), "ok");
    assert_eq!(rig.fake.live(), 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_start_keeps_its_place_no_longer_than_it_is_wanted() {
    let rig = pool(1).await;
    rig.fake.always(Start::Fails);
    assert_eq!(class_of(&rig.send(call_of(&session(1), "echo")).await), "unavailable");
    assert_eq!(class_of(&rig.send(call_of(&session(2), "echo")).await), "overloaded");
    pass(secs(700)).await;
    rig.fake.always(Start::Well);
    assert_eq!(class_of(&rig.send(call_of(&session(2), "echo")).await), "ok");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_instance_says_reaches_its_session_and_no_other() {
    let rig = pool(2).await;
    let (one, hears_one) = listener(1);
    let (two, hears_two) = listener(2);
    rig.send(call_of(&one, "echo")).await.expect("an answer");
    let link_of_one = rig.fake.link();
    rig.send(call_of(&two, "echo")).await.expect("an answer");
    link_of_one.says("notifications/message", r#"{"level":"info","data":"x"}"#);
    link_of_one.says("notifications/resources/updated", r#"{"uri":"a:1"}"#);
    assert_eq!(*lock(&hears_one.0), ["notifications/message", "notifications/resources/updated"]);
    assert!(lock(&hears_two.0).is_empty());
    assert_eq!(*lock(&rig.ears.0), ["offer_changed"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn changed_lists_of_one_make_the_catalog_be_read_again_but_not_all_the_time() {
    let rig = pool(2).await;
    rig.send(call_of(&session(1), "echo")).await.expect("an answer");
    let link = rig.fake.link();
    *lock(&rig.fake.world().tools) = Some(r#"[{"name":"new"}]"#.to_owned());
    for _ in 0..100 {
        link.says("notifications/tools/list_changed", "{}");
        pass(Duration::from_millis(10)).await;
    }
    pass(secs(10)).await;
    assert_eq!(rig.upstream.offer().expect("known").tools.len(), 1);
    assert!((2..=3).contains(&rig.fake.received("tools/list").len()));
    assert_eq!(rig.fake.live(), 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_death_is_the_affair_of_one_session() {
    let rig = pool(2).await;
    let before = instance_of(&rig.send(call_of(&session(1), "echo")).await);
    let other = instance_of(&rig.send(call_of(&session(2), "echo")).await);
    lock(&rig.fake.world().links).iter().find(|link| link.number == before).expect("a link").die();
    pass(secs(1)).await;
    assert!(instance_of(&rig.send(call_of(&session(1), "echo")).await) > other);
    assert_eq!(instance_of(&rig.send(call_of(&session(2), "echo")).await), other);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn each_is_recycled_and_restarted_for_itself() {
    let recycle = Recycle { calls: Some(10), ..Recycle::default() };
    let lifecycle = Lifecycle { recycle, ..Lifecycle::default() };
    let rig = Rig::of(Fake::default(), lifecycle, Instances::PerSession(2)).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        seen.insert(instance_of(&rig.send(call_of(&session(1), "echo")).await));
        settled().await;
    }
    assert!(seen.len() >= 4, "{seen:?}");
    let quiet = instance_of(&rig.send(call_of(&session(2), "echo")).await);
    rig.upstream.restart();
    pass(secs(1)).await;
    assert!(instance_of(&rig.send(call_of(&session(2), "echo")).await) > quiet);
    assert_eq!((rig.fake.live(), rig.upstream.status().restarts), (2, 0));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_calls_first_makes_the_catalog_known() {
    let fake = Fake::default();
    fake.starts([Start::Never]);
    let rig = Rig::of(fake, Lifecycle::default(), Instances::PerSession(2)).await;
    assert_eq!(rig.state(), "parked");
    assert!(rig.upstream.offer().is_none());
    rig.send(call_of(&session(1), "echo")).await.expect("an answer");
    assert!(rig.upstream.offer().is_some());
    assert_eq!(rig.state(), "ready");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_known_from_an_earlier_run_is_read_again_all_the_same() {
    let fake = Fake::default();
    let (tools, none) = (vec![Payload::literal(r#"{"name":"old"}"#)], Vec::new);
    let hello = Payload::literal("{}");
    let known = Offer { hello, tools, prompts: none(), resources: none(), templates: none() };
    *lock(&fake.world().known) = Some(known);
    let rig = Rig::of(fake, Lifecycle::default(), Instances::PerSession(2)).await;
    assert_eq!(rig.upstream.offer().expect("known").tools.len(), 3);
    assert_eq!((rig.state(), rig.fake.live()), ("idle", 0));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_takes_nobody_in() {
    let rig = pool(2).await;
    let under_way = rig.start(call_of(&session(1), "hang")).await;
    rig.upstream.close();
    assert_eq!(class_of(&rig.send(call_of(&session(1), "echo")).await), "draining");
    assert_eq!(class_of(&rig.send(call_of(&session(2), "echo")).await), "draining");
    rig.upstream.retire(secs(1)).await;
    assert_eq!(class_of(&under_way.await.expect("no panic")), "draining");
    rig.stop().await;
}
