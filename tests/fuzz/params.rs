//! `x-mcp-header`: the arguments of a tool that are repeated in headers, as a server
//! declares them and as a client fills them in.

use reqwest::header::HeaderName;
use seawall::{call::Payload, mcp_param};
use serde_json::Value;

pub(crate) const WORDS: &[&str] = &[
    "\"x-mcp-header\":\"A\"",
    "\"x-mcp-header\":",
    "\"type\":\"string\"",
    "\"type\":\"integer\"",
    "\"type\":\"boolean\"",
    "\"type\":\"object\"",
    "\"properties\":{",
    "\"items\":",
    "\"anyOf\":[",
    "\"default\":",
    "\"inputSchema\":{",
    "\"a b\"",
    "\"\"",
    "null",
    "1e400",
    "9007199254740993",
    "-0",
    "true",
    "\"\\ud800\"",
    "\n",
    "{",
    "}",
];

/// The definition of a tool, and on a line of its own the arguments of a call.
pub(crate) fn run(input: &[u8]) {
    let (tool, arguments) = match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[][..]),
    };
    let Ok(tool) = Payload::from_json(tool.to_vec()) else { return };
    let arguments: Value = serde_json::from_slice(arguments).unwrap_or_default();
    let Ok(mirrored) = mcp_param::of_tool(&tool) else { return };
    let schema: Value = tool.member("inputSchema").and_then(|schema| schema.read().ok()).unwrap_or_default();
    for one in mirrored {
        let name = format!("mcp-param-{}", one.header).to_ascii_lowercase();
        assert!(name.parse::<HeaderName>().is_ok(), "{name:?} cannot be sent");
        let declared = one.path.iter().try_fold(&schema, |schema, key| schema.get("properties")?.get(key));
        assert!(declared.is_some_and(|schema| schema["x-mcp-header"] == one.header), "{one:?} is not declared");
        let Some(value) = mcp_param::value_at(&arguments, &one.path) else { continue };
        if let Some(text) = mcp_param::as_text(value) {
            assert!(mcp_param::equal(value, &text), "{text:?} is not {value}");
        }
    }
}
