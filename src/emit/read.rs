//! What was handed in, understood: one JSON object, or one a line. What is wrong names its
//! line and field, and what would be right.

use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{store::intake::NewEvent, text};

const EVENTS_MAX: usize = 10_000;
const NAME_MAX_CHARS: usize = 128;
const ID_MAX_CHARS: usize = 64;
const METADATA_MAX_BYTES: usize = 64 * 1024;
/// SQLite reads no JSON that is nested deeper than 1000.
const DEPTH_MAX: usize = 100;
/// The year 9999.
const TIMESTAMP_MAX_MS: i64 = 253_402_300_799_999;

const FIELDS: [&str; 6] = ["event_type", "category", "service_name", "metadata", "timestamp", "id"];

/// What an event has that does not say.
const CATEGORY: &str = "user";
const SERVICE_NAME: &str = "unknown";

/// What is wrong with what was handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// From 1, of one event a line.
    pub(super) line: Option<usize>,
    pub(super) field: Option<String>,
    pub(super) what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.what)
    }
}

fn fault<T>(field: &str, what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { line: None, field: Some(text::quote(field, 60)), what: what.into() })
}

/// Events, and of each the line that it is on, where that means something.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<NewEvent>,
    pub(super) lines: Vec<usize>,
}

/// One event.
pub(super) fn object(body: &[u8]) -> Result<Batch, Fault> {
    Ok(Batch { events: vec![event(body)?], lines: Vec::new() })
}

/// One event a line. Empty lines count as lines and are nothing else.
pub(super) fn lines(body: &[u8]) -> Result<Batch, Fault> {
    let at = |line: usize| move |fault: Fault| Fault { line: Some(line + 1), ..fault };
    let mut batch = Batch::default();
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if batch.events.len() == EVENTS_MAX {
            let what = format!("more than {EVENTS_MAX} events; send the rest in a request of their own");
            return Err(Fault { line: Some(number + 1), field: None, what });
        }
        batch.events.push(event(line).map_err(at(number))?);
        batch.lines.push(number + 1);
    }
    match batch.events.is_empty() {
        true => Err(Fault { line: None, field: None, what: "no event: write one JSON object a line".to_owned() }),
        false => Ok(batch),
    }
}

fn event(json: &[u8]) -> Result<NewEvent, Fault> {
    let Members(members) = members(json)?;
    for (index, (name, _)) in members.iter().enumerate() {
        if !FIELDS.contains(&name.as_str()) {
            return fault(name, unknown(name));
        }
        if members[..index].iter().any(|(other, _)| other == name) {
            return fault(name, "is there twice");
        }
    }
    let member = |name: &str| {
        let found = members.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        // What says nothing is as good as absent.
        found.filter(|value| value.get() != "null")
    };
    Ok(NewEvent {
        event_type: match member("event_type") {
            Some(value) => name("event_type", value)?,
            None => return fault("event_type", "is missing; write what happened, such as \"deploy_done\""),
        },
        category: member("category").map_or(Ok(CATEGORY.to_owned()), |value| name("category", value))?,
        service_name: member("service_name")
            .map_or(Ok(SERVICE_NAME.to_owned()), |value| name("service_name", value))?,
        metadata: member("metadata").map_or(Ok("{}".to_owned()), metadata)?,
        timestamp_ms: member("timestamp").map(timestamp).transpose()?,
        id: member("id").map(id).transpose()?,
    })
}

fn unknown(name: &str) -> String {
    let likeness = |field: &str| strsim::normalized_damerau_levenshtein(&name.to_lowercase(), field);
    let nearest = FIELDS.into_iter().map(|field| (likeness(field), field)).max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((likeness, field)) if likeness >= 0.5 => format!("no such field; did you mean \"{field}\"?"),
        _ => format!("no such field; there are {}; anything else goes into metadata", FIELDS.join(", ")),
    }
}

fn name(field: &str, value: &RawValue) -> Result<String, Fault> {
    match serde_json::from_str::<String>(value.get()) {
        Ok(name) if name.is_empty() && field == "event_type" => {
            fault(field, "is empty; write what happened, such as \"deploy_done\"")
        }
        Ok(name) if name.is_empty() => fault(field, "is empty; write a name or leave it out"),
        Ok(name) if name.chars().any(text::is_unsafe) => fault(field, "holds control characters; take them out"),
        Ok(name) if name.chars().count() > NAME_MAX_CHARS => {
            fault(field, format!("is longer than {NAME_MAX_CHARS} characters; what is long goes into metadata"))
        }
        Ok(name) => Ok(name),
        Err(_) => fault(field, "is not a string; put it in quotes"),
    }
}

fn id(value: &RawValue) -> Result<String, Fault> {
    const WANTED: &str = "is no id; use 1 to 64 letters, digits and signs of ASCII, without spaces";
    let id = serde_json::from_str::<String>(value.get());
    let is_one = |id: &String| (1..=ID_MAX_CHARS).contains(&id.len()) && id.chars().all(|c| c.is_ascii_graphic());
    id.ok().filter(is_one).map_or_else(|| fault("id", WANTED), Ok)
}

/// Unix milliseconds, or RFC 3339.
fn timestamp(value: &RawValue) -> Result<i64, Fault> {
    const WANTED: &str = "is no time; write Unix milliseconds, or something like \"2026-11-24T12:00:00Z\"";
    let json = value.get();
    let ms = match serde_json::from_str::<String>(json) {
        Ok(text) => text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond),
        Err(_) => serde_json::from_str::<i64>(json).ok(),
    };
    ms.filter(|ms| (0..=TIMESTAMP_MAX_MS).contains(ms)).map_or_else(|| fault("timestamp", WANTED), Ok)
}

/// As it was written, to the last digit.
fn metadata(value: &RawValue) -> Result<String, Fault> {
    let json = value.get();
    if !json.starts_with('{') {
        return fault("metadata", "is not an object; write something like {\"version\": 7}");
    }
    if json.len() > METADATA_MAX_BYTES {
        let max = text::bytes(METADATA_MAX_BYTES as u64);
        return fault("metadata", format!("is larger than {max}"));
    }
    match depth(json) > DEPTH_MAX {
        true => fault("metadata", format!("is nested deeper than {DEPTH_MAX}")),
        false => Ok(json.to_owned()),
    }
}

/// How deep valid JSON is nested.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The members of an object in their order, those that come twice included.
struct Members(Vec<(String, Box<RawValue>)>);

fn members(json: &[u8]) -> Result<Members, Fault> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = Members;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                // An unknown field is complained about before many more could matter.
                if members.len() <= FIELDS.len() {
                    members.push(member);
                }
            }
            Ok(Members(members))
        }
    }
    let whole = |what: String| Fault { line: None, field: None, what };
    let text = std::str::from_utf8(json).map_err(|_| whole("not UTF-8".to_owned()))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = reader.deserialize_map(Object).map_err(|error| match error.is_data() {
        true => whole("not a JSON object; write something like {\"event_type\": \"deploy_done\"}".to_owned()),
        false => whole(format!("not JSON: {error}")),
    })?;
    reader.end().map_err(|_| whole("more than one JSON value; send one a line as application/x-ndjson".to_owned()))?;
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(json: &str) -> String {
        event(json.as_bytes()).expect_err(json).to_string()
    }

    #[test]
    fn an_event_is_what_was_written_and_the_rest_is_usual() {
        let all = r#"{"id":"a-1","timestamp":1795552445000,"category":"ci","event_type":"deploy_done","service_name":"web","metadata":{"n":1e400, "s":"\ud83d"}}"#;
        let event = event(all.as_bytes()).expect("good");
        assert_eq!(event.metadata, r#"{"n":1e400, "s":"\ud83d"}"#, "to the last digit");
        assert_eq!((event.id.as_deref(), event.timestamp_ms), (Some("a-1"), Some(1_795_552_445_000)));
        let small = object(br#" {"event_type":"x","metadata":null} "#).expect("good").events.remove(0);
        assert_eq!((small.category.as_str(), small.service_name.as_str()), ("user", "unknown"));
        assert_eq!((small.metadata.as_str(), small.timestamp_ms, small.id), ("{}", None, None));
        let dated = object(br#"{"event_type":"x","timestamp":"1970-01-01T00:00:01+00:00"}"#).expect("good");
        assert_eq!(dated.events[0].timestamp_ms, Some(1000));
    }

    #[test]
    fn what_is_wrong_names_the_field_and_what_would_be_right() {
        for (json, expected) in [
            (r#"{}"#, "event_type: is missing"),
            (r#"{"event_typ":"x"}"#, "event_typ: no such field; did you mean \"event_type\"?"),
            (r#"{"event_type":"x","zzz":1}"#, "zzz: no such field; there are event_type"),
            (r#"{"event_type":7}"#, "event_type: is not a string"),
            (r#"{"event_type":""}"#, "event_type: is empty; write what happened, such as \"deploy_done\""),
            (r#"{"event_type":"x","category":""}"#, "category: is empty; write a name or leave it out"),
            ("{\"event_type\":\"a\\u0000b\"}", "event_type: holds control characters"),
            (r#"{"event_type":"x","event_type":"y"}"#, "event_type: is there twice"),
            (r#"{"event_type":"x","timestamp":"yesterday"}"#, "timestamp: is no time"),
            (r#"{"event_type":"x","timestamp":-1}"#, "timestamp: is no time"),
            (r#"{"event_type":"x","timestamp":1.5}"#, "timestamp: is no time"),
            (r#"{"event_type":"x","id":"a b"}"#, "id: is no id"),
            (r#"{"event_type":"x","metadata":[1]}"#, "metadata: is not an object"),
            (r#"[1]"#, "not a JSON object"),
            (r#""x""#, "not a JSON object"),
            (r#"{"event_type":"x""#, "not JSON: EOF"),
            (r#"{"event_type":"x"} {"event_type":"y"}"#, "more than one JSON value"),
        ] {
            assert!(wrong(json).starts_with(expected), "{json}: {}", wrong(json));
        }
        assert!(object(b"\xff").expect_err("no text").to_string().starts_with("not UTF-8"));
    }

    #[test]
    fn metadata_is_bounded_in_size_and_depth() {
        let nested = |depth: usize| {
            format!(r#"{{"event_type":"x","metadata":{{"a[{{":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth))
        };
        assert!(event(nested(DEPTH_MAX - 1).as_bytes()).is_ok());
        assert!(wrong(&nested(DEPTH_MAX)).starts_with("metadata: is nested deeper"));
        let large = format!(r#"{{"event_type":"x","metadata":{{"a":"{}"}}}}"#, "x".repeat(METADATA_MAX_BYTES));
        assert!(wrong(&large).starts_with("metadata: is larger than 64 KiB"));
    }

    #[test]
    fn a_wrong_line_is_counted_from_one_and_empty_ones_count() {
        let good = lines(b"{\"event_type\":\"a\"}\r\n\n{\"event_type\":\"b\"}\n").expect("good");
        assert_eq!(good.lines, [1, 3]);
        assert_eq!(good.events.iter().map(|event| event.event_type.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let fault = lines(b"{\"event_type\":\"a\"}\n\n{\"event_type\":7}\n").expect_err("bad");
        assert_eq!((fault.line, fault.field.as_deref()), (Some(3), Some("event_type")));
        assert!(fault.to_string().starts_with("line 3: event_type: is not a string"), "{fault}");
        lines(b"\n\n").expect_err("nothing");
        let many = "{\"event_type\":\"a\"}\n".repeat(EVENTS_MAX + 1);
        assert_eq!(lines(many.as_bytes()).expect_err("too many").line, Some(EVENTS_MAX + 1));
    }
}
