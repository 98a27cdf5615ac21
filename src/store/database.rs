//! One connection to the file: opened, checked, written to in batches, and set aside
//! when it is damaged. It tries once and says what went wrong; patience is the writer's.
//!
//! The file itself is never opened by other means than SQLite: closing any descriptor
//! of it would release the locks that SQLite holds on it for the whole process.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{
    Settings,
    row::{EventRecord, FailureRecord, Record},
    schema,
};
use crate::id::unix_ms;

const JOURNAL_MAX_BYTES: i64 = 64 << 20;
/// Damaged files are evidence. More than this many in one place are a dying disk.
const SET_ASIDE_MAX: usize = 3;
const OWNER_ONLY: u32 = 0o600;

/// Why rows cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("another process holds the database locked")]
    Busy,
    #[error("no space left for the database")]
    Full,
    #[error("the database is damaged: {0}")]
    Damaged(String),
    #[error("the database was deleted or replaced")]
    Gone,
    /// What was in it is in the database by now.
    #[error("the journal of the database was deleted or replaced")]
    JournalGone,
    #[error("the database belongs to a newer seawall (its schema is {found}, this one knows {})", schema::VERSION)]
    Newer { found: i64 },
    #[error("the database cannot be used: {0}")]
    Unusable(String),
}

pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
    file: FileId,
    /// `None` where the file system cannot do WAL.
    journal: Option<FileId>,
    committed_rows: usize,
}

/// What a commit is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// Survives the death of any process; a loss of power may take the last rows.
    Process,
    /// Survives a loss of power.
    Power,
}

impl Database {
    /// Opens the file, or makes it. `lock_wait` is how long each statement waits for
    /// other processes.
    pub(super) fn open(settings: &Settings, lock_wait: Duration, durability: Durability) -> Result<Self, Trouble> {
        let path = settings.path.clone();
        let mut connection = connect(&path, lock_wait)?;
        // Asked before anything that writes: a newer file is not to be touched.
        let is_new = schema::version(&connection)? == 0;
        prepare(&connection, is_new, durability)?;
        schema::migrate(&mut connection)?;
        let file = FileId::of(&path).ok_or(Trouble::Gone)?;
        cap(&connection, settings.max_bytes)?;
        let journal = FileId::of(&beside(&path, "-wal"));
        Ok(Database { connection, path, file, journal, committed_rows: 0 })
    }

    /// Writes all of `rows` or none. Rows that are there already are left alone, so a
    /// batch whose end is in doubt can be written again.
    pub(super) fn commit<'a>(&mut self, rows: impl IntoIterator<Item = &'a Record>) -> Result<(), Trouble> {
        let committed = self.insert_all(rows).map_err(or_damaged)?;
        // Asked after the fact: rows that went into a file which nobody can find any
        // more are written again into its successor.
        self.file.is_still_at(&self.path)?;
        self.keep_journal()?;
        self.is_readable()?;
        self.committed_rows += committed;
        Ok(())
    }

    /// So many rows were there after their commit: what is lost when the file is.
    pub(super) fn committed_rows(&self) -> usize {
        self.committed_rows
    }

    fn insert_all<'a>(&mut self, rows: impl IntoIterator<Item = &'a Record>) -> Result<usize, Trouble> {
        let batch = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut inserted = 0;
        for row in rows {
            inserted += insert(&batch, row)?;
        }
        batch.commit()?;
        Ok(inserted)
    }

    pub(super) fn keep_journal(&mut self) -> Result<(), Trouble> {
        keep_journal(&self.connection, &self.path, self.journal)
    }

    /// Whether others still find a database here. This connection may not notice for days
    /// that somebody has overwritten the file: it has the pages in memory.
    fn is_readable(&self) -> Result<(), Trouble> {
        let other = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY);
        match other.map_err(Trouble::from).and_then(|other| glance(&other)).map_err(or_damaged) {
            Err(damaged @ Trouble::Damaged(_)) => Err(damaged),
            // Out of descriptors, say: that is no word about the file.
            _ => Ok(()),
        }
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// The journal has what is not in the file yet. Where somebody has deleted it, the
/// connection is the only one that can still read it: it is brought into the file.
pub(super) fn keep_journal(connection: &Connection, path: &Path, journal: Option<FileId>) -> Result<(), Trouble> {
    if journal == FileId::of(&beside(path, "-wal")) {
        return Ok(());
    }
    let counts = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    match connection.query_row("PRAGMA wal_checkpoint(FULL)", [], counts) {
        Ok((0, in_it, brought_over)) if in_it == brought_over => Err(Trouble::JournalGone),
        _ => Err(Trouble::Gone),
    }
}

/// The head of the file and the oldest rows: pages that no batch has just written anew.
fn glance(connection: &Connection) -> Result<(), Trouble> {
    if schema::version(connection)? == 0 {
        return Err(Trouble::Damaged("its tables are gone".to_owned()));
    }
    for table in ["failures", "events"] {
        let oldest = format!("SELECT * FROM {table} ORDER BY rowid LIMIT 1");
        connection.query_row(&oldest, [], |_| Ok(())).optional()?;
    }
    Ok(())
}

/// A file that was opened had its tables: one that lacks them now is damaged. SQLite has
/// no code of its own for that.
pub(super) fn or_damaged(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Unusable(why) if why.contains("no such table") => Trouble::Damaged(why),
        other => other,
    }
}

/// A connection to the file, which is made if there is none. Nothing is written yet.
pub(super) fn connect(path: &Path, lock_wait: Duration) -> Result<Connection, Trouble> {
    schema::check_library()?;
    make_file(path).map_err(|error| Trouble::Unusable(error.to_string()))?;
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(lock_wait)?;
    Ok(connection)
}

/// The journal, its bound, and what a commit is worth.
pub(super) fn prepare(connection: &Connection, is_new: bool, durability: Durability) -> rusqlite::Result<()> {
    if is_new {
        // Has an effect on an empty file only, and only before it becomes WAL.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    // Where a file system cannot do WAL, SQLite stays with its slower journal.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", JOURNAL_MAX_BYTES, |_| Ok(()))?;
    match durability {
        Durability::Process => connection.pragma_update(None, "synchronous", "NORMAL"),
        Durability::Power => {
            connection.pragma_update(None, "synchronous", "FULL")?;
            // On macOS a plain fsync leaves the rows in the drive's cache.
            connection.pragma_update(None, "fullfsync", true)
        }
    }
}

/// Holds the file, without its journal, to `max_bytes`.
pub(super) fn cap(connection: &Connection, max_bytes: u64) -> rusqlite::Result<()> {
    let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = i64::try_from(max_bytes).unwrap_or(i64::MAX) / page_bytes.max(1);
    connection.pragma_update_and_check(None, "max_page_count", pages.max(1), |_| Ok(()))
}

/// How many rows that came to: none where it was there already.
fn insert(batch: &Transaction<'_>, row: &Record) -> rusqlite::Result<usize> {
    match row {
        Record::Failure(failure) => insert_failure(batch, failure),
        Record::Event(event) => insert_event(batch, event),
    }
}

fn insert_failure(batch: &Transaction<'_>, row: &FailureRecord) -> rusqlite::Result<usize> {
    let mut statement = batch.prepare_cached(
        "INSERT OR IGNORE INTO failures (id, timestamp, server, tool, class, message, duration_ms, client,
             protocol, request_id, instance, arguments, exit_status, stderr_tail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    statement.execute(params![
        row.id,
        row.timestamp_ms,
        row.server,
        row.tool,
        row.class,
        row.message,
        row.duration_ms,
        row.client,
        row.protocol,
        row.request_id,
        row.instance,
        row.arguments,
        row.exit_status,
        row.stderr_tail,
    ])
}

fn insert_event(batch: &Transaction<'_>, row: &EventRecord) -> rusqlite::Result<usize> {
    let mut statement = batch.prepare_cached(
        "INSERT OR IGNORE INTO events (id, timestamp, category, event_type, service_name, metadata)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    statement.execute(params![row.id, row.timestamp_ms, row.category, row.event_type, row.service_name, row.metadata])
}

/// Makes an empty file that only its owner may read, if there is none. SQLite gives
/// its `-wal` and `-shm` the same mode.
pub(super) fn make_file(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match fs::OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            for file in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")] {
                // Not ours to change, or not there: then opening it will tell.
                let _ = fs::set_permissions(file, fs::Permissions::from_mode(OWNER_ONLY));
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Renames the damaged file and its companions to `*.corrupt-TIME`, and says the new
/// name; `None` if the file at `path` is not `damaged` any more, because another
/// process was faster: its fresh one must stay.
pub(super) fn set_aside(path: &Path, damaged: Option<FileId>) -> io::Result<Option<PathBuf>> {
    if damaged.is_none() || FileId::of(path) != damaged {
        return Ok(None);
    }
    let aside = beside(path, &format!(".corrupt-{}", unix_ms()));
    if earlier_ones(path)? >= SET_ASIDE_MAX {
        let why = format!("{SET_ASIDE_MAX} damaged ones lie beside it already: is the disk failing?");
        return Err(io::Error::other(why));
    }
    // The file itself last: as long as it is there, nobody makes new companions of a
    // new file that this would carry away.
    for companion in ["-wal", "-shm"] {
        match fs::rename(beside(path, companion), beside(&aside, companion)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, &aside)?;
    Ok(Some(aside))
}

fn earlier_ones(path: &Path) -> io::Result<usize> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".corrupt-");
    let is_one = |name: &std::ffi::OsStr| {
        let name = name.as_encoded_bytes();
        name.starts_with(prefix.as_encoded_bytes()) && !name.ends_with(b"-wal") && !name.ends_with(b"-shm")
    };
    Ok(fs::read_dir(folder)?.flatten().filter(|entry| is_one(&entry.file_name())).count())
}

/// `path` with `suffix` after its last character.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Which file it is that a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(path: &Path) -> Option<FileId> {
        fs::metadata(path).ok().as_ref().map(FileId::from)
    }

    /// Whether what was written into this file can be found. Asked before anybody else opens
    /// it: beside an empty file SQLite deletes the journal, which then is all that is left.
    pub(super) fn is_still_at(self, path: &Path) -> Result<(), Trouble> {
        let found = fs::metadata(path).map_err(|_| Trouble::Gone)?;
        match FileId::from(&found) == self {
            false => Err(Trouble::Gone),
            true if found.len() == 0 => Err(Trouble::Damaged("the file is empty".to_owned())),
            true => Ok(()),
        }
    }
}

impl From<&fs::Metadata> for FileId {
    fn from(file: &fs::Metadata) -> Self {
        FileId { device: file.dev(), inode: file.ino() }
    }
}

impl Trouble {
    /// A short name, to tell one trouble from another.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Trouble::Busy => "busy",
            Trouble::Full => "full",
            Trouble::Damaged(_) => "damaged",
            Trouble::Gone => "gone",
            Trouble::JournalGone => "journal_gone",
            Trouble::Newer { .. } => "newer",
            Trouble::Unusable(_) => "unusable",
        }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Trouble::Busy,
            Some(ErrorCode::DiskFull) => Trouble::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Trouble::Damaged(error.to_string()),
            _ => Trouble::Unusable(error.to_string()),
        }
    }
}
