//! What tests of the library need to make a call by hand. Not part of the API.

use std::sync::Arc;

use crate::{
    call::{Answer, BoxFuture, Call, Caller, Method, Payload, Wire},
    era::Era,
    session::{Scope, Session},
};

/// A `tools/call` of nobody in particular.
pub fn call(server: &str, tool: &str) -> Call {
    Call::new(
        server.into(),
        Some(tool.into()),
        Method::of(Method::TOOLS_CALL),
        Payload::of(&serde_json::json!({ "name": tool, "arguments": {} })),
        caller(),
    )
}

pub fn caller() -> Arc<Caller> {
    Arc::new(Caller { session: Arc::new(session()), request_id: Payload::literal("1"), back: Arc::new(Nowhere) })
}

pub fn session() -> Session {
    Session {
        number: 0,
        scope: Scope::All,
        era: Era::Legacy,
        client: "test 1.0".into(),
        protocol: "2025-11-25".into(),
        capabilities: Payload::literal("{}"),
        client_info: Payload::literal("{}"),
        back: Arc::new(Nowhere),
        log_level: Default::default(),
    }
}

/// A client that hears nothing and answers nothing.
#[derive(Debug)]
pub struct Nowhere;

impl Wire for Nowhere {
    fn tell(&self, _: Method, _: Option<Payload>) {}

    fn ask(&self, _: Method, _: Option<Payload>) -> BoxFuture<'_, Answer> {
        Box::pin(std::future::ready(Answer::Error(Payload::literal(
            r#"{"code":-32601,"message":"this client answers no questions"}"#,
        ))))
    }
}
