//! Names with `*`, `?` and `**`.

/// A pattern to compare names and paths with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob {
    pattern: Vec<char>,
    /// With a slash in it, it is compared with the whole path, else with the name.
    whole_path: bool,
}

pub(crate) const GLOB_CHARS_MAX: usize = 200;

impl Glob {
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() || pattern.chars().count() > GLOB_CHARS_MAX {
            return Err(format!("the name pattern must have 1 to {GLOB_CHARS_MAX} characters"));
        }
        Ok(Glob { pattern: pattern.chars().collect(), whole_path: pattern.contains('/') })
    }

    /// Whether the file at `path`, relative to where the search began, is meant.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let compared = if self.whole_path { path } else { path.rsplit('/').next().unwrap_or(path) };
        let compared: Vec<char> = compared.chars().collect();
        matches(&self.pattern, &compared)
    }
}

/// The set of places in the pattern that may come next, advanced by each character:
/// never more work than pattern times text, whatever the pattern.
fn matches(pattern: &[char], text: &[char]) -> bool {
    let mut places = vec![false; pattern.len() + 1];
    places[0] = true;
    skip_stars(pattern, &mut places);
    for c in text {
        let mut next = vec![false; pattern.len() + 1];
        for (i, wanted) in pattern.iter().enumerate().filter(|(i, _)| places[*i]) {
            match wanted {
                '*' if *c != '/' || crosses_slashes(pattern, i) => next[i] = true,
                '?' if *c != '/' => next[i + 1] = true,
                wanted if *wanted != '*' && wanted == c => next[i + 1] = true,
                _ => {}
            }
        }
        skip_stars(pattern, &mut next);
        places = next;
    }
    places[pattern.len()]
}

/// A star may stand for nothing; `**/` for no directory at all.
fn skip_stars(pattern: &[char], places: &mut [bool]) {
    for i in 0..pattern.len() {
        if places[i] && pattern[i] == '*' {
            places[i + 1] = true;
            let whole_component = i == 0 || pattern[i - 1] == '/';
            if whole_component && pattern[i..].starts_with(&['*', '*', '/']) {
                places[i + 3] = true;
            }
        }
    }
}

fn crosses_slashes(pattern: &[char], star: usize) -> bool {
    pattern.get(star + 1) == Some(&'*') || star > 0 && pattern[star - 1] == '*'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        for (pattern, path, expected) in [
            ("*.rs", "src/main.rs", true),
            ("*.rs", "src/main.rst", false),
            ("m?in.*", "src/main.rs", true),
            ("src/*.rs", "src/main.rs", true),
            ("src/*.rs", "src/deep/main.rs", false),
            ("src/**/*.rs", "src/deep/er/main.rs", true),
            ("src/**/*.rs", "src/main.rs", true),
            ("**/main.rs", "main.rs", true),
            ("src/**", "src/deep/main.rs", true),
            ("*", "anything", true),
            ("?", "ä", true),
            ("a*b*c", "aXbXc", true),
            ("a*b*c", "aXbX", false),
        ] {
            let glob = Glob::new(pattern).expect("a pattern");
            assert_eq!(glob.matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_of_stars_is_no_trap() {
        let glob = Glob::new(&"*a".repeat(100)).expect("a pattern");
        assert!(!glob.matches(&"a".repeat(250).replace("aa", "ab")));
        assert!(Glob::new("").is_err() && Glob::new(&"*".repeat(GLOB_CHARS_MAX + 1)).is_err());
    }
}
