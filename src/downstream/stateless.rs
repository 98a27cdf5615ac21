//! What both fronts do with a request of the modern era: who asks is in the request,
//! the answer carries its type, and what a server asks becomes a round.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::Serialize;

use super::mailbox::{Mail, Mailbox, Question};
use crate::{
    call::{Answer, Back, BoxFuture, Edit, Method, Payload, Wire},
    era::{self, Era},
    session::{Gate, LogLevel, Scope, Session},
    text,
    wire::envelope::{INVALID_PARAMS, METHOD_NOT_FOUND, Parts, rpc_error},
};

/// Methods of the legacy era that the modern one has dropped.
const DROPPED: [&str; 5] = ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];

pub(super) struct Request {
    pub(super) id: Payload,
    pub(super) method: Method,
    pub(super) params: Payload,
}

/// Who asks, for the length of one request; or the JSON-RPC error that is due.
/// `number` is the same for requests that are certainly of one client: then a question
/// that their server asks in mid-call may go to any of them.
pub(super) fn visitor(number: u64, scope: Scope, params: &Payload, back: Back) -> Result<Arc<Session>, Payload> {
    let meta = params.member("_meta").unwrap_or(Payload::literal("{}"));
    let version = meta.text(era::PROTOCOL_VERSION).ok_or_else(|| missing(era::PROTOCOL_VERSION))?;
    let capabilities = meta.member(era::CLIENT_CAPABILITIES).ok_or_else(|| missing(era::CLIENT_CAPABILITIES))?;
    if !capabilities.as_bytes().starts_with(b"{") {
        return Err(rpc_error(
            INVALID_PARAMS,
            format!("seawall: _meta[\"{}\"] must be an object", era::CLIENT_CAPABILITIES),
        ));
    }
    if version != era::MODERN_VERSION {
        return Err(unsupported(&version));
    }
    let log_level = LogLevel::silent();
    if let Some(level) = meta.member(era::LOG_LEVEL) {
        let known = level.read::<String>().is_ok_and(|level| log_level.set(&level));
        if !known {
            let level = text::quote(level.as_str(), 40);
            return Err(rpc_error(INVALID_PARAMS, format!("seawall: {level} is no log level of MCP's")));
        }
    }
    let client_info = meta.member(era::CLIENT_INFO).unwrap_or(Payload::literal("{}"));
    Session::check(&capabilities, &client_info).map_err(|why| rpc_error(INVALID_PARAMS, why))?;
    Ok(Arc::new(Session {
        number,
        scope,
        era: Era::Modern,
        client: Session::client_name(&client_info).into(),
        protocol: era::MODERN_VERSION.into(),
        capabilities,
        client_info,
        back,
        log_level,
    }))
}

fn missing(key: &str) -> Payload {
    rpc_error(INVALID_PARAMS, format!("seawall: params._meta[\"{key}\"] is missing; every request must have it"))
}

/// -32022, with the versions that are spoken here.
pub(super) fn unsupported(requested: &str) -> Payload {
    #[derive(Serialize)]
    struct Error<'a> {
        code: i64,
        message: String,
        data: Data<'a>,
    }
    #[derive(Serialize)]
    struct Data<'a> {
        supported: [&'static str; 1],
        requested: &'a str,
    }
    let message = format!(
        "Unsupported protocol version; with initialize, seawall also speaks {}",
        era::LEGACY_VERSIONS.join(", ")
    );
    let data = Data { supported: [era::MODERN_VERSION], requested };
    Payload::of(&Error { code: era::UNSUPPORTED_VERSION, message, data })
}

/// Methods that only the legacy era has are unknown in this one.
pub(super) fn is_dropped(method: &Method) -> bool {
    DROPPED.contains(&method.as_str())
}

pub(super) fn not_found(method: &Method) -> Payload {
    rpc_error(METHOD_NOT_FOUND, format!("Method not found: {}", text::quote(method.as_str(), 100)))
}

/// The answer as a modern client must get it, whoever gave it.
pub(super) fn completed(method: &Method, answer: Answer) -> Answer {
    match answer {
        Answer::Result(result) => Answer::Result(era::completed(method.as_str(), &result)),
        Answer::Error(error) if error.error_code() == Some(era::RESOURCE_NOT_FOUND) => {
            Answer::Error(error.edit(&[("code", Edit::Set(Payload::of(&INVALID_PARAMS)))]))
        }
        answer => answer,
    }
}

/// The result that asks the client for input: questions by their keys.
pub(super) fn input_required<'a>(questions: impl Iterator<Item = (String, &'a Question)>, state: &str) -> Payload {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct InputRequired<'a> {
        result_type: &'static str,
        input_requests: BTreeMap<String, InputRequest<'a>>,
        request_state: &'a str,
    }
    #[derive(Serialize)]
    struct InputRequest<'a> {
        method: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        params: Option<&'a Payload>,
    }
    Payload::of(&InputRequired {
        result_type: "input_required",
        input_requests: questions
            .map(|(key, Question { method, params, .. })| {
                (key, InputRequest { method: method.as_str(), params: params.as_ref() })
            })
            .collect(),
        request_state: state,
    })
}

/// A notification on the stream of `subscriptions/listen`.
pub(super) fn of_subscription(id: &Payload, params: Option<&Payload>) -> Payload {
    let params = params.cloned().unwrap_or(Payload::literal("{}"));
    let meta = params.member("_meta").unwrap_or(Payload::literal("{}"));
    let meta = meta.edit(&[(era::SUBSCRIPTION_ID, Edit::Set(id.clone()))]);
    params.edit(&[("_meta", Edit::Set(meta))])
}

/// The first notification on that stream.
fn acknowledged(id: &Payload, granted: Payload) -> Parts {
    let params = of_subscription(id, Some(&Payload::literal("{}").edit(&[("notifications", Edit::Set(granted))])));
    let method = Method::of("notifications/subscriptions/acknowledged");
    Parts::notification(&method, Some(params.on_one_line()))
}

/// The result of `subscriptions/listen` when it ends in good order.
pub(super) fn listen_result(id: &Payload) -> Payload {
    of_subscription(id, Some(&Payload::literal(r#"{"resultType":"complete"}"#)))
}

/// The filter of `subscriptions/listen`.
fn wanted(params: &Payload) -> Payload {
    params.member("notifications").unwrap_or(Payload::literal("{}"))
}

pub(super) fn unknown_round() -> Payload {
    rpc_error(INVALID_PARAMS, "seawall: this requestState is unknown, used already or expired; make the request anew")
}

/// A client that listens; it is closed when this is dropped.
pub(super) struct Subscription {
    gate: Arc<dyn Gate>,
    session: Arc<Session>,
}

impl Subscription {
    /// With its first message; or the JSON-RPC error that is due.
    pub(super) async fn open(
        gate: &Arc<dyn Gate>,
        visitor: &Session,
        (id, params): (&Payload, Payload),
        mailbox: &Arc<Mailbox>,
    ) -> Result<(Self, Bytes), Payload> {
        let session = Arc::new(Session {
            back: Arc::new(SubscriptionWire { id: id.clone(), mailbox: mailbox.clone() }),
            ..Session::like(visitor)
        });
        let granted = gate.listen(&session, wanted(&params)).await?;
        Ok((Subscription { gate: gate.clone(), session }, acknowledged(id, granted).joined()))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.gate.close(&self.session);
    }
}

/// The way to a client that listens.
struct SubscriptionWire {
    id: Payload,
    mailbox: Arc<Mailbox>,
}

impl Wire for SubscriptionWire {
    fn tell(&self, method: Method, params: Option<Payload>) {
        let params = of_subscription(&self.id, params.as_ref()).on_one_line();
        self.mailbox.put(Mail::Message(Parts::notification(&method, Some(params)).joined()));
    }

    fn ask(&self, _: Method, _: Option<Payload>) -> BoxFuture<'_, Answer> {
        let why = "seawall: a subscription answers no questions";
        Box::pin(std::future::ready(Answer::Error(rpc_error(METHOD_NOT_FOUND, why))))
    }
}
