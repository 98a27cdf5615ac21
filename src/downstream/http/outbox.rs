//! What is said to the client of a session, and asked of it: on its standing stream, or on
//! the stream of the call that it is about.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::session::HttpSession;
use crate::{
    call::{Answer, BoxFuture, Method, Payload, Wire},
    downstream::{
        mailbox::{Mail, Mailbox},
        questions::Questions,
    },
    wire::envelope::Parts,
};

/// What is said to a client on its standing stream, and asked of it on any.
#[derive(Default)]
pub(super) struct Outbox {
    standing: Mutex<Arc<Mailbox>>,
    pub(super) questions: Questions,
}

impl Outbox {
    pub(super) fn standing(&self) -> Arc<Mailbox> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The mailbox of a new standing stream; an older stream ends.
    pub(super) fn open_standing(&self) -> Arc<Mailbox> {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        *standing = Arc::new(standing.hand_over());
        standing.clone()
    }

    pub(super) fn close_standing(&self) {
        self.standing().close();
    }

    fn tell(&self, method: &Method, params: Option<Payload>, stream: Option<&Mailbox>) {
        let message = Parts::notification(method, params.map(|params| params.on_one_line())).joined();
        if !stream.is_some_and(|stream| stream.put(Mail::Message(message.clone()))) {
            self.standing().tell(message);
        }
    }

    /// `deliver` says whether the client will read it.
    async fn ask(&self, method: Method, params: Option<Payload>, deliver: impl FnOnce(Bytes) -> bool) -> Answer {
        let message = |id| Parts::request(id, &method, params.map(|params| params.on_one_line())).joined();
        self.questions.ask(|id| deliver(message(id))).await
    }
}

/// The way to a client when no call is there to answer on.
pub(super) struct StandingWire(pub(super) Arc<Outbox>);

impl Wire for StandingWire {
    fn tell(&self, method: Method, params: Option<Payload>) {
        self.0.tell(&method, params, None);
    }

    fn ask(&self, method: Method, params: Option<Payload>) -> BoxFuture<'_, Answer> {
        Box::pin(self.0.ask(method, params, |question| self.0.standing().put(Mail::Message(question))))
    }
}

/// The way to the client of one call: its own stream, else the standing one.
pub(super) struct CallWire {
    pub(super) stream: Arc<Mailbox>,
    pub(super) session: Arc<HttpSession>,
    /// Whether the call's reply may become a stream.
    pub(super) streams: bool,
}

impl CallWire {
    /// A question that nobody reads would keep its call waiting: where the reply is plain
    /// JSON, it needs a standing stream that is open now.
    fn deliver(&self, question: Bytes) -> bool {
        let standing = self.session.outbox.standing();
        if self.streams {
            return self.stream.put(Mail::Message(question.clone())) || standing.put(Mail::Message(question));
        }
        self.session.tapes.is_read_from(&standing) && standing.put(Mail::Message(question))
    }
}

impl Wire for CallWire {
    fn tell(&self, method: Method, params: Option<Payload>) {
        self.session.outbox.tell(&method, params, Some(&self.stream));
    }

    fn ask(&self, method: Method, params: Option<Payload>) -> BoxFuture<'_, Answer> {
        Box::pin(self.session.outbox.ask(method, params, |question| self.deliver(question)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn who_asked_a_client_that_has_left_hears_so() {
        let outbox = Arc::new(Outbox::default());
        let session = HttpSession::new(Arc::new(testing::session()), outbox.clone(), &Arc::default());
        let _standing = outbox.open_standing();
        let wire = StandingWire(outbox);
        let mut question = wire.ask(Method::of("roots/list"), None);
        assert!((&mut question).now_or_never().is_none(), "the client has not answered");
        session.end();
        let answer = question.now_or_never().expect("it is answered at once");
        assert!(matches!(&answer, Answer::Error(error) if error.as_str().contains("the client is gone")), "{answer:?}");
        let late = wire.ask(Method::of("roots/list"), None).now_or_never().expect("nobody is asked any more");
        assert!(matches!(late, Answer::Error(_)));
    }
}
