//! Public names: `SERVER__name` at `/mcp`, within the bounds that clients set.
//!
//! Clients put a prefix of their own before a tool's name and must stay within 64
//! characters of `[A-Za-z0-9_-]`. A name that would not fit is cut, and a digest of
//! the whole keeps it apart from others; the same name always gives the same result.

use std::collections::HashSet;

use crate::text;

const SEPARATOR: &str = "__";
/// A server that takes so many names in a row means it.
const TRIES_MAX: usize = 100;

/// The names at `/mcp` of what `server` calls these. One that is cut makes way for one
/// that fits and happens to be, or is meant to be, spelled the same.
pub(crate) fn public_of_all(server: &str, own: &[String], max_chars: usize) -> Vec<String> {
    let taken: HashSet<String> = own.iter().filter_map(|own| whole(server, own, max_chars)).collect();
    let name = |own: &String| {
        let mut tries = (0..TRIES_MAX).map(|salt| public(server, own, max_chars, salt));
        let fits = whole(server, own, max_chars).is_some();
        // With all of them taken the first that is listed stands for the name.
        tries.find(|name| fits || !taken.contains(name)).unwrap_or_else(|| public(server, own, max_chars, 0))
    };
    own.iter().map(name).collect()
}

fn whole(server: &str, own: &str, max_chars: usize) -> Option<String> {
    let whole = format!("{server}{SEPARATOR}{own}");
    (whole.len() <= max_chars && !own.is_empty() && whole.bytes().all(is_allowed)).then_some(whole)
}

/// The name at `/mcp` of what `server` calls `own`; another one for each `salt` where it
/// does not fit.
fn public(server: &str, own: &str, max_chars: usize, salt: usize) -> String {
    if let Some(whole) = whole(server, own, max_chars) {
        return whole;
    }
    let mut whole = format!("{server}{SEPARATOR}{own}");
    let keep = max_chars.saturating_sub(text::DIGEST_CHARS + 1);
    let start: String =
        whole.chars().map(|c| if c.is_ascii() && is_allowed(c as u8) { c } else { '_' }).take(keep).collect();
    if salt > 0 {
        whole.push_str(&format!("\0{salt}"));
    }
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
        assert_eq!(public("files", "read_file", 50, 0), "files__read_file");
        assert_eq!(public("a", "x__y", 50, 0), "a__x__y");
        assert_eq!(server_of("a__x__y"), Some("a"));
        assert_eq!(own_of("a__x__y"), Some("x__y"));
    }

    #[test]
    fn names_that_do_not_are_shortened_and_stay_apart() {
        let odd = ["a/b", "a.b", "a b", "ä", "", &"n".repeat(100), &format!("{}x", "n".repeat(100))];
        let names: Vec<String> = odd.iter().map(|own| public("server", own, 50, 0)).collect();
        for (name, own) in names.iter().zip(&odd) {
            assert!(name.len() <= 50 && name.bytes().all(is_allowed), "{own:?} became {name:?}");
            assert_eq!(*name, public("server", own, 50, 0), "the same each time");
            assert_eq!(server_of(name), Some("server"));
        }
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), odd.len());
        // Written down, so that a change of the rule that would rename users' tools shows.
        assert_eq!(public("server", "a/b", 50, 0), "server__a_b_t82s5dfj");
    }

    #[test]
    fn a_name_that_is_cut_makes_way_for_one_that_is_spelled_like_it() {
        let own: Vec<String> = ["a/b", "a_b_t82s5dfj", "a.b", "a/b"].map(str::to_owned).into();
        let names = public_of_all("server", &own, 50);
        assert_eq!(names[1], "server__a_b_t82s5dfj", "it fits, and keeps its name");
        assert_ne!(names[0], names[1]);
        assert_eq!(names[0], names[3], "one name is one name");
        assert_eq!(names[2], public("server", "a.b", 50, 0), "who is in nobody's way stays");
        let backwards: Vec<String> = own.iter().rev().cloned().collect();
        let again: Vec<String> = public_of_all("server", &backwards, 50).into_iter().rev().collect();
        assert_eq!(names, again, "whatever the order of the list");
    }
}
