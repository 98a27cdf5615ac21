//! What somebody meant who wrote a word that is not there.

/// Below this two words have too little in common.
const LIKENESS_MIN: f64 = 0.6;

/// No name that is known is longer, and comparing takes as long as both together are large.
const WRITTEN_MAX_BYTES: usize = 128;

/// The one of `known` that `written` was most likely meant to be.
pub(crate) fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if written.len() > WRITTEN_MAX_BYTES {
        return None;
    }
    let written = written.to_lowercase();
    known
        .into_iter()
        .map(|word| (likeness(&written, &word.to_lowercase()), word))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        // The first of equals: `max_by` would take the last.
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, word)| word)
}

/// A tool is also known by its own name, without its server's.
fn likeness(written: &str, known: &str) -> f64 {
    let whole = strsim::normalized_damerau_levenshtein(written, known);
    match known.split_once("__") {
        Some((_, own)) => whole.max(strsim::normalized_damerau_levenshtein(written, own)),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_a_capital_and_a_missing_server() {
        let keys = ["timeout", "max_duration", "files__read_file", "notes__read_file"];
        assert_eq!(nearest("timout", keys), Some("timeout"));
        assert_eq!(nearest("maxDuration", keys), Some("max_duration"));
        assert_eq!(nearest("read_file", keys), Some("files__read_file"));
        assert_eq!(nearest("qqq", keys), None);
        assert_eq!(nearest(&"timeout".repeat(20), ["timeout".repeat(20).as_str()]), None, "too long to be compared");
    }
}
