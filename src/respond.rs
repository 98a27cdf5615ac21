//! THE table from a failure to what the client receives: an `isError` result for
//! `tools/call`, a JSON-RPC error for everything else.
//!
//! An answer of the server never comes here: it leaves untouched. Text that came
//! from a server is quoted for at most 200 characters, with control and
//! bidirectional characters escaped.

use serde::Serialize;

use crate::{
    call::{Answer, Call, Method, Payload},
    failure::{Class, Failure, Recording},
    text,
};

/// The code of JSON-RPC errors of seawall's own: the server failed, not the request.
pub(crate) const SERVER_FAILED: i64 = -32000;
const INTERNAL_ERROR: i64 = -32603;
const QUOTE_MAX_CHARS: usize = 200;

/// What the client receives in place of the answer that never came.
pub fn answer(call: &Call, failure: &Failure) -> Answer {
    let text = sentence(call, failure);
    let facts = FailureMeta::of(failure);
    if call.is_tool_call() {
        return Answer::Result(is_error(&text, facts));
    }
    let code = match (failure.class, &failure.error) {
        // The server's own code means more to the client than ours.
        (Class::ServerError, Some(error)) => error.error_code().unwrap_or(SERVER_FAILED),
        (Class::Internal, _) => INTERNAL_ERROR,
        _ => SERVER_FAILED,
    };
    Answer::Error(Payload::of(&RpcError { code, message: &text, data: Meta { failure: facts } }))
}

/// The same where there is no gateway, and so no server's name that is certain, and no row.
pub fn without_gateway(tool: Option<&str>, method: &str, failure: &Failure) -> Answer {
    let facts = FailureMeta { id: None, ..FailureMeta::of(failure) };
    let what = match tool {
        Some(tool) => format!("tool \"{}\"", text::quote(tool, 100)),
        None => text::quote(method, 100),
    };
    let advice = match failure.class {
        Class::Lost if !failure.outcome_unknown => "ask again".to_owned(),
        _ => advice(failure),
    };
    let text = format!("seawall: {what} {}: {}; {advice}", happened(failure.class), failure.message);
    match method {
        Method::TOOLS_CALL => Answer::Result(is_error(&text, facts)),
        _ => {
            Answer::Error(Payload::of(&RpcError { code: SERVER_FAILED, message: &text, data: Meta { failure: facts } }))
        }
    }
}

fn is_error(text: &str, facts: FailureMeta<'_>) -> Payload {
    let content = [Text { r#type: "text", text }];
    Payload::of(&IsError { content, is_error: true, meta: Meta { failure: facts } })
}

// Structs, never `json!`: a `Value` refuses numbers that a payload may hold.
#[derive(Serialize)]
struct IsError<'a> {
    content: [Text<'a>; 1],
    #[serde(rename = "isError")]
    is_error: bool,
    #[serde(rename = "_meta")]
    meta: Meta<'a>,
}

#[derive(Serialize)]
struct Text<'a> {
    r#type: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct RpcError<'a> {
    code: i64,
    message: &'a str,
    data: Meta<'a>,
}

#[derive(Serialize)]
struct Meta<'a> {
    #[serde(rename = "seawall/failure")]
    failure: FailureMeta<'a>,
}

/// What `_meta["seawall/failure"]` carries.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailureMeta<'a> {
    class: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u128>,
    outcome_unknown: bool,
    /// The row in SQLite; refusals that are only counted have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Payload>,
}

impl<'a> FailureMeta<'a> {
    fn of(failure: &'a Failure) -> Self {
        FailureMeta {
            class: failure.class.name(),
            retry_after_ms: failure.retry_after.map(|wait| wait.as_millis()),
            outcome_unknown: failure.outcome_unknown,
            id: (failure.class.recording() == Recording::Row).then(|| failure.id.as_str()),
            error: failure.error.as_ref(),
        }
    }
}

/// One sentence: what happened, to which tool of which server, and what to do.
fn sentence(call: &Call, failure: &Failure) -> String {
    let what = match &call.tool {
        Some(tool) => format!("tool \"{}\" of server \"{}\"", text::quote(tool, 100), call.server),
        None => format!("{} of server \"{}\"", text::quote(call.method.as_str(), 100), call.server),
    };
    let cause = text::quote(&failure.message, 2 * QUOTE_MAX_CHARS);
    let quoted = match (&failure.error, failure.class) {
        (Some(error), Class::ServerError) => {
            let message = error.text("message").unwrap_or_default();
            format!(" (\"{}\")", text::quote(&message, QUOTE_MAX_CHARS))
        }
        _ => String::new(),
    };
    format!("seawall: {what} {}: {cause}{quoted}; {}", happened(failure.class), advice(failure))
}

fn happened(class: Class) -> &'static str {
    match class {
        Class::ServerError => "failed",
        Class::Panic => "crashed",
        Class::Timeout => "timed out",
        Class::Protocol => "broke the protocol",
        Class::Http => "could not be reached",
        Class::HttpBusy => "is busy",
        Class::Auth => "refused seawall's credentials",
        Class::Lost => "was lost in mid-call",
        Class::Unavailable => "is not available",
        Class::BreakerOpen => "is paused after repeated failures",
        Class::RateLimited => "was called too often",
        Class::Overloaded => "is busy with other calls",
        Class::Draining => "cannot be called now",
        Class::Cancelled => "was cancelled",
        Class::Internal => "could not be called",
        Class::Ok | Class::ToolError | Class::Rejected => "answered",
    }
}

fn advice(failure: &Failure) -> String {
    if let Some(wait) = failure.retry_after {
        return format!("nothing was done, retry in {}", text::duration(wait));
    }
    match failure.class {
        _ if failure.outcome_unknown => "it may have taken effect: check before you repeat it".to_owned(),
        Class::Auth => "the user must correct its credentials in servers.toml".to_owned(),
        Class::Internal => format!("this is a bug of seawall, see `seawall why {}`", failure.id),
        Class::Unavailable => "nothing was done; `seawall status` shows its state".to_owned(),
        Class::Draining => "nothing was done, retry once the gateway is back".to_owned(),
        Class::Cancelled => "nothing is owed".to_owned(),
        _ => format!("see `seawall why {}`", failure.id),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing;

    fn rendered(call: &Call, failure: &Failure) -> serde_json::Value {
        match answer(call, failure) {
            Answer::Result(json) | Answer::Error(json) => json.read().expect("JSON"),
        }
    }

    #[test]
    fn a_tool_call_gets_is_error_with_the_facts() {
        let failure = Failure::new(Class::BreakerOpen, "5 failures in a row").retry_after(Duration::from_secs(42));
        let result = rendered(&testing::call("files", "read"), &failure);
        assert_eq!(result["isError"], true);
        let text = result["content"][0]["text"].as_str().expect("text");
        assert_eq!(
            text,
            "seawall: tool \"read\" of server \"files\" is paused after repeated failures: 5 failures in a row; \
             nothing was done, retry in 42 s"
        );
        let facts = &result["_meta"]["seawall/failure"];
        assert_eq!(facts["class"], "breaker_open");
        assert_eq!(facts["retryAfterMs"], 42_000);
        assert_eq!(facts["outcomeUnknown"], false);
        assert!(facts.get("id").is_none(), "a refusal has no row");
    }

    #[test]
    fn other_requests_get_a_json_rpc_error_with_the_servers_own_code() {
        let mut call = testing::call("files", "read");
        call.tool = None;
        call.method = Method::of("resources/read");
        let own = Payload::literal(r#"{"code":-32099,"message":"disk \u001b[31mgone","data":{"n":1e400}}"#);
        let Answer::Error(json) = answer(&call, &Failure::new(Class::ServerError, "it answered an error").error(own))
        else {
            panic!("a JSON-RPC error was due");
        };
        assert!(
            json.as_str().contains(r#""error":{"code":-32099,"message":"disk \u001b[31mgone","data":{"n":1e400}}"#)
        );
        assert_eq!(json.error_code(), Some(-32099));
        assert!(!json.text("message").expect("message").contains('\u{1b}'));
    }
}
