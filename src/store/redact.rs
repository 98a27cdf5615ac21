//! What may be kept of text and arguments that can hold secrets.
//!
//! By default nothing but names, types and sizes. Where values are kept, whatever a
//! key or its own look marks as a secret is replaced. Best effort by nature: a secret
//! that looks like a word, under a key that looks like any other, is not found.

use serde_json::Value;

mod json;
mod secrets;

/// The bound of every text that this makes.
pub const MAX_BYTES: usize = 2048;
/// Event metadata is ours and carries a stderr tail beside other things.
const METADATA_MAX_BYTES: usize = 8192;
const NOTE_MAX_BYTES: usize = 32 * 1024;
/// More than is kept is looked at, so that a secret at the cut is still seen whole.
const LOOK_MAX_BYTES: usize = 4 * MAX_BYTES;
/// Where redacted values are kept, longer strings lose their end.
const STRING_MAX_BYTES: usize = 256;

/// The names of `arguments` with the types and sizes of their values, as JSON:
/// `{"path":"string(12)","edits":"array(3)"}`.
pub fn shape(arguments: &[u8]) -> String {
    json::shape(arguments, MAX_BYTES)
}

/// `arguments` with their values, secrets replaced and long ones cut, as JSON.
pub fn redacted(arguments: &[u8]) -> String {
    json::redacted(arguments, json::Bounds { total: MAX_BYTES, string: STRING_MAX_BYTES })
}

/// A message without the secrets that can be recognised; the end is cut off.
pub fn text(text: &str) -> String {
    clipped(&secrets::scrubbed(head(text, LOOK_MAX_BYTES)), MAX_BYTES)
}

/// Like [`text`], but it is the beginning that is cut off: of what a program wrote
/// before it died, the last lines matter.
pub fn tail(text: &str) -> String {
    let mut look = last(text, LOOK_MAX_BYTES);
    if look.len() < text.len() {
        // Half a word at the cut could be half a secret.
        look = look.split_once(char::is_whitespace).map_or("", |(_, rest)| rest);
    }
    let scrubbed = secrets::scrubbed(look);
    let kept = last(&scrubbed, MAX_BYTES - '…'.len_utf8());
    let is_whole = look.len() == text.len() && kept.len() == scrubbed.len();
    if is_whole { kept.to_owned() } else { format!("…{kept}") }
}

/// `text` if it is short enough, else its beginning and an ellipsis, in `max_bytes`.
pub(super) fn clipped(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    format!("{}…", first(text, max_bytes.saturating_sub('…'.len_utf8())))
}

/// The metadata of an event.
pub(super) fn metadata(value: &Value) -> String {
    let text = value.to_string();
    json::redacted(text.as_bytes(), json::Bounds { total: METADATA_MAX_BYTES, string: MAX_BYTES })
}

/// The metadata of a note, which its writer wants to read again whole.
pub(super) fn note(value: &Value) -> String {
    let text = value.to_string();
    json::redacted(text.as_bytes(), json::Bounds { total: NOTE_MAX_BYTES, string: NOTE_MAX_BYTES })
}

/// The beginning, without a word that the cut would halve.
fn head(text: &str, max_bytes: usize) -> &str {
    if text.len() <= max_bytes {
        return text;
    }
    first(text, max_bytes).rsplit_once(char::is_whitespace).map_or("", |(whole, _)| whole)
}

fn first(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

fn last(text: &str, max_bytes: usize) -> &str {
    let start = (text.len().saturating_sub(max_bytes)..=text.len()).find(|start| text.is_char_boundary(*start));
    &text[start.unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_shape_tells_names_types_and_sizes_only() {
        let arguments = br#"{"path":"/etc/passwd!","edits":[{"a":1},2,3],"n":1e400,"ok":true,"none":null,
            "options":{"deep":"\u00e9\ud83d","list":[]}}"#;
        assert_eq!(
            shape(arguments),
            r#"{"path":"string(12)","edits":"array(3)","n":"number","ok":"boolean","none":"null","options":{"deep":"string(12)","list":"array(0)"}}"#
        );
        assert_eq!(shape(b"[1,2]"), r#""array(2)""#);
        assert_eq!(shape(b"{no json"), r#""unreadable(8 bytes)""#);
    }

    #[test]
    fn redacted_keeps_values_and_their_very_numbers() {
        let arguments = br#"{"n": 1e400, "m":12345678901234567890123.10, "list":[1, "two",{"Api-Key":"x"}],
            "PASSWORD":1234,"max_tokens":4096,"pass\u0077ord":"y","u":"https://me:hunter2@host/x"}"#;
        assert_eq!(
            redacted(arguments),
            r#"{"n":1e400,"m":12345678901234567890123.10,"list":[1,"two",{"Api-Key":"[redacted]"}],"PASSWORD":"[redacted]","max_tokens":4096,"password":"[redacted]","u":"https://me:[redacted]@host/x"}"#
        );
    }

    #[test]
    fn what_is_cut_says_so_and_stays_json() {
        let long = format!(r#"{{"a":"{}","b":[{}1]}}"#, "é".repeat(1000), "7,".repeat(5000));
        let kept = redacted(long.as_bytes());
        assert!(kept.len() <= MAX_BYTES, "{} bytes", kept.len());
        let value: Value = serde_json::from_str(&kept).expect("still JSON");
        assert!(value["a"].as_str().expect("a").ends_with('…'));
        let last = value["b"].as_array().expect("b").last().expect("last").clone();
        assert!(last.as_str().expect("a note").ends_with(" more"), "{last}");
    }

    #[test]
    fn the_tail_keeps_the_end_and_the_head_the_beginning() {
        let long: String = (0..2000).map(|i| format!("line {i}\n")).collect();
        let kept = tail(&long);
        assert!(kept.starts_with('…') && kept.ends_with("line 1999\n") && kept.len() <= MAX_BYTES);
        let kept = text(&long);
        assert!(kept.starts_with("line 0\n") && kept.ends_with('…') && kept.len() <= MAX_BYTES);
        assert_eq!(tail("short"), "short");
        assert_eq!(text("short"), "short");
    }

    #[test]
    fn a_secret_at_the_cut_is_not_half_kept() {
        let secret = format!("ghp_{}", "a1B2".repeat(9));
        for pad in LOOK_MAX_BYTES - 60..LOOK_MAX_BYTES + 20 {
            let front = format!("{} {secret} {}", "x".repeat(pad), "y".repeat(pad));
            for kept in [text(&front), tail(&front)] {
                assert!(!kept.contains("a1B2"), "cut at {pad}: {kept}");
            }
        }
    }

    const DENIED: [&str; 12] = [
        "password",
        "apiKey",
        "API-KEY",
        "x_api_key",
        "Authorization",
        "accessToken",
        "client_secret",
        "Cookie",
        "private.key",
        "db_passwd",
        "AWS_SECRET_ACCESS_KEY",
        "credentials",
    ];

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::vec(("[a-z_]{1,12}", inner), 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// `json` somewhere inside something else.
    fn buried(json: Value, around: &Value, depth: usize) -> Value {
        (0..depth).fold(json, |inner, level| match level % 2 {
            0 => serde_json::json!({"before": around, "inner": inner}),
            _ => serde_json::json!([around, inner]),
        })
    }

    proptest! {
        #[test]
        fn a_secret_under_a_denied_key_never_survives(
            key in prop::sample::select(DENIED.as_slice()),
            secret in "ZQX[a-zA-Z0-9 ]{5,60}",
            wrapped in any::<bool>(),
            depth in 0..9_usize,
            around in any_json(),
        ) {
            let value = if wrapped { serde_json::json!([{"v": secret}]) } else { Value::from(secret.clone()) };
            let arguments = buried(serde_json::json!({key: value}), &around, depth).to_string();
            for kept in [redacted(arguments.as_bytes()), shape(arguments.as_bytes())] {
                prop_assert!(!kept.contains("ZQX"), "{kept}");
                prop_assert!(kept.len() <= MAX_BYTES);
                prop_assert!(serde_json::from_str::<Value>(&kept).is_ok(), "{kept}");
            }
        }

        #[test]
        fn a_known_kind_of_secret_never_survives_in_text(
            before in "[ a-z\n\"'=,]{0,80}",
            prefix in prop::sample::select(["sk-", "ghp_", "xoxb-", "AKIA", "Bearer ", "glpat-"].as_slice()),
            secret in "[A-Z0-9]{6}ZQX[A-Z0-9]{11}",
            after in "[ ,.\n\"')]{0,80}",
        ) {
            let message = format!("{before} {prefix}{secret}{after}");
            prop_assert!(!text(&message).contains("ZQX"), "{}", text(&message));
            prop_assert!(!tail(&message).contains("ZQX"));
            let arguments = serde_json::json!({"note": [message]}).to_string();
            prop_assert!(!redacted(arguments.as_bytes()).contains("ZQX"));
        }

        #[test]
        fn nothing_panics_or_outgrows_its_bound(bytes in prop::collection::vec(any::<u8>(), 0..6000)) {
            prop_assert!(shape(&bytes).len() <= MAX_BYTES);
            prop_assert!(redacted(&bytes).len() <= MAX_BYTES);
            let lossy = String::from_utf8_lossy(&bytes);
            prop_assert!(text(&lossy).len() <= MAX_BYTES);
            prop_assert!(tail(&lossy).len() <= MAX_BYTES);
        }

        #[test]
        fn any_json_stays_json(value in any_json()) {
            for kept in [redacted(value.to_string().as_bytes()), shape(value.to_string().as_bytes())] {
                prop_assert!(serde_json::from_str::<Value>(&kept).is_ok(), "{kept}");
            }
        }

        #[test]
        fn scrubbing_twice_is_scrubbing_once(message in "[a-zA-Z0-9=:/@ \"._-]{0,200}") {
            prop_assert_eq!(text(&text(&message)), text(&message));
        }
    }
}
