//! The first words with a server: which era it is of, and what it is.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

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
/// A legacy server may be silent to a question that it does not know: after so long it is
/// asked the legacy one as well.
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
    if known == Some(Era::Legacy) {
        return Ok((Era::Legacy, initialize(link).await?));
    }
    let mut discovery = pin!(discover(link));
    match timeout(PROBE_TIMEOUT, &mut discovery).await {
        Ok(found) => match found? {
            Some(hello) => Ok((Era::Modern, hello)),
            None => Ok((Era::Legacy, initialize(link).await?)),
        },
        Err(_) => greet_the_silent(link, discovery).await,
    }
}

/// It has said nothing yet: a legacy server may never, and a modern one may be slow to
/// start. So both questions are open now, and the first answer that says yes decides.
async fn greet_the_silent(
    link: &dyn Link,
    mut discovery: Pin<&mut impl Future<Output = Result<Option<Payload>, GreetError>>>,
) -> Result<(Era, Payload), GreetError> {
    let mut hello = pin!(initialize(link));
    tokio::select! {
        biased;
        found = &mut discovery => match found? {
            Some(hello) => Ok((Era::Modern, hello)),
            None => Ok((Era::Legacy, hello.await?)),
        },
        hello = &mut hello => match hello {
            Ok(hello) => Ok((Era::Legacy, hello)),
            Err(refusal) => match timeout(PROBE_TIMEOUT, discovery).await {
                Ok(Ok(Some(hello))) => Ok((Era::Modern, hello)),
                _ => Err(refusal.into()),
            },
        },
    }
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
    let found = match ask.await {
        Ok(Answer::Result(found)) => found,
        Ok(Answer::Error(error)) if error.error_code() == Some(era::UNSUPPORTED_VERSION) => {
            let supported = error.member("data").and_then(|data| data.member("supported"));
            let versions: Vec<String> = supported.and_then(|list| list.read().ok()).unwrap_or_default();
            if versions.iter().any(|version| LEGACY_VERSIONS.contains(&version.as_str())) {
                return Ok(None);
            }
            return Err(StartError::Transient(unspoken(&versions.join(", "))).into());
        }
        // An error of any other kind: the legacy question decides.
        Ok(Answer::Error(_)) | Err(LinkError::Http { sent: true, .. } | LinkError::Busy { .. }) => return Ok(None),
        Err(LinkError::Auth(reason)) => return Err(StartError::Permanent(reason).into()),
        Err(error @ (LinkError::NotSent(_) | LinkError::Http { .. })) => {
            return Err(StartError::Transient(describe(&error)).into());
        }
        Err(error) => return Err(GreetError { error: StartError::Transient(describe(&error)), at_probe: true }),
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
    use crate::{
        call::BoxFuture,
        link::{Gone, Vitals},
    };

    /// Answers each question after so long; what it is not asked in its era it refuses.
    struct Slow {
        answers_after: Duration,
        era: Era,
        /// Says nothing at all to what it does not know.
        is_mute: bool,
    }

    impl Link for Slow {
        fn ask(&self, method: Method, _: Option<Payload>, _: Arc<Trail>) -> BoxFuture<'_, Result<Answer, LinkError>> {
            let answer = match (self.era, method.as_str()) {
                (Era::Modern, "server/discover") => r#"{"supportedVersions":["2026-07-28"],"capabilities":{}}"#,
                (Era::Legacy, "initialize") => r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#,
                _ if self.is_mute => return Box::pin(std::future::pending()),
                _ => {
                    let refusal = Answer::Error(Payload::literal(r#"{"code":-32601,"message":"not that"}"#));
                    // Refusals come as the answers do, and a moment earlier.
                    let after = self.answers_after.saturating_sub(Duration::from_millis(1));
                    return Box::pin(async move {
                        tokio::time::sleep(after).await;
                        Ok(refusal)
                    });
                }
            };
            Box::pin(async move {
                tokio::time::sleep(self.answers_after).await;
                Ok(Answer::Result(Payload::literal(answer)))
            })
        }

        fn tell(&self, _: Method, _: Option<Payload>) -> Result<(), LinkError> {
            Ok(())
        }

        fn gone(&self) -> BoxFuture<'_, Gone> {
            Box::pin(std::future::pending())
        }

        fn close(&self, _: Duration) -> BoxFuture<'_, ()> {
            Box::pin(std::future::ready(()))
        }

        fn vitals(&self) -> Vitals {
            Vitals::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_of_either_era_may_be_slow_or_mute() {
        for era in [Era::Modern, Era::Legacy] {
            for is_mute in [false, true] {
                for seconds in [0, 2, 4, 20] {
                    let link = Slow { answers_after: Duration::from_secs(seconds), era, is_mute };
                    let greeted = greet(&link, None).await.map(|(era, _)| era);
                    assert_eq!(greeted.ok(), Some(era), "after {seconds} s, mute: {is_mute}");
                }
            }
        }
    }

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
