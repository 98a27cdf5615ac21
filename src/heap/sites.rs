//! Which places in the program hold the most memory, read from the allocator's own profile
//! and named by the program's own symbols.

use std::{collections::HashMap, fmt::Write as _};

/// Frames of an allocation that say something: the innermost ones are the allocator's.
const FRAMES_SHOWN: usize = 3;
const NAME_CHARS_MAX: usize = 100;
/// Of a path: enough to find the file by.
const PLACE_PARTS: usize = 3;

/// One place, and what it holds.
#[derive(Debug, PartialEq)]
pub(super) struct Site {
    pub(super) bytes: f64,
    frames: Vec<usize>,
}

/// All places of a profile, the largest first.
pub(super) fn of_profile(text: &str) -> Vec<Site> {
    let mut lines = text.lines();
    let every = lines.next().and_then(|line| line.strip_prefix("heap_v2/")?.trim().parse::<f64>().ok());
    let every = every.unwrap_or(1.0);
    let mut sites = Vec::new();
    let mut frames: Option<Vec<usize>> = None;
    for line in lines.take_while(|line| !line.starts_with("MAPPED_LIBRARIES")) {
        if let Some(stack) = line.strip_prefix('@') {
            let address = |word: &str| usize::from_str_radix(word.trim_start_matches("0x"), 16).ok();
            frames = Some(stack.split_whitespace().filter_map(address).collect());
        } else if let Some(all) = line.trim_start().strip_prefix("t*:")
            && let Some(frames) = frames.take()
            && let Some(bytes) = estimate(all, every)
        {
            sites.push(Site { bytes, frames });
        }
    }
    sites.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
    sites
}

/// ` count: bytes [...]`, as samples; what they stand for.
fn estimate(line: &str, every: f64) -> Option<f64> {
    let (count, rest) = line.split_once(':')?;
    let count: f64 = count.trim().parse().ok()?;
    let bytes: f64 = rest.split_whitespace().next()?.parse().ok()?;
    if count == 0.0 {
        return Some(0.0);
    }
    // An allocation is a sample by chance, the likelier the larger it is.
    Some(bytes / (1.0 - (-bytes / count / every).exp()))
}

/// `largest` in lines, those of one place in one.
pub(super) fn listing(sites: &[Site], largest: usize) -> String {
    let mut by_name: HashMap<String, f64> = HashMap::new();
    for site in sites {
        *by_name.entry(name(&site.frames)).or_default() += site.bytes;
    }
    let mut named: Vec<(String, f64)> = by_name.into_iter().collect();
    named.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
    named.iter().take(largest).fold(String::new(), |mut out, (name, bytes)| {
        let _ = writeln!(out, "  {:>10}  {name}", shown(*bytes));
        out
    })
}

pub(super) fn shown(bytes: f64) -> String {
    match bytes {
        ..1024.0 => format!("{bytes:.0} B"),
        ..1_048_576.0 => format!("{:.1} KiB", bytes / 1024.0),
        _ => format!("{:.1} MiB", bytes / 1_048_576.0),
    }
}

/// One function on the way to an allocation.
#[derive(Default)]
struct Frame {
    name: String,
    /// File and line, where the program still knows them.
    place: Option<String>,
}

/// The innermost frames that are not the allocator's or a collection's.
fn name(frames: &[usize]) -> String {
    let frames: Vec<Frame> = frames.iter().flat_map(|address| frames_at(*address)).collect();
    let own: Vec<String> =
        frames.iter().filter(|frame| !is_plumbing(frame)).take(FRAMES_SHOWN).map(shown_frame).collect();
    match own[..] {
        [] => frames.last().map_or_else(|| "no symbol".to_owned(), shown_frame),
        _ => own.join(" < "),
    }
}

fn shown_frame(frame: &Frame) -> String {
    let name: String = frame.name.chars().take(NAME_CHARS_MAX).collect();
    match frame.place.as_deref() {
        Some(place) => {
            let from = place.rmatch_indices('/').nth(PLACE_PARTS - 1).map_or(0, |(at, _)| at + 1);
            format!("{name} ({})", &place[from..])
        }
        None => name,
    }
}

fn is_plumbing(frame: &Frame) -> bool {
    const PLACES: [&str; 6] = ["/rustc/", "/library/", "/hashbrown-", "/rayon", "/tikv-jemalloc", "/smallvec-"];
    const NAMES: [&str; 9] = ["alloc::", "core::", "std::", "__rust", "_rjem", "prof_", "je_", "hashbrown::", "rayon"];
    let name = frame.name.trim_start_matches('<');
    match &frame.place {
        Some(place) if PLACES.iter().any(|part| place.contains(part)) => true,
        _ => {
            NAMES.iter().any(|begin| name.starts_with(begin))
                || name.starts_with("tikv_jemalloc")
                || ["malloc", "calloc", "realloc", "posix_memalign"].iter().any(|word| name.ends_with(word))
        }
    }
}

/// Those of one address: more than one where functions were put into each other.
#[cfg(feature = "embedding")]
fn frames_at(address: usize) -> Vec<Frame> {
    let mut found = Vec::new();
    // The address is where the call returns to, which may be the next function already.
    backtrace::resolve(std::ptr::without_provenance_mut(address.saturating_sub(1)), |symbol| {
        let name = symbol.name().map(|name| format!("{name:#}")).unwrap_or_default();
        let line = symbol.lineno().map(|line| format!(":{line}")).unwrap_or_default();
        let place = symbol.filename().map(|file| format!("{}{line}", file.display()));
        found.push(Frame { name, place });
    });
    found
}

#[cfg(not(feature = "embedding"))]
fn frames_at(address: usize) -> Vec<Frame> {
    vec![Frame { name: format!("{address:#x}"), place: None }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_for_what_was_not_sampled() {
        let profile = "heap_v2/524288\n  t*: 3: 1200000 [0: 0]\n@ 0x10 0x20\n  t*: 1: 100 [0: 0]\n  t1: 1: 100 [0: 0]\n\
                       @ 0x30\n  t*: 2: 2000000 [0: 0]\n\nMAPPED_LIBRARIES:\n@ 0x99\n";
        let sites = of_profile(profile);
        assert_eq!(sites.iter().map(|site| site.frames.clone()).collect::<Vec<_>>(), [vec![0x30], vec![0x10, 0x20]]);
        assert!((2_000_000.0..2_400_000.0).contains(&sites[0].bytes), "{sites:?}");
        assert!((524_000.0..525_000.0).contains(&sites[1].bytes), "a small one stands for an interval: {sites:?}");
        assert!(of_profile("nonsense").is_empty());
    }

    #[cfg(feature = "embedding")]
    #[test]
    fn a_place_is_called_by_the_name_of_its_function() {
        // Not the first instruction: a return address never is.
        let address = of_profile as fn(&str) -> Vec<Site> as usize + 8;
        let name = name(&[address]);
        assert!(name.contains("of_profile"), "{name}");
    }
}
