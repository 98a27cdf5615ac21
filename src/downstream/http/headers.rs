//! The headers of a modern request repeat what is in its body, for those in between who
//! do not read bodies; a server must see to it that they agree.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{HeaderMap, header::HeaderName};
use serde_json::Value;

use crate::{
    call::{Method, Payload},
    era::HEADER_MISMATCH,
    mcp_param::{self, Mirrored},
    text,
    wire::envelope::rpc_error,
};

const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");

/// Method and name.
pub(super) fn check(headers: &HeaderMap, method: &Method, params: &Payload) -> Result<(), Payload> {
    let sent = single(headers, &MCP_METHOD)?.ok_or_else(|| missing("Mcp-Method"))?;
    agree("Mcp-Method", sent, method.as_str())?;
    let named = match method.as_str() {
        "tools/call" | "prompts/get" => params.text("name"),
        "resources/read" => params.text("uri"),
        _ => return Ok(()),
    };
    // Without a name the request is wrong anyhow, and is told so by its own error.
    let Some(named) = named else { return Ok(()) };
    let sent = decoded("Mcp-Name", single(headers, &MCP_NAME)?.ok_or_else(|| missing("Mcp-Name"))?)?;
    agree("Mcp-Name", &sent, &named)
}

/// The arguments that the tool's definition wants repeated.
pub(super) fn check_params(headers: &HeaderMap, tool: &Payload, params: &Payload) -> Result<(), Payload> {
    let arguments: Value = params.member("arguments").and_then(|arguments| arguments.read().ok()).unwrap_or_default();
    for Mirrored { header, path } in mcp_param::of_tool(tool).unwrap_or_default() {
        let full_name = format!("Mcp-Param-{header}");
        let name: HeaderName =
            full_name.to_ascii_lowercase().parse().map_err(|_| mismatch(format!("{full_name} is no header name")))?;
        let Some(value) = mcp_param::value_at(&arguments, &path) else { continue };
        let sent = decoded(&full_name, single(headers, &name)?.ok_or_else(|| missing(&full_name))?)?;
        if !mcp_param::equal(value, &sent) {
            return agree(&full_name, &sent, &mcp_param::as_text(value).unwrap_or_default());
        }
    }
    Ok(())
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Payload> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(mismatch(format!("{name} is there more than once")));
    }
    value
        .to_str()
        .map(|value| Some(value.trim()))
        .map_err(|_| mismatch(format!("{name} has characters that no header may have")))
}

/// `=?base64?…?=` carries what a header cannot.
fn decoded(name: &str, value: &str) -> Result<String, Payload> {
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(value.to_owned());
    };
    let bytes = STANDARD.decode(encoded).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| mismatch(format!("{name} is no base64 of UTF-8")))
}

fn agree(name: &str, header: &str, body: &str) -> Result<(), Payload> {
    if header == body {
        return Ok(());
    }
    let (header, body) = (text::quote(header, 60), text::quote(body, 60));
    Err(mismatch(format!("{name} header value '{header}' does not match body value '{body}'")))
}

fn missing(name: &str) -> Payload {
    mismatch(format!("the header {name} is missing"))
}

pub(super) fn mismatch(why: String) -> Payload {
    rpc_error(HEADER_MISMATCH, format!("Header mismatch: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse::<HeaderName>().expect("a name"), v.parse().expect("a value"))).collect()
    }

    fn payload(json: &str) -> Payload {
        Payload::from_json(json.to_owned()).expect("JSON")
    }

    #[test]
    fn method_and_name_must_agree_with_the_body() {
        let call = Method::of("tools/call");
        let params = payload(r#"{"name":"größe"}"#);
        let ok = headers(&[("mcp-method", "tools/call"), ("mcp-name", "=?base64?Z3LDtsOfZQ==?=")]);
        assert_eq!(check(&ok, &call, &params), Ok(()));
        for wrong in [
            headers(&[("mcp-name", "=?base64?Z3LDtsOfZQ==?=")]),
            headers(&[("mcp-method", "tools/call")]),
            headers(&[("mcp-method", "tools/list"), ("mcp-name", "=?base64?Z3LDtsOfZQ==?=")]),
            headers(&[("mcp-method", "tools/call"), ("mcp-name", "other")]),
            headers(&[("mcp-method", "tools/call"), ("mcp-name", "=?base64?!?=")]),
            headers(&[("mcp-method", "tools/call"), ("mcp-method", "tools/call"), ("mcp-name", "x")]),
        ] {
            let error = check(&wrong, &call, &params).expect_err("a mismatch");
            assert_eq!(error.error_code(), Some(HEADER_MISMATCH));
        }
        assert_eq!(check(&headers(&[("mcp-method", "tools/list")]), &Method::of("tools/list"), &payload("{}")), Ok(()));
    }

    #[test]
    fn mirrored_arguments_must_agree_and_absent_ones_need_no_header() {
        let tool = payload(
            r#"{"inputSchema":{"type":"object","properties":{
                "region":{"type":"string","x-mcp-header":"Region"},
                "deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}}}}}"#,
        );
        let with = |arguments: &str, pairs: &[(&str, &str)]| {
            check_params(&headers(pairs), &tool, &payload(&format!(r#"{{"arguments":{arguments}}}"#))).is_ok()
        };
        assert!(with("{}", &[]));
        assert!(with(r#"{"region":null}"#, &[]));
        assert!(with(r#"{"region":"eu","deep":{"n":42}}"#, &[("mcp-param-region", "eu"), ("mcp-param-n", "42.0")]));
        assert!(!with(r#"{"region":"eu"}"#, &[]));
        assert!(!with(r#"{"region":"eu"}"#, &[("mcp-param-region", "us")]));
        assert!(with(r#"{"region":"eu"}"#, &[("mcp-param-region", "eu"), ("mcp-param-unknown", "x")]));
    }
}
