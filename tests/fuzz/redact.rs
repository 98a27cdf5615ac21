//! Redaction: what is planted is not found again, whatever stands around it; what is
//! kept is bounded, is JSON where that was promised, and if nothing was cut off it is not
//! changed a second time.

use seawall::store::redact;
use serde_json::{json, value::RawValue};

pub(crate) const WORDS: &[&str] = &[
    "password",
    "password=",
    "\"password\":",
    "api_key: ",
    "Authorization: Bearer ",
    "Authorization: Basic ",
    "token",
    "tokens",
    "ghp_",
    "sk-",
    "AKIA",
    "xoxb-",
    "eyJ",
    "https://me:you@host/",
    "://",
    "-----BEGIN PRIVATE KEY-----\n",
    "-----END PRIVATE KEY-----",
    "[redacted]",
    "…",
    "\\\"",
    "\\u0070assword",
    "max_tokens",
    "=",
    ": ",
    " ",
    "\n",
    "'",
    "\"",
    "&",
    ";",
];

const SECRET: &str = "ZQX7aB9cD2eF4gH6jK8mN1pQ3rS5tU7vW9xY";

pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    kept_text(&text);
    kept_json(input);
    planted(&text);
}

fn kept_text(text: &str) {
    for keep in [redact::text, redact::tail] {
        let kept = keep(text);
        assert!(kept.len() <= redact::MAX_BYTES);
        if is_whole(&kept) {
            assert_eq!(keep(&kept), kept, "the second time changes nothing");
        }
    }
}

fn kept_json(input: &[u8]) {
    for keep in [redact::redacted, redact::shape] {
        let kept = keep(input);
        assert!(kept.len() <= redact::MAX_BYTES);
        // Numbers beyond a double are JSON too.
        assert!(serde_json::from_str::<&RawValue>(&kept).is_ok(), "no JSON: {kept}");
    }
    let kept = redact::redacted(input);
    if is_whole(&kept) {
        assert_eq!(redact::redacted(kept.as_bytes()), kept, "the second time changes nothing");
    }
}

/// A cut can fall into a word of ours, and then that is looked at again.
fn is_whole(kept: &str) -> bool {
    !kept.contains('…')
}

/// A secret of a known look between two halves of the text, and one under a denied key.
fn planted(text: &str) {
    let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let (before, after) = text.split_at(middle);
    let message = format!("{before} ghp_{SECRET} {after}");
    for kept in [redact::text(&message), redact::tail(&message)] {
        assert!(!kept.contains(&SECRET[..8]), "{kept:?}");
    }
    for arguments in [
        json!({ "note": message }),
        json!({ before: { "password": [text, SECRET] } }),
        json!([after, { "note": after, "API-Key": SECRET, "x": before }]),
    ] {
        let arguments = arguments.to_string();
        for kept in [redact::redacted(arguments.as_bytes()), redact::shape(arguments.as_bytes())] {
            assert!(!kept.contains(&SECRET[..8]), "{kept}");
        }
    }
}
