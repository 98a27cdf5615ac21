//! One request: past the guard, to its path, and what the store says as HTTP.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Incoming,
    header::{ACCEPT, HeaderName, HeaderValue},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::timeout,
};

use super::{
    Server,
    query::{self, Cursor, Question},
    read::{self, Batch, Fault},
    reply, tail,
};
use crate::{
    listener::{
        body, guard,
        reply::{Reply, events, json, json_text, text as plain_text},
    },
    store::{
        EventRecord, ReadError,
        intake::{IntakeReader, Key, Lost, NewEvent, Page, Receipt, Refused, Submission},
    },
    text,
};

const JSON: &str = "application/json";
const LINES: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const KEY_MAX_CHARS: usize = 255;
/// So long a submission may wait for the disk before it is refused.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(10);
/// One commit that was under way by then may take so much longer.
const COMMIT_MARGIN: Duration = Duration::from_secs(10);
/// An acknowledgement of one event, as JSON, at most.
const ACKNOWLEDGEMENT_MAX_BYTES: usize = 192;
const NO_ROOM: &str = "too many answers wait to be read";
const RETRY_AFTER_S: u32 = 1;
const RETRY_AFTER_TROUBLE_S: u32 = 5;

pub(super) async fn respond(
    server: &Arc<Server>,
    request: Request<Incoming>,
    peer: SocketAddr,
    is_stranger: bool,
) -> Reply {
    let path = request.uri().path();
    if path == "/healthz" {
        return plain_text("ok\n");
    }
    if path == "/readyz" && peer.ip().is_loopback() {
        return readiness(server);
    }
    if let Err(refusal) = server.guard.admit_from(is_stranger, request.headers()) {
        return reply::refusal(&refusal);
    }
    match (path.strip_suffix('/').unwrap_or(path), request.method()) {
        ("/events", &Method::POST) => post(server, request).await,
        ("/events", &Method::GET) => get(server, &request).await,
        ("/events", _) => reply::not_allowed("GET, POST"),
        _ => reply::error(StatusCode::NOT_FOUND, "nothing is here: events are at /events"),
    }
}

/// Whether events are taken just now.
fn readiness(server: &Server) -> Reply {
    let trouble = server.intake.trouble();
    let status = if trouble.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": trouble.is_none(), "trouble": trouble, "waiting": server.intake.waiting() });
    json(status, &body)
}

async fn post(server: &Server, request: Request<Incoming>) -> Reply {
    let (parts, incoming) = request.into_parts();
    let kinds = [JSON, LINES[0], LINES[1], LINES[2]];
    let kind = match guard::must_be_one_of(&parts.headers, &kinds) {
        Ok(kind) => kind,
        Err(refusal) => return reply::refusal(&refusal),
    };
    let key = match idempotency_key(&parts.headers) {
        Ok(key) => key,
        Err(why) => return reply::error(StatusCode::BAD_REQUEST, why),
    };
    let read = body::read(incoming, &server.body_room, server.max_body_bytes, "max_body in the options").await;
    let body = match read {
        Ok(read) => read,
        Err(refusal) => return reply::refusal(&refusal),
    };
    let batch = if kind == JSON { read::object(&body) } else { read::lines(&body) };
    let Batch { events, lines } = match batch {
        Ok(batch) => batch,
        Err(fault) => return reply::fault(StatusCode::BAD_REQUEST, &fault),
    };
    // Before it is taken: what is on the disk must be acknowledged.
    let Some(room) = reply::room(&server.reply_room, events.len() * ACKNOWLEDGEMENT_MAX_BYTES) else {
        return reply::unavailable(NO_ROOM, RETRY_AFTER_TROUBLE_S);
    };
    let key = key.map(|text| Key { text, digest: digest(kind, &body) });
    match submit(server, events, key).await {
        Ok(receipt) => acknowledged(&receipt, room),
        Err(refused) => refused_reply(&refused, &lines),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    const WANTED: &str = "Idempotency-Key: is none; use 1 to 255 letters, digits and signs of ASCII";
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if headers.contains_key(IDEMPOTENCY_KEY) {
            Err("more than one Idempotency-Key header")
        } else {
            Ok(None)
        };
    };
    let key = value.to_str().map_err(|_| WANTED)?.trim();
    let is_key = (1..=KEY_MAX_CHARS).contains(&key.len());
    if is_key { Ok(Some(key.to_owned())) } else { Err(WANTED) }
}

/// Tells whether a repeat is one; it keeps nobody from forging anything.
fn digest(kind: &str, body: &Bytes) -> String {
    format!("{kind} {} {}", body.len(), text::digest(&String::from_utf8_lossy(body)))
}

async fn submit(server: &Server, events: Vec<NewEvent>, key: Option<Key>) -> Result<Receipt, Refused> {
    let (answer, answered) = oneshot::channel();
    let until = Instant::now() + ACKNOWLEDGE_WITHIN;
    server.intake.submit(
        Submission { events, key, until },
        // Whoever has gone has gone; a key tells what became of it.
        Box::new(move |outcome| drop(answer.send(outcome))),
    );
    match timeout(ACKNOWLEDGE_WITHIN + COMMIT_MARGIN, answered).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Refused::Unavailable("the writer has died".to_owned())),
        Err(_) => Err(Refused::Unavailable("the disk does not answer".to_owned())),
    }
}

/// The same words for a repeat; a header says that it is one.
fn acknowledged(receipt: &Receipt, room: OwnedSemaphorePermit) -> Reply {
    let text = json!({ "accepted": receipt.events.len(), "events": receipt.events }).to_string();
    let mut reply = json_text(StatusCode::OK, reply::held(text.into(), room));
    if receipt.is_repeat {
        reply.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    reply
}

fn refused_reply(refused: &Refused, lines: &[usize]) -> Reply {
    match refused {
        Refused::Overloaded => reply::unavailable(&refused.to_string(), RETRY_AFTER_S),
        Refused::Unavailable(_) => reply::unavailable(&refused.to_string(), RETRY_AFTER_TROUBLE_S),
        Refused::OtherEvent { index, .. } => {
            let line = lines.get(*index).copied();
            let fault = Fault { line, field: Some("id".to_owned()), what: refused.to_string() };
            reply::fault(StatusCode::CONFLICT, &fault)
        }
        Refused::OtherSubmission => reply::error(StatusCode::UNPROCESSABLE_ENTITY, &refused.to_string()),
        Refused::Unfit(_) => reply::error(StatusCode::BAD_REQUEST, &refused.to_string()),
    }
}

async fn get(server: &Arc<Server>, request: &Request<Incoming>) -> Reply {
    let question = match query::parse(request.uri().query().unwrap_or_default(), Timestamp::now()) {
        Ok(question) => question,
        Err(why) => return reply::error(StatusCode::BAD_REQUEST, &why),
    };
    let wants_stream = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if wants_stream.is_some_and(|accept| accept.contains("text/event-stream")) {
        return follow(server, question, request.headers()).await;
    }
    let Question { filter, limit, cursor } = question;
    let reply_room = server.reply_room.clone();
    // Written down while it has its turn: no more pages than that are without room.
    let listing = reading(server, move |reader| {
        let page = match cursor {
            Some(Cursor { epoch, seq }) => reader.after(&filter, (&epoch, seq), limit),
            None => reader.newest(&filter, limit),
        };
        let text = serde_json::to_vec(&Listing::of(page?)).unwrap_or_default();
        Ok(reply::room(&reply_room, text.len()).map(|room| reply::held(text, room)))
    });
    match listing.await {
        Ok(Some(text)) => json_text(StatusCode::OK, text),
        Ok(None) => reply::unavailable(NO_ROOM, RETRY_AFTER_TROUBLE_S),
        Err(why) => reply::unavailable(&why, RETRY_AFTER_S),
    }
}

/// Written down as it is: a value that was parsed in between would lose digits, or not be.
#[derive(Serialize)]
struct Listing {
    events: Vec<EventRecord>,
    next: String,
    more: bool,
    /// There were others after the cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<Lost>,
}

impl Listing {
    fn of(Page { epoch, events, seq, has_more, lost }: Page) -> Self {
        Listing { events, next: Cursor { epoch, seq }.to_string(), more: has_more, lost }
    }
}

/// From where the client left off, or from now.
async fn follow(server: &Arc<Server>, question: Question, headers: &HeaderMap) -> Reply {
    let last = headers.get(LAST_EVENT_ID).map(|id| id.to_str().ok().and_then(Cursor::parse));
    let from = match (last, question.cursor) {
        (Some(Some(last)), _) => Some(last),
        (Some(None), _) => return reply::error(StatusCode::BAD_REQUEST, "Last-Event-ID: is no id of an event here"),
        (None, cursor) => cursor,
    };
    let Ok(place) = server.tails.clone().try_acquire_owned() else {
        return reply::unavailable("too many others follow the events", RETRY_AFTER_TROUBLE_S);
    };
    let at = match from {
        Some(from) => from,
        None => match reading(server, IntakeReader::end).await {
            Ok((epoch, seq)) => Cursor { epoch, seq },
            Err(why) => return reply::unavailable(&why, RETRY_AFTER_S),
        },
    };
    events(tail::tail(server.clone(), question.filter, at, place))
}

/// Asks the file on a thread that may block, a few at a time.
pub(super) async fn reading<T: Send + 'static>(
    server: &Server,
    question: impl FnOnce(&IntakeReader) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, String> {
    let turn = server.reads.clone().acquire_owned().await.map_err(|error| error.to_string())?;
    let reader = server.reader.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        question(&reader)
    });
    match asked.await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
