//! One call's end as a row of the store. Text of a server is cut here and kept as it
//! is: whoever shows a row makes it harmless.

use tokio::time::Instant;

use crate::{
    call::{Answer, Call, Payload, Reply},
    failure::{Class, Failure},
    id::{self, Id},
    store::FailureRow,
};

const MESSAGE_MAX_CHARS: usize = 500;
const NAME_MAX_CHARS: usize = 200;

/// The row of a server's own answer that was not a good one.
pub(super) fn of_reply(call: &Call, reply: &Reply) -> FailureRow {
    let said = match &reply.answer {
        Answer::Result(result) => first_text(result).unwrap_or_else(|| "isError: true, without a text".to_owned()),
        Answer::Error(error) => described(error),
    };
    of(call, Id::now(), reply.class, &said)
}

/// The row of a failure; its arguments are the record layer's to add.
pub(in crate::layer) fn of_failure(call: &Call, failure: &Failure) -> FailureRow {
    let message = match &failure.error {
        Some(error) => format!("{} ({})", failure.message, described(error)),
        None => failure.message.clone(),
    };
    FailureRow {
        exit_status: failure.exit_status.clone(),
        stderr_tail: failure.stderr_tail.clone(),
        ..of(call, failure.id, failure.class, &message)
    }
}

fn of(call: &Call, id: Id, class: Class, message: &str) -> FailureRow {
    let session = &call.caller.session;
    let took = Instant::now().saturating_duration_since(call.trail.began());
    FailureRow {
        id,
        timestamp_ms: id::unix_ms(),
        server: call.server.clone(),
        tool: cut(call.tool.as_deref().unwrap_or(call.method.as_str()), NAME_MAX_CHARS),
        class,
        message: cut(message, MESSAGE_MAX_CHARS),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        client: cut(&session.client, NAME_MAX_CHARS),
        protocol: cut(&session.protocol, NAME_MAX_CHARS),
        request_id: cut(call.caller.request_id.as_str(), NAME_MAX_CHARS),
        instance: call.trail.instance(),
        arguments: None,
        exit_status: None,
        stderr_tail: None,
    }
}

/// The text of the first text content of a tool's result.
fn first_text(result: &Payload) -> Option<String> {
    let content = result.items("content")?;
    let first = content.iter().find(|item| item.text("type").as_deref() == Some("text"))?;
    first.text("text")
}

/// A JSON-RPC error in one line: `-32602: no such file`.
fn described(error: &Payload) -> String {
    let message = error.text("message").unwrap_or_default();
    match error.error_code() {
        Some(code) => format!("{code}: {message}"),
        None => message,
    }
}

fn cut(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn said(answer: Answer) -> String {
        let class = Class::of_answer(&answer);
        of_reply(&testing::call("files", "read"), &Reply { answer, class }).message
    }

    #[test]
    fn a_tool_error_is_told_by_its_first_text() {
        let result =
            r#"{"content":[{"type":"image","data":"x"},{"type":"text","text":"no such file"}],"isError":true}"#;
        assert_eq!(said(Answer::Result(Payload::literal(result))), "no such file");
        let bare = Payload::literal(r#"{"content":[],"isError":true}"#);
        assert_eq!(said(Answer::Result(bare)), "isError: true, without a text");
    }

    #[test]
    fn a_rejection_is_told_by_code_and_message_and_long_ones_are_cut() {
        let error = Payload::literal(r#"{"code":-32602,"message":"path is missing"}"#);
        assert_eq!(said(Answer::Error(error)), "-32602: path is missing");
        let long = format!(r#"{{"code":-32602,"message":"{}"}}"#, "ä".repeat(10_000));
        let message = said(Answer::Error(Payload::from_json(long).expect("JSON")));
        assert_eq!(message.chars().count(), MESSAGE_MAX_CHARS + 1);
    }

    #[test]
    fn a_servers_own_error_is_part_of_the_message() {
        let error = Payload::literal(r#"{"code":-32603,"message":"disk gone","data":1e400}"#);
        let failure = Failure::new(Class::ServerError, "it answered an error").error(error);
        let row = of_failure(&testing::call("files", "read"), &failure);
        assert_eq!(row.message, "it answered an error (-32603: disk gone)");
        assert_eq!((row.id, row.tool.as_str(), row.client.as_str()), (failure.id, "read", "test 1.0"));
    }
}
