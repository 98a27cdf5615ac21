//! Threads that meet at hand-made locks and atomics, in every order: each model of
//! `fixtures/loom/models.rs` is played by loom, in a process of its own.

mod support;

use std::process::Command;

fn models() -> Command {
    Command::new(support::loom_models())
}

fn play(name: &str) {
    let played = models().arg(name).env("RUST_BACKTRACE", "0").output().expect("it was built");
    assert!(played.status.success(), "{name}: {}", String::from_utf8_lossy(&played.stderr));
}

macro_rules! plays {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            play(stringify!($name));
        })*

        #[test]
        fn every_model_is_played() {
            let listed = models().output().expect("it was built");
            let listed = String::from_utf8(listed.stdout).expect("names");
            assert_eq!(listed.lines().collect::<Vec<_>>(), [$(stringify!($name)),*]);
        }
    };
}

plays! {
    a_request_ends_once_whoever_ends_it
    a_request_that_comes_with_the_end_is_not_forgotten
    what_is_sealed_as_idle_holds_no_call
    the_end_of_the_last_call_is_noticed
    no_order_is_lost
    what_was_put_before_the_answer_is_read_before_it
    a_cancellation_is_noticed_whatever_comes_after_it
    a_question_ends_with_its_answer_or_its_client
    a_row_is_taken_or_counted_as_lost
    a_call_is_not_silent_while_its_client_answers
}
