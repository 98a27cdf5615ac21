//! The first words with a server: which era it is of, and what it is.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::time::timeout;

use super::offer::message;
use crate::{
    call::{Answer, Edit, Method, Payload, Trail},
    era::{self, Era, LEGACY_VERSIONS, MODERN_VERSION},
    link::{Link, LinkError, StartError},
};

/// The longest that a server may take from its start to its answer.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// A legacy server may be silent to a question that it does not know.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// All that any client may answer.
const CAPABILITIES: &str =
    r#"{"roots":{"listChanged":true},"sampling":{"context":{},"tools":{}},"elicitation":{"form":{},"url":{}}}"#;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Initialize {
    protocol_version: &'static str,
    capabilities: Payload,
    client_info: ClientInfo,
}

#[derive(Serialize)]
struct ClientInfo {
    name: &'static str,
    title: &'static str,
    version: &'static str,
}

const SELF: ClientInfo = ClientInfo { name: "seawall", title: "seawall", version: env!("CARGO_PKG_VERSION") };

/// Greets a server in its era: `known` from an earlier start, else the modern one first,
/// as the spec advises. What it says of itself has the shape of an `initialize` result.
pub async fn greet(link: &dyn Link, known: Option<Era>) -> Result<(Era, Payload), GreetError> {
    if known != Some(Era::Legacy)
        && let Some(hello) = discover(link).await?
    {
        return Ok((Era::Modern, hello));
    }
    Ok((Era::Legacy, initialize(link).await?))
}

#[derive(Debug)]
pub struct GreetError {
    pub error: StartError,
    /// It broke at the modern question: next time it is asked the legacy one alone.
    pub at_probe: bool,
}

impl From<StartError> for GreetError {
    fn from(error: StartError) -> Self {
        GreetError { error, at_probe: false }
    }
}

/// Params of seawall's own for a request to a modern server.
pub(super) fn own_params(params: &Payload) -> Payload {
    era::with_request_meta(params, &Payload::of(&SELF), &Payload::literal(CAPABILITIES))
}

/// `None` for a server of the legacy era, whatever it answered.
async fn discover(link: &dyn Link) -> Result<Option<Payload>, GreetError> {
    let params = own_params(&Payload::literal("{}"));
    let ask = link.ask(Method::of("server/discover"), Some(params), Arc::new(Trail::new()));
    let found = match timeout(PROBE_TIMEOUT, ask).await {
        Ok(Ok(Answer::Result(found))) => found,
        Ok(Ok(Answer::Error(error))) if error.error_code() == Some(era::UNSUPPORTED_VERSION) => {
            let supported = error.member("data").and_then(|data| data.member("supported"));
            let versions: Vec<String> = supported.and_then(|list| list.read().ok()).unwrap_or_default();
            if versions.iter().any(|version| LEGACY_VERSIONS.contains(&version.as_str())) {
                return Ok(None);
            }
            return Err(StartError::Transient(unspoken(&versions.join(", "))).into());
        }
        // Silence, or an error of any other kind: the legacy question decides.
        Err(_) | Ok(Ok(Answer::Error(_)) | Err(LinkError::Http { sent: true, .. } | LinkError::Busy { .. })) => {
            return Ok(None);
        }
        Ok(Err(LinkError::Auth(reason))) => return Err(StartError::Permanent(reason).into()),
        Ok(Err(error @ (LinkError::NotSent(_) | LinkError::Http { .. }))) => {
            return Err(StartError::Transient(describe(&error)).into());
        }
        Ok(Err(error)) => return Err(GreetError { error: StartError::Transient(describe(&error)), at_probe: true }),
    };
    let versions: Vec<String> = found.member("supportedVersions").and_then(|list| list.read().ok()).unwrap_or_default();
    if versions.iter().any(|version| version == MODERN_VERSION) {
        return Ok(Some(as_hello(&found)));
    }
    Ok(None)
}

/// A `server/discover` result in the shape of an `initialize` result.
fn as_hello(found: &Payload) -> Payload {
    let meta = found.member("_meta").unwrap_or(Payload::literal("{}"));
    let info = meta.member(era::SERVER_INFO).unwrap_or(Payload::literal(r#"{"name":"unnamed","version":"0"}"#));
    let meta = meta.edit(&[(era::SERVER_INFO, Edit::Remove)]);
    let meta = if meta.as_str() == "{}" { Edit::Remove } else { Edit::Set(meta) };
    found.edit(&[
        ("protocolVersion", Edit::Set(Payload::of(MODERN_VERSION))),
        ("serverInfo", Edit::Set(info)),
        ("_meta", meta),
        ("supportedVersions", Edit::Remove),
        ("resultType", Edit::Remove),
        ("ttlMs", Edit::Remove),
        ("cacheScope", Edit::Remove),
    ])
}

/// The result of `initialize`, once the server may be called.
async fn initialize(link: &dyn Link) -> Result<Payload, StartError> {
    let params = Initialize {
        protocol_version: LEGACY_VERSIONS[0],
        // A question of the server goes to the client whose call caused it. Those that a
        // client has not declared are refused for it.
        capabilities: Payload::literal(CAPABILITIES),
        client_info: SELF,
    };
    let ask = link.ask(Method::of("initialize"), Some(Payload::of(&params)), Arc::new(Trail::new()));
    let hello = match timeout(TIMEOUT, ask).await {
        Ok(Ok(Answer::Result(hello))) => hello,
        Ok(Ok(Answer::Error(error))) => {
            return Err(StartError::Transient(format!("it refused to initialize: {}", message(&error))));
        }
        Ok(Err(LinkError::Auth(reason))) => return Err(StartError::Permanent(reason)),
        // It was gone before it could be greeted: it may still have said why.
        Ok(Err(error @ LinkError::NotSent(_))) => {
            let gone = link.gone().now_or_never().map(LinkError::Lost);
            return Err(StartError::Transient(describe(&gone.unwrap_or(error))));
        }
        Ok(Err(error)) => return Err(StartError::Transient(describe(&error))),
        Err(_) => {
            let waited = crate::text::duration(TIMEOUT);
            return Err(StartError::Transient(format!("it did not answer initialize within {waited}")));
        }
    };
    let version = hello.text("protocolVersion").unwrap_or_default();
    if !LEGACY_VERSIONS.contains(&version.as_str()) {
        return Err(StartError::Transient(unspoken(&version)));
    }
    link.tell(Method::of("notifications/initialized"), None)
        .map_err(|error| StartError::Transient(error.to_string()))?;
    Ok(hello)
}

fn unspoken(versions: &str) -> String {
    let versions = crate::text::quote(versions, 80);
    format!("it speaks protocol version {versions}; seawall speaks {MODERN_VERSION}, {}", LEGACY_VERSIONS.join(", "))
}

/// What went wrong, with the server's last words where there are any.
fn describe(error: &LinkError) -> String {
    match error {
        LinkError::Lost(gone) => match &gone.stderr_tail {
            Some(tail) => {
                let last_line = tail.lines().next_back().unwrap_or_default();
                format!(
                    "{} before it was ready; its last line was: {}",
                    gone.reason,
                    crate::text::quote(last_line, 200)
                )
            }
            None => format!("{} before it was ready", gone.reason),
        },
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discovery_reads_like_an_initialization() {
        let found = Payload::literal(
            r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"x":1e400,
               "_meta":{"io.modelcontextprotocol/serverInfo":{"name":"n","version":"1"}},"ttlMs":1,"cacheScope":"public"}"#,
        );
        assert_eq!(
            as_hello(&found).as_str(),
            r#"{"capabilities":{"tools":{}},"x":1e400,"protocolVersion":"2026-07-28","serverInfo":{"name":"n","version":"1"}}"#
        );
    }
}
