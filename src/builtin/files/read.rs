//! Reading one file: lines of text, or all of it as base64.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

use rmcp::model::ContentBlock;
use rustix::fs::OFlags;
use serde_json::json;

use super::{base64, roots::Place};
use crate::text;

pub(super) const LINES_DEFAULT: usize = 2000;
/// What one call returns at most, in bytes of the file.
const RETURNED_BYTES_MAX: usize = 1024 * 1024;
/// How far into a file a call skips before the lines that it wants.
const SKIPPED_BYTES_MAX: u64 = 256 * 1024 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

/// Opens a regular file; a pipe or device would block whoever reads it.
fn open_file(place: &Place<'_>) -> Result<File, String> {
    let file = place.open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let about = file.metadata().map_err(|error| place.failed(&error))?;
    match about.file_type() {
        kind if kind.is_file() => Ok(file),
        kind if kind.is_dir() => Err(place.says("is a directory: use list_directory")),
        _ => Err(place.says("is no regular file")),
    }
}

/// Lines `first` (from 1) to `first + lines - 1`.
pub(super) fn text(place: &Place<'_>, first: u64, lines: usize) -> Result<Vec<ContentBlock>, String> {
    let file = open_file(place)?;
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let failed = |error: io::Error| place.failed(&error);
    match skip_lines(&mut file, first - 1).map_err(failed)? {
        Skipped::All => {}
        Skipped::EndAfter(had) => return Err(place.says(&format!("has only {had} lines"))),
        Skipped::TooFar => {
            let max = text::bytes(SKIPPED_BYTES_MAX);
            return Err(place.says(&format!("is read {max} deep at most, and line {first} is further in")));
        }
    }
    let taken = take_lines(&mut file, lines).map_err(failed)?;
    let more = !file.fill_buf().map_err(failed)?.is_empty();
    let Some(text) = as_text(taken.bytes, taken.cut) else {
        return Err(place.says("is not UTF-8 text: read it with encoding \"base64\""));
    };
    let next = first + taken.lines;
    let note = match (taken.cut, more) {
        (true, _) => Some(format!("[line {next} is cut here: it is too long to be returned whole]")),
        (false, true) => Some(format!("[lines {first} to {} of the file; go on with offset={next}]", next - 1)),
        (false, false) => None,
    };
    Ok([Some(text), note].into_iter().flatten().map(ContentBlock::text).collect())
}

/// The whole file: an image as an image, anything else as base64 in JSON.
pub(super) fn whole(place: &Place<'_>) -> Result<Vec<ContentBlock>, String> {
    let file = open_file(place)?;
    let mut bytes = Vec::new();
    // One more than allowed, to tell a file that is too large from one that just fits.
    file.take(RETURNED_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| place.failed(&error))?;
    if bytes.len() > RETURNED_BYTES_MAX {
        let max = text::bytes(RETURNED_BYTES_MAX as u64);
        return Err(place.says(&format!("is larger than {max}, the most that is returned as base64")));
    }
    let encoded = base64::encode(&bytes);
    Ok(vec![match image_type(&bytes) {
        Some(mime_type) => ContentBlock::image(encoded, mime_type),
        None => {
            let file = json!({ "path": place.shown, "bytes": bytes.len(), "encoding": "base64", "data": encoded });
            ContentBlock::text(file.to_string())
        }
    }])
}

enum Skipped {
    All,
    /// The file ended first; it has so many lines.
    EndAfter(u64),
    TooFar,
}

fn skip_lines(file: &mut impl BufRead, lines: u64) -> io::Result<Skipped> {
    let (mut skipped, mut bytes, mut in_line) = (0, 0, false);
    while skipped < lines {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            return Ok(Skipped::EndAfter(skipped + u64::from(in_line)));
        }
        let (used, ended) = match memchr::memchr(b'\n', buffer) {
            Some(end) => (end + 1, true),
            None => (buffer.len(), false),
        };
        file.consume(used);
        skipped += u64::from(ended);
        in_line = !ended;
        bytes += used as u64;
        if bytes > SKIPPED_BYTES_MAX {
            return Ok(Skipped::TooFar);
        }
    }
    let at_end = lines > 0 && file.fill_buf()?.is_empty();
    Ok(if at_end { Skipped::EndAfter(skipped) } else { Skipped::All })
}

struct Taken {
    bytes: Vec<u8>,
    /// Whole lines.
    lines: u64,
    /// The first line is longer than all that may be returned, and ends early.
    cut: bool,
}

fn take_lines(file: &mut impl BufRead, lines: usize) -> io::Result<Taken> {
    let mut taken = Taken { bytes: Vec::new(), lines: 0, cut: false };
    let mut line_began = 0;
    while taken.lines < lines as u64 {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            taken.lines += u64::from(taken.bytes.len() > line_began);
            break;
        }
        let used = memchr::memchr(b'\n', buffer).map_or(buffer.len(), |end| end + 1);
        let room = RETURNED_BYTES_MAX - taken.bytes.len();
        if used > room {
            taken.cut = taken.lines == 0;
            taken.bytes.extend_from_slice(&buffer[..room]);
            if !taken.cut {
                taken.bytes.truncate(line_began);
            }
            break;
        }
        taken.bytes.extend_from_slice(&buffer[..used]);
        file.consume(used);
        if taken.bytes.ends_with(b"\n") {
            taken.lines += 1;
            line_began = taken.bytes.len();
        }
    }
    Ok(taken)
}

/// `None` for what is no text. A cut may have split the last character.
fn as_text(bytes: Vec<u8>, cut: bool) -> Option<String> {
    if memchr::memchr(0, &bytes).is_some() {
        return None;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if cut && error.utf8_error().error_len().is_none() => {
            let end = error.utf8_error().valid_up_to();
            let mut bytes = error.into_bytes();
            bytes.truncate(end);
            String::from_utf8(bytes).ok()
        }
        Err(_) => None,
    }
}

fn image_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, first: u64, lines: usize) -> (String, u64) {
        let mut file = text.as_bytes();
        assert!(matches!(skip_lines(&mut file, first - 1), Ok(Skipped::All)));
        let taken = take_lines(&mut file, lines).expect("memory");
        (String::from_utf8(taken.bytes).expect("text"), taken.lines)
    }

    #[test]
    fn lines_are_counted_from_one() {
        assert_eq!(lines("a\nb\nc", 1, 10), ("a\nb\nc".to_owned(), 3));
        assert_eq!(lines("a\nb\nc\n", 2, 1), ("b\n".to_owned(), 1));
        assert_eq!(lines("", 1, 10), (String::new(), 0));
        let mut file = "a\nb".as_bytes();
        assert!(matches!(skip_lines(&mut file, 2), Ok(Skipped::EndAfter(2))));
        let mut file = "a\nb\n".as_bytes();
        assert!(matches!(skip_lines(&mut file, 2), Ok(Skipped::EndAfter(2))));
    }

    #[test]
    fn what_is_too_much_ends_after_a_whole_line_or_within_the_first() {
        let short_then_long = format!("short\n{}", "x".repeat(RETURNED_BYTES_MAX));
        assert_eq!(lines(&short_then_long, 1, 10), ("short\n".to_owned(), 1));
        let taken = take_lines(&mut "é".repeat(RETURNED_BYTES_MAX).as_bytes(), 10).expect("memory");
        assert!(taken.cut && taken.bytes.len() == RETURNED_BYTES_MAX);
        assert!(as_text([taken.bytes, vec![0xc3]].concat(), true).is_some_and(|text| text.ends_with('é')));
    }
}
