//! The outermost layer: whatever happens below, a `Reply` leaves.
//!
//! Failures become their answers here, and a panic of any layer of ours ends here
//! as `internal`. It cannot stop what does not unwind: a stack overflow, `abort`,
//! or a panic in a destructor while another panic unwinds.

use std::{
    any::Any,
    convert::Infallible,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::FutureExt;
use tower::{Layer, Service};

use super::{Keeper, record::row};
use crate::{
    call::{Answer, BoxFuture, Call, Outcome, Payload, Reply},
    failure::{Class, Failure},
    respond, text,
};

#[derive(Clone)]
pub struct BoundaryLayer {
    keeper: Arc<dyn Keeper>,
}

impl BoundaryLayer {
    pub fn new(keeper: Arc<dyn Keeper>) -> Self {
        BoundaryLayer { keeper }
    }
}

impl<S> Layer<S> for BoundaryLayer {
    type Service = Boundary<S>;

    fn layer(&self, inner: S) -> Boundary<S> {
        Boundary { inner, keeper: self.keeper.clone() }
    }
}

#[derive(Clone)]
pub struct Boundary<S> {
    inner: S,
    keeper: Arc<dyn Keeper>,
}

impl<S> Service<Call> for Boundary<S>
where
    S: Service<Call, Response = Reply, Error = Failure>,
    // Boxed futures are: it lets `Contained` drop what it holds where it catches.
    S::Future: Send + Unpin + 'static,
{
    type Response = Reply;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Reply, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let keeper = self.keeper.clone();
        let kept = call.clone();
        // Every layer is shared state behind locks that recover from poison, so what
        // a panic leaves behind is safe to look at.
        let under_way = catch_unwind(AssertUnwindSafe(|| Contained(Some(self.inner.call(call)))));
        Box::pin(async move {
            let outcome = match under_way {
                Ok(under_way) => under_way.await,
                Err(panic) => Err(panic),
            };
            Ok(match outcome {
                Ok(Ok(reply)) => reply,
                Ok(Err(failure)) => reply(&kept, &failure),
                Err(panic) => reply(&kept, &internal(&kept, panic, keeper.as_ref())),
            })
        })
    }
}

/// A future of which no panic escapes: neither of its polls nor of its destructor,
/// which also runs when the client has left and nobody waits for a reply.
struct Contained<F>(Option<F>);

impl<F: Future<Output = Outcome> + Unpin> Future for Contained<F> {
    type Output = Result<Outcome, Panic>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = self.0.as_mut() else {
            // Polled again after its end, which only a broken executor does.
            return Poll::Pending;
        };
        let outcome = ready!(AssertUnwindSafe(future).catch_unwind().poll_unpin(cx));
        self.let_go();
        Poll::Ready(outcome)
    }
}

impl<F> Contained<F> {
    fn let_go(&mut self) {
        let future = self.0.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
            cry(&format!("a call's destructor panicked: {}", last_words(panic)));
        }
    }
}

impl<F> Drop for Contained<F> {
    fn drop(&mut self) {
        self.let_go();
    }
}

type Panic = Box<dyn Any + Send>;

/// The failure that a panic of ours becomes, logged and handed to the store: the
/// record layer is below and may be what panicked.
fn internal(call: &Call, panic: Panic, keeper: &dyn Keeper) -> Failure {
    let failure = Failure::new(Class::Internal, format!("seawall panicked: {}", last_words(panic)));
    let what = text::quote(call.tool.as_deref().unwrap_or(call.method.as_str()), 100);
    cry(&format!("failure {} in {what} of server {}: {}", failure.id, call.server, failure.message));
    let kept = catch_unwind(AssertUnwindSafe(|| {
        // Without the arguments: reducing them may be what panicked.
        keeper.failure(row::of_failure(call, &failure), failure.class.recording());
    }));
    if let Err(panic) = kept {
        cry(&format!("failure {} could not be recorded: {}", failure.id, last_words(panic)));
    }
    failure
}

fn reply(call: &Call, failure: &Failure) -> Reply {
    Reply { answer: answer_by(respond::answer, call, failure), class: failure.class }
}

fn answer_by(respond: fn(&Call, &Failure) -> Answer, call: &Call, failure: &Failure) -> Answer {
    catch_unwind(AssertUnwindSafe(|| respond(call, failure))).unwrap_or_else(|panic| {
        cry(&format!("failure {} could not be put into words: {}", failure.id, last_words(panic)));
        if call.is_tool_call() { Answer::Result(LAST_RESULT) } else { Answer::Error(LAST_ERROR) }
    })
}

const LAST_RESULT: Payload = Payload::literal(
    r#"{"content":[{"type":"text","text":"seawall: the call failed, and so did the attempt to say why; this is a bug of seawall"}],"isError":true}"#,
);
const LAST_ERROR: Payload = Payload::literal(
    r#"{"code":-32603,"message":"seawall: the call failed, and so did the attempt to say why; this is a bug of seawall"}"#,
);

/// Logs at error level, and on bare stderr if it is the log that panics.
fn cry(what: &str) {
    if let Err(panic) = catch_unwind(|| tracing::error!("{what}")) {
        std::mem::forget(panic);
        // `eprintln!` panics when stderr is gone.
        let _ = writeln!(std::io::stderr(), "seawall: {what}");
    }
}

/// What a panic said, made harmless.
fn last_words(panic: Panic) -> String {
    let words = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(words), _) => text::quote(words, 300),
        (_, Some(words)) => text::quote(words, 300),
        _ => "it said nothing".to_owned(),
    };
    // A payload may be anything, also something whose destructor panics again; that
    // second payload is not worth a third attempt.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::Method, testing};

    struct Grenade;

    impl Drop for Grenade {
        fn drop(&mut self) {
            panic!("in the destructor of a panic's payload");
        }
    }

    #[test]
    fn a_failure_that_cannot_be_put_into_words_still_gets_an_answer() {
        let failure = Failure::new(Class::Timeout, "it was silent");
        let mut call = testing::call("files", "read");
        let broken = |_: &Call, _: &Failure| panic!("no words");
        let Answer::Result(result) = answer_by(broken, &call, &failure) else { panic!("a result was due") };
        assert!(result.says_is_error());
        call.method = Method::of("resources/read");
        let Answer::Error(error) = answer_by(broken, &call, &failure) else { panic!("an error was due") };
        assert_eq!(error.error_code(), Some(-32603));
    }

    #[test]
    fn whatever_a_panic_carries_is_survived() {
        let said = |f: fn()| last_words(catch_unwind(f).expect_err("it panics"));
        assert_eq!(said(|| panic!("a &str")), "a &str");
        assert_eq!(said(|| panic!("a {}", "String\n")), "a String\\n");
        assert_eq!(said(|| std::panic::panic_any(Grenade)), "it said nothing");
    }
}
