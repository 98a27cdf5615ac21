//! The JSON-RPC envelope: what is taken off a message and put around a payload.
//! The payload itself is never parsed further and never rewritten here.

use std::{borrow::Cow, fmt};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use crate::call::{Answer, Message, Method, Payload, is_key};

/// What is longer has no memory in common with its id, nor with a part that is less than half of it.
const SHARED_MAX_BYTES: usize = 4096;
/// Clients number their requests, or name them by a UUID. Ids are kept in many places, as
/// long as their calls.
const ID_MAX_BYTES: usize = 1024;

const LONG_ID: &str = "no JSON-RPC message: its id is longer than 1 KiB";

/// One message as it came.
#[derive(Debug)]
pub enum Envelope {
    Message(Message),
    Response { id: Payload, answer: Answer },
}

/// What is no JSON-RPC message. Its id, if it has one, says which call to fail.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Malformed {
    pub id: Option<Payload>,
    /// False if it is not even JSON, which asks for -32700 instead of -32600.
    pub is_json: bool,
    pub reason: String,
}

/// Members are looked at by presence: `"result": null` is a result. A duplicate of
/// any of them is an error, so that check and use never see different values.
#[derive(Default)]
struct Members<'a> {
    id: Option<&'a RawValue>,
    method: Option<Cow<'a, str>>,
    params: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::default();
                let mut method = None;
                // Keys as they are written: one that no string type can hold is none of ours.
                while let Some(key) = map.next_key::<&RawValue>()? {
                    let (place, name) = match () {
                        () if is_key(key, "id") => (&mut members.id, "id"),
                        () if is_key(key, "method") => (&mut method, "method"),
                        () if is_key(key, "params") => (&mut members.params, "params"),
                        () if is_key(key, "result") => (&mut members.result, "result"),
                        () if is_key(key, "error") => (&mut members.error, "error"),
                        () => {
                            map.next_value::<de::IgnoredAny>()?;
                            continue;
                        }
                    };
                    if place.replace(map.next_value()?).is_some() {
                        return Err(de::Error::duplicate_field(name));
                    }
                }
                members.method = method.map(name_of).transpose()?.flatten();
                Ok(members)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// `null` is no method.
fn name_of<E: de::Error>(method: &RawValue) -> Result<Option<Cow<'_, str>>, E> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
    let name: Result<Option<Name<'_>>, _> = serde_json::from_str(method.get());
    name.map(|name| name.map(|name| name.0)).map_err(|error| E::custom(format!("method: {error}")))
}

impl Envelope {
    /// Reads one message; an array is none, though serde would take it for the members in
    /// their order. Payloads share the memory of `text`.
    pub fn parse(text: &Bytes) -> Result<Self, Malformed> {
        if super::batch::is_batch(text) {
            return Err(Malformed::array(text));
        }
        let members: Members<'_> = serde_json::from_slice(text).map_err(|error| Malformed::explain(text, &error))?;
        // What is kept of a message must not keep a larger one in memory: ids outlive their
        // call, in what can be resumed, and params may be the least of it.
        let part = |value: &RawValue| match text.len() > SHARED_MAX_BYTES.max(2 * value.get().len()) {
            true => Payload::copy_of(value),
            false => Payload::part_of(text, value),
        };
        let id_part = |id: &RawValue| match text.len() > SHARED_MAX_BYTES {
            true => Payload::copy_of(id),
            false => part(id),
        };
        if members.id.is_some_and(|id| id.get().len() > ID_MAX_BYTES) {
            return Err(Malformed { id: None, is_json: true, reason: LONG_ID.to_owned() });
        }
        let malformed = |reason: &str| {
            Err(Malformed {
                id: members.id.map(id_part),
                is_json: true,
                reason: format!("no JSON-RPC message: {reason}"),
            })
        };
        match (members.method, members.id, members.result, members.error) {
            (Some(method), id, None, None) => {
                let method = Method::from(&*method);
                // JSON-RPC allows a params of null nowhere, but it means the same as none.
                let params = members.params.filter(|params| params.get() != "null").map(part);
                Ok(Envelope::Message(match id {
                    Some(id) if is_request_id(id) => Message::Request { id: id_part(id), method, params },
                    Some(_) => return malformed("id is neither a string nor a number"),
                    None => Message::Notification { method, params },
                }))
            }
            (None, Some(id), Some(result), None) => {
                Ok(Envelope::Response { id: id_part(id), answer: Answer::Result(part(result)) })
            }
            (None, Some(id), None, Some(error)) if error.get().starts_with('{') => {
                Ok(Envelope::Response { id: id_part(id), answer: Answer::Error(part(error)) })
            }
            (None, _, None, Some(_)) => malformed("its error is no object or has no id"),
            (None, _, None, None) => malformed("neither method, result nor error"),
            _ => malformed("more than one of method, result and error, or no id"),
        }
    }
}

fn is_request_id(id: &RawValue) -> bool {
    matches!(id.get().as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'))
}

impl Malformed {
    fn array(text: &Bytes) -> Self {
        let is_json = serde_json::from_slice::<&RawValue>(text).is_ok();
        if is_json { Malformed::batch() } else { Malformed { id: None, is_json, reason: "no JSON".to_owned() } }
    }

    /// A batch where there are none.
    pub fn batch() -> Self {
        let reason = "no JSON-RPC message: an array; messages come one by one, but for sessions of 2025-03-26";
        Malformed { id: None, is_json: true, reason: reason.to_owned() }
    }

    /// Finds out what is wrong with text that did not parse as an envelope.
    fn explain(text: &Bytes, error: &serde_json::Error) -> Self {
        let is_json = serde_json::from_slice::<&RawValue>(text).is_ok();
        let id = Payload::from_json(text.clone()).ok().and_then(|message| message.sole_member("id"));
        let id = id.filter(|id| id.len() <= ID_MAX_BYTES).map(|id| id.apart());
        Malformed {
            id,
            is_json,
            reason: if is_json { format!("no JSON-RPC message: {error}") } else { format!("no JSON: {error}") },
        }
    }
}

/// A message ready to leave: what goes before the payload, the payload, what goes
/// after. Large payloads are never copied into the envelope.
#[derive(Debug)]
pub struct Parts {
    pub head: BytesMut,
    pub body: Option<Payload>,
    pub tail: &'static [u8],
}

impl Parts {
    pub fn request(id: u64, method: &Method, params: Option<Payload>) -> Self {
        Parts::asking(id.to_string().as_bytes(), method, params)
    }

    /// `id` is JSON: a string or a number.
    pub fn asking(id: &[u8], method: &Method, params: Option<Payload>) -> Self {
        let mut head = BytesMut::with_capacity(96);
        put_start(&mut head);
        head.put_slice(b",\"id\":");
        head.put_slice(id);
        put_method(&mut head, method, params.is_some());
        Parts { head, body: params, tail: b"}" }
    }

    pub fn notification(method: &Method, params: Option<Payload>) -> Self {
        let mut head = BytesMut::with_capacity(96);
        put_start(&mut head);
        put_method(&mut head, method, params.is_some());
        Parts { head, body: params, tail: b"}" }
    }

    /// `id` is the text that the request came with.
    pub fn response(id: &Payload, answer: Answer) -> Self {
        let mut head = BytesMut::with_capacity(48 + id.len());
        put_start(&mut head);
        head.put_slice(b",\"id\":");
        head.put_slice(id.as_bytes());
        let (member, body): (&[u8], _) = match answer {
            Answer::Result(result) => (b",\"result\":", result),
            Answer::Error(error) => (b",\"error\":", error),
        };
        head.put_slice(member);
        Parts { head, body: Some(body), tail: b"}" }
    }

    /// An error that answers no id, because none could be read. MCP leaves the member
    /// out where plain JSON-RPC writes null.
    pub fn error_without_id(error: Payload) -> Self {
        let mut head = BytesMut::with_capacity(32);
        put_start(&mut head);
        head.put_slice(b",\"error\":");
        Parts { head, body: Some(error), tail: b"}" }
    }

    pub fn len(&self) -> usize {
        self.head.len() + self.body.as_ref().map_or(0, Payload::len) + self.tail.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One piece of memory.
    pub fn joined(mut self) -> Bytes {
        if let Some(body) = self.body {
            self.head.reserve(body.len() + self.tail.len());
            self.head.put_slice(body.as_bytes());
        }
        self.head.put_slice(self.tail);
        self.head.freeze()
    }
}

fn put_start(out: &mut BytesMut) {
    out.put_slice(b"{\"jsonrpc\":\"2.0\"");
}

fn put_method(out: &mut BytesMut, method: &Method, has_params: bool) {
    out.put_slice(b",\"method\":");
    out.put_slice(Payload::of(method.as_str()).as_bytes());
    if has_params {
        out.put_slice(b",\"params\":");
    }
}

/// A JSON-RPC error object of seawall's own.
pub fn rpc_error(code: i64, message: impl Into<Cow<'static, str>>) -> Payload {
    #[derive(serde::Serialize)]
    struct RpcError<'a> {
        code: i64,
        message: &'a str,
    }
    Payload::of(&RpcError { code, message: &message.into() })
}

pub const PARSE_ERROR: i64 = -32700;
pub const INVALID_REQUEST: i64 = -32600;
pub const METHOD_NOT_FOUND: i64 = -32601;
pub const INVALID_PARAMS: i64 = -32602;
/// Of those that JSON-RPC leaves to servers: there is too much under way.
pub const OVERLOADED: i64 = -32000;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Envelope, Malformed> {
        Envelope::parse(&Bytes::from(text.to_owned()))
    }

    #[test]
    fn a_request_keeps_its_id_and_params_as_text() {
        let Ok(Envelope::Message(Message::Request { id, method, params })) =
            parse(r#"{"jsonrpc":"2.0","id":1.50,"method":"tools\/call","params":{"n": 1e400}}"#)
        else {
            panic!("a request was due");
        };
        assert_eq!(id.as_str(), "1.50");
        assert_eq!(method.as_str(), "tools/call");
        assert_eq!(params.expect("params").as_str(), r#"{"n": 1e400}"#);
    }

    #[test]
    fn a_member_that_no_string_can_name_is_passed_over() {
        let parsed = parse(r#"{"jsonrpc":"2.0","\ud83d":1,"\u0069d":3,"result":{"\ud83d":2}}"#);
        let Ok(Envelope::Response { id, answer: Answer::Result(result) }) = parsed else {
            panic!("a response was due: {parsed:?}");
        };
        assert_eq!((id.as_str(), result.as_str()), ("3", r#"{"\ud83d":2}"#));
    }

    #[test]
    fn an_id_is_short_and_what_is_kept_of_a_large_message_is_small() {
        let id = "x".repeat(ID_MAX_BYTES - 2);
        assert!(parse(&format!(r#"{{"id":"{id}","method":"a"}}"#)).is_ok());
        for text in [r#"{"id":"_x","method":"a"}"#, r#"{"id":"_x","result":1}"#, r#"{"id":"_x","method":5}"#] {
            let malformed = parse(&text.replace('_', &id)).expect_err("too long");
            assert!(malformed.id.is_none() && malformed.is_json, "{}", malformed.reason);
        }
        let text =
            Bytes::from(format!(r#"{{"id":1,"method":"a","params":{{}},"x":"{}"}}"#, "x".repeat(SHARED_MAX_BYTES)));
        let Ok(Envelope::Message(Message::Request { params: Some(_params), id: _id, .. })) = Envelope::parse(&text)
        else {
            panic!("a request was due");
        };
        assert!(text.is_unique(), "neither of them keeps it");
    }

    #[test]
    fn an_array_is_no_message_whatever_is_in_it() {
        for text in [r#"[7,"ping"]"#, r#" [7,null,null,{}]"#, "[7]", "[]", "[1,2"] {
            let malformed = parse(text).expect_err(text);
            assert_eq!((malformed.id, malformed.is_json), (None, text.ends_with(']')), "{text}");
        }
    }

    #[test]
    fn null_is_a_result_and_odd_errors_pass() {
        assert!(matches!(
            parse(r#"{"id":"a","result":null}"#),
            Ok(Envelope::Response { answer: Answer::Result(r), .. }) if r.as_str() == "null"
        ));
        assert!(matches!(
            parse(r#"{"id":3,"error":{"code":99999999999}}"#),
            Ok(Envelope::Response { answer: Answer::Error(_), .. })
        ));
    }

    #[test]
    fn what_is_malformed_names_its_id() {
        for text in [
            r#"{"id":7,"result":1,"error":{}}"#,
            r#"{"id":7}"#,
            r#"{"id":7,"error":"text"}"#,
            r#"{"id":7,"method":5}"#,
            r#"{"id":7,"method":"a","method":"b"}"#,
        ] {
            let malformed = parse(text).expect_err(text);
            assert_eq!(malformed.id.expect(text).as_str(), "7", "{text}");
            assert!(malformed.is_json, "{text}");
        }
        assert!(parse(r#"{"id":1,"id":2,"method":"a"}"#).is_err(), "a duplicate id is refused");
        assert!(parse(r#"{"id":null,"method":"a"}"#).is_err(), "MCP forbids a null id");
        assert!(!parse("{").expect_err("half a message").is_json);
    }

    #[test]
    fn an_array_is_not_taken_for_the_members_in_their_order() {
        for array in [r#"[1,"ping"]"#, " [{\"id\":1}]", "[]"] {
            let malformed = parse(array).expect_err(array);
            assert!(malformed.id.is_none() && malformed.is_json, "{array}");
        }
        assert!(!parse("[1").expect_err("half an array").is_json);
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        let deep = format!(r#"{{"id":1,"result":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(&deep).is_ok());
    }

    #[test]
    fn parts_join_to_json() {
        let parts = Parts::request(7, &Method::of("tools/call"), Some(Payload::literal("{}")));
        let length = parts.len();
        let text = parts.joined();
        assert_eq!(&text[..], br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{}}"#);
        assert_eq!(text.len(), length);
        let text = Parts::response(&Payload::literal("\"x\""), Answer::Result(Payload::literal("1"))).joined();
        assert_eq!(&text[..], br#"{"jsonrpc":"2.0","id":"x","result":1}"#);
    }
}
