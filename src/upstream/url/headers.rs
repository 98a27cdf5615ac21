//! The headers of a modern request: what is in its body, once more for those in
//! between who do not read bodies.

use std::sync::PoisonError;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::{MCP_PROTOCOL_VERSION, UrlLink};
use crate::{
    call::{Edit, Method, Payload},
    era::MODERN_VERSION,
    mcp_param,
};

const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");

/// Tools whose arguments are repeated. Of a server that renames its tools again and again
/// those of old are forgotten.
const MIRRORED_MAX_TOOLS: usize = 50_000;

impl UrlLink {
    pub(super) fn modern_headers(&self, method: &Method, params: Option<&Payload>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(MCP_PROTOCOL_VERSION, HeaderValue::from_static(MODERN_VERSION));
        headers.extend(value(method.as_str()).map(|value| (MCP_METHOD, value)));
        let Some(params) = params else { return headers };
        let named = match method.as_str() {
            "tools/call" | "prompts/get" => params.text("name"),
            "resources/read" => params.text("uri"),
            _ => None,
        };
        headers.extend(named.as_deref().and_then(value).map(|value| (MCP_NAME, value)));
        if method.as_str() == Method::TOOLS_CALL {
            headers.extend(self.mirrored_arguments(&named.unwrap_or_default(), params));
        }
        headers
    }

    fn mirrored_arguments(&self, tool: &str, params: &Payload) -> HeaderMap {
        let all = self.0.mirrored.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mirrored) = all.get(tool) else { return HeaderMap::new() };
        let arguments: Value = params.member("arguments").and_then(|args| args.read().ok()).unwrap_or_default();
        let header = |mirrored: &mcp_param::Mirrored| {
            let name: HeaderName = format!("mcp-param-{}", mirrored.header).to_ascii_lowercase().parse().ok()?;
            let text = mcp_param::as_text(mcp_param::value_at(&arguments, &mirrored.path)?)?;
            Some((name, value(&text)?))
        };
        mirrored.iter().filter_map(header).collect()
    }

    /// Remembers which arguments each tool wants repeated, and takes out of the list the
    /// tools whose wish is invalid, as the spec demands of clients.
    pub(super) fn learn_tools(&self, list: &Payload) -> Payload {
        let Some(tools) = list.items("tools") else { return list.clone() };
        let mut all = self.0.mirrored.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MIRRORED_MAX_TOOLS {
            all.clear();
        }
        let mut kept = Vec::with_capacity(tools.len());
        let count = tools.len();
        for tool in tools {
            let name = tool.text("name").unwrap_or_default();
            match mcp_param::of_tool(&tool) {
                Ok(mirrored) => {
                    all.remove(&name);
                    if !mirrored.is_empty() {
                        all.insert(name, mirrored);
                    }
                    kept.push(tool);
                }
                Err(why) => {
                    let name = crate::text::quote(&name, 100);
                    tracing::warn!(url = self.0.url, "tool {name:?} is left out: {}", crate::text::quote(&why, 200));
                }
            }
        }
        if kept.len() == count { list.clone() } else { list.edit(&[("tools", Edit::Set(Payload::of(&kept)))]) }
    }
}

/// A header's value; what a header cannot carry goes as base64 of its UTF-8.
fn value(text: &str) -> Option<HeaderValue> {
    let is_plain = text.bytes().all(|b| (0x20..0x7f).contains(&b))
        && text.trim() == text
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    if is_plain && let Ok(value) = HeaderValue::from_str(text) {
        return Some(value);
    }
    HeaderValue::from_str(&format!("=?base64?{}?=", STANDARD.encode(text))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_the_spec_shows() {
        for (text, expected) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            assert_eq!(value(text).expect("a value"), expected, "{text:?}");
        }
    }
}
