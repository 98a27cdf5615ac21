//! Text for people: untrusted text made harmless, durations and sizes made readable.

use std::{fmt::Write as _, time::Duration};

pub(crate) mod glob;
mod nearest;

pub(crate) use nearest::nearest;

/// `text` with control, escape and bidirectional characters written as escapes,
/// cut to `max_chars`.
pub fn quote(text: &str, max_chars: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max_chars * 4));
    for (i, c) in text.chars().enumerate() {
        if i == max_chars {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_unsafe(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Like [`quote`] without a bound, and line breaks and tabs stay.
pub fn harmless(text: &str) -> String {
    text.split_inclusive(['\n', '\t']).fold(String::with_capacity(text.len()), |mut out, part| {
        let body = part.trim_end_matches(['\n', '\t']);
        out.push_str(&quote(body, usize::MAX / 8));
        out.push_str(&part[body.len()..]);
        out
    })
}

/// Characters that move the cursor, change colours, hide or reorder text.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
            | '\u{061c}' | '\u{e0000}'..='\u{e007f}')
}

/// `1.2 s`, `42 s`, `3 min`, `2 h 5 min`, `3 d 4 h`.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0 if d.is_zero() => "0 s".to_owned(),
        0 if d.subsec_millis() == 0 => format!("{} µs", d.as_micros()),
        0 => format!("{} ms", d.as_millis()),
        1..10 if d.subsec_millis() >= 50 => format!("{:.1} s", d.as_secs_f64()),
        1..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        7200..172_800 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// `512 B`, `1.5 KiB`, `24 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    #[expect(clippy::cast_precision_loss, reason = "shown to one decimal")]
    let mut value = n as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 10.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

pub const DIGEST_CHARS: usize = 8;
const DIGEST_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// FNV-1a in base 32: not for secrets, but the same on every machine and in every
/// version.
pub fn digest(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (0..DIGEST_CHARS).map(|i| char::from(DIGEST_ALPHABET[(hash >> (5 * i)) as usize & 31])).collect()
}

/// Whether it looks like what [`digest`] gives.
pub fn is_digest(text: &str) -> bool {
    text.len() == DIGEST_CHARS && text.bytes().all(|byte| DIGEST_ALPHABET.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_or_hides_text_gets_through() {
        assert_eq!(quote("a\u{1b}[2Jb\u{202e}c\nd", 100), "a\\u{1b}[2Jb\\u{202e}c\\nd");
        assert_eq!(quote("abcdef", 3), "abc…");
        assert_eq!(harmless("a\n\u{7}b\tc"), "a\n\\u{7}b\tc");
    }

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(duration(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(duration(Duration::from_secs(60)), "60 s");
        assert_eq!(duration(Duration::from_secs(300)), "5 min");
        assert_eq!(bytes(1536), "1.5 KiB");
    }
}
