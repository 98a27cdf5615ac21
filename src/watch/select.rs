//! Which names are meant: patterns, what is ignored, what is hidden.
//!
//! A name that is not UTF-8 is compared by its readable form; what it is stays untouched.

use std::path::Path;

use crate::text::glob::Glob;

/// What downloads and editors are not done with, and what they leave lying about.
const UNFINISHED: [&str; 9] =
    ["*.part", "*.partial", "*.crdownload", "*.download", "*.opdownload", "*.tmp", "*~", "~$*", "*.swp"];

#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// Empty takes all.
    patterns: Vec<Glob>,
    ignore: Vec<Glob>,
    /// Names that begin with a dot, too.
    hidden: bool,
}

impl Default for Select {
    fn default() -> Self {
        let ignore = UNFINISHED.iter().filter_map(|pattern| Glob::new(pattern).ok()).collect();
        Select { patterns: Vec::new(), ignore, hidden: false }
    }
}

impl Select {
    /// Says what is wrong with a pattern.
    pub fn pattern(text: &str) -> Result<(), String> {
        Glob::new(text).map(drop)
    }

    /// What is not written (`None`) stays as it is. Patterns that are none are left out:
    /// [`Select::pattern`] has refused them.
    pub fn with(self, patterns: Option<&[String]>, ignore: Option<&[String]>, hidden: Option<bool>) -> Self {
        let globs = |texts: &[String]| texts.iter().filter_map(|text| Glob::new(text).ok()).collect();
        Select {
            patterns: patterns.map_or(self.patterns, globs),
            ignore: ignore.map_or(self.ignore, globs),
            hidden: hidden.unwrap_or(self.hidden),
        }
    }

    /// Whether the file at `path`, relative to its folder, is meant; the folders above
    /// it were asked about by [`Select::enters`].
    pub(super) fn takes(&self, path: &Path) -> bool {
        self.enters(path) && {
            let text = path.to_string_lossy();
            self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(&text))
        }
    }

    /// Whether a subfolder is looked into, by its own name alone.
    pub(super) fn enters(&self, path: &Path) -> bool {
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let text = path.to_string_lossy();
        (self.hidden || !is_hidden) && !self.ignore.iter().any(|pattern| pattern.matches(&text))
    }

    /// The same for a path that nobody has walked to: every folder above it is asked about.
    pub(super) fn reaches(&self, path: &Path) -> bool {
        path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).all(|above| self.enters(above))
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use super::*;

    #[test]
    fn what_is_unfinished_or_hidden_is_left_alone_unless_asked_for() {
        let usual = Select::default();
        for name in ["a.png", "deep/er/b.zip", "-rf", "caf\u{e9}"] {
            assert!(usual.takes(Path::new(name)), "{name}");
        }
        for name in ["a.zip.part", "a.crdownload", "deep/b.tmp", ".DS_Store", "deep/.hidden", "~$a.docx", "a~"] {
            assert!(!usual.takes(Path::new(name)), "{name}");
        }
        let all = Select::default().with(None, Some(&[]), Some(true));
        assert!(all.takes(Path::new(".DS_Store")) && all.takes(Path::new("a.part")));
        assert!(!usual.reaches(Path::new(".git/objects/a")) && !usual.reaches(Path::new("x.download/x/y")));
        assert!(usual.reaches(Path::new("a/b/c")) && usual.reaches(Path::new("c")));
    }

    #[test]
    fn patterns_choose_and_a_name_that_is_no_text_can_be_chosen() {
        let some = Select::default().with(Some(&["*.png".to_owned(), "scans/*".to_owned()]), None, None);
        assert!(some.takes(Path::new("deep/a.png")) && some.takes(Path::new("scans/x")));
        assert!(!some.takes(Path::new("a.jpg")) && !some.takes(Path::new("other/scans/x")));
        assert!(some.takes(Path::new(OsStr::from_bytes(b"caf\xe9.png"))));
        assert!(Select::pattern("").is_err());
    }
}
