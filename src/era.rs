//! The two eras of MCP: versions that begin with `initialize` (up to 2025-11-25), and
//! versions whose every request says who asks (2026-07-28 and later).
//!
//! Each hop speaks its own. What differs in the messages themselves is here; headers,
//! sessions and streams are the fronts' and the links' business.

use crate::call::{Edit, Payload};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// `initialize`, then a session: the spec calls these versions legacy.
    Legacy,
    /// Each request stands alone: the spec calls these versions modern.
    Modern,
}

pub const MODERN_VERSION: &str = "2026-07-28";
/// Newest first.
pub const LEGACY_VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

pub const HEADER_MISMATCH: i64 = -32020;
pub const MISSING_CLIENT_CAPABILITY: i64 = -32021;
pub const UNSUPPORTED_VERSION: i64 = -32022;
/// Of the legacy era; the modern one says -32602.
pub const RESOURCE_NOT_FOUND: i64 = -32002;

/// The keys of `_meta` by which a modern request says who asks.
const REQUEST_KEYS: [&str; 4] = [PROTOCOL_VERSION, CLIENT_INFO, CLIENT_CAPABILITIES, LOG_LEVEL];

/// Whether these params are of a modern request. Never told by the method.
pub fn is_modern(params: Option<&Payload>) -> bool {
    let Some(params) = params else { return false };
    // A cheap look first: legacy params hardly ever hold the prefix.
    memchr::memmem::find(params.as_bytes(), b"io.modelcontextprotocol/").is_some()
        && params.member("_meta").is_some_and(|meta| {
            [PROTOCOL_VERSION, CLIENT_INFO, CLIENT_CAPABILITIES].iter().any(|key| meta.member(key).is_some())
        })
}

/// The params without what only the modern era knows.
pub fn without_request_meta(params: &Payload) -> Payload {
    let Some(meta) = params.member("_meta") else { return params.clone() };
    let meta = meta.edit(&REQUEST_KEYS.map(|key| (key, Edit::Remove)));
    let meta = if meta.as_str() == "{}" { Edit::Remove } else { Edit::Set(meta) };
    params.edit(&[("_meta", meta), ("inputResponses", Edit::Remove), ("requestState", Edit::Remove)])
}

/// The params as a modern server wants them; what the client's own `_meta` says stays.
pub fn with_request_meta(params: &Payload, client_info: &Payload, capabilities: &Payload) -> Payload {
    let meta = params.member("_meta").unwrap_or(Payload::literal("{}"));
    let mut edits = vec![(PROTOCOL_VERSION, Edit::Set(Payload::of(MODERN_VERSION)))];
    for (key, value) in [(CLIENT_INFO, client_info), (CLIENT_CAPABILITIES, capabilities)] {
        if meta.member(key).is_none() {
            edits.push((key, Edit::Set(value.clone())));
        }
    }
    params.edit(&[("_meta", Edit::Set(meta.edit(&edits)))])
}

/// The params of a modern request whose client wants to hear log messages of `level` and above.
pub fn with_log_level(params: &Payload, level: &str) -> Payload {
    let meta = params.member("_meta").unwrap_or(Payload::literal("{}"));
    let meta = meta.edit(&[(LOG_LEVEL, Edit::Set(Payload::of(level)))]);
    params.edit(&[("_meta", Edit::Set(meta))])
}

/// Whether a result asks for input instead of being one.
pub fn is_input_required(result: &Payload) -> bool {
    memchr::memmem::find(result.as_bytes(), b"input_required").is_some()
        && result.text("resultType").as_deref() == Some("input_required")
}

/// A result as the modern era wants it: with a type, and with caching hints where they
/// are due. What the server says itself stays.
pub fn completed(method: &str, result: &Payload) -> Payload {
    let kind = if memchr::memmem::find(result.as_bytes(), b"\"resultType\"").is_some() {
        result.text("resultType")
    } else {
        None
    };
    let cacheable = is_cacheable(method) && kind.as_deref().is_none_or(|kind| kind == "complete");
    let missing = |key: &str| result.member(key).is_none();
    let mut members = String::new();
    if kind.is_none() {
        members.push_str(r#""resultType":"complete","#);
    }
    // Nothing is known of how long it stays true, or for whom.
    if cacheable && missing("ttlMs") {
        members.push_str(r#""ttlMs":0,"#);
    }
    if cacheable && missing("cacheScope") {
        members.push_str(r#""cacheScope":"private","#);
    }
    result.with_leading_members(&members)
}

/// The reverse: a modern server's result without what only the modern era knows.
pub fn as_legacy(method: &str, result: &Payload) -> Payload {
    let mut edits = Vec::new();
    if memchr::memmem::find(result.as_bytes(), b"\"resultType\"").is_some()
        && result.text("resultType").as_deref() == Some("complete")
    {
        edits.push(("resultType", Edit::Remove));
    }
    if is_cacheable(method) {
        edits.extend([("ttlMs", Edit::Remove), ("cacheScope", Edit::Remove)]);
    }
    if memchr::memmem::find(result.as_bytes(), SERVER_INFO.as_bytes()).is_some()
        && let Some(meta) = result.member("_meta")
    {
        let meta = meta.edit(&[(SERVER_INFO, Edit::Remove)]);
        edits.push(("_meta", if meta.as_str() == "{}" { Edit::Remove } else { Edit::Set(meta) }));
    }
    if edits.is_empty() { result.clone() } else { result.edit(&edits) }
}

fn is_cacheable(method: &str) -> bool {
    matches!(
        method,
        "server/discover"
            | "tools/list"
            | "prompts/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(json: &str) -> Payload {
        Payload::from_json(json.to_owned()).expect("JSON")
    }

    #[test]
    fn a_request_is_modern_by_its_meta_alone() {
        let modern = payload(r#"{"_meta":{"io.modelcontextprotocol/clientCapabilities":{}}}"#);
        assert!(is_modern(Some(&modern)));
        assert!(!is_modern(None));
        assert!(!is_modern(Some(&payload(
            r#"{"text":"io.modelcontextprotocol/clientInfo","_meta":{"progressToken":1}}"#
        ))));
    }

    #[test]
    fn request_meta_comes_and_goes_without_touching_the_rest() {
        let plain = payload(r#"{"name":"a","arguments":{"n":1e400},"_meta":{"traceparent":"x"}}"#);
        let modern = with_request_meta(&plain, &payload(r#"{"name":"c"}"#), &payload("{}"));
        assert!(is_modern(Some(&modern)));
        assert_eq!(without_request_meta(&modern), plain);
        let bare = payload(r#"{"name":"a"}"#);
        assert_eq!(without_request_meta(&with_request_meta(&bare, &payload("{}"), &payload("{}"))), bare);
    }

    #[test]
    fn a_modern_result_and_its_legacy_form_say_the_same() {
        let modern = payload(
            r#"{"resultType":"complete","content":[1e400],"ttlMs":1,"_meta":{"io.modelcontextprotocol/serverInfo":{},"x":1}}"#,
        );
        assert_eq!(as_legacy("tools/call", &modern).as_str(), r#"{"content":[1e400],"ttlMs":1,"_meta":{"x":1}}"#);
        assert_eq!(as_legacy("resources/read", &modern).as_str(), r#"{"content":[1e400],"_meta":{"x":1}}"#);
        let plain = payload(r#"{ "content" : [] }"#);
        assert_eq!(as_legacy("tools/call", &plain), plain);
    }

    #[test]
    fn results_get_what_is_missing_and_keep_what_is_there() {
        assert_eq!(
            completed("tools/call", &payload(r#"{"content":[]}"#)).as_str(),
            r#"{"resultType":"complete","content":[]}"#
        );
        assert_eq!(completed("ping", &payload("{}")).as_str(), r#"{"resultType":"complete"}"#);
        assert_eq!(
            completed("tools/list", &payload(r#"{"tools":[],"ttlMs":5,"resultType":"complete"}"#)).as_str(),
            r#"{"cacheScope":"private","tools":[],"ttlMs":5,"resultType":"complete"}"#
        );
        let asking = payload(r#"{"resultType":"input_required","requestState":"s"}"#);
        assert_eq!(completed("resources/read", &asking), asking);
        assert!(is_input_required(&asking));
    }
}
