//! The first words with a server: `initialize`, and which versions both speak.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::time::timeout;

use super::offer::message;
use crate::{
    call::{Answer, Method, Payload, Trail},
    link::{Link, LinkError, StartError},
};

/// The versions that begin with `initialize`, newest first.
pub const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// The longest that a server may take from its start to its answer.
pub const TIMEOUT: Duration = Duration::from_secs(30);

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

/// The result of `initialize`, once the server may be called.
pub async fn initialize(link: &dyn Link) -> Result<Payload, StartError> {
    let params = Initialize {
        protocol_version: VERSIONS[0],
        // A question of the server goes to the client whose call caused it. Clients that
        // cannot answer it refuse it themselves.
        capabilities: Payload::literal(
            r#"{"roots":{"listChanged":true},"sampling":{"context":{},"tools":{}},"elicitation":{"form":{},"url":{}}}"#,
        ),
        client_info: ClientInfo { name: "seawall", title: "seawall", version: env!("CARGO_PKG_VERSION") },
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
    if !VERSIONS.contains(&version.as_str()) {
        let version = crate::text::quote(&version, 40);
        let reason = format!("it speaks protocol version \"{version}\", seawall speaks {}", VERSIONS.join(", "));
        return Err(StartError::Transient(reason));
    }
    link.tell(Method::of("notifications/initialized"), None)
        .map_err(|error| StartError::Transient(error.to_string()))?;
    Ok(hello)
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
