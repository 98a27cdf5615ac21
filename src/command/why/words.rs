//! What each class of failure means to someone who has to act on it.

use crate::{failure::Class, store::FailureRecord, text};

/// What the class means.
pub(super) fn meaning(class: Class) -> &'static str {
    match class {
        Class::Ok => "The call went well.",
        Class::ToolError => {
            "The server answered that the tool failed (isError). That is the tool's own word; the server itself is healthy."
        }
        Class::Rejected => {
            "The server refused the request as a wrong one: unknown to it, or with arguments it does not accept. The \
             server is healthy."
        }
        Class::ServerError => "The server answered with an error of its own in place of a result.",
        Class::Panic => "The code of this built-in server crashed in this call. seawall caught it and went on.",
        Class::Timeout => {
            "The server gave no sign of life for longer than its timeout, or took longer than its max_duration. \
             seawall gave up and told the server to cancel."
        }
        Class::Protocol => {
            "The server sent something that is no valid answer: broken JSON, a line too long, or a stream of garbage. \
             Its connection was replaced."
        }
        Class::Http => "The server, or something on the way to it, could not be reached over HTTP.",
        Class::HttpBusy => "The server answered HTTP 429: too many requests for it at the moment.",
        Class::Auth => {
            "The server answered HTTP 401 or 403. seawall parked it: repeating the same credentials helps nobody."
        }
        Class::Lost => "The server died, or its connection broke, while this call was under way.",
        Class::Unavailable => {
            "The server was not ready: still starting, waiting before its next start, or parked. Nothing was sent to it."
        }
        Class::BreakerOpen => {
            "The tool had failed several times in a row, so seawall paused it for a while and refused the call."
        }
        Class::RateLimited => "The tool was called more often than its rate limit allows, so seawall refused the call.",
        Class::Overloaded => {
            "As many calls as `concurrency` allows were under way already, so seawall refused this one."
        }
        Class::Draining => "seawall was shutting down and took no new calls.",
        Class::Cancelled => "The client gave up on the call.",
        Class::Internal => "seawall itself failed in this call. That is a bug of seawall, not of the server.",
    }
}

/// What the client got in place of the answer.
pub(super) fn told(class: Class) -> &'static str {
    match class {
        Class::Ok | Class::ToolError | Class::Rejected => "The server's own answer, untouched.",
        Class::Cancelled => "Nothing: it was no longer waiting.",
        Class::ServerError => {
            "An error that says what happened and what to do, with the server's own error unchanged in its \
             `_meta[\"seawall/failure\"]`."
        }
        Class::BreakerOpen
        | Class::RateLimited
        | Class::Overloaded
        | Class::Draining
        | Class::Unavailable
        | Class::HttpBusy => {
            "An error that says what happened and when to try again (`retryAfterMs` in its `_meta[\"seawall/failure\"]`)."
        }
        Class::Panic | Class::Timeout | Class::Protocol | Class::Http | Class::Auth | Class::Lost | Class::Internal => {
            "An error that says what happened and what to do, with this id in its `_meta[\"seawall/failure\"]`."
        }
    }
}

/// Whether the call may have taken effect.
pub(super) fn effect(class: Class, was_sent: bool) -> &'static str {
    match class {
        Class::Unavailable | Class::BreakerOpen | Class::RateLimited | Class::Overloaded | Class::Draining => {
            "No. Nothing was sent to the server."
        }
        Class::Rejected | Class::Auth | Class::HttpBusy => "Hardly: the server refused it.",
        Class::ToolError | Class::ServerError => {
            "In part, perhaps: the server said that it failed, not how far it had come."
        }
        Class::Ok => "Yes.",
        _ if !was_sent => "No. It had not been handed to the server when it ended.",
        _ => "Perhaps. The server had it and may have done all of it, a part, or nothing. Look before you repeat it.",
    }
}

/// What to do, a paragraph each.
pub(super) fn advice(class: Class, row: &FailureRecord) -> Vec<String> {
    let server = text::quote(&row.server, 40);
    let tool = text::quote(&row.tool, 100);
    let more = format!("`seawall failures --server {server} --class {}` shows whether this is a habit.", class.name());
    let here = format!("in servers.toml under {}", table(&row.server, &row.tool));
    let first = match class {
        Class::ToolError => "Read the message: it is the tool's own. Nothing in seawall needs mending.".to_owned(),
        Class::Rejected => {
            format!("Compare the arguments with what the tool declares: `seawall tools {server}`.")
        }
        Class::ServerError => "Read the message: it is the server's own.".to_owned(),
        Class::Panic | Class::Internal => {
            "Please report it, with the message above and the gateway's log of that moment.".to_owned()
        }
        Class::Timeout => format!(
            "If {tool} is merely slow, give it more time: `timeout = \"120s\"` {here}. If the server hangs, \
             `seawall restart {server}`."
        ),
        Class::Protocol => "Whatever the server means to log belongs on its stderr. `seawall status` shows what it \
                            last wrote to stdout; ask its maker, or try an older version of it."
            .to_owned(),
        Class::Http => format!("See whether its url answers, and whether `url` {} is right.", section_of(&server)),
        Class::HttpBusy => format!("Slow down: `rate_limit = {{ per_minute = 60, burst = 10 }}` {here}."),
        Class::Auth => {
            format!("Correct `headers` {}: saving the file is enough, seawall reads it again.", section_of(&server))
        }
        Class::Lost => "seawall starts it again by itself. If it keeps dying, read its last words and exit status \
                        above (signal 9 is often a lack of memory), or run its `command` by hand."
            .to_owned(),
        Class::Unavailable => format!("`seawall status` says in which state {server} is and why."),
        Class::BreakerOpen => format!(
            "Calls pass again by themselves once a probe succeeds; `seawall breaker reset {server}__{tool}` does it now. What \
             broke it: `seawall failures --server {server} --tool {tool}`."
        ),
        Class::RateLimited => format!("If the client means it, raise `rate_limit` {here}; if it loops, stop it."),
        Class::Overloaded => format!("If the server can take more at once, raise `concurrency` {here}."),
        Class::Draining | Class::Cancelled | Class::Ok => return vec!["Nothing.".to_owned()],
    };
    vec![first, more]
}

fn section_of(server: &str) -> String {
    format!("in servers.toml under [servers.{server}]")
}

/// The table of a tool's settings; of its server's where the row names a method.
fn table(server: &str, tool: &str) -> String {
    let server = text::quote(server, 40);
    let is_bare = !tool.is_empty() && tool.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    match is_bare {
        true => format!("[servers.{server}.tools.{tool}]"),
        false if tool.contains('/') => format!("[servers.{server}]"),
        false => format!("[servers.{server}.tools.\"{}\"]", text::quote(tool, 100)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_where_the_tool_is() {
        assert_eq!(table("files", "read_file"), "[servers.files.tools.read_file]");
        assert_eq!(table("files", "read file"), "[servers.files.tools.\"read file\"]");
        assert_eq!(table("files", "resources/read"), "[servers.files]");
    }
}
