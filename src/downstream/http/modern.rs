//! A request of the modern era: no session, headers that repeat the body, questions of
//! the server as rounds, and a closed stream that cancels.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{HeaderMap, Response, StatusCode};

use super::{
    Front, MCP_PROTOCOL_VERSION,
    body::{Ending, ReplyBody},
    headers,
    post::Accepts,
    reply,
    running::{First, OnDisconnect, Running},
};
use crate::{
    call::{Answer, Method, Payload},
    downstream::{
        mailbox::{CancelIfDropped, Mail, Mailbox, Question},
        rounds::{self, Asked, Resumed, Round},
        stateless::{self, Request, Subscription},
    },
    era,
    session::{Scope, Session},
    wire::envelope::{METHOD_NOT_FOUND, Parts},
};

pub(super) async fn answer(
    front: &Arc<Front>,
    scope: Scope,
    headers: &HeaderMap,
    accepts: Accepts,
    request: Request,
) -> Response<ReplyBody> {
    let round = Round::default();
    let session = match admit(front, &scope, headers, &request, &round) {
        Ok(session) => session,
        Err(error) => return error_reply(&request.id, error, StatusCode::BAD_REQUEST),
    };
    if stateless::is_dropped(&request.method) {
        return error_reply(&request.id, stateless::not_found(&request.method), StatusCode::NOT_FOUND);
    }
    if request.method.as_str() == "subscriptions/listen" {
        return listen(front, request, round.mailbox, session).await;
    }
    let Request { id, method, params } = request;
    let asked = Asked::of(&scope, &method, &params);
    match front.rounds.resume(&asked, &params) {
        Resumed::Round(round) => return resumed(front, accepts, (id, asked), round).await,
        Resumed::Unknown => return error_reply(&id, stateless::unknown_round(), StatusCode::OK),
        Resumed::NotOurs => {}
    }
    let answer = front.gate.ask(&session, id.clone(), method, Some(params), Arc::new(round.clone()));
    let mut running = Running::new(round.mailbox.clone(), answer, None, OnDisconnect::Cancel, &front.tasks);
    let first = running.first(accepts.streams).await;
    if !matches!(first, First::Answer(_) | First::Cancelled) {
        running.detach();
    }
    first_reply(front, (id, asked), round, first).await
}

/// Checks in the order that the spec's errors ask for: what is missing from the body,
/// then what differs from it, then what is not spoken here.
fn admit(
    front: &Front,
    scope: &Scope,
    headers: &HeaderMap,
    request: &Request,
    round: &Round,
) -> Result<Arc<Session>, Payload> {
    let sent = headers.get(&MCP_PROTOCOL_VERSION).and_then(|version| version.to_str().ok());
    // Who asks for a version that nobody speaks need not know what its `_meta` should hold.
    if let Some(unknown) = sent.filter(|sent| *sent != era::MODERN_VERSION)
        && !era::is_modern(Some(&request.params))
    {
        return Err(stateless::unsupported(unknown));
    }
    let admitted = stateless::visitor(Session::next_number(), scope.clone(), &request.params, Arc::new(round.clone()));
    match &admitted {
        Err(error) if error.error_code() != Some(era::UNSUPPORTED_VERSION) => return Err(error.clone()),
        _ => {}
    }
    let said = request.params.member("_meta").and_then(|meta| meta.text(era::PROTOCOL_VERSION));
    if sent != said.as_deref() {
        let sent = crate::text::quote(sent.unwrap_or_default(), 40);
        let why = format!("MCP-Protocol-Version header value '{sent}' does not match the version in _meta");
        return Err(headers::mismatch(why));
    }
    let session = admitted?;
    headers::check(headers, &request.method, &request.params)?;
    if request.method.as_str() == Method::TOOLS_CALL
        && let Some(name) = request.params.text("name")
        && let Some(tool) = front.gate.tool_with_headers(scope, &name)
    {
        headers::check_params(headers, &tool, &request.params)?;
    }
    Ok(session)
}

/// A round that goes on: the call has run all the while.
async fn resumed(front: &Arc<Front>, accepts: Accepts, request: (Payload, Asked), round: Round) -> Response<ReplyBody> {
    let guard = CancelIfDropped::new(&round.mailbox);
    let first = loop {
        match round.mailbox.next().await {
            Mail::Message(message) if accepts.streams => break First::Message(message),
            Mail::Message(_) => {}
            Mail::Question(question) => break First::Question(question),
            Mail::Answer(answer) => break First::Answer(answer),
            Mail::Cancelled | Mail::Closed => break First::Cancelled,
        }
    };
    guard.disarm();
    first_reply(front, request, round, first).await
}

async fn first_reply(
    front: &Arc<Front>,
    (id, asked): (Payload, Asked),
    round: Round,
    first: First,
) -> Response<ReplyBody> {
    match first {
        First::Answer(answer) => {
            let answer = stateless::completed(&asked.method, answer);
            let status = status_of(&answer);
            let mut response = reply::message(Parts::response(&id, answer));
            *response.status_mut() = status;
            response
        }
        First::Question(question) => {
            let guard = CancelIfDropped::new(&round.mailbox);
            let questions = rounds::gather(&round.mailbox, question).await;
            guard.disarm();
            let result = front.rounds.suspend(asked, round, questions);
            reply::message(Parts::response(&id, Answer::Result(result)))
        }
        First::Message(message) => {
            let mailbox = round.mailbox.clone();
            let ending = ModernEnding { front: front.clone(), id, asked, round: Some(round) };
            reply::events(Some(message), mailbox, Some(Box::new(ending)))
        }
        First::Cancelled => reply::events(None, round.mailbox, None),
    }
}

/// The status says it once more, for those who do not read bodies.
fn status_of(answer: &Answer) -> StatusCode {
    let Answer::Error(error) = answer else { return StatusCode::OK };
    match error.error_code() {
        Some(METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
        Some(era::HEADER_MISMATCH | era::MISSING_CLIENT_CAPABILITY | era::UNSUPPORTED_VERSION) => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::OK,
    }
}

fn error_reply(id: &Payload, error: Payload, status: StatusCode) -> Response<ReplyBody> {
    let mut response = reply::message(Parts::response(id, Answer::Error(error)));
    *response.status_mut() = status;
    response
}

/// A stream of notifications for as long as the client keeps it open.
async fn listen(
    front: &Arc<Front>,
    request: Request,
    mailbox: Arc<Mailbox>,
    session: Arc<Session>,
) -> Response<ReplyBody> {
    let id = request.id;
    match Subscription::open(&front.gate, &session, (&id, request.params), &mailbox).await {
        Ok((subscription, first)) => {
            front.streams.add(&mailbox);
            let ending = Listening { id, _open: subscription };
            reply::events(Some(first), mailbox, Some(Box::new(ending)))
        }
        Err(error) => error_reply(&id, error, StatusCode::OK),
    }
}

/// The stream of a call ends with its answer, or with a round.
struct ModernEnding {
    front: Arc<Front>,
    id: Payload,
    asked: Asked,
    round: Option<Round>,
}

impl Ending for ModernEnding {
    fn answer(&mut self, answer: Answer) -> Bytes {
        let answer = stateless::completed(&self.asked.method, answer).on_one_line();
        Parts::response(&self.id, answer).joined()
    }

    fn questions(&mut self, questions: Vec<Question>) -> Option<Bytes> {
        let result = self.front.rounds.suspend(self.asked.clone(), self.round.take()?, questions);
        Some(Parts::response(&self.id, Answer::Result(result.on_one_line())).joined())
    }

    fn abandoned(&mut self) {
        if let Some(round) = &self.round {
            round.mailbox.cancel();
        }
    }
}

struct Listening {
    id: Payload,
    _open: Subscription,
}

impl Ending for Listening {
    fn answer(&mut self, _: Answer) -> Bytes {
        Parts::response(&self.id, Answer::Result(stateless::listen_result(&self.id))).joined()
    }

    fn questions(&mut self, _: Vec<Question>) -> Option<Bytes> {
        None
    }
}
