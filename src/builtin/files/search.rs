//! Finding files by name and by what they contain.
//!
//! Goes from directory to directory by open descriptors and follows no link, so
//! there is nothing to escape through. Everything that could make it long is bounded.

use std::{
    ffi::CStr,
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rmcp::schemars::{self, JsonSchema};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    list::{self, Kind},
    roots::Place,
};
use crate::text::{self, glob::Glob};

pub(super) const MATCHES_DEFAULT: usize = 100;
pub(super) const MATCHES_MAX: usize = 1000;
pub(super) const CONTENT_CHARS_MAX: usize = 1000;
const LINES_PER_FILE_MAX: usize = 10;
const LINE_CHARS_SHOWN: usize = 200;
const ENTRIES_VISITED_MAX: usize = 200_000;
const DEPTH_MAX: usize = 64;
/// Larger files are not looked into.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
const TIME_MAX: Duration = Duration::from_secs(20);
/// A file with a NUL byte this early is no text.
const LOOKED_AT_FOR_NUL: usize = 1024;

pub(super) struct Wanted {
    pub(super) name: Option<Glob>,
    pub(super) content: Option<String>,
    pub(super) ignore_case: bool,
    pub(super) matches_max: usize,
}

#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Found {
    matches: Vec<Match>,
    /// Why the search ended before everything was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_early: Option<&'static str>,
    /// Files too large to look into, directories too deep or not readable.
    left_out: usize,
}

#[derive(Serialize, JsonSchema)]
struct Match {
    path: String,
    kind: Kind,
    /// The first lines with the content that was looked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<Line>,
}

#[derive(Serialize, JsonSchema)]
struct Line {
    /// From 1.
    number: usize,
    text: String,
}

/// Searches one place after the other; the bounds are for all of them together.
pub(super) fn search(places: &[Place<'_>], wanted: &Wanted, cancelled: &CancellationToken) -> Result<Found, String> {
    let needle = wanted.content.as_ref().map(|content| Needle::new(content, wanted.ignore_case));
    let ends = Instant::now() + TIME_MAX;
    let (mut visited, mut found) = (0, Found::default());
    for place in places {
        let dir = OwnedFd::from(place.open(OFlags::RDONLY | OFlags::DIRECTORY)?);
        let mut search = Search { place, wanted, needle: needle.as_ref(), cancelled, ends, visited, found };
        search.directory(&dir, Path::new(""), 0);
        (visited, found) = (search.visited, search.found);
    }
    Ok(found)
}

struct Search<'a> {
    place: &'a Place<'a>,
    wanted: &'a Wanted,
    needle: Option<&'a Needle>,
    cancelled: &'a CancellationToken,
    ends: Instant,
    visited: usize,
    found: Found,
}

impl Search<'_> {
    fn directory(&mut self, dir: &OwnedFd, path: &Path, depth: usize) {
        let Ok(names) = list::names_in(dir) else {
            self.found.left_out += 1;
            return;
        };
        for name in &names {
            if self.has_ended() {
                return;
            }
            self.visited += 1;
            // What vanished since it was listed is not there to be found.
            let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let kind = Kind::of(&stat);
            let path = path.join(list::shown(name));
            self.compare(dir, name, &path, kind);
            if kind == Kind::Directory {
                self.descend(dir, name, &path, depth + 1);
            }
        }
    }

    fn descend(&mut self, dir: &OwnedFd, name: &CStr, path: &Path, depth: usize) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(dir, name, flags, Mode::empty()) {
            Ok(dir) if depth <= DEPTH_MAX => self.directory(&dir, path, depth),
            _ => self.found.left_out += 1,
        }
    }

    fn compare(&mut self, dir: &OwnedFd, name: &CStr, path: &Path, kind: Kind) {
        if self.wanted.name.as_ref().is_some_and(|glob| !glob.matches(&path.to_string_lossy())) {
            return;
        }
        let lines = match self.needle {
            None => Vec::new(),
            Some(_) if kind != Kind::File => return,
            Some(needle) => match needle.lines_in(dir, name) {
                Some(lines) if lines.is_empty() => return,
                Some(lines) => lines,
                None => {
                    self.found.left_out += 1;
                    return;
                }
            },
        };
        self.found.matches.push(Match { path: self.place.shown_below(path), kind, lines });
    }

    fn has_ended(&mut self) -> bool {
        self.found.stopped_early = if self.found.matches.len() >= self.wanted.matches_max {
            Some("as many were found as were asked for")
        } else if self.visited >= ENTRIES_VISITED_MAX {
            Some("too many files: search a directory further down")
        } else if Instant::now() >= self.ends {
            Some("it took too long: search a directory further down")
        } else if self.cancelled.is_cancelled() {
            Some("it was cancelled")
        } else {
            None
        };
        self.found.stopped_early.is_some()
    }
}

struct Needle {
    content: String,
    ignore_case: bool,
}

impl Needle {
    fn new(content: &str, ignore_case: bool) -> Self {
        let content = if ignore_case { content.to_lowercase() } else { content.to_owned() };
        Needle { content, ignore_case }
    }

    /// The first lines that contain it; `None` for a file that is not looked into.
    fn lines_in(&self, dir: &OwnedFd, name: &CStr) -> Option<Vec<Line>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(openat(dir, name, flags, Mode::empty()).ok()?);
        let about = file.metadata().ok()?;
        if !about.is_file() || about.len() > FILE_BYTES_MAX {
            return None;
        }
        // It may grow while it is read.
        let mut file = BufReader::new(file.take(FILE_BYTES_MAX));
        let mut found = Vec::new();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if file.read_until(b'\n', &mut line).ok()? == 0 || found.len() == LINES_PER_FILE_MAX {
                break;
            }
            if number == 1 && line[..line.len().min(LOOKED_AT_FOR_NUL)].contains(&0) {
                break;
            }
            if self.is_in(&line) {
                let shown = String::from_utf8_lossy(&line);
                found.push(Line { number, text: text::quote(shown.trim_end(), LINE_CHARS_SHOWN) });
            }
        }
        Some(found)
    }

    fn is_in(&self, line: &[u8]) -> bool {
        if !self.ignore_case {
            return memchr::memmem::find(line, self.content.as_bytes()).is_some();
        }
        String::from_utf8_lossy(line).to_lowercase().contains(&self.content)
    }
}
