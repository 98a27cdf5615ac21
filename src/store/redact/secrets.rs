//! What a secret looks like: the names it goes by, and the forms it has of itself.
//!
//! Plain scanning of bytes, from left to right, each form a function of its own. All
//! forms begin and end at ASCII, so cutting there never halves a character.

use std::{borrow::Cow, ops::Range};

const REPLACEMENT: &str = "[redacted]";

/// Parts of names that mark a secret, as they are in lower case without punctuation.
const DENIED_PARTS: [&str; 20] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "authorization",
    "authheader",
    "bearer",
    "cookie",
    "credential",
    "sessionid",
    "connectionstring",
    "jwt",
    "pwd",
];
/// Names that mark a secret only as a whole: parts of harmless ones.
const DENIED_NAMES: [&str; 8] = ["auth", "pass", "pin", "otp", "cvv", "ssn", "dsn", "sid"];

/// Prefixes by which providers make their keys recognisable.
const KEY_PREFIXES: [&str; 27] = [
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "rk_test_",
    "whsec_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxa-",
    "xoxb-",
    "xoxe-",
    "xoxp-",
    "xoxr-",
    "xoxs-",
    "xapp-",
    "AKIA",
    "ASIA",
    "AIza",
    "ya29.",
    "npm_",
    "hf_",
    "pypi-",
];
const KEY_MIN_BYTES: usize = 12;

/// Whether values under this name are secrets.
pub(super) fn is_denied(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    let plain = plain.replace("tokeniz", "");
    DENIED_NAMES.contains(&plain.as_str()) || DENIED_PARTS.iter().any(|part| plain.contains(part))
}

/// `max_tokens: 4096` is a number of tokens, not a token.
pub(super) fn is_count(name: &str, value: &str) -> bool {
    let plural = name.to_ascii_lowercase().ends_with("tokens");
    plural && !value.is_empty() && value.len() <= 12 && value.bytes().all(|b| b.is_ascii_digit())
}

/// What is replaced can uncover something else; texts that go on like this are made up.
const ROUNDS_MAX: usize = 8;

/// `text` with every secret that can be recognised replaced.
pub(super) fn scrubbed(text: &str) -> Cow<'_, str> {
    let mut kept = scrubbed_once(text);
    for _ in 1..ROUNDS_MAX {
        match scrubbed_once(&kept) {
            Cow::Owned(next) if next != kept => kept = Cow::Owned(next),
            _ => break,
        }
    }
    kept
}

fn scrubbed_once(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        match FORMS.iter().find_map(|form| form(bytes, at)) {
            Some(secret) if secret.end > at => {
                out.push_str(&text[copied..secret.start]);
                out.push_str(REPLACEMENT);
                // What was replaced before has a bracket at its end, which ends a value.
                let again = bytes[secret.start..].starts_with(REPLACEMENT.as_bytes());
                let end = if again { secret.end.max(secret.start + REPLACEMENT.len()) } else { secret.end };
                (copied, at) = (end, end);
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Finds a secret of one form whose first sign is at `at`.
type Form = fn(&[u8], usize) -> Option<Range<usize>>;

const FORMS: [Form; 7] = [pem, pem_end, url_password, scheme, provider_key, jwt, assignment];

/// A private key in PEM armour, whole or without its end.
fn pem(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let line = armour(bytes, at, b"-----BEGIN ")?;
    let end = memchr::memmem::find(&bytes[line..], b"-----END ");
    let end = end.and_then(|end| armour(bytes, line + end, b"-----END ")).unwrap_or(bytes.len());
    Some(at..end)
}

/// The rest of a private key whose beginning was cut off, with all before it.
fn pem_end(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    // Asked only where text begins: a key that has its beginning was found there.
    if at != 0 {
        return None;
    }
    let end = memchr::memmem::find(bytes, b"-----END ")?;
    let begins = memchr::memmem::find(&bytes[..end], b"-----BEGIN ").is_some();
    if begins { None } else { Some(0..armour(bytes, end, b"-----END ")?) }
}

/// The end of the armour line that begins at `at`, if it is that of a private key.
fn armour(bytes: &[u8], at: usize, start: &[u8]) -> Option<usize> {
    let rest = bytes[at..].strip_prefix(start)?;
    let dashes = memchr::memmem::find(&rest[..rest.len().min(64)], b"-----")?;
    let is_private = memchr::memmem::find(&rest[..dashes], b"PRIVATE KEY").is_some();
    is_private.then_some(at + start.len() + dashes + 5)
}

/// `scheme://user:PASSWORD@host`, and a long lone `scheme://TOKEN@host`.
fn url_password(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = bytes[at..].strip_prefix(b"://")?;
    let authority =
        run(rest, |b| !b.is_ascii_whitespace() && !matches!(b, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>'));
    let user_end = memchr::memrchr(b'@', &rest[..authority])?;
    let start = match memchr::memchr(b':', &rest[..user_end]) {
        Some(colon) => colon + 1,
        None if user_end >= 20 => 0,
        None => return None,
    };
    (start < user_end).then_some(at + 3 + start..at + 3 + user_end)
}

/// `Bearer TOKEN`, `Basic TOKEN`.
fn scheme(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let word = ["bearer", "basic"].into_iter().find(|word| starts_word(bytes, at, word.as_bytes(), true))?;
    let blank = run(&bytes[at + word.len()..], |b| matches!(b, b' ' | b'\t'));
    let start = at + word.len() + blank;
    let length = run(&bytes[start..], is_token68);
    (blank > 0 && looks_random(&bytes[start..start + length])).then_some(start..start + length)
}

/// A key with a provider's prefix.
fn provider_key(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let prefix = KEY_PREFIXES.iter().find(|prefix| starts_word(bytes, at, prefix.as_bytes(), false))?;
    let length = run(&bytes[at..], |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let rest = &bytes[at + prefix.len()..at + length];
    // `sk-learn-based-pipeline` is a word.
    let is_key = rest.len() >= KEY_MIN_BYTES && rest.iter().any(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    is_key.then_some(at..at + length)
}

/// Three parts in base64url, the first of which is a JSON object.
fn jwt(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    if !starts_word(bytes, at, b"eyJ", false) {
        return None;
    }
    let length = run(&bytes[at..], |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let dots = memchr::memchr_iter(b'.', &bytes[at..at + length]).count();
    (dots >= 2 && length >= 24).then_some(at..at + length)
}

/// `name=VALUE`, `name: VALUE`, `"name":"VALUE"` where the name is one of a secret.
fn assignment(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    const NAME_MAX_BYTES: usize = 64;
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if at > 0 && is_name(bytes[at - 1]) {
        return None;
    }
    let name_end = at + run(&bytes[at..], is_name);
    // Names are ASCII by construction.
    let name =
        std::str::from_utf8(&bytes[at..name_end]).ok().filter(|name| (2..=NAME_MAX_BYTES).contains(&name.len()))?;
    let mut place = name_end + run(&bytes[name_end..], |b| matches!(b, b'"' | b'\'' | b'\\' | b' '));
    let sign = *bytes.get(place).filter(|sign| matches!(sign, b'=' | b':'))?;
    if !is_denied(name) {
        return None;
    }
    place += 1;
    place += run(&bytes[place..], |b| b == b' ');
    let opening = run(&bytes[place..], |b| matches!(b, b'\\' | b'"' | b'\''));
    let (start, quote) = (place + opening, bytes[place..place + opening].last().copied());
    let end = start
        + run(&bytes[start..], |b| match quote {
            Some(quote) => b != quote && b != b'\n',
            None if is_header(name) => b != b'\n' && b != b'\r',
            None => !b.is_ascii_whitespace() && !matches!(b, b',' | b';' | b'&' | b')' | b']' | b'}' | b'"' | b'\''),
        });
    let value = &bytes[start..end];
    let meant = match (sign, quote) {
        // "invalid token: expired" says something; a header says it in one word more.
        (b':', None) => value.split(u8::is_ascii_whitespace).any(looks_random),
        _ => !value.is_empty(),
    };
    let count = std::str::from_utf8(value).is_ok_and(|value| is_count(name, value));
    (meant && !count && !bytes[start..].starts_with(REPLACEMENT.as_bytes())).then_some(start..end)
}

/// Headers hold several words.
fn is_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("cookie") || name.ends_with("authorization")
}

fn is_token68(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
}

/// Whether this is no word of a language.
fn looks_random(token: &[u8]) -> bool {
    let mixed = token.iter().skip(1).any(u8::is_ascii_uppercase) && token.iter().any(u8::is_ascii_lowercase);
    let digit = token.iter().any(u8::is_ascii_digit);
    token.len() >= 20 || token.len() >= 6 && (digit || mixed || token.contains(&b'='))
}

/// Whether `word` is at `at`, and nothing before it makes it the end of another word.
fn starts_word(bytes: &[u8], at: usize, word: &[u8], any_case: bool) -> bool {
    let there = bytes.get(at..at + word.len());
    let same = there.is_some_and(|there| there == word || any_case && there.eq_ignore_ascii_case(word));
    same && (at == 0 || !bytes[at - 1].is_ascii_alphanumeric())
}

/// How many bytes at the beginning are so.
fn run(bytes: &[u8], is_so: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|b| !is_so(*b)).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_found_and_the_rest_stays() {
        let cases = [
            ("a Bearer abc.DEF-123 b", "a Bearer [redacted] b"),
            ("Authorization: Basic Zm9vOmJhcg==\nnext", "Authorization: [redacted]\nnext"),
            ("key sk-proj-abcDEF123456789", "key [redacted]"),
            ("ghp_16C7e42F292c6912E7710c838347Ae178B4a!", "[redacted]!"),
            ("AKIAIOSFODNN7EXAMPLE.", "[redacted]"),
            ("(xoxb-1234567890-abcdefghij)", "([redacted])"),
            ("t=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln x", "t=[redacted] x"),
            ("at https://joe:p@ss@example.com/x?y", "at https://joe:[redacted]@example.com/x?y"),
            ("?access_token=abc&x=1", "?access_token=[redacted]&x=1"),
            ("DB_PASSWORD='hunter two' ok", "DB_PASSWORD='[redacted]' ok"),
            (r#"{\"password\":\"h\",\"a\":1}"#, r#"{\"password\":\"[redacted]",\"a\":1}"#),
            ("password: hunter2", "password: [redacted]"),
            ("PWd=[redacted], PWd=A", "PWd=[redacted], PWd=[redacted]"),
            ("Set-Cookie: a=b; Path=/; x1y2z3", "Set-Cookie: [redacted]"),
            ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nok", "[redacted]\nok"),
            ("-----BEGIN PRIVATE KEY-----\nMIIE", "[redacted]"),
            ("MIIE\n-----END PRIVATE KEY----- ok", "[redacted] ok"),
            ("MIIE\n-----END PRIVATE KEY----- MIIF\n-----END RSA PRIVATE KEY----- ok", "[redacted] ok"),
        ];
        for (text, expected) in cases {
            assert_eq!(scrubbed(text), expected, "of {text}");
        }
    }

    #[test]
    fn words_are_left_alone() {
        for text in [
            "invalid token: expired",
            "the bearer of bad news",
            "Bearer authentication required",
            "risk-assessment-of-2024-projects",
            "sk-learn-based-pipeline",
            "https://example.com:8080/a@b",
            "ssh://git@host/x",
            "max_tokens=4096, tokenizer=bert",
            "-----BEGIN CERTIFICATE-----",
            "password must not be empty",
        ] {
            assert_eq!(scrubbed(text), text);
        }
    }

    #[test]
    fn names_of_secrets_are_known_in_every_spelling() {
        for name in ["apiKey", "X-API-KEY", "api.key", "AccessToken", "passwort_password", "auth", "PIN"] {
            assert!(is_denied(name), "{name}");
        }
        for name in ["author", "path", "pinned", "key", "tokenizer", "passing"] {
            assert!(!is_denied(name), "{name}");
        }
        assert!(is_count("max_tokens", "12") && !is_count("tokens", "\"a\"") && !is_count("pin", "1234"));
    }
}
