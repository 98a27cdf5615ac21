//! Records how each call ended: sees every outcome typed, counts it, and hands the
//! store what is worth a row. It changes no outcome and judges none.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::Keeper;
use crate::{
    call::{BoxFuture, Call, Outcome, Reply},
    failure::{Class, Failure, Recording},
};

mod arguments;
pub(super) mod row;
mod tally;

pub use tally::{Snapshot, Tally};

#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Settings {
    pub arguments: Arguments,
}

/// What the store may keep of a call's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Arguments {
    /// Names, types and sizes.
    #[default]
    Shape,
    /// Values too, secrets redacted.
    Redacted,
    None,
}

#[derive(Clone)]
pub struct RecordLayer(Arc<Recorder>);

/// What all calls of a stack share.
struct Recorder {
    settings: Settings,
    tally: Arc<Tally>,
    keeper: Arc<dyn Keeper>,
}

impl RecordLayer {
    pub fn new(settings: Settings, tally: Arc<Tally>, keeper: Arc<dyn Keeper>) -> Self {
        RecordLayer(Arc::new(Recorder { settings, tally, keeper }))
    }
}

impl<S> Layer<S> for RecordLayer {
    type Service = Record<S>;

    fn layer(&self, inner: S) -> Record<S> {
        Record { inner, recorder: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct Record<S> {
    inner: S,
    recorder: Arc<Recorder>,
}

impl<S> Service<Call> for Record<S>
where
    S: Service<Call, Response = Reply, Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Failure;
    type Future = BoxFuture<'static, Outcome>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let recorder = self.recorder.clone();
        let entry = recorder.tally.enter();
        let kept = call.clone();
        let under_way = self.inner.call(call);
        Box::pin(async move {
            let outcome = under_way.await;
            entry.ended(class_of(&outcome));
            recorder.keep(&kept, &outcome);
            outcome
        })
    }
}

impl Recorder {
    fn keep(&self, call: &Call, outcome: &Outcome) {
        let class = class_of(outcome);
        let recording = class.recording();
        if recording == Recording::No {
            return;
        }
        let mut row = match outcome {
            Ok(reply) => row::of_reply(call, reply),
            Err(failure) => row::of_failure(call, failure),
        };
        // Refusals come in floods and are only counted: nobody would read these.
        if recording == Recording::Row {
            row.arguments = arguments::kept(self.settings.arguments, call);
            match class {
                Class::Internal => {
                    tracing::error!(server = %row.server, tool = row.tool, id = %row.id, "a bug of ours")
                }
                _ => tracing::debug!(server = %row.server, tool = row.tool, id = %row.id, "a call ended as {class}"),
            }
        }
        self.keeper.failure(row, recording);
    }
}

fn class_of(outcome: &Outcome) -> Class {
    match outcome {
        Ok(reply) => reply.class,
        Err(failure) => failure.class,
    }
}
