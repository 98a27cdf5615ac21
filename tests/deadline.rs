//! A call that is late is answered in time, and its server is told.

#[path = "support/bench.rs"]
mod bench;

use std::{sync::Arc, time::Duration};

use bench::{Act, Bench, act, after, bare, facts, hangs, outcome_of};
use seawall::{
    call::{Answer, Call},
    failure::Class,
    layer::{Policy, deadline::Settings},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

fn within(timeout: Option<u64>, max_duration: Option<u64>) -> Policy {
    let deadline =
        Settings { timeout: timeout.map(Duration::from_secs), max_duration: max_duration.map(Duration::from_secs) };
    Policy { deadline, ..bare() }
}

/// Who is there, how the call ended, after how many seconds, and with which words.
struct Ended {
    bench: Bench,
    class: Class,
    after_s: f64,
    text: String,
    outcome_unknown: bool,
}

async fn ended(policy: Policy, act: Act) -> Ended {
    let bench = Bench::new(policy);
    bench.upstream(act);
    let began = Instant::now();
    let reply = bench.call().await;
    let Answer::Result(result) = &reply.answer else { panic!("a result was due") };
    Ended {
        class: reply.class,
        after_s: began.elapsed().as_secs_f64(),
        text: result.as_str().to_owned(),
        outcome_unknown: reply.class != Class::Ok && facts(&reply.answer)["outcomeUnknown"] == true,
        bench,
    }
}

fn about(seconds: f64) -> impl Fn(f64) -> bool {
    // A timer has a resolution of a millisecond.
    move |is| (is - seconds).abs() < 0.01
}

/// Sent, then a sign of life every `every_s`, and done after `signs` of them.
fn progressing(every_s: u64, signs: u32) -> Act {
    act(move |call: Call| async move {
        call.trail.sent_to(1);
        for _ in 0..signs {
            sleep(Duration::from_secs(every_s)).await;
            call.trail.alive();
        }
        outcome_of(Class::Ok)
    })
}

/// Handed over after a wait, silent from then on.
fn waiting(wait_s: u64) -> Act {
    act(move |call: Call| async move {
        sleep(Duration::from_secs(wait_s)).await;
        call.trail.sent_to(1);
        std::future::pending().await
    })
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_call_and_drops_what_is_below() {
    let end = ended(within(Some(50), Some(300)), hangs()).await;
    assert_eq!((end.class, end.outcome_unknown), (Class::Timeout, true));
    assert!(about(50.0)(end.after_s), "{}", end.after_s);
    assert!(end.text.contains("timed out: it was silent for 50 s; it may have taken effect"), "{}", end.text);
    assert_eq!(end.bench.abandoned(), 1, "the server is told");
}

#[tokio::test(start_paused = true)]
async fn an_answer_just_in_time_is_an_answer() {
    let end = ended(within(Some(50), Some(300)), after(Duration::from_millis(49_990), Class::Ok)).await;
    assert_eq!((end.class, end.bench.abandoned()), (Class::Ok, 0));
}

#[tokio::test(start_paused = true)]
async fn progress_restarts_the_silence() {
    let end = ended(within(Some(50), Some(300)), progressing(40, 7)).await;
    assert_eq!(end.class, Class::Ok);
    assert!(about(280.0)(end.after_s), "{}", end.after_s);
}

#[tokio::test(start_paused = true)]
async fn silence_after_progress_counts_from_the_last_sign_of_life() {
    let lively = act(|call: Call| async move {
        call.trail.sent_to(1);
        sleep(Duration::from_secs(30)).await;
        call.trail.alive();
        std::future::pending().await
    });
    let end = ended(within(Some(50), Some(300)), lively).await;
    assert_eq!(end.class, Class::Timeout);
    assert!(about(80.0)(end.after_s), "{}", end.after_s);
}

#[tokio::test(start_paused = true)]
async fn no_progress_helps_past_the_cap() {
    let end = ended(within(Some(50), Some(300)), progressing(10, 40)).await;
    assert_eq!((end.class, end.outcome_unknown), (Class::Timeout, true));
    assert!(about(300.0)(end.after_s), "{}", end.after_s);
    assert!(end.text.contains("it was not done within 5 min"), "{}", end.text);
}

#[tokio::test(start_paused = true)]
async fn the_silence_counts_from_when_the_bytes_were_handed_over() {
    let end = ended(within(Some(50), Some(300)), waiting(4)).await;
    assert_eq!((end.class, end.outcome_unknown), (Class::Timeout, true));
    assert!(about(54.0)(end.after_s), "{}", end.after_s);
}

#[tokio::test(start_paused = true)]
async fn the_cap_counts_from_when_the_call_came() {
    let end = ended(within(None, Some(60)), waiting(20)).await;
    assert!(about(60.0)(end.after_s), "{}", end.after_s);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_handed_over_ends_too_and_did_nothing() {
    for (policy, seconds) in [(within(Some(50), Some(300)), 55.0), (within(None, Some(300)), 300.0)] {
        let end = ended(policy, act(|_| std::future::pending())).await;
        assert_eq!((end.class, end.outcome_unknown), (Class::Timeout, false));
        assert!(about(seconds)(end.after_s), "{}", end.after_s);
        assert!(end.text.contains("it could not be sent within"), "{}", end.text);
    }
}

#[tokio::test(start_paused = true)]
async fn patience_is_never_longer_than_a_limit() {
    for (policy, patience) in [
        (within(Some(50), Some(300)), 5),
        (within(Some(2), Some(300)), 2),
        (within(None, Some(3)), 3),
        (within(None, None), 5),
    ] {
        let seen = Arc::new(Mutex::new(None));
        let bench = Bench::new(policy);
        bench.upstream(act({
            let seen = seen.clone();
            move |call: Call| {
                let seen = seen.clone();
                async move {
                    *seen.lock().await = Some(call.patience);
                    outcome_of(Class::Ok)
                }
            }
        }));
        bench.call().await;
        assert_eq!(*seen.lock().await, Some(Duration::from_secs(patience)));
    }
}

#[tokio::test(start_paused = true)]
async fn off_is_off() {
    let day = Duration::from_secs(86_400);
    assert_eq!(ended(within(None, None), after(day, Class::Ok)).await.class, Class::Ok);
    let absurd = Settings { timeout: Some(Duration::MAX), max_duration: Some(Duration::MAX) };
    assert_eq!(ended(Policy { deadline: absurd, ..bare() }, after(day, Class::Ok)).await.class, Class::Ok);
}
