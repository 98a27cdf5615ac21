//! How a call can end: one test per row of the design's table. Each class of end
//! leaves as the table says, means to the breaker what the table says, and is
//! recorded as the table says.

#[path = "support/bench.rs"]
mod bench;

use std::time::Duration;

use bench::{Act, Bench, bare, ends, facts, hangs, other_request, outcome_of};
use seawall::{
    call::{Answer, Payload, Reply},
    failure::{Class, Failure, Recording, Verdict},
    layer::{Policy, breaker, breaker::BreakerState, rate_limit},
};

const OPEN_FOR: Duration = Duration::from_secs(60);
/// Past the longest that jitter makes it.
const PROBE_TIME: Duration = Duration::from_secs(67);

enum Leaves {
    /// The server's own answer, byte for byte.
    Untouched,
    /// `isError`, or a JSON-RPC error where no tool was called.
    AsFailure { retry_after: bool },
}

/// A row of the table.
async fn row(act: Act, class: Class, leaves: Leaves, verdict: Verdict, recorded: Recording) {
    leaves_as(&act, class, leaves).await;
    match verdict {
        Verdict::Success => counts_as_success(&act).await,
        Verdict::Failure => counts_as_failure(&act).await,
        Verdict::Neutral => counts_for_nothing(&act).await,
    }
    is_recorded(&act, class, recorded).await;
}

async fn leaves_as(act: &Act, class: Class, leaves: Leaves) {
    let bench = Bench::new(bare());
    bench.upstream(act.clone());
    let reply = bench.call().await;
    assert_eq!(reply.class, class);
    match leaves {
        Leaves::Untouched => {
            let Ok(Reply { answer, .. }) = outcome_of(class) else { panic!("{class} is an answer") };
            assert_eq!(reply.answer, answer);
        }
        Leaves::AsFailure { retry_after } => {
            let other = bench.send(other_request()).await;
            assert!(matches!(&reply.answer, Answer::Result(result) if result.says_is_error()));
            assert!(matches!(&other.answer, Answer::Error(error) if error.error_code().is_some()));
            for answer in [&reply.answer, &other.answer] {
                assert_eq!(facts(answer)["class"], class.name());
                assert_eq!(facts(answer).get("retryAfterMs").is_some(), retry_after);
            }
        }
    }
}

fn breaking() -> Policy {
    Policy { breaker: Some(breaker::Settings { failures: 3, ..breaker::Settings::default() }), ..bare() }
}

/// One failure short of open, then `count` calls of `act`, then one more failure.
async fn around(act: &Act, count: usize) -> (Bench, BreakerState) {
    let bench = Bench::new(breaking());
    bench.upstream(ends(Class::ServerError));
    bench.calls(2).await;
    bench.upstream(act.clone());
    bench.calls(count).await;
    let before = bench.breaker();
    bench.upstream(ends(Class::ServerError));
    bench.calls(1).await;
    (bench, before)
}

/// Open, and then probed with `act`.
async fn probed_with(act: &Act) -> Bench {
    let bench = Bench::new(breaking());
    bench.upstream(ends(Class::ServerError));
    bench.calls(3).await;
    assert_eq!(bench.breaker(), BreakerState::Open);
    tokio::time::advance(PROBE_TIME).await;
    bench.upstream(act.clone());
    bench.calls(1).await;
    bench
}

async fn counts_as_success(act: &Act) {
    let (bench, _) = around(act, 1).await;
    assert_eq!(bench.breaker(), BreakerState::Closed, "it resets the count");
    assert_eq!(probed_with(act).await.breaker(), BreakerState::Closed, "it closes a half-open breaker");
}

async fn counts_as_failure(act: &Act) {
    let (_, before) = around(act, 1).await;
    assert_eq!(before, BreakerState::Open, "it counts");
    assert_eq!(probed_with(act).await.breaker(), BreakerState::Open, "it opens a half-open breaker again");
}

async fn counts_for_nothing(act: &Act) {
    let (bench, before) = around(act, 100).await;
    assert_eq!(before, BreakerState::Closed, "it does not count");
    assert_eq!(bench.breaker(), BreakerState::Open, "nor does it reset");
    let bench = probed_with(act).await;
    assert_eq!(bench.breaker(), BreakerState::HalfOpen, "it decides nothing");
    let reached = bench.reached();
    bench.calls(1).await;
    assert_eq!(bench.reached(), reached + 1, "the permit was given back");
}

async fn is_recorded(act: &Act, class: Class, recorded: Recording) {
    let bench = Bench::new(bare());
    bench.upstream(act.clone());
    let reply = bench.call().await;
    let rows = bench.kept.rows();
    assert_eq!(bench.snapshot().ended(class), 1);
    if recorded == Recording::No {
        assert!(rows.is_empty(), "{rows:?}");
        return;
    }
    assert_eq!(rows.len(), 1);
    let (row, recording) = &rows[0];
    assert_eq!((row.class, *recording), (class, recorded));
    assert_eq!((row.server.as_str(), row.tool.as_str(), row.request_id.as_str()), ("files", "read", "1"));
    if !matches!(class, Class::ToolError | Class::Rejected) {
        let id = (recorded == Recording::Row).then(|| row.id.to_string());
        assert_eq!(facts(&reply.answer).get("id").and_then(|id| id.as_str()), id.as_deref());
    }
    assert_eq!(row.arguments.is_some(), recorded == Recording::Row);
}

fn failure() -> Leaves {
    Leaves::AsFailure { retry_after: false }
}

fn refusal() -> Leaves {
    Leaves::AsFailure { retry_after: true }
}

#[tokio::test(start_paused = true)]
async fn ok() {
    row(ends(Class::Ok), Class::Ok, Leaves::Untouched, Verdict::Success, Recording::No).await;
}

#[tokio::test(start_paused = true)]
async fn tool_error() {
    row(ends(Class::ToolError), Class::ToolError, Leaves::Untouched, Verdict::Success, Recording::Row).await;
}

#[tokio::test(start_paused = true)]
async fn tool_error_counts_where_the_policy_says_so() {
    let settings = breaker::Settings { count_tool_errors: true, ..breaker::Settings::default() };
    let bench = Bench::new(Policy { breaker: Some(settings), ..bare() });
    bench.upstream(ends(Class::ToolError));
    bench.calls(5).await;
    let reply = bench.call().await;
    assert_eq!(reply.class, Class::BreakerOpen);
    let Answer::Result(result) = reply.answer else { panic!("a result was due") };
    assert!(result.as_str().contains("5 failures in a row, the last: tool_error: it answered isError"));
}

#[tokio::test(start_paused = true)]
async fn rejected() {
    row(ends(Class::Rejected), Class::Rejected, Leaves::Untouched, Verdict::Success, Recording::Row).await;
    let bench = Bench::new(bare());
    bench.upstream(ends(Class::Rejected));
    assert_eq!(
        bench.call().await.answer,
        Answer::Error(Payload::literal(bench::REJECTED)),
        "no isError, for tools too"
    );
    assert_eq!(bench.kept.rows()[0].0.message, "-32602: path is missing");
}

#[tokio::test(start_paused = true)]
async fn server_error() {
    row(ends(Class::ServerError), Class::ServerError, failure(), Verdict::Failure, Recording::Row).await;
}

#[tokio::test(start_paused = true)]
async fn server_error_carries_the_servers_own_error_to_the_last_digit() {
    let bench = Bench::new(bare());
    bench.upstream(ends(Class::ServerError));
    let Answer::Result(result) = bench.call().await.answer else { panic!("a result was due") };
    assert!(result.as_str().contains(r#""error":{"code":-32603,"message":"disk gone","data":1e400}"#));
    assert_eq!(bench.kept.rows()[0].0.message, "it answered an error (-32603: disk gone)");
}

#[tokio::test(start_paused = true)]
async fn panic() {
    row(ends(Class::Panic), Class::Panic, failure(), Verdict::Failure, Recording::Row).await;
}

#[tokio::test(start_paused = true)]
async fn timeout() {
    row(hangs(), Class::Timeout, failure(), Verdict::Failure, Recording::Row).await;
}

#[tokio::test(start_paused = true)]
async fn protocol() {
    row(ends(Class::Protocol), Class::Protocol, failure(), Verdict::Failure, Recording::Row).await;
}

#[tokio::test(start_paused = true)]
async fn http() {
    row(ends(Class::Http), Class::Http, failure(), Verdict::Failure, Recording::Row).await;
}

#[tokio::test(start_paused = true)]
async fn http_busy() {
    row(ends(Class::HttpBusy), Class::HttpBusy, refusal(), Verdict::Neutral, Recording::Row).await;
}

#[tokio::test(start_paused = true)]
async fn auth() {
    row(ends(Class::Auth), Class::Auth, failure(), Verdict::Neutral, Recording::Row).await;
}

#[tokio::test(start_paused = true)]
async fn lost() {
    row(ends(Class::Lost), Class::Lost, failure(), Verdict::Neutral, Recording::Row).await;
    let bench = Bench::new(bare());
    bench.upstream(ends(Class::Lost));
    assert_eq!(facts(&bench.call().await.answer)["outcomeUnknown"], true);
    let (row, _) = &bench.kept.rows()[0];
    assert_eq!(row.exit_status.as_deref(), Some("signal 9"));
    assert_eq!(row.stderr_tail.as_deref(), Some("out of memory"));
    assert_eq!(row.instance, Some(1));
}

#[tokio::test(start_paused = true)]
async fn lost_counts_when_this_tool_was_there_at_each_of_the_last_deaths() {
    let poison = bench::act(|_| async { Err(Failure::new(Class::Lost, "its process exited").poison(true)) });
    row(poison, Class::Lost, failure(), Verdict::Failure, Recording::Row).await;
}

#[tokio::test(start_paused = true)]
async fn unavailable() {
    row(ends(Class::Unavailable), Class::Unavailable, refusal(), Verdict::Neutral, Recording::Coalesced).await;
}

#[tokio::test(start_paused = true)]
async fn draining() {
    row(ends(Class::Draining), Class::Draining, refusal(), Verdict::Neutral, Recording::Counted).await;
}

/// A refusal of seawall's own leaves as such, reaches no server and is only counted.
async fn refused(bench: &Bench, class: Class) {
    let reached = bench.reached();
    let reply = bench.call().await;
    assert_eq!(reply.class, class);
    assert!(matches!(&reply.answer, Answer::Result(result) if result.says_is_error()));
    assert!(facts(&reply.answer)["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0));
    assert_eq!(bench.reached(), reached);
    let rows = bench.kept.rows();
    let (row, recording) = rows.last().expect("it was handed over");
    assert_eq!((row.class, *recording, row.arguments.as_deref()), (class, Recording::Counted, None));
    assert!(facts(&reply.answer).get("id").is_none());
}

#[tokio::test(start_paused = true)]
async fn breaker_open() {
    let bench = Bench::new(breaking());
    bench.upstream(ends(Class::Protocol));
    bench.calls(3).await;
    refused(&bench, Class::BreakerOpen).await;
    bench.calls(100).await;
    let until = bench.state.breaker.as_ref().expect("a breaker").status().until.expect("it is open");
    let latest = tokio::time::Instant::now() + OPEN_FOR + OPEN_FOR / 10;
    assert!(until <= latest, "refusals do not keep it open");
}

#[tokio::test(start_paused = true)]
async fn rate_limited() {
    let rate_limit = Some(rate_limit::Settings { per_minute: 60, burst: 1 });
    let bench = Bench::new(Policy { rate_limit, ..breaking() });
    bench.calls(1).await;
    refused(&bench, Class::RateLimited).await;
    bench.calls(100).await;
    assert_eq!(bench.state.breaker.as_ref().expect("a breaker").status().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn overloaded() {
    let concurrency = Some(seawall::layer::concurrency::Settings { calls: 1 });
    let bench = Bench::new(Policy { concurrency, ..breaking() });
    bench.upstream(hangs());
    let hanging = bench.start().await;
    refused(&bench, Class::Overloaded).await;
    bench.calls(100).await;
    assert_eq!(bench.state.breaker.as_ref().expect("a breaker").status().failures, 0);
    hanging.abort();
}

#[tokio::test(start_paused = true)]
async fn cancelled_is_counted_and_nothing_else() {
    let bench = Bench::new(breaking());
    bench.upstream(hangs());
    for _ in 0..100 {
        bench.start().await.abort();
        bench::settled().await;
    }
    let snapshot = bench.snapshot();
    assert_eq!((snapshot.ended(Class::Cancelled), snapshot.in_flight, snapshot.failures()), (100, 0, 0));
    assert_eq!((bench.reached(), bench.abandoned()), (100, 100), "each server was told");
    assert!(bench.kept.rows().is_empty());
    assert_eq!(bench.breaker(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn cancelled_by_the_rooms_below() {
    row(ends(Class::Cancelled), Class::Cancelled, failure(), Verdict::Neutral, Recording::No).await;
}

#[tokio::test(start_paused = true)]
async fn internal() {
    let bug = bench::act(|_| async { panic!("a bug of ours") });
    leaves_as(&bug, Class::Internal, failure()).await;
    counts_for_nothing(&bug).await;
    let bench = Bench::new(bare());
    bench.upstream(bug);
    let reply = bench.call().await;
    let rows = bench.kept.rows();
    assert_eq!(rows.len(), 1, "the boundary hands it over, once");
    assert_eq!((rows[0].0.class, rows[0].1), (Class::Internal, Recording::Row));
    assert_eq!(facts(&reply.answer)["id"], rows[0].0.id.as_str());
}

#[test]
fn every_class_of_the_table_has_its_recording() {
    let recorded = |recording| Class::ALL.into_iter().filter(move |class| class.recording() == recording).count();
    assert_eq!([Recording::No, Recording::Row, Recording::Coalesced, Recording::Counted].map(recorded), [2, 11, 1, 4]);
}
