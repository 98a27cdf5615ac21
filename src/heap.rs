//! Heap profiles of seawall's own processes, in the form that `jeprof` and `pprof` open.
//!
//! The allocator of the binary samples who allocated what, if it was told to when the
//! process began: `seawall run` tells the services that it starts. Knows nothing of signals
//! and of servers.toml.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use tikv_jemalloc_ctl::{Access as _, AsName as _};

/// What a process finds in its environment if it is to take samples: one in half a mebibyte
/// that is allocated, which costs less than can be measured.
pub const SAMPLING: (&str, &str) = ("_RJEM_MALLOC_CONF", "prof:true,prof_active:true,lg_prof_sample:19");

/// The allocator's own 10 s would let a burst of large messages stand several times in memory.
const KEPT_FREE_MS: isize = 1000;
/// The oldest are deleted.
const KEPT_PROFILES: usize = 10;
const EXTENSION: &str = "heap";
/// `1` asks for [`report`].
const REPORT_WANTED: &str = "MEMORY_PROFILE";
const SITES_SHOWN: usize = 10;

mod sites;

#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    #[error(
        "this process takes no samples of its heap; `seawall run` starts services so that they do, or set {}={} \
         before it starts",
        SAMPLING.0,
        SAMPLING.1
    )]
    NotSampling,
    #[error("the heap profile cannot be written to {}: {why}", path.display())]
    NotWritten { path: PathBuf, why: String },
}

/// Gives memory that is not needed any more back to the system, in the background, after
/// `KEPT_FREE_MS`. To be called before other threads begin: the first arena is there by then.
pub fn tidy() {
    for key in [&b"arenas.dirty_decay_ms\0"[..], b"arena.0.dirty_decay_ms\0"] {
        let _ = key.name().write(KEPT_FREE_MS);
    }
    let _ = tikv_jemalloc_ctl::background_thread::write(true);
}

/// Whether whoever started this process wants to read at its end what filled its memory.
pub fn is_report_wanted() -> bool {
    std::env::var_os(REPORT_WANTED).is_some_and(|value| value == "1")
}

/// Says on stderr, where that is wanted, which places held the most memory before `release`,
/// and how much was left after it.
pub fn report(who: &str, release: impl FnOnce()) {
    if !is_report_wanted() {
        return release();
    }
    let before = sites_now();
    release();
    let left: f64 = sites_now().map_or(0.0, |sites| sites.iter().map(|site| site.bytes).sum());
    match before {
        Ok(sites) => {
            let all: f64 = sites.iter().map(|site| site.bytes).sum();
            let (all, left) = (sites::shown(all), sites::shown(left));
            let listing = sites::listing(&sites, SITES_SHOWN);
            said(&format!(
                "seawall: {who} held about {all}, most of it from here; {left} are left at its end\n{listing}"
            ));
        }
        Err(error) => said(&format!("seawall: {who}: {error}\n")),
    }
}

fn said(text: &str) {
    // Where stderr is gone there is nobody left to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// By way of a file, which is the one way that the allocator has.
fn sites_now() -> Result<Vec<sites::Site>, HeapError> {
    let unique = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let folder = std::env::temp_dir().join(format!("seawall-heap-{}-{unique}", std::process::id()));
    let not_written = |error: io::Error| HeapError::NotWritten { path: folder.clone(), why: error.to_string() };
    // One that somebody else has made is not used.
    fs::DirBuilder::new().mode(0o700).create(&folder).map_err(not_written)?;
    let text = profile(&folder, "report").and_then(|path| fs::read_to_string(path).map_err(not_written));
    let _ = fs::remove_dir_all(&folder);
    Ok(sites::of_profile(&text?))
}

/// Writes what is allocated now into a new file in `folder`.
pub fn profile(folder: &Path, name: &str) -> Result<PathBuf, HeapError> {
    if !tikv_jemalloc_ctl::profiling::prof::read().unwrap_or(false) {
        return Err(HeapError::NotSampling);
    }
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let path = folder.join(format!("{name}-{now_ms}.{EXTENSION}"));
    let not_written = |why: String| HeapError::NotWritten { path: path.clone(), why };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| not_written(error.to_string()))?;
    make_room(folder, name).map_err(|error| not_written(error.to_string()))?;
    let mut file = path.as_os_str().as_bytes().to_vec();
    file.push(0);
    // The allocator keeps a name for good; that is a hundred bytes for each time somebody asks.
    tikv_jemalloc_ctl::raw::write_str(b"prof.dump\0", file.leak()).map_err(|error| not_written(error.to_string()))?;
    Ok(path)
}

fn make_room(folder: &Path, name: &str) -> io::Result<()> {
    let is_ours = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        path.extension().is_some_and(|extension| extension == EXTENSION)
            && stem.rsplit_once('-').is_some_and(|(whose, _)| whose == name)
    };
    let mut old: Vec<PathBuf> = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).filter(is_ours).collect();
    // The time is in the name, in as many digits.
    old.sort();
    for path in old.iter().rev().skip(KEPT_PROFILES - 1) {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_others_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        for number in 0..12 {
            fs::write(folder.path().join(format!("gateway-17000000000{number:02}.heap")), "").expect("written");
        }
        fs::write(folder.path().join("emit-server-1700000000000.heap"), "").expect("written");
        make_room(folder.path(), "gateway").expect("room");
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).expect("read").map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left.len(), KEPT_PROFILES, "nine of the gateway's, for one is to come, and the other: {left:?}");
        assert!(left.contains(&"gateway-1700000000011.heap".into()));
        assert!(left.contains(&"emit-server-1700000000000.heap".into()));
    }

    #[test]
    fn a_process_that_takes_no_samples_says_how_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = profile(folder.path(), "gateway").expect_err("no samples").to_string();
        assert!(error.contains("seawall run"), "{error}");
    }
}
