use std::time::Duration;

use super::*;

const STAMP: Stamp = Stamp { device: 1, inode: 7, size: 3, mtime_ns: 5 };

fn open(folder: &tempfile::TempDir) -> WatchDb {
    WatchDb::open(&folder.path().join("watch.db"), 1 << 30).expect("opens").0
}

fn seen(path: &str, stamp: Stamp) -> Change {
    Change::Seen { path: path.into(), stamp, is_to_be_handled: true }
}

fn gone(path: &str) -> Change {
    Change::Gone { path: path.into() }
}

/// Event, path and state of each row.
fn rows(folder: &tempfile::TempDir) -> Vec<String> {
    let reader = WatchReader::open(&folder.path().join("watch.db")).expect("opens");
    let events = reader.events(None, 1000).expect("reads");
    events.iter().map(|event| format!("{} {} {}", event.event, event.path, event.state)).collect()
}

fn counts(folder: &tempfile::TempDir) -> (u64, u64) {
    WatchReader::open(&folder.path().join("watch.db")).expect("opens").counts().expect("counts")
}

#[test]
fn a_file_is_recorded_once_in_this_life_and_in_the_next() {
    let folder = tempfile::tempdir().expect("folder");
    for _ in 0..3 {
        let mut db = open(&folder);
        db.record(&[seen("/a/x", STAMP), seen("/a/x", STAMP)]).expect("records");
        assert_eq!(db.files(), 1);
    }
    assert_eq!(rows(&folder), ["created /a/x pending"]);
}

#[test]
fn the_disk_may_have_another_number_and_all_else_is_another_file() {
    let folder = tempfile::tempdir().expect("folder");
    let mut db = open(&folder);
    let others = [
        Stamp { device: 2, ..STAMP },
        Stamp { inode: 8, ..STAMP },
        Stamp { size: 4, ..STAMP },
        Stamp { mtime_ns: 6, ..STAMP },
    ];
    for (n, other) in others.into_iter().enumerate() {
        let path = format!("/a/{n}");
        db.record(&[seen(&path, Stamp { device: 1, ..STAMP }), seen(&path, other)]).expect("records");
    }
    let changed: Vec<String> = rows(&folder).into_iter().filter(|row| row.starts_with("changed")).collect();
    assert_eq!(changed, ["changed /a/1 pending", "changed /a/2 pending", "changed /a/3 pending"]);
    assert!(rows(&folder).contains(&"created /a/1 superseded".to_owned()), "the older state is not handled any more");
}

#[test]
fn gone_and_back_unchanged_is_not_handled_again_and_a_rename_names_both() {
    let folder = tempfile::tempdir().expect("folder");
    let mut db = open(&folder);
    db.record(&[seen("/a/x", STAMP), gone("/a/x"), gone("/a/x"), seen("/a/x", STAMP)]).expect("records");
    db.record(&[gone("/a/x"), seen("/a/y", STAMP), gone("/a/never-known")]).expect("records");
    assert_eq!(
        rows(&folder),
        [
            "created /a/x pending",
            "removed /a/x noted",
            "returned /a/x noted",
            "removed /a/x noted",
            "moved /a/y pending"
        ]
    );
    let reader = WatchReader::open(&folder.path().join("watch.db")).expect("opens");
    assert_eq!(reader.events(None, 1).expect("reads")[0].moved_from.as_deref(), Some("/a/x"));
}

#[test]
fn a_folder_has_no_siblings_files() {
    let folder = tempfile::tempdir().expect("folder");
    let mut db = open(&folder);
    let paths = ["/a/b/1", "/a/b/2", "/a/b0", "/a/b-c/1", "/a/b/d/3"];
    let changes: Vec<Change> = paths.iter().map(|path| seen(path, STAMP)).collect();
    db.record(&changes).expect("records");
    let texts = |found: Vec<Vec<u8>>| -> Vec<String> { found.iter().map(|path| shown(path)).collect() };
    assert_eq!(texts(db.below(b"/a/b", b"", 10).expect("reads")), ["/a/b/1", "/a/b/2", "/a/b/d/3"]);
    assert_eq!(texts(db.below(b"/a/b", b"/a/b/1", 1).expect("reads")), ["/a/b/2"]);
}

#[test]
fn an_event_waits_its_turn_and_is_given_up_at_last() {
    let folder = tempfile::tempdir().expect("folder");
    let mut db = open(&folder);
    db.record(&[seen("/a/x", STAMP), seen("/a/y", STAMP)]).expect("records");
    let due = db.due(10).expect("reads");
    assert_eq!(due.iter().map(|due| shown(&due.path)).collect::<Vec<_>>(), ["/a/x", "/a/y"]);
    db.ended(&[due[1].id], "done", None).expect("writes");
    let later = now_ms() + 3_600_000;
    db.failed(due[0].id, Failed::TryAgainAt { due_ms: later }, "no").expect("writes");
    assert_eq!(db.due(10).expect("reads"), []);
    assert_eq!(counts(&folder), (2, 1));
    db.failed(due[0].id, Failed::GiveUp, "no").expect("writes");
    assert_eq!(rows(&folder), ["created /a/x given_up", "created /a/y done"]);
    assert_eq!(counts(&folder), (2, 0));
}

#[test]
fn old_events_go_and_what_waits_or_is_known_stays() {
    let folder = tempfile::tempdir().expect("folder");
    let mut db = open(&folder);
    db.record(&[seen("/a/old", STAMP), seen("/a/waits", STAMP), gone("/a/old")]).expect("records");
    let done = db.due(1).expect("reads")[0].id;
    db.ended(&[done], "done", None).expect("writes");
    while db.retain(Duration::from_secs(3600), u64::MAX, u64::MAX).expect("retains") {}
    assert_eq!(rows(&folder).len(), 3, "none is too old");
    // All of it was recorded in a millisecond that is over then.
    let ms = now_ms();
    while now_ms() <= ms + 1 {}
    while db.retain(Duration::ZERO, u64::MAX, u64::MAX).expect("retains") {}
    assert_eq!(rows(&folder), ["created /a/waits pending"]);
    assert_eq!((db.files(), db.known(b"/a/old").expect("reads")), (1, None));
    assert!(db.known(b"/a/waits").expect("reads").is_some());
}

#[test]
fn a_damaged_one_is_set_aside() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("watch.db");
    std::fs::write(&path, "this is no database, and long enough to be seen as none by anyone".repeat(50))
        .expect("writes");
    let (_, aside) = WatchDb::open(&path, 1 << 30).expect("opens");
    assert!(aside.expect("a name").exists());
}

#[test]
fn a_name_that_is_no_text_is_readable_and_kept() {
    assert_eq!(shown("/a/né".as_bytes()), "/a/né");
    assert_eq!(shown(b"/a/caf\xe9.png"), "/a/caf\\xe9.png");
    let folder = tempfile::tempdir().expect("folder");
    let mut db = open(&folder);
    let change = Change::Seen { path: b"/a/\xff".to_vec(), stamp: STAMP, is_to_be_handled: false };
    db.record(&[change]).expect("records");
    let reader = WatchReader::open(&folder.path().join("watch.db")).expect("opens");
    let event = &reader.events(None, 1).expect("reads")[0];
    assert_eq!((event.path.as_str(), event.path_base64.as_deref()), ("/a/\\xff", Some("L2Ev/w==")));
}

#[test]
fn what_is_gone_makes_room_for_what_is_there() {
    let folder = tempfile::tempdir().expect("folder");
    let mut db = open(&folder);
    db.record(&[seen("/a/1", STAMP), seen("/a/2", STAMP), gone("/a/1")]).expect("records");
    db.retain(Duration::from_secs(3600), u64::MAX, 2).expect("retains");
    assert_eq!(db.files(), 2, "there is room for both");
    db.retain(Duration::from_secs(3600), u64::MAX, 1).expect("retains");
    assert_eq!((db.files(), counts(&folder).0), (1, 1));
}

#[test]
fn one_that_is_deleted_or_replaced_under_the_watcher_is_noticed() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("watch.db");
    let status = serde_json::json!({});
    for replaces in [false, true] {
        let mut db = open(&folder);
        db.beat(&status).expect("it is well");
        std::fs::remove_file(&path).expect("there");
        if replaces {
            std::fs::write(&path, "another").expect("written");
        }
        let error = db.beat(&status).expect_err("nobody finds it");
        assert!(error.to_string().contains("deleted or replaced") && !error.is_passing(), "{error}");
        drop(db);
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(&path, suffix));
        }
    }
}

#[test]
fn a_journal_that_is_deleted_is_brought_into_the_file_and_the_watcher_is_told() {
    let folder = tempfile::tempdir().expect("folder");
    let mut db = open(&folder);
    std::fs::remove_file(beside(&folder.path().join("watch.db"), "-wal")).expect("there");
    let error = db.record(&[seen("/a/x", STAMP)]).expect_err("it must be opened anew");
    assert!(error.to_string().contains("journal") && !error.is_passing(), "{error}");
    drop(db);
    assert_eq!((open(&folder).files(), rows(&folder).len()), (1, 1), "nothing is lost");
}
