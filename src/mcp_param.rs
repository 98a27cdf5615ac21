//! `x-mcp-header`: arguments of a tool that are repeated in HTTP headers, since
//! 2026-07-28. Clients write them, servers check them; seawall is both.

use std::collections::HashSet;

use serde_json::Value;

use crate::call::Payload;

/// One argument and the header that repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// What follows `Mcp-Param-`.
    pub header: String,
    /// The chain of `properties` keys that leads to it.
    pub path: Vec<String>,
}

const KEY: &str = "x-mcp-header";
/// JavaScript's safe integers: more would not mean the same to everybody.
const SAFE_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;

/// The mirrored arguments of a tool's definition; `Err` says why it is invalid.
pub fn of_tool(tool: &Payload) -> Result<Vec<Mirrored>, String> {
    // Hardly any tool has one.
    if memchr::memmem::find(tool.as_bytes(), KEY.as_bytes()).is_none() {
        return Ok(Vec::new());
    }
    let schema: Value = tool.member("inputSchema").and_then(|schema| schema.read().ok()).unwrap_or_default();
    let mut found = Vec::new();
    walk(&schema, &mut Vec::new(), true, &mut found)?;
    let mut seen = HashSet::new();
    match found.iter().find(|mirrored| !seen.insert(mirrored.header.to_ascii_lowercase())) {
        Some(twice) => Err(format!("two of its arguments want the header {:?}", twice.header)),
        None => Ok(found),
    }
}

fn walk(schema: &Value, path: &mut Vec<String>, reachable: bool, found: &mut Vec<Mirrored>) -> Result<(), String> {
    let Some(members) = schema.as_object() else {
        // Composition keywords hold lists of schemas.
        return schema.as_array().into_iter().flatten().try_for_each(|item| walk(item, path, false, found));
    };
    if let Some(header) = members.get(KEY) {
        found.push(annotation(header, members.get("type"), path, reachable)?);
    }
    for (key, value) in members {
        match value.as_object() {
            Some(properties) if key == "properties" => {
                for (name, property) in properties {
                    path.push(name.clone());
                    walk(property, path, reachable, found)?;
                    path.pop();
                }
            }
            _ if matches!(key.as_str(), "default" | "const" | "enum" | "examples") => {}
            _ => walk(value, path, false, found)?,
        }
    }
    Ok(())
}

fn annotation(header: &Value, kind: Option<&Value>, path: &[String], reachable: bool) -> Result<Mirrored, String> {
    let header = header.as_str().unwrap_or_default();
    if header.is_empty() || !header.bytes().all(is_token) {
        return Err(format!("{header:?} is no header name"));
    }
    if !reachable || path.is_empty() {
        return Err(format!("the argument of header {header:?} is not reached by properties alone"));
    }
    match kind.and_then(Value::as_str) {
        Some("string" | "integer" | "boolean") => Ok(Mirrored { header: header.to_owned(), path: path.to_vec() }),
        _ => Err(format!("the argument of header {header:?} is no string, integer or boolean")),
    }
}

/// RFC 9110's token characters.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The argument at a path; `None` for one that is absent or null.
pub fn value_at<'a>(arguments: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(arguments, |value, key| value.get(key)).filter(|value| !value.is_null())
}

/// A primitive value as a header's text.
pub fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Number(number) => number
            .as_f64()
            .filter(|n| n.fract() == 0.0 && n.abs() <= SAFE_INTEGER_MAX)
            .map(|_| number.as_i64().map_or_else(|| number.to_string(), |whole| whole.to_string())),
        _ => None,
    }
}

/// Whether a header's text says the value; numbers are compared as numbers.
pub fn equal(value: &Value, header: &str) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|n| header.trim().parse() == Ok(n)),
        value => as_text(value).as_deref() == Some(header),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(properties: &str) -> Result<Vec<Mirrored>, String> {
        let tool = format!(r#"{{"name":"t","inputSchema":{{"type":"object","properties":{properties}}}}}"#);
        of_tool(&Payload::from_json(tool).expect("JSON"))
    }

    #[test]
    fn annotations_are_found_by_their_path() {
        let found = of(
            r#"{"a":{"type":"object","properties":{"b":{"type":"string","x-mcp-header":"B"}}},"c":{"type":"string"}}"#,
        );
        assert_eq!(found, Ok(vec![Mirrored { header: "B".into(), path: vec!["a".into(), "b".into()] }]));
        assert_eq!(of(r#"{"a":{"type":"string"}}"#), Ok(vec![]));
    }

    #[test]
    fn what_the_spec_forbids_is_refused() {
        for bad in [
            r#"{"a":{"type":"string","x-mcp-header":""}}"#,
            r#"{"a":{"type":"string","x-mcp-header":"a b"}}"#,
            r#"{"a":{"type":"number","x-mcp-header":"A"}}"#,
            r#"{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}"#,
            r#"{"a":{"type":"array","items":{"type":"string","x-mcp-header":"A"}}}"#,
            r#"{"a":{"anyOf":[{"type":"string","x-mcp-header":"A"}]}}"#,
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
