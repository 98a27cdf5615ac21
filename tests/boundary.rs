//! Whatever happens below, one reply leaves.

#[path = "support/bench.rs"]
mod bench;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bench::{Act, Bench, Kept, act, bare, ends, facts, outcome_of, settled};
use seawall::{
    call::{Answer, BoxFuture, Call, CallService, Outcome},
    failure::{Class, Failure, Recording},
    layer::{Keeper, Policy, memory::Memory, record::Tally},
    stack::{self, Shared, ToolState},
    store::{Event, FailureRow},
    testing,
};
use tower::{Service, service_fn};

async fn is_survived(bug: Act) {
    let bench = Bench::new(Policy::default());
    bench.upstream(bug);
    let reply = bench.call().await;
    assert_eq!(reply.class, Class::Internal);
    assert!(matches!(&reply.answer, Answer::Result(result) if result.says_is_error()));
    assert_eq!(bench.kept.classes(), [Class::Internal]);
    let snapshot = bench.snapshot();
    assert_eq!((snapshot.ended(Class::Internal), snapshot.in_flight), (1, 0));
    bench.upstream(ends(Class::Ok));
    assert_eq!(bench.call().await.class, Class::Ok, "and the tool goes on");
}

#[tokio::test(start_paused = true)]
async fn a_panic_with_a_str_a_string_or_anything_else() {
    is_survived(act(|_| async { panic!("plain") })).await;
    is_survived(act(|call| async move { panic!("about {}", call.server) })).await;
    is_survived(act(|_| async { std::panic::panic_any(vec![1_u8]) })).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_after_a_wait() {
    is_survived(act(|_| async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        panic!("late")
    }))
    .await;
}

/// The stack right above `upstream`, which may do things outside its future.
fn above(
    upstream: impl Fn(Call) -> BoxFuture<'static, Outcome> + Clone + Send + Sync + 'static,
) -> (CallService<Infallible>, Arc<Tally>, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let keeper: Arc<dyn Keeper> = kept.clone();
    let state = ToolState::new(&"files".into(), None, &bare(), &keeper);
    let shared = Shared::new(Memory::default(), keeper);
    let stack = stack::build(&bare(), &state, &shared, CallService::new(service_fn(upstream)));
    (stack, shared.tally, kept)
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_there_is_a_future() {
    let (mut stack, tally, kept) = above(|_| panic!("in call itself"));
    let Ok(reply) = stack.call(testing::call("files", "read")).await;
    assert_eq!(reply.class, Class::Internal);
    assert_eq!(kept.classes(), [Class::Internal]);
    assert_eq!((tally.snapshot().ended(Class::Internal), tally.snapshot().in_flight), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_destructor_of_a_call_that_never_began() {
    let blown = Arc::new(AtomicU64::new(0));
    let bomb = blown.clone();
    let (mut stack, tally, _) = above(move |_| {
        let bomb = Bomb(bomb.clone());
        Box::pin(async move {
            let _bomb = bomb;
            outcome_of(Class::Ok)
        })
    });
    drop(stack.call(testing::call("files", "read")));
    assert_eq!((blown.load(Ordering::Relaxed), tally.snapshot().in_flight), (1, 0));
}

struct Bomb(Arc<AtomicU64>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("in a destructor");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_destructor_at_the_end_of_a_call() {
    let blown = Arc::new(AtomicU64::new(0));
    let bomb = blown.clone();
    is_survived(act(move |_| {
        let bomb = Bomb(bomb.clone());
        async move {
            let _bomb = bomb;
            outcome_of(Class::Ok)
        }
    }))
    .await;
    assert_eq!(blown.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_destructor_when_the_client_leaves() {
    let blown = Arc::new(AtomicU64::new(0));
    let bench = Bench::new(Policy::default());
    let bomb = blown.clone();
    bench.upstream(act(move |_| {
        let bomb = Bomb(bomb.clone());
        async move {
            let _bomb = bomb;
            std::future::pending().await
        }
    }));
    let under_way = bench.start().await;
    under_way.abort();
    assert!(under_way.await.expect_err("aborted").is_cancelled(), "the panic got out of the boundary");
    settled().await;
    assert_eq!(blown.load(Ordering::Relaxed), 1);
    assert_eq!(bench.snapshot().in_flight, 0);
}

/// A keeper that panics at whatever it is handed.
struct Broken(Arc<AtomicU64>);

impl Keeper for Broken {
    fn failure(&self, _: FailureRow, _: Recording) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("the store panicked");
    }

    fn event(&self, _: Event) {
        panic!("the store panicked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_costs_no_reply() {
    let asked = Arc::new(AtomicU64::new(0));
    let bench = Bench::kept_by(Policy::default(), Arc::new(Broken(asked.clone())), Arc::new(Kept::default()));
    for (class, leaves_as) in
        [(Class::Ok, Class::Ok), (Class::ServerError, Class::Internal), (Class::ToolError, Class::Internal)]
    {
        bench.upstream(ends(class));
        assert_eq!(bench.call().await.class, leaves_as);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 4, "by the record layer and then by the boundary, each time");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_costs_neither_the_reply_nor_the_breaker() {
    let bench = Bench::kept_by(Policy::default(), Arc::new(Broken(Arc::default())), Arc::new(Kept::default()));
    bench.upstream(ends(Class::ServerError));
    bench.calls(5).await;
    let reached = bench.reached();
    let reply = bench.call().await;
    assert_eq!((facts(&reply.answer)["class"].as_str(), bench.reached()), (Some("internal"), reached));
    assert_eq!(bench.breaker(), seawall::layer::breaker::BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_failure_below_leaves_as_its_answer() {
    let bench = Bench::new(bare());
    bench.upstream(act(|_| async { Err(Failure::new(Class::Auth, "it answered 401")) }));
    let reply = bench.call().await;
    let Answer::Result(result) = &reply.answer else { panic!("a result was due") };
    assert!(result.as_str().contains("tool \\\"read\\\" of server \\\"files\\\" refused seawall's credentials"));
    assert_eq!(reply.class, Class::Auth);
}
