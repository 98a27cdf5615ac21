//! A request of the modern era: no session, headers that repeat the body, questions of
//! the server as rounds, and a closed stream that cancels.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{HeaderMap, Response, StatusCode};

use super::{
    Front, MCP_PROTOCOL_VERSION,
    body::{Ending, ReplyBody},
    headers,
    mailbox::{Mail, Mailbox, Question},
    post::Accepts,
    reply,
    rounds::{Round, Rounds},
    running::{First, OnDisconnect, Running, on_one_line},
    session::Outbox,
};
use crate::{
    call::{Answer, BoxFuture, Method, Payload, Wire},
    downstream::stateless,
    era,
    session::{Scope, Session},
    wire::envelope::{INVALID_PARAMS, METHOD_NOT_FOUND, Parts, rpc_error},
};

/// A request whose headers and `_meta` are in order.
pub(super) struct Request {
    pub(super) id: Payload,
    pub(super) method: Method,
    pub(super) params: Payload,
}

pub(super) async fn answer(
    front: &Arc<Front>,
    scope: Scope,
    headers: &HeaderMap,
    accepts: Accepts,
    request: Request,
) -> Response<ReplyBody> {
    let mailbox = Arc::new(Mailbox::default());
    let wire = Arc::new(RoundsWire { mailbox: mailbox.clone(), outbox: Arc::default() });
    let session = match admit(front, &scope, headers, &request, &wire) {
        Ok(session) => session,
        Err(error) => return error_reply(&request.id, error, StatusCode::BAD_REQUEST),
    };
    if stateless::is_dropped(&request.method) {
        return error_reply(&request.id, stateless::not_found(&request.method), StatusCode::NOT_FOUND);
    }
    if request.method.as_str() == "subscriptions/listen" {
        return listen(front, request, mailbox, session).await;
    }
    if let Some(state) = request.params.text("requestState").filter(|state| Rounds::is_own(state)) {
        return match front.rounds.resume(&state, &scope, &request) {
            Some(round) => resumed(front, scope, accepts, request, round).await,
            None => {
                let error = rpc_error(INVALID_PARAMS, "seawall: this requestState is unknown, used already or expired");
                reply::message(Parts::response(&request.id, Answer::Error(error)))
            }
        };
    }
    let Request { id, method, params } = request;
    let back = wire.clone();
    let answer = front.gate.ask(&session, id.clone(), method.clone(), Some(params.clone()), back);
    let request = Request { id, method, params };
    let mut running = Running::new(mailbox.clone(), answer, None, OnDisconnect::Cancel, &front.tasks);
    let first = running.first(accepts.streams).await;
    if !matches!(first, First::Answer(_) | First::Cancelled) {
        running.detach();
    }
    first_reply(front, scope, request, Round { mailbox, outbox: wire.outbox.clone() }, first)
}

/// Checks in the order that the spec's errors ask for: what is missing from the body,
/// then what differs from it, then what is not spoken here.
fn admit(
    front: &Front,
    scope: &Scope,
    headers: &HeaderMap,
    request: &Request,
    wire: &Arc<RoundsWire>,
) -> Result<Arc<Session>, Payload> {
    let admitted = stateless::visitor(scope.clone(), &request.params, wire.clone());
    let is_unsupported = matches!(&admitted, Err(error) if error.error_code() == Some(era::UNSUPPORTED_VERSION));
    if let Err(error) = &admitted
        && !is_unsupported
    {
        return Err(error.clone());
    }
    let sent = headers.get(&MCP_PROTOCOL_VERSION).and_then(|version| version.to_str().ok());
    let said = request.params.member("_meta").and_then(|meta| meta.text(era::PROTOCOL_VERSION));
    if sent != said.as_deref() {
        let sent = crate::text::quote(sent.unwrap_or_default(), 40);
        return Err(headers::mismatch(format!(
            "MCP-Protocol-Version header value '{sent}' does not match the version in _meta"
        )));
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
async fn resumed(
    front: &Arc<Front>,
    scope: Scope,
    accepts: Accepts,
    request: Request,
    round: Round,
) -> Response<ReplyBody> {
    let guard = CancelIfDropped(Some(round.mailbox.clone()));
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
    first_reply(front, scope, request, round, first)
}

fn first_reply(front: &Arc<Front>, scope: Scope, request: Request, round: Round, first: First) -> Response<ReplyBody> {
    match first {
        First::Answer(answer) => {
            let answer = stateless::completed(&request.method, answer);
            let status = status_of(&answer);
            let mut response = reply::message(Parts::response(&request.id, answer));
            *response.status_mut() = status;
            response
        }
        First::Question(question) => {
            let result = front.rounds.suspend(scope, &request, round, &question);
            reply::message(Parts::response(&request.id, Answer::Result(result)))
        }
        First::Message(message) => {
            let mailbox = round.mailbox.clone();
            let ending = ModernEnding { front: front.clone(), scope, request, round: Some(round) };
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
    let wanted = request.params.member("notifications").unwrap_or(Payload::literal("{}"));
    let session = Session {
        back: Arc::new(SubscriptionWire { id: request.id.clone(), mailbox: mailbox.clone() }),
        ..Session::like(&session)
    };
    let session = Arc::new(session);
    match front.gate.listen(&session, wanted).await {
        Ok(granted) => {
            let params = stateless::acknowledged(&request.id, granted).on_one_line();
            let first =
                Parts::notification(&Method::of("notifications/subscriptions/acknowledged"), Some(params)).joined();
            front.streams.add(&mailbox);
            let ending = Listening { front: front.clone(), session, id: request.id };
            reply::events(Some(first), mailbox, Some(Box::new(ending)))
        }
        Err(error) => error_reply(&request.id, error, StatusCode::OK),
    }
}

/// The way to the client of one modern call: its stream, and rounds for questions.
struct RoundsWire {
    mailbox: Arc<Mailbox>,
    outbox: Arc<Outbox>,
}

impl Wire for RoundsWire {
    fn tell(&self, method: Method, params: Option<Payload>) {
        let message = Parts::notification(&method, params.map(|params| params.on_one_line())).joined();
        self.mailbox.put(Mail::Message(message));
    }

    fn ask(&self, method: Method, params: Option<Payload>) -> BoxFuture<'_, Answer> {
        Box::pin(self.outbox.ask_by(move |id| self.mailbox.put(Mail::Question(Question { id, method, params }))))
    }
}

struct SubscriptionWire {
    id: Payload,
    mailbox: Arc<Mailbox>,
}

impl Wire for SubscriptionWire {
    fn tell(&self, method: Method, params: Option<Payload>) {
        let params = stateless::of_subscription(&self.id, params.as_ref()).on_one_line();
        self.mailbox.put(Mail::Message(Parts::notification(&method, Some(params)).joined()));
    }

    fn ask(&self, _: Method, _: Option<Payload>) -> BoxFuture<'_, Answer> {
        let why = "seawall: a subscription answers no questions";
        Box::pin(std::future::ready(Answer::Error(rpc_error(METHOD_NOT_FOUND, why))))
    }
}

/// The stream of a call ends with its answer, or with a round.
struct ModernEnding {
    front: Arc<Front>,
    scope: Scope,
    request: Request,
    round: Option<Round>,
}

impl Ending for ModernEnding {
    fn answer(&mut self, answer: Answer) -> Bytes {
        let answer = on_one_line(stateless::completed(&self.request.method, answer));
        Parts::response(&self.request.id, answer).joined()
    }

    fn question(&mut self, question: Question) -> Option<Bytes> {
        let result = self.front.rounds.suspend(self.scope.clone(), &self.request, self.round.take()?, &question);
        Some(Parts::response(&self.request.id, Answer::Result(result.on_one_line())).joined())
    }

    fn abandoned(&mut self) {
        if let Some(round) = &self.round {
            round.mailbox.cancel();
        }
    }
}

struct Listening {
    front: Arc<Front>,
    session: Arc<Session>,
    id: Payload,
}

impl Ending for Listening {
    fn answer(&mut self, _: Answer) -> Bytes {
        Parts::response(&self.id, Answer::Result(stateless::listen_result(&self.id))).joined()
    }

    fn question(&mut self, _: Question) -> Option<Bytes> {
        None
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.front.gate.close(&self.session);
    }
}

/// A client that disconnects while a round goes on has cancelled it.
struct CancelIfDropped(Option<Arc<Mailbox>>);

impl CancelIfDropped {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelIfDropped {
    fn drop(&mut self) {
        if let Some(mailbox) = &self.0 {
            mailbox.cancel();
        }
    }
}
