//! Public names: `SERVER__name` at `/mcp`, within the bounds that clients set.
//!
//! Clients put a prefix of their own before a tool's name and must stay within 64
//! characters of `[A-Za-z0-9_-]`. A name that would not fit is cut, and a digest of
//! the whole keeps it apart from others; the same name always gives the same result.

use crate::text;

const SEPARATOR: &str = "__";

/// The name at `/mcp` of what `server` calls `own`.
pub(crate) fn public(server: &str, own: &str, max_chars: usize) -> String {
    let whole = format!("{server}{SEPARATOR}{own}");
    if whole.len() <= max_chars && !own.is_empty() && whole.bytes().all(is_allowed) {
        return whole;
    }
    let keep = max_chars.saturating_sub(text::DIGEST_CHARS + 1);
    let start: String =
        whole.chars().map(|c| if c.is_ascii() && is_allowed(c as u8) { c } else { '_' }).take(keep).collect();
    format!("{start}_{}", text::digest(&whole))
}

/// The server that a public name begins with; the catalog knows the rest.
pub(crate) fn server_of(public: &str) -> Option<&str> {
    public.split_once(SEPARATOR).map(|(server, _)| server)
}

/// What the server calls it, if the public name is not a shortened one.
pub(crate) fn own_of(public: &str) -> Option<&str> {
    public.split_once(SEPARATOR).map(|(_, own)| own)
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_stay_readable() {
        assert_eq!(public("files", "read_file", 50), "files__read_file");
        assert_eq!(public("a", "x__y", 50), "a__x__y");
        assert_eq!(server_of("a__x__y"), Some("a"));
        assert_eq!(own_of("a__x__y"), Some("x__y"));
    }

    #[test]
    fn names_that_do_not_are_shortened_and_stay_apart() {
        let odd = ["a/b", "a.b", "a b", "ä", "", &"n".repeat(100), &format!("{}x", "n".repeat(100))];
        let names: Vec<String> = odd.iter().map(|own| public("server", own, 50)).collect();
        for (name, own) in names.iter().zip(&odd) {
            assert!(name.len() <= 50 && name.bytes().all(is_allowed), "{own:?} became {name:?}");
            assert_eq!(*name, public("server", own, 50), "the same each time");
            assert_eq!(server_of(name), Some("server"));
        }
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), odd.len());
        // Written down, so that a change of the rule that would rename users' tools shows.
        assert_eq!(public("server", "a/b", 50), "server__a_b_t82s5dfj");
    }
}
