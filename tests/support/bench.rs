//! A stack on a bench: the real one, over an upstream that does as it is told, with
//! a keeper that shows what it was handed. For tests with a paused clock.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use seawall::{
    call::{Answer, BoxFuture, Call, CallService, Method, Outcome, Payload, Reply},
    failure::{Class, Failure, Recording},
    layer::{Keeper, Policy, breaker::BreakerState, memory::Memory, record::Snapshot},
    stack::{self, Shared, ToolState},
    store::{Event, EventType, FailureRow},
    testing,
};
use tokio::{sync::Semaphore, task::JoinHandle, time};
use tower::{Service, service_fn};

/// What the upstream does with one call.
pub(crate) type Act = Arc<dyn Fn(Call) -> BoxFuture<'static, Outcome> + Send + Sync>;

pub(crate) fn act<F>(script: impl Fn(Call) -> F + Send + Sync + 'static) -> Act
where
    F: Future<Output = Outcome> + Send + 'static,
{
    Arc::new(move |call| Box::pin(script(call)))
}

/// Sent, and ended at once.
pub(crate) fn ends(class: Class) -> Act {
    after(Duration::ZERO, class)
}

pub(crate) fn after(time: Duration, class: Class) -> Act {
    act(move |call| async move {
        call.trail.sent_to(1);
        if time > Duration::ZERO {
            time::sleep(time).await;
        }
        outcome_of(class)
    })
}

/// Sent, and silent for ever.
pub(crate) fn hangs() -> Act {
    act(|call| async move {
        call.trail.sent_to(1);
        std::future::pending().await
    })
}

/// Sent, and ended when `gate` gets a permit.
pub(crate) fn held(gate: &Arc<Semaphore>, class: Class) -> Act {
    let gate = gate.clone();
    act(move |call| {
        let gate = gate.clone();
        async move {
            call.trail.sent_to(1);
            gate.acquire().await.expect("nobody closes the gate").forget();
            outcome_of(class)
        }
    })
}

pub(crate) const TOOL_ERROR: &str = r#"{"content":[{"type":"text","text":"no such file"}],"isError":true,"n":1e400}"#;
pub(crate) const REJECTED: &str = r#"{"code":-32602,"message":"path is missing","data":1e400}"#;

/// How a server, or the rooms below the stack, end a call as `class`.
pub(crate) fn outcome_of(class: Class) -> Outcome {
    let answer = |answer| Ok(Reply { answer, class });
    match class {
        Class::Ok => answer(Answer::Result(Payload::literal(r#"{"content":[],"n":1e400}"#))),
        Class::ToolError => answer(Answer::Result(Payload::literal(TOOL_ERROR))),
        Class::Rejected => answer(Answer::Error(Payload::literal(REJECTED))),
        Class::ServerError => Err(Failure::new(class, "it answered an error")
            .error(Payload::literal(r#"{"code":-32603,"message":"disk gone","data":1e400}"#))),
        Class::HttpBusy | Class::Unavailable | Class::Draining => {
            Err(Failure::new(class, "come back").retry_after(Duration::from_secs(7)))
        }
        Class::Lost => Err(Failure::new(class, "its process exited")
            .outcome_unknown()
            .last_words(Some("signal 9".to_owned()), Some("out of memory".to_owned()))),
        _ => Err(Failure::new(class, "it happened")),
    }
}

/// A keeper that shows what it was handed.
#[derive(Default)]
pub(crate) struct Kept {
    rows: Mutex<Vec<(FailureRow, Recording)>>,
    events: Mutex<Vec<Event>>,
}

impl Keeper for Kept {
    fn failure(&self, row: FailureRow, recording: Recording) {
        self.rows.lock().expect("no test panics here").push((row, recording));
    }

    fn event(&self, event: Event) {
        self.events.lock().expect("no test panics here").push(event);
    }
}

impl Kept {
    pub(crate) fn rows(&self) -> Vec<(FailureRow, Recording)> {
        self.rows.lock().expect("no test panics here").clone()
    }

    pub(crate) fn classes(&self) -> Vec<Class> {
        self.rows().into_iter().map(|(row, _)| row.class).collect()
    }

    pub(crate) fn events(&self, event_type: EventType) -> Vec<Event> {
        let events = self.events.lock().expect("no test panics here");
        events.iter().filter(|event| event.event_type == event_type).cloned().collect()
    }
}

pub(crate) struct Bench {
    pub(crate) state: ToolState,
    pub(crate) shared: Shared,
    pub(crate) kept: Arc<Kept>,
    stack: CallService<Infallible>,
    script: Arc<Script>,
}

struct Script {
    act: Mutex<Act>,
    reached: AtomicU64,
    abandoned: AtomicU64,
}

impl Bench {
    /// Until told otherwise, every call that gets through ends as `ok`.
    pub(crate) fn new(policy: Policy) -> Self {
        let kept = Arc::new(Kept::default());
        Self::kept_by(policy, kept.clone(), kept)
    }

    pub(crate) fn kept_by(policy: Policy, keeper: Arc<dyn Keeper>, kept: Arc<Kept>) -> Self {
        let state = ToolState::new(&"files".into(), Some(&"read".into()), &policy, &keeper);
        Self::with_state(policy, state, keeper, kept)
    }

    pub(crate) fn with_state(policy: Policy, state: ToolState, keeper: Arc<dyn Keeper>, kept: Arc<Kept>) -> Self {
        Self::of_server(policy, state, Shared::new(Memory::default(), keeper), kept)
    }

    pub(crate) fn of_server(policy: Policy, state: ToolState, shared: Shared, kept: Arc<Kept>) -> Self {
        let script = Arc::new(Script { act: Mutex::new(ends(Class::Ok)), reached: 0.into(), abandoned: 0.into() });
        let upstream = CallService::new(service_fn({
            let script = script.clone();
            move |call| script.clone().play(call)
        }));
        let stack = stack::build(&policy, &state, &shared, upstream);
        Bench { state, shared, kept, stack, script }
    }

    /// What the upstream does with calls from now on.
    pub(crate) fn upstream(&self, act: Act) {
        *self.script.act.lock().expect("no test panics here") = act;
    }

    pub(crate) async fn call(&self) -> Reply {
        self.send(testing::call("files", "read")).await
    }

    pub(crate) async fn send(&self, call: Call) -> Reply {
        let Ok(reply) = self.stack.clone().call(call).await;
        reply
    }

    /// A call on its way, as far as it comes without time passing.
    pub(crate) async fn start(&self) -> JoinHandle<Reply> {
        self.start_with(testing::call("files", "read")).await
    }

    pub(crate) async fn start_with(&self, call: Call) -> JoinHandle<Reply> {
        let reply = self.stack.clone().call(call);
        let under_way = tokio::spawn(async move {
            let Ok(reply) = reply.await;
            reply
        });
        settled().await;
        under_way
    }

    pub(crate) async fn calls(&self, count: usize) -> Vec<Class> {
        let mut classes = Vec::with_capacity(count);
        for _ in 0..count {
            classes.push(self.call().await.class);
        }
        classes
    }

    /// Calls that got to the upstream.
    pub(crate) fn reached(&self) -> u64 {
        self.script.reached.load(Ordering::Relaxed)
    }

    /// Calls that were dropped there before their end.
    pub(crate) fn abandoned(&self) -> u64 {
        self.script.abandoned.load(Ordering::Relaxed)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.shared.tally.snapshot()
    }

    pub(crate) fn breaker(&self) -> BreakerState {
        self.state.breaker.as_ref().expect("this policy has a breaker").status().state
    }
}

impl Script {
    async fn play(self: Arc<Self>, call: Call) -> Outcome {
        struct Noticed<'a>(&'a AtomicU64, bool);
        impl Drop for Noticed<'_> {
            fn drop(&mut self) {
                if !self.1 {
                    self.0.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        self.reached.fetch_add(1, Ordering::Relaxed);
        let act = self.act.lock().expect("no test panics here").clone();
        let mut noticed = Noticed(&self.abandoned, false);
        let outcome = act(call).await;
        noticed.1 = true;
        outcome
    }
}

/// A policy with no layer that could get in a test's way.
pub(crate) fn bare() -> Policy {
    Policy { breaker: None, rate_limit: None, concurrency: None, ..Policy::default() }
}

/// Until every task has come as far as it can without time passing.
pub(crate) async fn settled() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn other_request() -> Call {
    let mut call = testing::call("files", "read");
    call.tool = None;
    call.method = Method::of("resources/read");
    call
}

/// `_meta["seawall/failure"]` of a failure's answer.
pub(crate) fn facts(answer: &Answer) -> serde_json::Value {
    let facts = match answer {
        Answer::Result(result) => result.member("_meta"),
        Answer::Error(error) => error.member("data"),
    };
    let facts = facts.and_then(|meta| meta.member("seawall/failure")).expect("the facts of a failure");
    // Through text without the server's own error, which may hold numbers that a
    // `Value` refuses.
    let facts = facts.edit(&[("error", seawall::call::Edit::Remove)]);
    facts.read().expect("JSON")
}
