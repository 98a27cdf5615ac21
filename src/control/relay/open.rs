//! One request of the client that no gateway has answered yet.

use bytes::Bytes;

use crate::{
    call::{Answer, Method, Payload},
    failure::Failure,
    respond,
    wire::envelope::Parts,
};

/// A request of the client, with the one thing of its params that is needed later.
pub(super) enum Open {
    Initialize(Handshake),
    Call(Option<String>),
    LogLevel(Option<Payload>),
    Subscribe(Option<Payload>),
    Unsubscribe(Option<Payload>),
    Other(Method),
}

/// The handshake that the client has begun.
pub(super) struct Handshake {
    id: Payload,
    pub(super) params: Option<Payload>,
    /// Some clients do not wait for its answer.
    pub(super) is_initialized: bool,
}

impl Handshake {
    /// As the client said it.
    pub(super) fn lines(self) -> impl Iterator<Item = Bytes> {
        let hello = Parts::asking(self.id.as_bytes(), &Method::of("initialize"), self.params).joined();
        let initialized = Parts::notification(&Method::of("notifications/initialized"), None).joined();
        [hello].into_iter().chain(self.is_initialized.then_some(initialized))
    }
}

impl Open {
    pub(super) fn of(id: &Payload, method: Method, params: Option<Payload>) -> Self {
        let member = |key| params.as_ref().and_then(|params| params.member(key)).map(|value| value.apart());
        match method.as_str() {
            Method::TOOLS_CALL => Open::Call(params.and_then(|params| params.text("name"))),
            "initialize" => Open::Initialize(Handshake {
                id: id.apart(),
                params: params.as_ref().map(Payload::apart),
                is_initialized: false,
            }),
            "logging/setLevel" => Open::LogLevel(member("level")),
            "resources/subscribe" => Open::Subscribe(member("uri")),
            "resources/unsubscribe" => Open::Unsubscribe(member("uri")),
            _ => Open::Other(method),
        }
    }

    pub(super) fn failed(&self, failure: &Failure) -> Answer {
        let method = match self {
            Open::Call(tool) => return respond::without_gateway(tool.as_deref(), "tools/call", failure),
            Open::Initialize(_) => "initialize",
            Open::LogLevel(_) => "logging/setLevel",
            Open::Subscribe(_) => "resources/subscribe",
            Open::Unsubscribe(_) => "resources/unsubscribe",
            Open::Other(method) => method.as_str(),
        };
        respond::without_gateway(None, method, failure)
    }
}
