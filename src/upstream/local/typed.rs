//! Between payloads and rmcp's types, in both directions.
//!
//! What rmcp cannot read becomes an answer here: it would otherwise be dropped,
//! and whoever asked would wait for ever.

use std::borrow::Cow;

use bytes::Bytes;
use rmcp::{
    ErrorData,
    model::{
        CancelledNotification, CancelledNotificationParam, ClientJsonRpcMessage, ClientRequest, ClientResult,
        JsonRpcMessage, RequestId, ServerJsonRpcMessage,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::call::{Answer, Method, Payload};

/// The methods that rmcp has types for. It takes such a request for one of an
/// unknown method when its params do not fit, and the handler would answer -32601.
const TYPED_METHODS: &[&str] = &[
    "ping",
    "initialize",
    "server/discover",
    "completion/complete",
    "logging/setLevel",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "subscriptions/listen",
    "resources/subscribe",
    "resources/unsubscribe",
    "tools/call",
    "tools/list",
    "tasks/get",
    "tasks/update",
    "tasks/cancel",
    "skills/list",
    "skills/get",
    "resources/directory/read",
];

#[derive(Serialize)]
struct Incoming<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a Payload>,
}

fn parse(
    id: Option<u64>,
    method: &Method,
    params: Option<&Payload>,
) -> Result<ClientJsonRpcMessage, serde_json::Error> {
    serde_json::from_slice(&serde_json::to_vec(&Incoming { jsonrpc: "2.0", id, method: method.as_str(), params })?)
}

/// A request as rmcp reads it, or the answer to one that it cannot read.
pub(super) fn request(id: u64, method: &Method, params: Option<&Payload>) -> Result<ClientJsonRpcMessage, Answer> {
    let unfit = |reason: &str| {
        let message = format!("the params of {method} cannot be read: {reason}");
        Answer::Error(Payload::of(&ErrorData::invalid_params(message, None)))
    };
    let message = parse(Some(id), method, params).map_err(|error| unfit(&error.to_string()))?;
    match &message {
        JsonRpcMessage::Request(request)
            if matches!(&request.request, ClientRequest::CustomRequest(_))
                && TYPED_METHODS.contains(&method.as_str()) =>
        {
            Err(unfit("a required member is missing, or one has the wrong type"))
        }
        _ => Ok(message),
    }
}

pub(super) fn notification(
    method: &Method,
    params: Option<&Payload>,
) -> Result<ClientJsonRpcMessage, serde_json::Error> {
    parse(None, method, params)
}

pub(super) fn cancelled(id: u64) -> ClientJsonRpcMessage {
    let params = CancelledNotificationParam::new(Some(their_id(id)), Some("the caller gave up".to_owned()));
    JsonRpcMessage::notification(CancelledNotification::new(params).into())
}

/// The answer to a question of the handler's; one that rmcp cannot read is an error to it.
pub(super) fn answer(id: RequestId, answer: &Answer) -> ClientJsonRpcMessage {
    let unfit = |error| ErrorData::internal_error(format!("the client's answer cannot be read: {error}"), None);
    let read = match answer {
        Answer::Result(result) => result.read::<ClientResult>().map_err(unfit),
        Answer::Error(error) => Err(error.read::<ErrorData>().unwrap_or_else(unfit)),
    };
    match read {
        Ok(result) => JsonRpcMessage::response(result, id),
        Err(error) => JsonRpcMessage::error(error, Some(id)),
    }
}

/// What the service loop sends.
pub(super) enum Outgoing {
    Answer {
        id: u64,
        answer: Result<Answer, serde_json::Error>,
    },
    Request {
        id: RequestId,
        method: Method,
        params: Option<Payload>,
    },
    Notification {
        method: Method,
        params: Option<Payload>,
    },
    /// An error that belongs to no request.
    Nothing,
}

pub(super) fn outgoing(message: ServerJsonRpcMessage) -> Result<Outgoing, serde_json::Error> {
    Ok(match message {
        JsonRpcMessage::Response(response) => match our_id(&response.id) {
            Some(id) => Outgoing::Answer { id, answer: payload(&response.result).map(Answer::Result) },
            None => Outgoing::Nothing,
        },
        JsonRpcMessage::Error(error) => match error.id.as_ref().and_then(our_id) {
            Some(id) => Outgoing::Answer { id, answer: payload(&error.error).map(Answer::Error) },
            None => Outgoing::Nothing,
        },
        JsonRpcMessage::Request(request) => {
            let (method, params) = method_and_params(&request.request)?;
            Outgoing::Request { id: request.id, method, params }
        }
        JsonRpcMessage::Notification(notification) => {
            let (method, params) = method_and_params(&notification.notification)?;
            Outgoing::Notification { method, params }
        }
    })
}

fn payload<T: Serialize>(value: &T) -> Result<Payload, serde_json::Error> {
    Payload::from_json(serde_json::to_vec(value)?)
}

fn method_and_params<T: Serialize>(message: &T) -> Result<(Method, Option<Payload>), serde_json::Error> {
    #[derive(Deserialize)]
    struct Shape<'a> {
        #[serde(borrow)]
        method: Cow<'a, str>,
        #[serde(borrow)]
        params: Option<&'a RawValue>,
    }
    let json = Bytes::from(serde_json::to_vec(message)?);
    let shape: Shape<'_> = serde_json::from_slice(&json)?;
    Ok((Method::from(&*shape.method), shape.params.map(|params| Payload::part_of(&json, params))))
}

fn their_id(id: u64) -> RequestId {
    // Ids count up from one: no process lives long enough for the other half.
    RequestId::Number(i64::try_from(id).unwrap_or(i64::MAX))
}

pub(super) fn our_id(id: &RequestId) -> Option<u64> {
    match id {
        RequestId::Number(number) => u64::try_from(*number).ok(),
        RequestId::String(_) => None,
    }
}
