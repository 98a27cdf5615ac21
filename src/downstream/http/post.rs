//! POST: one message of a client.

use std::{borrow::Cow, sync::Arc, time::Duration};

use hyper::{HeaderMap, Request, Response, StatusCode, body::Incoming, header::ACCEPT};
use tokio::time::timeout;

use super::{
    Front, MCP_PROTOCOL_VERSION, MCP_SESSION_ID,
    body::ReplyBody,
    modern,
    outbox::{CallWire, Outbox, StandingWire},
    places::Attended,
    reply,
    running::{Enrolment, First, OnDisconnect, Running},
    session::HttpSession,
};
use crate::{
    call::{Answer, Message, Method, Payload},
    downstream::{mailbox::Mailbox, stateless},
    era::{self, LEGACY_VERSIONS},
    listener::{
        body,
        guard::{self, Refusal},
    },
    session::{Hello, Scope},
    wire::{
        batch::{self, BATCH_VERSION},
        envelope::{Envelope, INVALID_REQUEST, Malformed, OVERLOADED, PARSE_ERROR, Parts, rpc_error},
    },
};

/// A request that has no answer by then gets a stream, which can be resumed.
const PRIMED_AFTER: Duration = Duration::from_secs(2);

pub(super) async fn post(front: &Arc<Front>, scope: Scope, request: Request<Incoming>) -> Response<ReplyBody> {
    match answer(front, scope, request).await {
        Ok(response) => response,
        Err(refusal) => reply::refusal(&refusal),
    }
}

async fn answer(front: &Arc<Front>, scope: Scope, request: Request<Incoming>) -> Result<Response<ReplyBody>, Refusal> {
    let (parts, incoming) = request.into_parts();
    guard::must_be_json(&parts.headers)?;
    let accepts = Accepts::of(&parts.headers)?;
    let text = body::read(incoming, &front.body_room, front.max_message_bytes, "max_message under [gateway]").await?;
    if let Some(attended) = parts.extensions.get::<Arc<Attended>>() {
        attended.is_whole();
    }
    if batch::is_batch(&text) && parts.headers.contains_key(&MCP_SESSION_ID) {
        let session = find_session(front, &scope, &parts.headers)?;
        if &*session.session.protocol == BATCH_VERSION {
            return Ok(super::batch::answer(front, &session, accepts, &text).await);
        }
    }
    let message = match Envelope::parse(&text) {
        Ok(message) => message,
        Err(malformed) => return Ok(malformed_reply(&malformed)),
    };
    if is_modern(&parts.headers, &message) {
        return Ok(modern(front, scope, &parts.headers, accepts, message).await);
    }
    if let Envelope::Message(Message::Request { id, method, params }) = &message
        && method.as_str() == "initialize"
    {
        return Ok(initialize(front, scope, id.clone(), params.clone()).await);
    }
    let session = find_session(front, &scope, &parts.headers)?;
    Ok(match message {
        Envelope::Message(Message::Request { id, method, params }) => {
            request_reply(front, &session, accepts, (id, method, params)).await
        }
        Envelope::Message(Message::Notification { method, params }) => {
            notification(front, &session, method, params);
            reply::empty(StatusCode::ACCEPTED)
        }
        Envelope::Response { id, answer } => {
            session.outbox.questions.answered_to(&id, answer);
            reply::empty(StatusCode::ACCEPTED)
        }
    })
}

/// By version and `_meta`, never by method: a header that names no legacy version, or a
/// body that says who asks.
fn is_modern(headers: &HeaderMap, message: &Envelope) -> bool {
    let version = headers.get(&MCP_PROTOCOL_VERSION);
    if version.is_some_and(|version| !LEGACY_VERSIONS.iter().any(|legacy| version == legacy)) {
        return true;
    }
    let Envelope::Message(Message::Request { params, .. } | Message::Notification { params, .. }) = message else {
        return false;
    };
    era::is_modern(params.as_ref())
}

async fn modern(
    front: &Arc<Front>,
    scope: Scope,
    headers: &HeaderMap,
    accepts: Accepts,
    message: Envelope,
) -> Response<ReplyBody> {
    match message {
        Envelope::Message(Message::Request { id, method, params }) => {
            let params = params.unwrap_or(Payload::literal("{}"));
            modern::answer(front, scope, headers, accepts, stateless::Request { id, method, params }).await
        }
        // This era has no notifications of clients over HTTP; one is taken and ignored.
        Envelope::Message(Message::Notification { .. }) => reply::empty(StatusCode::ACCEPTED),
        Envelope::Response { .. } => reply::refusal(&Refusal::new(
            StatusCode::BAD_REQUEST,
            "since 2026-07-28 a client answers in inputResponses and sends no JSON-RPC responses",
        )),
    }
}

async fn initialize(front: &Arc<Front>, scope: Scope, id: Payload, params: Option<Payload>) -> Response<ReplyBody> {
    let outbox = Arc::new(Outbox::default());
    let hello =
        Hello { scope, params: params.unwrap_or(Payload::literal("{}")), back: Arc::new(StandingWire(outbox.clone())) };
    let (session, result) = match front.gate.open(hello).await {
        Ok(opened) => opened,
        Err(error) => return reply::message(Parts::response(&id, Answer::Error(error))),
    };
    let session = Arc::new(HttpSession::new(session, outbox, &front.sessions.kept));
    let session_id = session.id.clone();
    if !front.sessions.insert(session.clone(), &*front.gate) {
        front.gate.close(&session.session);
        let error = rpc_error(OVERLOADED, "seawall: too many clients are connected, try again later");
        let mut response = reply::message(Parts::response(&id, Answer::Error(error)));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    }
    let mut response = reply::message(Parts::response(&id, Answer::Result(result)));
    if let Ok(value) = session_id.parse() {
        response.headers_mut().insert(MCP_SESSION_ID, value);
    }
    response
}

async fn request_reply(
    front: &Arc<Front>,
    session: &Arc<HttpSession>,
    accepts: Accepts,
    (id, method, params): (Payload, Method, Option<Payload>),
) -> Response<ReplyBody> {
    let mailbox = Arc::new(Mailbox::default());
    let Some(enrolment) = Enrolment::begin(session, &id, &mailbox) else {
        let error = rpc_error(OVERLOADED, "seawall: too many requests of this session are under way");
        return reply::message(Parts::response(&id, Answer::Error(error)));
    };
    let back = Arc::new(CallWire { stream: mailbox.clone(), session: session.clone(), streams: accepts.streams });
    let answer = front.gate.ask(&session.session, id.clone(), method, params, back);
    let mut running = Running::new(mailbox.clone(), answer, Some(enrolment), OnDisconnect::GoOn, &front.tasks);
    // A client that knows how to come back gets an id to come back with, before its
    // connection may break.
    let primed_after = if accepts.streams && session.tapes.primes() { PRIMED_AFTER } else { Duration::MAX };
    let said = match timeout(primed_after, running.first(accepts.streams)).await {
        Ok(First::Answer(answer)) => return reply::message(Parts::response(&id, answer)),
        Ok(First::Message(message)) => Some(message),
        // Nothing is owed to a request that was taken back: a stream that ends at once.
        Ok(First::Cancelled | First::Question(_)) => return reply::events(None, mailbox, None),
        Err(_) => None,
    };
    let tape = session.tapes.open(mailbox, Some(id));
    if let Some(message) = said {
        tape.record(&message);
    }
    let reader = session.tapes.read(&tape);
    running.detach_from(tape);
    reply::tape(reader)
}

pub(super) fn notification(front: &Front, session: &HttpSession, method: Method, params: Option<Payload>) {
    if method.as_str() == "notifications/cancelled" {
        if let Some(id) = params.as_ref().and_then(|params| params.member("requestId")) {
            session.cancel(&id);
        }
    } else {
        front.gate.told(&session.session, method, params);
    }
}

pub(super) fn find_session(front: &Front, scope: &Scope, headers: &HeaderMap) -> Result<Arc<HttpSession>, Refusal> {
    let Some(id) = headers.get(&MCP_SESSION_ID) else {
        let reason = "the header Mcp-Session-Id is missing: begin with initialize and send the id that it returns";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
    };
    let session = id.to_str().ok().and_then(|id| front.sessions.get(id));
    session.filter(|session| session.session.scope == *scope).ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, "there is no such session (any more): begin anew with initialize")
    })
}

pub(super) fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(version) = headers.get(&MCP_PROTOCOL_VERSION) else { return Ok(()) };
    let version = version.to_str().unwrap_or_default();
    if LEGACY_VERSIONS.contains(&version) {
        return Ok(());
    }
    let version = crate::text::quote(version, 40);
    let reason =
        format!("MCP-Protocol-Version \"{version}\" is not supported; seawall speaks {}", LEGACY_VERSIONS.join(", "));
    Err(Refusal::new(StatusCode::BAD_REQUEST, reason))
}

pub(super) fn malformed_reply(malformed: &Malformed) -> Response<ReplyBody> {
    let mut response = reply::message(complaint(malformed));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

pub(super) fn complaint(malformed: &Malformed) -> Parts {
    let code = if malformed.is_json { INVALID_REQUEST } else { PARSE_ERROR };
    let error = rpc_error(code, Cow::Owned(format!("seawall: {}", malformed.reason)));
    match &malformed.id {
        Some(id) => Parts::response(id, Answer::Error(error)),
        None => Parts::error_without_id(error),
    }
}

/// What the client can read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepts {
    pub(super) streams: bool,
}

impl Accepts {
    /// Plain JSON is a must. Clients that cannot read streams get answers only.
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(accept) = headers.get(ACCEPT) else { return Ok(Accepts { streams: true }) };
        let accept = accept.to_str().unwrap_or_default();
        if !takes(accept, "application/json") {
            let reason = "Accept must include application/json and should include text/event-stream";
            return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, reason));
        }
        Ok(Accepts { streams: takes(accept, "text/event-stream") })
    }
}

/// Whether a media type is among those of an Accept header, wildcards and weights included.
pub(super) fn takes(accept: &str, wanted: &str) -> bool {
    let family = wanted.split('/').next().unwrap_or_default();
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let refused =
            parts.any(|weight| weight.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()).is_some_and(|q| q <= 0.0));
        !refused
            && (kind.eq_ignore_ascii_case(wanted)
                || kind == "*/*"
                || kind.strip_suffix("/*").is_some_and(|prefix| prefix.eq_ignore_ascii_case(family)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_with_wildcards_and_weights() {
        for accept in ["application/json, text/event-stream", "*/*", "text/*;q=0.1", "TEXT/Event-Stream;q=1"] {
            assert!(takes(accept, "text/event-stream"), "{accept}");
        }
        for accept in ["application/json", "text/event-stream;q=0", "", "text/plain"] {
            assert!(!takes(accept, "text/event-stream"), "{accept}");
        }
    }
}
