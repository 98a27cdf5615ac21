//! Upkeep of a database as a whole, while others use it: what need not be kept any more
//! goes, what is there is checked, and a copy of it is put aside.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, backup::Backup, types::ValueRef};

use super::{
    Settings,
    database::{Database, Durability, Trouble},
    intake::{self, IntakeSettings},
    retention::{self, Step},
};
use crate::id::unix_ms;

const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Problems of a damaged file that are told one by one.
const PROBLEMS_MAX: u32 = 3;

/// One of seawall's databases, and how long what is in it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    Store(Settings),
    Intake(IntakeSettings),
    /// The file watcher's: what need not stay there goes while it watches.
    Watch(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    #[error("{}: {why}", path.display())]
    Unusable { path: PathBuf, why: String },
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("the copy cannot be put in {}: {source}", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
}

impl Kept {
    pub fn path(&self) -> &Path {
        match self {
            Kept::Store(settings) => &settings.path,
            Kept::Intake(settings) => &settings.path,
            Kept::Watch(path) => path,
        }
    }

    /// Deletes what is too old or too much, and gives its room back.
    pub fn retain(&self) -> Result<(), UpkeepError> {
        let done = match self {
            Kept::Store(settings) => {
                Database::open(settings, LOCK_WAIT, Durability::Process).and_then(|mut database| {
                    while retention::step(database.connection(), settings, unix_ms())? == Step::More {}
                    Ok(())
                })
            }
            Kept::Intake(settings) => intake::retain(settings),
            Kept::Watch(_) => Ok(()),
        };
        done.map_err(|trouble: Trouble| unusable(self.path(), &trouble))
    }
}

/// Reads all of a database and says whether it is whole.
pub fn check(path: &Path) -> Result<(), UpkeepError> {
    let problems = || -> rusqlite::Result<Vec<String>> {
        let connection = read_only(path)?;
        let mut statement = connection.prepare(&format!("PRAGMA integrity_check({PROBLEMS_MAX})"))?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    let problems = problems().map_err(|error| match Trouble::from(error) {
        Trouble::Damaged(why) => UpkeepError::Damaged { path: path.to_owned(), why },
        trouble => unusable(path, &trouble),
    })?;
    match problems.as_slice() {
        [whole] if whole == "ok" => Ok(()),
        problems => Err(UpkeepError::Damaged { path: path.to_owned(), why: problems.join("; ") }),
    }
}

/// Copies a database as it is at one moment, whoever writes meanwhile, to a file of that
/// name in `folder`: whole, checked and on the disk, or not at all. A file that has the name
/// already is left as it is.
pub fn back_up(path: &Path, folder: &Path, name: &str) -> Result<PathBuf, UpkeepError> {
    let in_folder = |source| UpkeepError::Folder { folder: folder.to_owned(), source };
    make_folder(folder).map_err(in_folder)?;
    let half = folder.join(format!(".{name}.{}.half-written", std::process::id()));
    let copied = copy(path, &half).and_then(|()| check(&half));
    let placed = copied.and_then(|()| {
        let place = folder.join(name);
        fs::File::open(&half)
            .and_then(|file| file.sync_all())
            .and_then(|()| rename_to_new(&half, &place))
            .and_then(|()| fs::File::open(folder)?.sync_all())
            .map_err(in_folder)?;
        Ok(place)
    });
    if placed.is_err() {
        // What stopped half-way is of no use, and may fill the disk.
        let _ = fs::remove_file(&half);
    }
    placed
}

/// Never over a file that is there.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => return fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        // A file system without second names.
        Err(_) if fs::symlink_metadata(to).is_err() => return fs::rename(from, to),
        Err(_) => {}
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is there already", to.display())))
}

fn copy(path: &Path, to: &Path) -> Result<(), UpkeepError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)
        .map_err(|source| UpkeepError::Folder { folder: to.parent().unwrap_or(to).to_owned(), source })?;
    let copied = || -> rusqlite::Result<()> {
        let source = read_only(path)?;
        let mut target = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // In one go: by pieces, each commit of somebody else would begin it anew. It stops
        // nobody from writing.
        Backup::new(&source, &mut target)?.step(-1)?;
        // A copy is one file, to be opened where nothing can be written beside it.
        target.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))
    };
    copied().map_err(|error| unusable(path, &Trouble::from(error)))
}

fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Whether the first value that a statement finds says yes: a number that is not 0, a
/// text that is not empty. It can change nothing, and ends by then.
pub fn says_yes(path: &Path, sql: &str, within: Duration) -> Result<bool, UpkeepError> {
    let asked = || -> rusqlite::Result<bool> {
        let connection = read_only(path)?;
        let interrupt = connection.get_interrupt_handle();
        let (done, waited) = std::sync::mpsc::channel::<()>();
        let alarm = std::thread::spawn(move || {
            if waited.recv_timeout(within) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                interrupt.interrupt();
            }
        });
        let answer = connection.query_row(sql, [], |row| {
            Ok(match row.get_ref(0)? {
                ValueRef::Null => false,
                ValueRef::Integer(number) => number != 0,
                ValueRef::Real(number) => number != 0.0,
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => !bytes.is_empty(),
            })
        });
        drop(done);
        // It ends at once: what it waits for has been said.
        let _ = alarm.join();
        match answer {
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(false),
            answer => answer,
        }
    };
    asked().map_err(|error| unusable(path, &Trouble::from(error)))
}

fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(LOCK_WAIT)?;
    Ok(connection)
}

fn unusable(path: &Path, trouble: &Trouble) -> UpkeepError {
    UpkeepError::Unusable { path: path.to_owned(), why: trouble.to_string() }
}

/// Any database, for the tests of those who ask one.
#[cfg(test)]
pub(crate) fn tests_database(path: &Path) {
    Connection::open(path).and_then(|connection| connection.execute_batch("CREATE TABLE t (x)")).expect("made");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(path: &Path, rows: u32) -> Connection {
        let connection = Connection::open(path).expect("opens");
        connection
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x TEXT); CREATE INDEX i ON t (x)")
            .expect("tables");
        for n in 0..rows {
            connection.execute("INSERT INTO t VALUES (?1)", [format!("{n}{}", "y".repeat(500))]).expect("written");
        }
        connection
    }

    #[test]
    fn a_copy_is_whole_although_somebody_writes_and_has_no_journal() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.db");
        let writer = filled(&path, 200);
        writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES ('uncommitted')").expect("under way");
        let to = folder.path().join("backups");
        let copy = back_up(&path, &to, "a-1.db").expect("copied");
        assert_eq!(fs::read_dir(&to).expect("a folder").count(), 1, "nothing beside it");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&copy).expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(says_yes(&copy, "SELECT count(*) = 200 FROM t", LOCK_WAIT).expect("reads"));
    }

    #[test]
    fn a_copy_never_takes_the_place_of_another() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.db");
        drop(filled(&path, 1));
        let to = folder.path().join("backups");
        fs::create_dir(&to).expect("made");
        fs::write(to.join("a-1.db"), "another").expect("written");
        let error = back_up(&path, &to, "a-1.db").expect_err("there is one").to_string();
        assert!(error.contains("a-1.db is there already"), "{error}");
        assert_eq!(fs::read_to_string(to.join("a-1.db")).expect("there"), "another");
        assert_eq!(fs::read_dir(&to).expect("a folder").count(), 1, "nothing half-written is left");
    }

    #[test]
    fn a_damaged_database_is_found_and_not_taken_for_a_backup() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.db");
        drop(filled(&path, 200));
        check(&path).expect("whole");
        let mut bytes = fs::read(&path).expect("read");
        let half = bytes.len() / 2;
        bytes[half..half + 8192].fill(0x55);
        fs::write(&path, bytes).expect("damaged");
        assert!(matches!(check(&path), Err(UpkeepError::Damaged { .. })));
        let to = folder.path().join("backups");
        back_up(&path, &to, "a-1.db").expect_err("damaged");
        assert_eq!(fs::read_dir(&to).expect("a folder").count(), 0, "no half of it is left");
        assert!(check(&folder.path().join("none.db")).is_err());
        assert!(!folder.path().join("none.db").exists());
    }

    #[test]
    fn a_question_has_an_end_and_changes_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.db");
        drop(filled(&path, 1));
        for (sql, yes) in [
            ("SELECT count(*) FROM t", true),
            ("SELECT 0", false),
            ("SELECT NULL", false),
            ("SELECT ''", false),
            ("SELECT 'x'", true),
            ("SELECT x FROM t WHERE false", false),
        ] {
            assert_eq!(says_yes(&path, sql, LOCK_WAIT).expect(sql), yes, "{sql}");
        }
        says_yes(&path, "DELETE FROM t RETURNING 1", LOCK_WAIT).expect_err("read only");
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        says_yes(&path, endless, Duration::from_millis(100)).expect_err("interrupted");
    }
}
