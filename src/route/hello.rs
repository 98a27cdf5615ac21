//! `initialize`: what a client is told about what it has connected to.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::timeout;

use super::{Inner, Instructions};
use crate::{
    call::{Edit, Payload, ServerName},
    era::{Era, LEGACY_VERSIONS, MODERN_VERSION, SERVER_INFO},
    session::{Hello, LogLevel, Scope, Session},
    text,
    upstream::Upstream,
    wire::envelope::{INVALID_PARAMS, rpc_error},
};

/// `/mcp/NAME` waits so long for its server's first handshake.
const FIRST_HANDSHAKE_WAIT: Duration = Duration::from_secs(30);
/// Of each server's instructions.
const INSTRUCTIONS_MAX_BYTES: usize = 2048;
const SERVER_NOT_READY: i64 = -32000;

const OWN_INSTRUCTIONS: &str = "seawall is a gateway to several MCP servers: each tool is named SERVER__tool. \
An isError result that begins with \"seawall:\" is the gateway's own and says what happened and when to retry.";

pub(super) async fn open(router: Arc<Inner>, hello: Hello) -> Result<(Arc<Session>, Payload), Payload> {
    let asked = hello.params.text("protocolVersion").unwrap_or_default();
    let version = LEGACY_VERSIONS.into_iter().find(|known| *known == asked).unwrap_or(LEGACY_VERSIONS[0]);
    let result = match &hello.scope {
        Scope::All => router.about_all(version),
        Scope::One(server) => router.about_one(server, version).await?,
    };
    let said = |key| hello.params.member(key).unwrap_or(Payload::literal("{}"));
    let (capabilities, client_info) = (said("capabilities"), said("clientInfo"));
    Session::check(&capabilities, &client_info).map_err(|why| rpc_error(INVALID_PARAMS, why))?;
    let session = Arc::new(Session {
        number: Session::next_number(),
        era: Era::Legacy,
        scope: hello.scope,
        client: Session::client_name(&client_info).into(),
        protocol: version.into(),
        // The message that they came in is not kept with them.
        capabilities: capabilities.apart(),
        client_info: client_info.apart(),
        back: hello.back,
        log_level: LogLevel::default(),
    });
    router.join(&session);
    Ok((session, result))
}

/// `server/discover`: the same for a client that needs no session.
pub(super) async fn discover(router: &Inner, scope: &Scope) -> Result<Payload, Payload> {
    let hello = match scope {
        Scope::All => router.about_all(MODERN_VERSION),
        Scope::One(server) => router.about_one(server, MODERN_VERSION).await?,
    };
    let mut edits = vec![
        ("protocolVersion", Edit::Remove),
        ("serverInfo", Edit::Remove),
        ("supportedVersions", Edit::Set(Payload::of(&[MODERN_VERSION]))),
    ];
    if let Some(info) = hello.member("serverInfo") {
        let meta = hello.member("_meta").unwrap_or(Payload::literal("{}"));
        edits.push(("_meta", Edit::Set(meta.edit(&[(SERVER_INFO, Edit::Set(info))]))));
    }
    Ok(hello.edit(&edits))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult {
    protocol_version: &'static str,
    capabilities: Payload,
    server_info: ServerInfo,
    instructions: String,
}

#[derive(Serialize)]
struct ServerInfo {
    name: &'static str,
    title: &'static str,
    version: &'static str,
}

impl Inner {
    /// All of it from the start: what is not advertised now, clients never use later.
    fn about_all(&self, version: &'static str) -> Payload {
        Payload::of(&InitializeResult {
            protocol_version: version,
            capabilities: Payload::literal(
                r#"{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true},"prompts":{"listChanged":true},"completions":{},"logging":{}}"#,
            ),
            server_info: ServerInfo { name: "seawall", title: "seawall", version: env!("CARGO_PKG_VERSION") },
            instructions: self.instructions(),
        })
    }

    fn instructions(&self) -> String {
        let mut all = OWN_INSTRUCTIONS.to_owned();
        if self.settings().instructions == Instructions::Own {
            return all;
        }
        for upstream in self.in_scope(&Scope::All) {
            let theirs = upstream.offer().and_then(|offer| offer.hello.text("instructions"));
            if let Some(theirs) = theirs.filter(|theirs| !theirs.trim().is_empty()) {
                let cut = cut(theirs.trim(), INSTRUCTIONS_MAX_BYTES);
                all.push_str(&format!("\n\n## {}\n\n{}", upstream.name(), without_controls(cut)));
            }
        }
        all
    }

    /// The server's own words, but for the version, which each hop agrees on by itself.
    async fn about_one(&self, server: &ServerName, version: &'static str) -> Result<Payload, Payload> {
        let gone = || rpc_error(SERVER_NOT_READY, format!("seawall: there is no server \"{server}\" any more"));
        let upstream = self.route(server).ok_or_else(gone)?.upstream;
        match timeout(FIRST_HANDSHAKE_WAIT, upstream.known()).await {
            Ok(Ok(offer)) => Ok(offer.hello.edit(&[("protocolVersion", Edit::Set(Payload::of(version)))])),
            Ok(Err(reason)) => Err(not_ready(&upstream, &reason)),
            Err(_) => {
                let reason = upstream.status().reason.unwrap_or_else(|| "it has not answered yet".to_owned());
                Err(not_ready(&upstream, &reason))
            }
        }
    }
}

fn not_ready(upstream: &Upstream, reason: &str) -> Payload {
    let reason = text::quote(reason, 300);
    rpc_error(SERVER_NOT_READY, format!("seawall: server \"{}\" is not available: {reason}", upstream.name()))
}

fn cut(text: &str, max_bytes: usize) -> &str {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn without_controls(words: &str) -> String {
    words.chars().filter(|c| *c == '\n' || *c == '\t' || !text::is_unsafe(*c)).collect()
}
