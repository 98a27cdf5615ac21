//! The store's promise: whatever happens to the database, nobody who hands a row over
//! waits for it, and every row is in the database, in the spill file, or counted as lost.

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rusqlite::Connection;
use seawall::{
    failure::{Class, Recording},
    id::{Id, unix_ms},
    store::{
        Event, EventFilter, EventType, FailureFilter, FailureRow, Found, ReadError, Reader, Settings, Store, Table,
        Written,
    },
};
use support::disk::Disk;
use tempfile::TempDir;

/// Nothing here takes this long; it is there so that a hang becomes a failure.
const PATIENCE: Duration = Duration::from_secs(60);

fn failure(number: usize, class: Class) -> FailureRow {
    FailureRow {
        id: Id::now(),
        timestamp_ms: unix_ms(),
        server: "files".into(),
        tool: "read_file".to_owned(),
        class,
        message: format!("number {number} with password=hunter2"),
        duration_ms: 7,
        client: "test 1.0".to_owned(),
        protocol: "2025-11-25".to_owned(),
        request_id: number.to_string(),
        instance: Some(1),
        arguments: Some(r#"{"path":"string(12)"}"#.to_owned()),
        exit_status: None,
        stderr_tail: None,
    }
}

fn event(event_type: EventType) -> Event {
    Event {
        category: "service",
        event_type,
        service_name: "embedding-server".to_owned(),
        metadata: serde_json::json!({"exit_code": 3, "signal": null, "restart_attempt": 1}),
    }
}

fn hand_over(store: &Store, count: usize) {
    for number in 0..count {
        store.failure(failure(number, Class::Timeout), Recording::Row);
    }
}

fn rows(path: &Path) -> usize {
    Reader::open(path).expect("a database").failures(&FailureFilter::default()).expect("rows").len()
}

fn events(path: &Path, event_type: EventType) -> Vec<serde_json::Value> {
    let filter = EventFilter { event_type: Some(event_type.name().to_owned()), ..EventFilter::default() };
    let found = Reader::open(path).expect("a database").events(&filter).expect("events");
    found.iter().map(|event| serde_json::from_str(&event.metadata).expect("JSON")).collect()
}

fn dropped(store: &Store) -> usize {
    usize::try_from(store.health().dropped.values().sum::<u64>()).expect("few")
}

/// A store whose writer has made the database already.
fn opened(settings: Settings) -> Store {
    let store = Store::open(settings);
    assert!(store.flush(PATIENCE), "{:?}", store.health());
    store
}

fn in_folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("seawall.db");
    (folder, path)
}

#[test]
fn a_locked_database_holds_nobody_up_and_every_row_is_accounted_for() {
    const PRODUCED: usize = 10_000;
    let (_folder, path) = in_folder();
    let store = opened(Settings::at(&path));
    let neighbour = Connection::open(&path).expect("opens");
    neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
    // This thread holds the lock and lets go only afterwards: whoever waited for the
    // database here would wait for ever.
    hand_over(&store, PRODUCED);
    assert_eq!(rows(&path), 0, "the lock was held all the time");
    neighbour.execute_batch("COMMIT").expect("unlocks");
    assert!(store.close(PATIENCE), "{:?}", store.health());
    let lost = dropped(&store);
    assert_eq!(rows(&path) + lost, PRODUCED);
    let told: u64 = events(&path, EventType::EventsDropped).iter().filter_map(|event| event["total"].as_u64()).sum();
    assert_eq!(usize::try_from(told).expect("few"), lost, "what was lost was told");
}

#[test]
fn a_flood_from_many_threads_is_accounted_for() {
    const THREADS: usize = 8;
    const EACH: usize = 4_000;
    let (_folder, path) = in_folder();
    let store = opened(Settings::at(&path));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| hand_over(&store, EACH));
        }
    });
    assert!(store.close(PATIENCE), "{:?}", store.health());
    assert_eq!(rows(&path) + dropped(&store), THREADS * EACH);
    assert_eq!(store.health().pending, 0);
}

#[test]
fn closing_while_locked_spills_and_the_next_start_replays() {
    let (folder, path) = in_folder();
    let store = opened(Settings::at(&path));
    let neighbour = Connection::open(&path).expect("opens");
    neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
    hand_over(&store, 1000);
    assert!(!store.close(Duration::from_secs(1)), "not all can be in the database");
    store.failure(failure(0, Class::Lost), Recording::Row);
    assert_eq!(store.health().dropped.get("lost"), Some(&1), "a closed store takes nothing");
    let spill = folder.path().join("seawall.db.spill.jsonl");
    wait_for("the spill file", || fs::read_to_string(&spill).is_ok_and(|text| text.lines().count() == 1000));
    assert_eq!(mode(&spill), 0o600);
    neighbour.execute_batch("COMMIT").expect("unlocks");
    drop(neighbour);

    let store = opened(Settings::at(&path));
    assert!(store.close(PATIENCE));
    assert_eq!(rows(&path), 1000);
    assert!(!spill.exists());
}

#[test]
fn a_full_database_spills_and_heals() {
    const PRODUCED: usize = 6_000;
    let (_folder, path) = in_folder();
    let settings = Settings { max_bytes: 64 << 10, ..Settings::at(&path) };
    let store = opened(settings);
    hand_over(&store, PRODUCED);
    assert!(!store.flush(PATIENCE), "64 KiB cannot hold them all");
    assert_eq!(store.health().degraded.as_deref(), Some("no space left for the database"));
    assert!(!store.close(PATIENCE));
    let lost = dropped(&store);
    assert!(rows(&path) < PRODUCED - lost, "some must have been spilled");

    let store = opened(Settings::at(&path));
    assert!(store.close(PATIENCE));
    assert_eq!(rows(&path) + lost, PRODUCED);
}

#[test]
fn a_disk_that_is_full_and_has_room_again_loses_nothing_uncounted() {
    const PRODUCED: usize = 5_000;
    let Some(disk) = Disk::of("size=1m") else { return };
    let path = disk.path().join("seawall.db");
    let store = opened(Settings::at(&path));
    hand_over(&store, PRODUCED);
    assert!(!store.flush(PATIENCE), "one MiB cannot hold them all");
    assert!(store.health().degraded.is_some());
    disk.remount("size=64m");
    assert!(store.close(PATIENCE), "{:?}", store.health());
    assert_eq!(rows(&path) + dropped(&store), PRODUCED);
}

/// What a killed gateway leaves: rows that are in the journal only.
#[test]
fn all_rows_can_be_read_on_a_full_disk() {
    let Some(disk) = Disk::of("size=4m") else { return };
    let (_folder, path) = in_folder();
    let store = written(&path, 10);
    let copy = disk.path().join("seawall.db");
    for suffix in ["", "-wal"] {
        fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", copy.display())).expect("copied");
    }
    assert!(store.close(PATIENCE));
    let journal = disk.path().join("seawall.db-wal");
    let before = fs::read(&journal).expect("it is there");
    let ballast = disk.fill();
    for _ in 0..2 {
        assert_eq!(rows(&copy), 10);
    }
    assert!(fs::read(&journal).expect("it is there") == before, "a reader changes nothing");
    fs::remove_file(ballast).expect("it was there");
    let store = opened(Settings::at(&copy));
    assert!(store.close(PATIENCE));
    assert_eq!(rows(&copy), 10);
}

#[test]
fn a_read_only_folder_degrades_and_nothing_more() {
    let Some(disk) = Disk::of("size=64m,ro") else { return };
    let path = disk.path().join("seawall.db");
    let store = Store::open(Settings::at(&path));
    hand_over(&store, 500);
    assert!(!store.flush(PATIENCE));
    let reason = store.health().degraded.expect("a reason");
    assert!(reason.contains("Read-only file system"), "{reason}");
    assert!(matches!(Reader::open(&path), Err(ReadError::NoDatabase(_))));
    disk.remount("size=64m,rw");
    assert!(store.flush(PATIENCE), "{:?}", store.health());
    assert!(store.is_healthy());
    assert_eq!(rows(&path), 500);
    // And what is there can be read on a disk that became read-only.
    assert!(store.close(PATIENCE));
    disk.remount("size=64m,ro");
    assert_eq!(rows(&path), 500);
}

#[test]
fn a_place_where_nothing_can_be_is_told() {
    let (folder, _) = in_folder();
    fs::write(folder.path().join("file"), "").expect("file");
    let store = Store::open(Settings::at(folder.path().join("file/seawall.db")));
    hand_over(&store, 10);
    assert!(!store.flush(PATIENCE));
    assert!(store.health().degraded.is_some_and(|reason| reason.starts_with("the database cannot be used")));
    assert_eq!(store.health().pending, 10);
    assert_eq!(store.event_now(event(EventType::ServiceCrash)), Written::Lost);
    assert!(!store.close(PATIENCE));
    assert_eq!(store.health().dropped.get("timeout"), Some(&10));
}

#[test]
fn a_missing_folder_is_made() {
    let (folder, _) = in_folder();
    let path = folder.path().join("data/of/mine/seawall.db");
    let store = opened(Settings::at(&path));
    assert_eq!(mode(path.parent().expect("folder")), 0o700);
    assert!(store.close(PATIENCE));
}

#[test]
fn a_file_of_garbage_is_set_aside() {
    let (folder, path) = in_folder();
    let garbage = "this is no database ".repeat(500);
    fs::write(&path, &garbage).expect("garbage");
    let store = Store::open(Settings::at(&path));
    hand_over(&store, 100);
    assert!(store.close(PATIENCE), "{:?}", store.health());
    assert_eq!(rows(&path), 100);
    let told = events(&path, EventType::DatabaseRecreated);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["reason"], "damaged");
    let aside = PathBuf::from(told[0]["set_aside"].as_str().expect("a name"));
    assert!(aside.starts_with(folder.path()));
    assert_eq!(fs::read_to_string(aside).expect("set aside"), garbage);
}

#[test]
fn a_disk_that_damages_every_file_is_not_filled_with_them() {
    let (folder, path) = in_folder();
    for _ in 0..3 {
        fs::write(&path, "garbage ".repeat(500)).expect("garbage");
        assert!(opened(Settings::at(&path)).close(PATIENCE));
    }
    fs::write(&path, "garbage ".repeat(500)).expect("garbage");
    let store = Store::open(Settings::at(&path));
    assert!(!store.flush(PATIENCE));
    let reason = store.health().degraded.expect("a reason");
    assert!(reason.contains("is the disk failing?"), "{reason}");
    let aside = fs::read_dir(folder.path()).expect("list").flatten();
    let aside = aside.filter(|file| file.file_name().to_string_lossy().contains(".corrupt-")).count();
    assert_eq!(aside, 3);
}

/// A store that has written `count` rows.
fn written(path: &Path, count: usize) -> Store {
    let store = opened(Settings::at(path));
    hand_over(&store, count);
    assert!(store.flush(PATIENCE));
    store
}

/// What became of the file is noticed with the next rows; they go into a fresh one, which tells
/// why, and how many rows of this process had been in the old one. Returns what it tells.
fn begins_anew(store: &Store, path: &Path, reason: &str, lost: usize) -> serde_json::Value {
    hand_over(store, 20);
    assert!(store.flush(PATIENCE), "{:?}", store.health());
    assert_eq!(rows(path), 20, "those that came since");
    let mut told = events(path, EventType::DatabaseRecreated);
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["reason"], &told[0]["rows_written"]), (&reason.into(), &lost.into()));
    hand_over(store, 5);
    assert!(store.close(PATIENCE));
    assert_eq!(rows(path), 25);
    told.remove(0)
}

#[test]
fn a_database_deleted_while_open_is_made_anew() {
    let (_folder, path) = in_folder();
    let store = written(&path, 10);
    fs::remove_file(&path).expect("delete");
    begins_anew(&store, &path, "deleted", 10);
}

#[test]
fn a_database_overwritten_while_open_is_set_aside() {
    let (_folder, path) = in_folder();
    // More than fits a page: what is overwritten must not be what is written next anyway.
    let store = written(&path, 1000);
    // In place, as no editor would but as a wrong `>` does.
    for name in ["seawall.db", "seawall.db-wal"] {
        fs::write(path.with_file_name(name), "garbage ".repeat(5_000)).expect("overwritten");
    }
    begins_anew(&store, &path, "damaged", 1000);
}

/// SQLite takes such a file for a new one, and whoever opens it next deletes its journal.
#[test]
fn a_database_emptied_while_open_is_set_aside() {
    let (_folder, path) = in_folder();
    let store = written(&path, 10);
    fs::File::options().write(true).truncate(true).open(&path).expect("emptied");
    let told = begins_anew(&store, &path, "damaged", 10);
    let aside = PathBuf::from(told["set_aside"].as_str().expect("a path"));
    assert!(aside.exists(), "{}", aside.display());
}

/// What another program has left of it has no tables.
#[test]
fn a_database_whose_tables_are_gone_is_set_aside() {
    let (_folder, path) = in_folder();
    let store = written(&path, 10);
    let other = Connection::open(&path).expect("opens");
    other.execute_batch("DROP TABLE events; DROP TABLE failures; PRAGMA user_version = 0").expect("dropped");
    drop(other);
    begins_anew(&store, &path, "damaged", 10);
}

#[test]
fn a_journal_cut_short_costs_its_end_only() {
    let (folder, path) = in_folder();
    let store = opened(Settings::at(&path));
    hand_over(&store, 10);
    assert!(store.flush(PATIENCE));
    // What a process killed in mid-write leaves: nothing was checkpointed or closed.
    let copy = folder.path().join("copy.db");
    fs::copy(&path, &copy).expect("copy");
    let journal = fs::read(folder.path().join("seawall.db-wal")).expect("journal");
    fs::write(folder.path().join("copy.db-wal"), &journal[..journal.len() - 100]).expect("cut");
    let survivor = opened(Settings::at(&copy));
    hand_over(&survivor, 5);
    assert!(survivor.close(PATIENCE));
    assert!((5..=15).contains(&rows(&copy)));
    assert!(events(&copy, EventType::DatabaseRecreated).is_empty(), "there was no need to set it aside");
    let check: String = Connection::open(&copy)
        .and_then(|it| it.query_row("PRAGMA integrity_check", [], |row| row.get(0)))
        .expect("check");
    assert_eq!(check, "ok");
}

#[test]
fn a_database_of_a_newer_seawall_is_left_alone() {
    let (_folder, path) = in_folder();
    assert!(opened(Settings::at(&path)).close(PATIENCE));
    Connection::open(&path).and_then(|it| it.execute_batch("PRAGMA user_version = 99")).expect("newer");
    let before = fs::read(&path).expect("bytes");
    let store = Store::open(Settings::at(&path));
    hand_over(&store, 10);
    assert!(!store.flush(PATIENCE));
    let reason = store.health().degraded.expect("a reason");
    assert!(reason.contains("newer seawall (its schema is 99"), "{reason}");
    assert!(!store.close(PATIENCE));
    assert_eq!(fs::read(&path).expect("bytes"), before);
    assert!(matches!(Reader::open(&path), Err(ReadError::Newer { found: 99, .. })));
}

#[test]
fn several_processes_worth_of_stores_share_a_file() {
    let (_folder, path) = in_folder();
    let stores: Vec<Store> = (0..4).map(|_| Store::open(Settings::at(&path))).collect();
    std::thread::scope(|scope| {
        for store in &stores {
            scope.spawn(|| hand_over(store, 1000));
        }
    });
    assert_eq!(stores[0].event_now(event(EventType::ServiceCrash)), Written::Database);
    assert!(stores.iter().all(|store| store.close(PATIENCE)));
    assert_eq!(rows(&path), 4000);
}

#[test]
fn an_urgent_event_is_there_when_the_call_returns() {
    let (_folder, path) = in_folder();
    // No writer has made the database yet, or ever will.
    let store = Store::open(Settings::at(&path));
    assert_eq!(store.event_now(event(EventType::ServiceCrash)), Written::Database);
    assert_eq!(events(&path, EventType::ServiceCrash)[0]["exit_code"], 3);
    let neighbour = Connection::open(&path).expect("opens");
    assert!(store.flush(PATIENCE));
    neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
    assert_eq!(store.event_now(event(EventType::ServiceRestart)), Written::Spilled);
    neighbour.execute_batch("COMMIT").expect("unlocks");
    assert!(store.flush(PATIENCE), "a flush replays");
    assert_eq!(events(&path, EventType::ServiceRestart).len(), 1);
}

#[test]
fn refusals_are_rows_that_say_how_many() {
    let (_folder, path) = in_folder();
    let store = opened(Settings::at(&path));
    for number in 0..37 {
        store.failure(failure(number, Class::RateLimited), Recording::Counted);
        store.failure(failure(number, Class::Unavailable), Recording::Coalesced);
        store.failure(failure(number, Class::Cancelled), Recording::No);
    }
    assert!(store.close(PATIENCE));
    let found = Reader::open(&path).expect("open").failures(&FailureFilter::default()).expect("rows");
    let of = |class: Class| {
        let of_class = found.iter().filter(|row| row.class == class.name());
        of_class.map(|row| row.message.split(" within").next().unwrap_or("")).collect::<Vec<_>>()
    };
    assert_eq!(of(Class::RateLimited), ["37 calls refused"]);
    assert_eq!(of(Class::Unavailable), ["number 0 with password=[redacted]", "36 more calls"]);
    assert!(of(Class::Cancelled).is_empty());
}

#[test]
fn refusals_are_told_while_the_store_goes_on() {
    let (_folder, path) = in_folder();
    let store = opened(Settings { count_for: Duration::from_millis(20), ..Settings::at(&path) });
    store.failure(failure(1, Class::Overloaded), Recording::Counted);
    wait_for("the row", || rows(&path) == 1);
    assert!(store.close(PATIENCE));
}

#[test]
fn nobody_else_may_read_it() {
    let (folder, path) = in_folder();
    fs::write(&path, "").expect("an empty file that everyone may read");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
    let store = opened(Settings::at(&path));
    hand_over(&store, 1);
    assert!(store.flush(PATIENCE));
    for file in ["seawall.db", "seawall.db-wal", "seawall.db-shm"] {
        assert_eq!(mode(&folder.path().join(file)), 0o600, "{file}");
    }
}

#[test]
fn secrets_do_not_reach_the_file() {
    let (folder, path) = in_folder();
    let store = opened(Settings::at(&path));
    let mut row = failure(1, Class::Lost);
    row.message = "GET https://me:ZQXhunter2@host failed".to_owned();
    row.stderr_tail = Some("Authorization: Bearer ZQX123456789\n".to_owned());
    row.exit_status = Some("signal 9".to_owned());
    store.failure(row, Recording::Row);
    let mut crash = event(EventType::ServiceCrash);
    crash.metadata["stderr_tail"] = "token=ZQX1".into();
    store.event(crash);
    assert!(store.close(PATIENCE));
    for file in fs::read_dir(folder.path()).expect("list").flatten() {
        let bytes = fs::read(file.path()).expect("bytes");
        assert!(!bytes.windows(3).any(|three| three == b"ZQX"), "{:?}", file.file_name());
    }
    assert_eq!(rows(&path), 1);
}

#[test]
fn rows_are_found_by_filter_by_id_and_by_what_came_after() {
    let (_folder, path) = in_folder();
    let store = opened(Settings::at(&path));
    hand_over(&store, 3);
    store.failure(failure(3, Class::Lost), Recording::Row);
    store.event(event(EventType::ServerDown));
    assert!(store.flush(PATIENCE));
    let reader = Reader::open(&path).expect("open");

    let lost = FailureFilter { class: Some("lost".to_owned()), ..FailureFilter::default() };
    let [row] = &reader.failures(&lost).expect("rows")[..] else { panic!("one was lost") };
    assert_eq!((row.request_id.as_str(), row.instance, row.server.as_str()), ("3", Some(1), "files"));
    assert_eq!(reader.find(&row.id).expect("found"), Found::Failure(Box::new(row.clone())));
    assert_eq!(reader.find(&row.id.to_uppercase()).expect("found"), Found::Failure(Box::new(row.clone())));
    assert_eq!(reader.find("zzzz").expect("searched"), Found::None);
    assert!(matches!(reader.find(&row.id[..1]).expect("searched"), Found::Ambiguous(ids) if ids.len() == 5));

    let newest_two = FailureFilter { limit: Some(2), ..FailureFilter::default() };
    let ids = |rows: Vec<seawall::store::FailureRecord>| rows.into_iter().map(|row| row.request_id).collect::<Vec<_>>();
    assert_eq!(ids(reader.failures(&newest_two).expect("rows")), ["2", "3"], "the newest last");
    let seen = reader.last_seq(Table::Failures).expect("seq");
    store.failure(failure(4, Class::Timeout), Recording::Row);
    assert!(store.flush(PATIENCE));
    let since = FailureFilter { after_seq: Some(seen), ..FailureFilter::default() };
    assert_eq!(ids(reader.failures(&since).expect("rows")), ["4"]);
    let future = FailureFilter { since_ms: Some(i64::MAX), ..FailureFilter::default() };
    assert!(reader.failures(&future).expect("rows").is_empty());

    let counts = reader.counts(0).expect("counts");
    let counts: Vec<_> = counts.iter().map(|count| (count.class.as_str(), count.rows)).collect();
    assert_eq!(counts, [("timeout", 4), ("lost", 1)]);
    assert_eq!(events(&path, EventType::ServerDown).len(), 1);
}

#[test]
fn plain_sqlite3_reads_it() {
    let (_folder, path) = in_folder();
    let store = opened(Settings::at(&path));
    hand_over(&store, 2);
    assert!(store.flush(PATIENCE));
    let sql = "SELECT server, class, json_extract(arguments, '$.path') FROM failures LIMIT 1";
    let Ok(output) = Command::new("sqlite3").arg("-readonly").arg(&path).arg(sql).output() else {
        eprintln!("skipped: no sqlite3 here");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "files|timeout|string(12)\n", "{output:?}");
}

#[test]
fn a_discarding_store_is_content() {
    let store = Store::discarding();
    hand_over(&store, 1);
    assert!(store.flush(PATIENCE) && store.close(PATIENCE) && store.is_healthy());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("exists").permissions().mode() & 0o777
}

/// For what happens in another thread after its caller was let go.
fn wait_for(what: &str, so: impl Fn() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !so() {
        assert!(std::time::Instant::now() < until, "{what} did not come");
        std::thread::yield_now();
    }
}
