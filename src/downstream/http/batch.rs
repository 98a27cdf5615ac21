//! A POST that carries an array of messages, which sessions of 2025-03-26 may send.
//!
//! Its requests run side by side. If all that is to be said are their answers, the reply
//! is an array of them; else it is one stream on which each comes as it is there.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use hyper::{Response, StatusCode};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Front,
    body::ReplyBody,
    outbox::CallWire,
    post::{self, Accepts},
    reply,
    running::{self, Enrolment, First, OnDisconnect, Running},
    session::HttpSession,
};
use crate::{
    call::{Answer, BoxFuture, Message, Method, Payload},
    downstream::mailbox::Mailbox,
    era,
    wire::{
        batch::{self, Answers},
        envelope::{Envelope, INVALID_REQUEST, OVERLOADED, Parts, rpc_error},
    },
};

pub(super) async fn answer(
    front: &Arc<Front>,
    session: &Arc<HttpSession>,
    accepts: Accepts,
    text: &Bytes,
) -> Response<ReplyBody> {
    let items = match batch::parse(text) {
        Ok(items) => items,
        Err(malformed) => return post::malformed_reply(&malformed),
    };
    let stream = Arc::new(Mailbox::default());
    let mut refused = Vec::new();
    let mut requests = Vec::new();
    for item in items {
        match item {
            Ok(Envelope::Message(Message::Request { id, method, params })) => {
                match Request::begin(front, session, (accepts, &stream), &id, method, params) {
                    Ok(request) => requests.push(request),
                    Err(error) => refused.push(Parts::response(&id, Answer::Error(error)).joined()),
                }
            }
            Ok(Envelope::Message(Message::Notification { method, params })) => {
                post::notification(front, session, method, params);
            }
            Ok(Envelope::Response { id, answer }) => session.outbox.questions.answered_to(&id, answer),
            Err(malformed) => refused.push(post::complaint(&malformed).joined()),
        }
    }
    match (requests.is_empty(), refused.is_empty()) {
        (true, true) => reply::empty(StatusCode::ACCEPTED),
        (true, false) => {
            let mut response = reply::array(&refused);
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
        (false, _) => run(&front.tasks, session, accepts, stream, requests, refused).await,
    }
}

async fn run(
    tasks: &TaskTracker,
    session: &Arc<HttpSession>,
    accepts: Accepts,
    stream: Arc<Mailbox>,
    requests: Vec<Request>,
    refused: Vec<Bytes>,
) -> Response<ReplyBody> {
    let give_up = CancellationToken::new();
    let gathered = Mutex::new(Some(refused));
    let replies =
        Arc::new(Replies { gathered, answers: Answers::default(), stream: stream.clone(), give_up: give_up.clone() });
    let all = {
        let replies = replies.clone();
        Box::pin(async move {
            join_all(requests.into_iter().map(|request| request.run(&replies))).await;
            // Says that all is said; the stream of several requests ends with no message.
            Answer::Result(Payload::literal("{}"))
        })
    };
    let mut running = Running::new(stream.clone(), all, None, OnDisconnect::GoOn, tasks).of_several(give_up);
    let first = running.first(accepts.streams).await;
    let gathered = replies.begin_stream();
    match first {
        First::Answer(_) if !gathered.is_empty() => reply::array(&gathered),
        First::Message(message) => {
            let tape = session.tapes.open(stream, None);
            gathered.iter().for_each(|reply| tape.record(reply));
            tape.record(&message);
            let reader = session.tapes.read(&tape);
            running.detach_from(tape);
            reply::tape(reader)
        }
        // All were taken back, and nothing is owed.
        First::Answer(_) | First::Cancelled | First::Question(_) => {
            stream.close();
            reply::events(None, stream, None)
        }
    }
}

/// One request of a batch, which can be cancelled without the others.
struct Request {
    id: Payload,
    own: Arc<Mailbox>,
    answer: BoxFuture<'static, Answer>,
    _enrolment: Enrolment,
}

impl Request {
    fn begin(
        front: &Front,
        session: &Arc<HttpSession>,
        (accepts, stream): (Accepts, &Arc<Mailbox>),
        id: &Payload,
        method: Method,
        params: Option<Payload>,
    ) -> Result<Self, Payload> {
        if method.as_str() == "initialize" || era::is_modern(params.as_ref()) {
            let why = "seawall: initialize, and requests of 2026-07-28, cannot be part of a batch";
            return Err(rpc_error(INVALID_REQUEST, why));
        }
        let own = Arc::new(Mailbox::default());
        let enrolment = Enrolment::begin(session, id, &own)
            .ok_or_else(|| rpc_error(OVERLOADED, "seawall: too many requests of this session are under way"))?;
        let back = Arc::new(CallWire { stream: stream.clone(), session: session.clone(), streams: accepts.streams });
        let answer = front.gate.ask(&session.session, id.clone(), method, params, back);
        Ok(Request { id: id.clone(), own, answer, _enrolment: enrolment })
    }

    async fn run(self, replies: &Replies) {
        tokio::select! {
            biased;
            answer = self.answer => replies.put(replies.answers.reply(&self.id, answer)),
            () = self.own.cancelled() => {}
            () = replies.give_up.cancelled() => replies.put(replies.answers.reply(&self.id, running::given_up())),
        }
    }
}

/// The answers, held back until it is known how they leave.
struct Replies {
    /// `None` once they go to the stream.
    gathered: Mutex<Option<Vec<Bytes>>>,
    answers: Answers,
    stream: Arc<Mailbox>,
    /// Nobody came back to the stream for long.
    give_up: CancellationToken,
}

impl Replies {
    fn put(&self, reply: Bytes) {
        match &mut *self.gathered.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(gathered) => gathered.push(reply),
            None => self.stream.put_reply(reply),
        }
    }

    /// What is there already; all that follows goes to the stream.
    fn begin_stream(&self) -> Vec<Bytes> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{downstream::mailbox::Mail, testing};

    #[tokio::test(start_paused = true)]
    async fn each_request_that_is_open_when_nobody_came_back_is_told_so() {
        let session = Arc::new(HttpSession::new(Arc::new(testing::session()), Arc::default(), &Arc::default()));
        let stream = Arc::new(Mailbox::default());
        let request = |id, answer: BoxFuture<'static, Answer>| {
            let (id, own) = (Payload::literal(id), Arc::new(Mailbox::default()));
            let enrolment = Enrolment::begin(&session, &id, &own).expect("there is room");
            Request { id, own, answer, _enrolment: enrolment }
        };
        let hangs = || Box::pin(std::future::pending());
        let quick = Box::pin(std::future::ready(Answer::Result(Payload::literal("{}"))));
        let requests = vec![request("1", hangs()), request("2", quick), request("3", hangs()), request("4", hangs())];
        let progress = Parts::notification(&Method::of("notifications/progress"), None).joined();
        assert!(stream.put(Mail::Message(progress)));
        let accepts = Accepts { streams: true };
        drop(run(&TaskTracker::new(), &session, accepts, stream, requests, Vec::new()).await);
        session.cancel(&Payload::literal("3"));
        tokio::time::sleep(running::DESERTED_MAX + Duration::from_secs(1)).await;
        let mut late = session.tapes.resume("1-0").expect("it is kept").expect("there is more");
        let mut told = String::new();
        while let Some(event) = late.next().await {
            told.push_str(std::str::from_utf8(&event).expect("UTF-8"));
        }
        for part in
            [r#""id":1,"error""#, r#""id":2,"result""#, r#""id":4,"error""#, "was connected", "it was cancelled"]
        {
            assert_eq!(told.matches(part).count(), if part.starts_with('"') { 1 } else { 2 }, "{part}: {told}");
        }
        assert!(!told.contains(r#""id":3"#), "nothing is owed to what was taken back: {told}");
    }
}
