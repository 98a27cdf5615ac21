//! What to watch and what to do: `options` of `[services.NAME] builtin = "watch"`.

use std::{path::PathBuf, time::Duration};

use super::select::Select;
use crate::process::veil::Veil;

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// At least one, none within another.
    pub folders: Vec<FolderSettings>,
    pub database: PathBuf,
    /// Commands under way at once, of all folders together.
    pub concurrency: usize,
    /// All folders are looked through this often, whatever the kernel tells.
    pub rescan_every: Duration,
    /// Events that are over are deleted after so long.
    pub keep_for: Duration,
    /// Beyond this the oldest events go earlier.
    pub keep_bytes: u64,
    /// watch.db never grows beyond this.
    pub max_bytes: u64,
    /// No more files than this are known at once; others are left out until some go.
    pub max_files: u64,
    /// How long commands may take to end when the watcher stops.
    pub drain: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FolderSettings {
    /// Absolute; need not exist yet.
    pub path: PathBuf,
    pub select: Select,
    /// Subfolders too.
    pub recursive: bool,
    /// Links are followed, out of the folder too.
    pub follow_links: bool,
    /// Files that were there before the folder was watched are handled as new ones.
    pub existing: bool,
    /// A file is written as long as its size or mtime changed within this time.
    pub settle: Duration,
    /// `None` only records.
    pub handling: Option<Handling>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Handling {
    /// Program and arguments, at least the program.
    pub argv: Vec<String>,
    pub cwd: PathBuf,
    /// So many paths go to one command at most.
    pub batch: usize,
    pub timeout: Duration,
    /// So often a failed command is tried again.
    pub retries: u32,
    /// What must not show in why one failed.
    pub veil: Veil,
}

/// In an argument: where the path goes. Without one it is the last argument.
pub const PLACE: &str = "{path}";

impl Settings {
    pub const DRAIN: Duration = Duration::from_secs(30);
    pub const KEEP_BYTES: u64 = 256 << 20;
    pub const MAX_BYTES: u64 = 1 << 30;
    pub const MAX_FILES: u32 = 200_000;
}
