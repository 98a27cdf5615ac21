//! What the indexes have said: uv keeps the pages that it has read, and a place that one of
//! them names stands in there as it is written in a URL.
//!
//! Only uv has written these, and nothing of a package has run yet. What the packages
//! themselves say (their metadata) is kept elsewhere and is not looked at: a package is not
//! to name whom its installation talks to.

use std::path::{Path, PathBuf};

use crate::sandbox::Destination;

/// Beginnings of the folders with pages of indexes, and with lists of files.
const PAGES: [&str; 2] = ["simple-", "flat-index-"];
/// A larger page, or more of them together, are not looked through.
const PAGE_MAX_BYTES: u64 = 64 << 20;
const PAGES_MAX_BYTES: u64 = 512 << 20;
const DEPTH_MAX: usize = 8;

/// Those of `places` that a page in uv's cache names.
pub(super) fn named(cache: &Path, places: Vec<Destination>) -> Vec<Destination> {
    let mut left = PAGES_MAX_BYTES;
    let mut found = vec![false; places.len()];
    let forms: Vec<Vec<String>> = places.iter().map(forms).collect();
    let folders = entries(cache).into_iter().filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        PAGES.iter().any(|beginning| name.starts_with(beginning))
    });
    let mut waiting: Vec<(PathBuf, usize)> = folders.map(|folder| (folder, 0)).collect();
    while let Some((path, depth)) = waiting.pop() {
        let Ok(data) = path.symlink_metadata() else { continue };
        if data.is_dir() && depth < DEPTH_MAX {
            waiting.extend(entries(&path).into_iter().map(|path| (path, depth + 1)));
        } else if data.is_file() && data.len() <= PAGE_MAX_BYTES.min(left) {
            left -= data.len();
            let page = std::fs::read(&path).unwrap_or_default();
            for (found, forms) in found.iter_mut().zip(&forms) {
                *found |= forms.iter().any(|form| memchr::memmem::find(&page, form.as_bytes()).is_some());
            }
        }
    }
    places.into_iter().zip(found).filter_map(|(place, found)| found.then_some(place)).collect()
}

/// The beginnings of URLs that lead to a place.
fn forms(place: &Destination) -> Vec<String> {
    let Destination { host, port } = place;
    let short = match port {
        443 => Some(format!("https://{host}/")),
        80 => Some(format!("http://{host}/")),
        _ => None,
    };
    let long = ["https", "http"].map(|scheme| format!("{scheme}://{host}:{port}/"));
    short.into_iter().chain(long).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
