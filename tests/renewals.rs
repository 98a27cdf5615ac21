//! A healthy server that is replaced, again and again and for whatever cause: an
//! instance is ready at every moment, all calls go to one and the same, and none fails.

#[path = "support/fake.rs"]
mod fake;

use std::{sync::atomic::Ordering, time::Duration};

use fake::{Fake, Rig, Start, class_of, instance_of, lock, pass, settled, slow};
use proptest::prelude::*;
use seawall::{
    call::Outcome,
    testing,
    upstream::{Instances, Lifecycle, Recycle},
};
use tokio::task::JoinHandle;

const LIMIT_BYTES: usize = 1 << 20;
/// Longer than any call takes: what drains is never cut off.
const DRAIN: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
enum Event {
    /// Two calls at once: both must meet the same instance.
    Calls,
    Slow(u64),
    Pass(u64),
    /// How the next replacement starts: it may fail, and then the old one goes on.
    NextStart(Start),
    /// Less than the grace that a process is given: then it is killed.
    ClosingTakes(u64),
    Grows(bool),
    Rules(Recycle),
    ListChanged,
}

/// What the server's story must look like from outside.
struct Model {
    /// The instance that serves. Only one that was started later may follow it.
    current: u64,
    calls: Vec<(u64, JoinHandle<Outcome>)>,
}

fn rules() -> impl Strategy<Value = Recycle> {
    let calls = prop::option::of(1..20_u32);
    let age = prop::option::of((1..60_u64).prop_map(Duration::from_secs));
    let memory = prop::option::of(Just(LIMIT_BYTES as u64));
    (calls, age, memory).prop_map(|(calls, age, memory_bytes)| Recycle { calls, age, memory_bytes })
}

fn event() -> impl Strategy<Value = Event> {
    let start = prop_oneof![
        2 => Just(Start::Well),
        2 => Just(Start::Fails),
        1 => Just(Start::Never),
        1 => Just(Start::Mute),
        2 => (1..20_000_u64).prop_map(|ms| Start::After(Duration::from_millis(ms))),
    ];
    prop_oneof![
        8 => Just(Event::Calls),
        4 => (1..40_000_u64).prop_map(Event::Slow),
        6 => (0..8_000_u64).prop_map(Event::Pass),
        1 => (0..90_000_u64).prop_map(Event::Pass),
        3 => start.prop_map(Event::NextStart),
        1 => (0..5_900_u64).prop_map(Event::ClosingTakes),
        1 => any::<bool>().prop_map(Event::Grows),
        2 => rules().prop_map(Event::Rules),
        1 => Just(Event::ListChanged),
    ]
}

impl Model {
    async fn call(&mut self, rig: &Rig, call: seawall::call::Call) {
        self.calls.push((self.current, rig.start(call).await));
    }

    /// It is ready, and if another instance serves now, it is a later one.
    fn look(&mut self, rig: &Rig) {
        let status = rig.upstream.status();
        assert_eq!(status.state, "ready", "{status:?}");
        let serves = status.instance.expect("the one that is ready");
        assert!(serves >= self.current, "{serves} was replaced by {} already", self.current);
        self.current = serves;
        let world = rig.fake.world();
        assert!(world.live_max.load(Ordering::Relaxed) <= 2, "one serves, and one starts or ends");
        assert!(
            lock(&world.links).iter().any(|link| link.number == serves && link.is_live()),
            "the one that serves lives"
        );
    }

    async fn happen(&mut self, rig: &Rig, event: Event) {
        let world = rig.fake.world();
        match event {
            Event::Calls => {
                // Neither has been looked at when the other begins.
                let [one, other] = [(); 2].map(|()| rig.send_later(testing::call("files", "echo")));
                let (one, other) = tokio::join!(one, other);
                assert_eq!([class_of(&one), class_of(&other)], ["ok", "ok"]);
                let (one, other) = (instance_of(&one), instance_of(&other));
                // The first may be the last that an instance takes: then the next one has begun.
                assert!(
                    one == self.current && other == one,
                    "they went to {one} and {other}, and {} serves",
                    self.current
                );
            }
            Event::Slow(ms) => self.call(rig, slow(Duration::from_millis(ms))).await,
            Event::Pass(ms) => pass(Duration::from_millis(ms)).await,
            Event::NextStart(start) => rig.fake.starts([start]),
            Event::ClosingTakes(ms) => *lock(&world.closing_takes) = Duration::from_millis(ms),
            Event::Grows(grows) => world.memory_bytes.store(if grows { 2 * LIMIT_BYTES } else { 1 }, Ordering::Relaxed),
            Event::Rules(recycle) => rig.upstream.set_lifecycle(Lifecycle { recycle, idle_stop: None, drain: DRAIN }),
            Event::ListChanged => rig.fake.link().says("notifications/tools/list_changed", "{}"),
        }
        settled().await;
    }
}

async fn play(recycle: Recycle, events: Vec<Event>) {
    let rig =
        Rig::light(Fake::default(), Lifecycle { recycle, idle_stop: None, drain: DRAIN }, Instances::Shared).await;
    let mut model = Model { current: 1, calls: Vec::new() };
    for event in events {
        model.look(&rig);
        model.happen(&rig, event).await;
    }
    // The longest call, and until no replacement is on its way any more: a start that is
    // given up on is cleared away later than the server's end.
    lock(&rig.fake.world().starts).clear();
    rig.upstream.set_lifecycle(Lifecycle { drain: DRAIN, ..Lifecycle::default() });
    pass(Duration::from_secs(200)).await;
    model.look(&rig);
    for (began_with, call) in model.calls {
        assert!(call.is_finished(), "a call that does not end");
        let outcome = call.await.expect("no panic");
        assert_eq!(instance_of(&outcome), began_with, "it was moved to another instance");
    }
    rig.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_instance_serves_at_every_moment(recycle in rules(), events in prop::collection::vec(event(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(play(recycle, events));
    }
}
