//! The text of a servers.toml: turns byte offsets into lines and columns, and
//! quotes what stands there.

use std::{ops::Range, path::Path};

use super::complaint::{Complaint, Place};
use crate::text;

/// As much of a value as a complaint repeats.
const EXCERPT_MAX_CHARS: usize = 60;

pub(super) struct Source<'a> {
    /// As the user named it: complaints repeat it so.
    pub(super) path: &'a Path,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Source { path, text, line_starts }
    }

    pub(super) fn complaint(&self, at: usize, key: &str, value: Option<String>, message: String) -> Complaint {
        let message = text::harmless(&message);
        Complaint { file: self.path.into(), place: Some(self.place(at)), key: key.into(), value, message }
    }

    /// The place of a byte. The end of the file counts as the end of its last line,
    /// so that every place is one that an editor can go to.
    fn place(&self, at: usize) -> Place {
        let end = self.text.strip_suffix('\n').unwrap_or(self.text).len();
        let at = (0..=at.min(end)).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        let line = self.line_starts.partition_point(|start| *start <= at);
        let column = self.text[self.line_starts[line - 1]..at].chars().count() + 1;
        Place { line, column }
    }

    /// What stands at `span`, made fit for one line.
    pub(super) fn excerpt(&self, span: &Range<usize>) -> String {
        let written = self.text.get(span.clone()).unwrap_or_default();
        text::quote(written, EXCERPT_MAX_CHARS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_characters_and_lies_inside_the_file() {
        let source = Source::new(Path::new("servers.toml"), "a = 1\nä = \"ü\" # x\n");
        let place = |at| (source.place(at).line, source.place(at).column);
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(5), (1, 6));
        assert_eq!(place(6), (2, 1));
        assert_eq!(place(11), (2, 5));
        assert_eq!(place(12), (2, 6));
        assert_eq!(place(usize::MAX), (2, 12));
        assert_eq!(Source::new(Path::new("x"), "").place(0), Place { line: 1, column: 1 });
    }
}
