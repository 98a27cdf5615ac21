//! Asking a service whether it still works. Blocking, each within its time, and only as
//! long as anybody wants to know.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::{Value, json};

use super::{
    errand::{Errands, Over},
    health::{Health, Probe},
    http,
    run::Job,
};
use crate::process::veil::Veil;

/// Old enough for every server, and a version with sessions and pings.
const PROTOCOL: &str = "2025-06-18";

/// One who asks again and again.
pub(super) struct Prober<'a> {
    health: Health,
    /// Sent along to seawall's own listener, where that wants a token.
    bearer: Option<String>,
    /// The session of MCP that the last probe left open.
    session: Option<String>,
    env: Vec<(String, String)>,
    veil: &'a Veil,
    errands: &'a Errands,
    /// The service has ended, and with it the question.
    is_unwanted: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Prober<'a> {
    pub(super) fn new(
        job: &'a Job,
        health: Health,
        errands: &'a Errands,
        is_unwanted: &'a (dyn Fn() -> bool + Sync),
    ) -> Self {
        let (bearer, env) = (job.bearer.clone(), job.env.clone());
        Prober { health, bearer, session: None, env, veil: &job.veil, errands, is_unwanted }
    }

    /// Why it does not work, where it does not.
    pub(super) fn ask(&mut self) -> Result<(), String> {
        let answer = match self.health.probe.clone() {
            Probe::Url(url) => self.ask_url(&url),
            Probe::Command(argv) => self.ask_command(&argv),
            Probe::Mcp { url, tool } => self.ask_mcp(&url, tool.as_deref()),
        };
        answer.map_err(|why| self.veil.hide(&why))
    }

    fn ask_url(&self, url: &str) -> Result<(), String> {
        let answer = http::ask(url, &self.headers(&[]), None, self.health.timeout, self.is_unwanted)?;
        if (200..300).contains(&answer.status) { Ok(()) } else { Err(format!("it answers {}", answer.status)) }
    }

    fn headers<'h>(&'h self, more: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h str)> {
        let bearer = self.bearer.as_deref().map(|bearer| ("Authorization", bearer));
        bearer.into_iter().chain(more.iter().copied()).collect()
    }

    fn ask_command(&self, argv: &[String]) -> Result<(), String> {
        let (program, arguments) = argv.split_first().ok_or("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).envs(self.env.iter().map(|(name, value)| (name, value)));
        let probe = self.errands.start(command, Stdio::null(), "", Over::OnExit);
        let probe = probe.map_err(|error| format!("the probe {program} cannot be run: {error}"))?;
        match probe.end_by(Instant::now() + self.health.timeout, self.is_unwanted) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the probe ended with {status}")),
            None => Err("the probe did not end in time".to_owned()),
        }
    }

    fn ask_mcp(&mut self, url: &str, tool: Option<&str>) -> Result<(), String> {
        if self.session.is_none() {
            self.session = Some(self.open_session(url)?);
        }
        let (method, params) = match tool {
            Some(tool) => ("tools/call", json!({ "name": tool, "arguments": {} })),
            None => ("ping", json!({})),
        };
        let answered = self.post(url, &json!({ "jsonrpc": "2.0", "id": 2, "method": method, "params": params }));
        let (_, answer) = answered.inspect_err(|_| self.session = None)?;
        match answer.get("result") {
            Some(result) if result["isError"] == true => {
                Err(format!("the call of {} failed: {}", tool.unwrap_or_default(), result["content"][0]["text"]))
            }
            Some(_) => Ok(()),
            None => {
                self.session = None;
                Err(format!("it answers {method} with {}", answer["error"]))
            }
        }
    }

    fn open_session(&mut self, url: &str) -> Result<String, String> {
        let params = json!({
            "protocolVersion": PROTOCOL,
            "capabilities": {},
            "clientInfo": { "name": "seawall-health", "version": env!("CARGO_PKG_VERSION") },
        });
        let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        let (session, answer) = self.post(url, &hello)?;
        if answer.get("result").is_none() {
            return Err(format!("it answers initialize with {}", answer["error"]));
        }
        // A server without sessions has an empty one.
        self.session = Some(session.unwrap_or_default());
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let told = self.post(url, &initialized);
        let session = self.session.take().unwrap_or_default();
        told.map(|_| session)
    }

    /// The session that the answer names, and the answer.
    fn post(&self, url: &str, message: &Value) -> Result<(Option<String>, Value), String> {
        let mut headers = vec![
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
            ("MCP-Protocol-Version", PROTOCOL),
        ];
        if let Some(session) = self.session.as_deref().filter(|session| !session.is_empty()) {
            headers.push(("Mcp-Session-Id", session));
        }
        let answer =
            http::ask(url, &self.headers(&headers), Some(&message.to_string()), self.health.timeout, self.is_unwanted)?;
        if !(200..300).contains(&answer.status) {
            return Err(format!("it answers {}", answer.status));
        }
        let session = answer.header("mcp-session-id").map(str::to_owned);
        if message.get("id").is_none() {
            return Ok((session, Value::Null));
        }
        // Either the body is the answer, or an event of the stream has it.
        let events = answer.body.lines().filter_map(|line| line.strip_prefix("data:"));
        let candidates = std::iter::once(&*answer.body).chain(events);
        let found = candidates
            .filter_map(|text| serde_json::from_str::<Value>(text.trim()).ok())
            .find(|value| value.get("id") == message.get("id"));
        Ok((session, found.ok_or("no answer that is MCP")?))
    }
}
