//! `options` of a service with `builtin = "watch"`: folders, and what is done with what
//! appears in them. What a folder does not write is of the options above it.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use super::reader::{Entry, Table};
use crate::process::veil::Veil;
use crate::watch::{FolderSettings, Handling, PLACE, Select, Settings};

const WANTED: &str = "not a folder; write \"~/Downloads\" or { path = \"~/Downloads\", patterns = [\"*.pdf\"] }";
const DAY: Duration = Duration::from_secs(24 * 3600);
const SETTLES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;

/// Takes `options` out of the table of the service.
pub(super) fn read(service: &mut Table<'_>) -> Option<Settings> {
    let cwd = service.folder().to_owned();
    let read = |entry: &Entry<'_>| {
        entry.table("not a table; write { folders = [\"~/Downloads\"] }", |options| settings(options, &cwd))?
    };
    let settings = service.take("options", read);
    if !service.has("options") {
        service.refuse_at::<()>("builtin", "needs folders; write options = { folders = [\"~/Downloads\"] }");
    }
    settings
}

fn settings(options: &mut Table<'_>, cwd: &Path) -> Option<Settings> {
    let above = folder_keys(options, &Folder::usual(cwd));
    let folders = options.take("folders", |entry| {
        let folders = entry.list("not a list of folders; write [\"~/Downloads\"]", |entry| folder(entry, &above))?;
        if folders.is_empty() {
            return entry.refuse("empty; write at least one folder, such as [\"~/Downloads\"]");
        }
        apart(&folders).map_or(Some(folders), |why| entry.refuse(why))
    });
    let database = options.take("database", Entry::path).unwrap_or_else(|| options.folder().join("watch.db"));
    let concurrency = options.take("concurrency", |entry| entry.integer(1..=64)).unwrap_or(2);
    let rescan = Duration::from_secs(1)..=DAY;
    let rescan_every = options.take("rescan", |entry| entry.duration(rescan)).unwrap_or(Duration::from_secs(600));
    let keep = Duration::from_secs(60)..=3650 * DAY;
    let keep_for = options.take("keep", |entry| entry.duration(keep)).unwrap_or(30 * DAY);
    let max_files = options.take("max_files", |entry| entry.integer(1..=10_000_000)).unwrap_or(Settings::MAX_FILES);
    if !options.has("folders") {
        return options.refuse("needs folders; write { folders = [\"~/Downloads\"] }");
    }
    Some(Settings {
        folders: folders?,
        database,
        concurrency: concurrency as usize,
        rescan_every,
        keep_for,
        keep_bytes: Settings::KEEP_BYTES,
        max_bytes: Settings::MAX_BYTES,
        max_files: max_files.into(),
        drain: Settings::DRAIN,
    })
}

fn folder(entry: &Entry<'_>, above: &Folder) -> Option<FolderSettings> {
    if !entry.is_table() {
        if entry.value().and_then(toml_edit::Value::as_str).is_none() {
            return entry.refuse(WANTED);
        }
        return Some(above.at(entry.path()?));
    }
    entry.table(WANTED, |table| {
        let own = folder_keys(table, above);
        match table.take("path", Entry::path) {
            Some(path) => Some(own.at(path)),
            None if table.has("path") => None,
            None => table.refuse("needs path; write { path = \"~/Downloads\" }"),
        }
    })?
}

/// What folders and the options above them may both write.
#[derive(Clone)]
struct Folder {
    select: Select,
    recursive: bool,
    follow_links: bool,
    existing: bool,
    settle: Duration,
    argv: Option<Vec<String>>,
    cwd: PathBuf,
    batch: u32,
    timeout: Duration,
    retries: u32,
}

impl Folder {
    fn usual(cwd: &Path) -> Self {
        Folder {
            select: Select::default(),
            recursive: true,
            follow_links: false,
            existing: false,
            settle: Duration::from_secs(2),
            argv: None,
            cwd: cwd.to_owned(),
            batch: 1,
            timeout: Duration::from_secs(300),
            retries: 3,
        }
    }

    fn at(&self, path: PathBuf) -> FolderSettings {
        // A word around the place has room for one, whatever is inherited.
        let is_for_one = |argv: &[String]| argv.iter().any(|word| word.contains(PLACE) && word != PLACE);
        let handling = self.argv.as_ref().map(|argv| Handling {
            argv: argv.clone(),
            cwd: self.cwd.clone(),
            batch: if is_for_one(argv) { 1 } else { self.batch as usize },
            timeout: self.timeout,
            retries: self.retries,
            veil: Veil::default(),
        });
        FolderSettings {
            path: path.components().collect(),
            select: self.select.clone(),
            recursive: self.recursive,
            follow_links: self.follow_links,
            existing: self.existing,
            settle: self.settle,
            handling,
        }
    }
}

fn folder_keys(table: &mut Table<'_>, above: &Folder) -> Folder {
    let patterns = table.take("patterns", patterns);
    let ignore = table.take("ignore", self::patterns);
    let hidden = table.take("hidden", Entry::boolean);
    let recursive = table.take("recursive", Entry::boolean).unwrap_or(above.recursive);
    let follow_links = table.take("follow_links", Entry::boolean).unwrap_or(above.follow_links);
    let existing = table.take("existing", Entry::boolean).unwrap_or(above.existing);
    let settle = table.take("settle", |entry| entry.duration(SETTLES)).unwrap_or(above.settle);
    let batch = table.take("batch", |entry| entry.integer(1..=1000)).unwrap_or(above.batch);
    let command = |entry: &Entry<'_>| {
        let argv = entry.command()?;
        let holds = |word: &&String| word.contains(PLACE) && *word != PLACE;
        match argv.iter().find(holds) {
            Some(word) if batch > 1 => {
                entry.refuse(format!("{word:?} has room for one path; write \"{PLACE}\" alone, or batch = 1"))
            }
            _ => Some(argv),
        }
    };
    // "off" records only, where the options above have a command.
    let argv = table.take("command", |entry| entry.or_off(command)).unwrap_or_else(|| above.argv.clone());
    Folder {
        select: above.select.clone().with(patterns.as_deref(), ignore.as_deref(), hidden),
        recursive,
        follow_links,
        existing,
        settle,
        argv,
        cwd: above.cwd.clone(),
        batch,
        timeout: table.take("timeout", |entry| entry.duration(TIMEOUTS)).unwrap_or(above.timeout),
        retries: table.take("retries", |entry| entry.integer(0..=100)).unwrap_or(above.retries),
    }
}

fn patterns(entry: &Entry<'_>) -> Option<Vec<String>> {
    entry.list("not a list of patterns; write [\"*.png\", \"*.jpg\"]", |entry| {
        let pattern = entry.text()?;
        match Select::pattern(&pattern) {
            Ok(()) => Some(pattern),
            Err(why) => entry.refuse(why),
        }
    })
}

/// Each file is of one folder.
fn apart(folders: &[FolderSettings]) -> Option<String> {
    folders.iter().enumerate().find_map(|(n, folder)| {
        let mut others = folders.iter().enumerate().filter(|(m, _)| *m != n);
        let outer =
            others.find(|(m, other)| folder.path.starts_with(&other.path) && (n > *m || folder.path != other.path))?;
        Some(match outer.1.path == folder.path {
            true => format!("{} is there twice; take one out", folder.path.display()),
            false => format!("{} is within {}; take one out", folder.path.display(), outer.1.path.display()),
        })
    })
}
