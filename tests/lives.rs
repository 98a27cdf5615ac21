//! Whatever happens to a server, in whatever order: one start at a time, no more
//! lives than there may be, every call ends, none is sent twice, nothing is left.

#[path = "support/fake.rs"]
mod fake;

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use fake::{Fake, Rig, Start, call_of, lock, pass, session, settled};
use proptest::prelude::*;
use seawall::{
    call::{Method, Outcome, Payload},
    upstream::{Instances, Lifecycle, Recycle},
};
use tokio::task::JoinHandle;

#[derive(Clone, Debug)]
enum Event {
    Call { session: u64, tool: &'static str },
    Burst,
    GiveUp(usize),
    Dies,
    Pass(u64),
    Restart,
    NextStart(Start),
    ListChanged,
    Subscribes,
    Unsubscribes,
    Leaves(u64),
    Rules(Lifecycle),
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        2 => Just(Start::Well),
        2 => Just(Start::Fails),
        1 => Just(Start::Never),
        1 => Just(Start::Mute),
        2 => (1..45_000_u64).prop_map(|ms| Start::After(Duration::from_millis(ms))),
        2 => (0..90_000_u64).prop_map(|ms| Start::Dies(Duration::from_millis(ms))),
    ]
}

fn rules(may_recycle: bool) -> impl Strategy<Value = Lifecycle> {
    let calls = prop::option::of(1..30_u32);
    let age = prop::option::of((1..100_u64).prop_map(Duration::from_secs));
    let idle_stop = prop::option::of((1..30_u64).prop_map(Duration::from_secs));
    (calls, age, idle_stop).prop_map(move |(calls, age, idle_stop)| {
        let recycle = if may_recycle { Recycle { calls, age, memory_bytes: None } } else { Recycle::default() };
        Lifecycle { recycle, idle_stop, drain: Duration::from_secs(3) }
    })
}

fn event(may_recycle: bool) -> impl Strategy<Value = Event> {
    let tool = prop_oneof![4 => Just("echo"), 3 => Just("slow"), 1 => Just("die")];
    prop_oneof![
        8 => (1..4_u64, tool).prop_map(|(session, tool)| Event::Call { session, tool }),
        1 => Just(Event::Burst),
        2 => any::<usize>().prop_map(Event::GiveUp),
        2 => Just(Event::Dies),
        6 => (0..10_000_u64).prop_map(Event::Pass),
        1 => (0..120_000_u64).prop_map(Event::Pass),
        1 => Just(if may_recycle { Event::Restart } else { Event::ListChanged }),
        3 => start().prop_map(Event::NextStart),
        1 => Just(Event::ListChanged),
        1 => Just(Event::Subscribes),
        1 => Just(Event::Unsubscribes),
        1 => (1..4_u64).prop_map(Event::Leaves),
        1 => rules(may_recycle).prop_map(Event::Rules),
    ]
}

/// A story, and how many lives there may be at once.
fn story() -> impl Strategy<Value = (Instances, bool, Lifecycle, Vec<Event>)> {
    let instances = prop_oneof![2 => Just(Instances::Shared), 1 => Just(Instances::PerSession(2))];
    (instances, any::<bool>()).prop_flat_map(|(instances, may_recycle)| {
        let events = prop::collection::vec(event(may_recycle), 1..60);
        (Just(instances), Just(may_recycle), rules(may_recycle), events)
    })
}

struct Run {
    rig: Rig,
    calls: Vec<JoinHandle<Outcome>>,
}

impl Run {
    async fn call(&mut self, of: u64, tool: &str) {
        let name = format!("{tool}-{}", self.calls.len());
        let mut call = call_of(&session(of), &name);
        call.params = Payload::of(&serde_json::json!({ "name": name, "ms": 1500 }));
        self.calls.push(self.rig.start(call).await);
    }

    async fn subscription(&mut self, method: &'static str) {
        let mut call = call_of(&session(1), "none");
        call.tool = None;
        call.method = Method::of(method);
        call.params = Payload::literal(r#"{"uri":"a:1"}"#);
        self.calls.push(self.rig.start(call).await);
    }

    async fn happen(&mut self, event: Event) {
        let fake = self.rig.fake.clone();
        match event {
            Event::Call { session, tool } => self.call(session, tool).await,
            Event::Burst => {
                for _ in 0..50 {
                    self.call(1, "echo").await;
                }
            }
            Event::GiveUp(n) if !self.calls.is_empty() => self.calls[n % self.calls.len()].abort(),
            Event::GiveUp(_) => {}
            Event::Dies => {
                let link = lock(&fake.world().links).iter().rev().find(|link| link.is_live()).cloned();
                link.inspect(|link| link.die());
            }
            Event::Pass(ms) => pass(Duration::from_millis(ms)).await,
            Event::Restart => self.rig.upstream.restart(),
            Event::NextStart(start) => fake.starts([start]),
            Event::ListChanged => {
                let link = lock(&fake.world().links).last().cloned();
                link.inspect(|link| link.says("notifications/tools/list_changed", "{}"));
            }
            Event::Subscribes => self.subscription("resources/subscribe").await,
            Event::Unsubscribes => self.subscription("resources/unsubscribe").await,
            Event::Leaves(of) => self.rig.upstream.leave(&session(of)),
            Event::Rules(rules) => self.rig.upstream.set_lifecycle(rules),
        }
        settled().await;
    }
}

async fn play((instances, may_recycle, lifecycle, events): (Instances, bool, Lifecycle, Vec<Event>)) {
    let rig = Rig::light(Fake::default(), lifecycle, instances).await;
    let mut run = Run { rig, calls: Vec::new() };
    // One serves, and where it may be replaced another one starts or ends beside it.
    // With one for each session: two of them, and the one that is listed.
    let lanes = if instances == Instances::Shared { 1 } else { 3 };
    let lives = lanes * (1 + usize::from(may_recycle));
    for event in events {
        run.happen(event).await;
        let world = run.rig.fake.world();
        assert!(world.live_max.load(Ordering::Relaxed) <= lives, "too many lives");
        assert!(world.starting_max.load(Ordering::Relaxed) <= lanes, "a start beside a start");
    }

    // Waiting for an instance, twice, and the longest answer.
    pass(Duration::from_secs(15)).await;
    for call in std::mem::take(&mut run.calls) {
        assert!(call.is_finished(), "a call that does not end");
        assert!(!call.await.is_err_and(|error| error.is_panic()), "a call that panicked");
    }
    let mut sent = BTreeMap::<String, usize>::new();
    for (_, what) in lock(&run.rig.fake.world().received).iter().filter(|(_, what)| what.starts_with("tools/call")) {
        *sent.entry(what.clone()).or_default() += 1;
    }
    assert!(sent.values().all(|times| *times == 1), "sent twice: {sent:?}");

    // It always comes back: the last one that was to die does so within 90 s, and then
    // it waits 60 s at most.
    lock(&run.rig.fake.world().starts).clear();
    pass(Duration::from_secs(160)).await;
    run.call(9, "echo").await;
    pass(Duration::from_secs(6)).await;
    let outcome = run.calls.pop().expect("a call").await.expect("no panic");
    let is_full = instances != Instances::Shared && fake::class_of(&outcome) == "overloaded";
    assert!(outcome.is_ok() || is_full, "{outcome:?} from {:?}", run.rig.upstream.status());
    run.rig.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(story in story()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(play(story));
    }
}
