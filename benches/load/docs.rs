//! Where a bench writes what it says: between two markers of a page in docs/.

use std::{fmt, fs, path::Path};

/// Replaces what stands between `<!-- SECTION:begin -->` and `<!-- SECTION:end -->`.
pub(crate) fn write(page: &str, section: &str, report: &impl fmt::Display) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let old = fs::read_to_string(&path).unwrap_or_else(|error| panic!("docs/{page} cannot be read: {error}"));
    let (begin, end) = (format!("<!-- {section}:begin -->"), format!("<!-- {section}:end -->"));
    let (before, rest) = old.split_once(&begin).unwrap_or_else(|| panic!("docs/{page} has no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/{page} has no {end}"));
    let written = fs::write(&path, format!("{before}{begin}\n{report}{end}{after}"));
    written.unwrap_or_else(|error| panic!("docs/{page} cannot be written: {error}"));
}
