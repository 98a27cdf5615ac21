//! What a server replies to a POST: whether it took the message, and the answer, by itself
//! or on a stream with more beside it.

use std::{sync::Arc, time::Duration};

use reqwest::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};

use super::{MCP_SESSION_ID, UrlLink, events::Events};
use crate::{
    call::{Answer, Message, Trail},
    link::{Answerer, Gone, LinkError},
    wire::{
        batch,
        envelope::{Envelope, Parts},
    },
};

impl UrlLink {
    /// Whether a message was taken, and what it means if not.
    pub(super) async fn taken(&self, response: Response) -> Result<Response, LinkError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let reason = format!("it answered HTTP {status}");
                Err(LinkError::Auth(reason))
            }
            StatusCode::TOO_MANY_REQUESTS => Err(LinkError::Busy { retry_after: retry_after(response.headers()) }),
            StatusCode::NOT_FOUND if self.agreed().contains_key(&MCP_SESSION_ID) => {
                self.end("it has forgotten the session (HTTP 404)");
                Err(LinkError::NotSent("it has forgotten the session (HTTP 404)".to_owned()))
            }
            // A JSON-RPC error may come with 4xx: it is the server's answer.
            _ if status.is_client_error() && is_json(&response) => Ok(response),
            _ => Err(LinkError::Http { reason: format!("it answered HTTP {status}"), sent: true }),
        }
    }

    pub(super) async fn read_answer(
        &self,
        response: Response,
        id: u64,
        trail: &Arc<Trail>,
    ) -> Result<Answer, LinkError> {
        let status = response.status();
        let is_stream = kind(&response).eq_ignore_ascii_case("text/event-stream");
        if !is_stream && !is_json(&response) {
            let kind = crate::text::quote(kind(&response), 60);
            return Err(LinkError::Protocol(format!("its answer (HTTP {status}) was of type \"{kind}\"")));
        }
        let mut messages = Events::new(response, is_stream, self.0.max_message_bytes);
        loop {
            let broken = match messages.next().await {
                Ok(Some(text)) => {
                    if let Some(answer) = self.sort(&text, id, trail)? {
                        return Ok(answer);
                    }
                    continue;
                }
                Ok(None) => LinkError::Lost(Gone::because("its reply ended before the answer came")),
                Err(error) => error,
            };
            messages = self.resume(messages, broken).await?;
        }
    }

    /// The answer to `id`, if it is in this text; messages beside it go up.
    pub(super) fn sort(&self, text: &bytes::Bytes, id: u64, trail: &Arc<Trail>) -> Result<Option<Answer>, LinkError> {
        let messages = batch::messages(text);
        let messages = messages.map_err(|malformed| LinkError::Protocol(format!("its answer was {malformed}")))?;
        let mut found = None;
        for message in messages {
            match message {
                // A refused request may be answered without its id.
                Envelope::Response { id: answered, answer } => {
                    let is_refusal = answered.as_str() == "null" && matches!(answer, Answer::Error(_));
                    if answered.as_str().parse() == Ok(id) || is_refusal {
                        found = found.or(Some(answer));
                    }
                }
                Envelope::Message(message) => self.hand_up(message, Some(trail)),
            }
        }
        Ok(found)
    }

    /// What comes on the stream of a call belongs to it.
    pub(super) fn hand_up(&self, message: Message, of: Option<&Arc<Trail>>) {
        let answerer = match &message {
            Message::Notification { .. } => None,
            Message::Request { id, .. } => {
                let (link, id) = (self.clone(), id.clone());
                Some(Answerer::new(move |answer| link.aside(Parts::response(&id, answer))))
            }
        };
        match of {
            Some(call) => self.0.inbox.on_stream_of(call, message, answerer),
            None => self.0.inbox.on(message, answerer),
        }
    }
}

pub(super) fn kind(response: &Response) -> &str {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

fn is_json(response: &Response) -> bool {
    kind(response).eq_ignore_ascii_case("application/json")
}

/// Nobody should be sent away for longer, whatever a server says.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Seconds; the form that is a date is rare and not worth a parser.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// An error with its causes: reqwest's own text is only the outermost, and names the
/// URL, which may hold a secret.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    let mut innermost = None;
    while let Some(next) = cause {
        innermost = Some(next.to_string());
        cause = next.source();
    }
    innermost.unwrap_or_else(|| "no further reason was given".to_owned())
}
