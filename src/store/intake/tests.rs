//! Groups, refusals, retention: against a real file.

use std::{
    path::Path,
    sync::mpsc::{Receiver, channel},
};

use rusqlite::Connection;

use super::{file::File, *};

const PATIENCE: Duration = Duration::from_secs(60);

fn settings(folder: &Path) -> IntakeSettings {
    IntakeSettings { path: folder.join("emit.db"), keep_for: Duration::from_secs(3600), keep_bytes: 1 << 30 }
}

fn event(id: Option<&str>, metadata: &str) -> NewEvent {
    NewEvent {
        id: id.map(str::to_owned),
        timestamp_ms: None,
        category: "user".to_owned(),
        event_type: "x".to_owned(),
        service_name: "test".to_owned(),
        metadata: metadata.to_owned(),
    }
}

fn submission(events: Vec<NewEvent>, key: Option<(&str, &str)>) -> Submission {
    let key = key.map(|(text, digest)| Key { text: text.to_owned(), digest: digest.to_owned() });
    Submission { events, key, until: Instant::now() + PATIENCE }
}

fn submit(intake: &Intake, submission: Submission) -> Receiver<Result<Receipt, Refused>> {
    let (answer, answered) = channel();
    intake.submit(submission, Box::new(move |outcome| drop(answer.send(outcome))));
    answered
}

fn rows(path: &Path) -> i64 {
    let connection = Connection::open(path).expect("opens");
    connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).expect("counts")
}

#[test]
fn a_refused_submission_leaves_nothing_and_its_group_is_written_all_the_same() {
    let folder = tempfile::tempdir().expect("folder");
    let mut file = File::open(&settings(folder.path())).expect("opens");
    let group = [
        submission(vec![event(Some("a"), "{}")], None),
        submission(vec![event(Some("b"), "{}"), event(Some("a"), r#"{"other":1}"#)], None),
        submission(vec![event(Some("c"), "{no json")], None),
        submission(vec![event(Some("a"), "{}")], None),
        submission(vec![event(None, "{}"), event(None, "{}")], Some(("k", "1"))),
        submission(vec![event(None, "{}"), event(None, "{}")], Some(("k", "1"))),
        submission(vec![event(None, "{}")], Some(("k", "2"))),
    ];
    let outcomes = file.commit(&group, 1000).expect("commits");
    assert!(outcomes[0].as_ref().is_ok_and(|receipt| !receipt.is_repeat));
    assert_eq!(outcomes[1], Err(Refused::OtherEvent { index: 1, id: "a".to_owned() }));
    assert!(matches!(&outcomes[2], Err(Refused::Unfit(why)) if why.contains("json_valid")), "{:?}", outcomes[2]);
    assert!(outcomes[3].as_ref().is_ok_and(|receipt| receipt.is_repeat));
    let (first, repeat) = (outcomes[4].as_ref().expect("taken"), outcomes[5].as_ref().expect("known"));
    assert_eq!((first.is_repeat, repeat.is_repeat, &first.events), (false, true, &repeat.events));
    assert_eq!(outcomes[6], Err(Refused::OtherSubmission));
    assert_eq!(rows(&folder.path().join("emit.db")), 3, "a, and the two of the key: b went with its submission");
}

#[test]
fn a_commit_outlives_a_loss_of_power() {
    let folder = tempfile::tempdir().expect("folder");
    let file = File::open(&settings(folder.path())).expect("opens");
    let pragma = |name| file.connection().pragma_query_value(None, name, |row| row.get::<_, i64>(0)).expect("a pragma");
    assert_eq!(pragma("synchronous"), 2, "FULL");
    assert_eq!(pragma("fullfsync"), 1, "on macOS a plain fsync leaves the rows in the drive's cache");
}

#[test]
fn what_waits_is_refused_when_it_is_too_much_and_nothing_of_it_is_written() {
    let folder = tempfile::tempdir().expect("folder");
    let intake = Intake::open(settings(folder.path()), || {}).expect("a thread");
    submit(&intake, submission(vec![event(None, "{}")], None)).recv().expect("answered").expect("taken");
    let neighbour = Connection::open(folder.path().join("emit.db")).expect("opens");
    neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let mut answers = Vec::new();
    // The writer takes some out while it waits for the lock, so it is not said how many fit.
    let refused = (0..100_000).find_map(|_| {
        let answer = submit(&intake, submission(vec![event(None, "{}")], None));
        let now = answer.try_recv().ok();
        answers.push(answer);
        now.filter(|outcome| *outcome == Err(Refused::Overloaded))
    });
    assert!(refused.is_some(), "the queue has a bound");
    answers.pop();
    for answer in answers {
        let outcome = answer.recv_timeout(PATIENCE).expect("every submission is answered");
        assert!(matches!(outcome, Err(Refused::Unavailable(_))), "{outcome:?}");
    }
    assert!(intake.trouble().is_some_and(|trouble| trouble.contains("locked")));
    neighbour.execute_batch("COMMIT").expect("unlocks");
    submit(&intake, submission(vec![event(None, "{}")], None)).recv().expect("answered").expect("taken");
    assert_eq!((rows(&folder.path().join("emit.db")), intake.trouble(), intake.waiting()), (2, None, 0));
    intake.close();
    assert!(submit(&intake, submission(vec![event(None, "{}")], None)).recv().expect("answered").is_err());
}

#[test]
fn one_for_whom_nobody_waits_any_longer_is_not_written() {
    let folder = tempfile::tempdir().expect("folder");
    let intake = Intake::open(settings(folder.path()), || {}).expect("a thread");
    let late = Submission { until: Instant::now(), ..submission(vec![event(None, "{}")], None) };
    assert_eq!(submit(&intake, late).recv().expect("answered"), Err(Refused::Overloaded));
    intake.close();
    assert_eq!(rows(&folder.path().join("emit.db")), 0);
}

#[test]
fn a_damaged_file_is_set_aside_and_a_lost_one_made_anew_and_neither_is_acknowledged() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("emit.db");
    std::fs::write(&path, "no database at all, but long enough to be looked at as one".repeat(100)).expect("written");
    let intake = Intake::open(settings(folder.path()), || {}).expect("a thread");
    let taken = || submit(&intake, submission(vec![event(None, "{}")], None)).recv().expect("answered");
    // The writer finds it damaged at its start, or at the first submission.
    let outcome = taken().or_else(|_| taken());
    outcome.expect("a fresh one takes its place");
    assert_eq!(rows(&path), 1);
    let aside = std::fs::read_dir(folder.path()).expect("a folder").flatten();
    assert_eq!(aside.filter(|entry| entry.file_name().to_string_lossy().contains(".corrupt-")).count(), 1);

    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(crate::store::database::beside(&path, suffix));
    }
    assert!(taken().is_err(), "it went into a file that nobody can find");
    taken().expect("into a new one");
    assert_eq!(rows(&path), 1);
}

#[test]
fn what_goes_into_a_file_that_was_emptied_is_not_acknowledged() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("emit.db");
    let intake = Intake::open(settings(folder.path()), || {}).expect("a thread");
    let taken = || submit(&intake, submission(vec![event(None, "{}")], None)).recv().expect("answered");
    taken().expect("it is well");
    std::fs::OpenOptions::new().write(true).open(&path).expect("there").set_len(0).expect("emptied");
    assert!(taken().is_err(), "nobody would find it there");
    taken().expect("into a fresh one");
    assert_eq!(rows(&path), 1);
    let aside = std::fs::read_dir(folder.path()).expect("a folder").flatten();
    assert!(aside.into_iter().any(|entry| entry.file_name().to_string_lossy().contains(".corrupt-")));
}

#[test]
fn another_database_is_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let other = Connection::open(folder.path().join("emit.db")).expect("opens");
    other.execute_batch("CREATE TABLE mine (x); PRAGMA user_version = 1").expect("made");
    let error = File::open(&settings(folder.path())).err().expect("not ours").to_string();
    assert!(error.contains("something else"), "{error}");
}

#[test]
fn events_go_by_the_time_they_came_and_their_places_are_never_used_again() {
    let folder = tempfile::tempdir().expect("folder");
    let settings = settings(folder.path());
    let mut file = File::open(&settings).expect("opens");
    // As old as may be by what it says of itself.
    let old = NewEvent { timestamp_ms: Some(1), ..event(Some("old"), "{}") };
    file.commit(&[submission(vec![old], Some(("k", "1")))], 10_000_000).expect("commits");
    while file.tidy(10_000_000 + 3_600_000).expect("a step") == Step::More {}
    assert_eq!(rows(&settings.path), 1, "it came an hour ago, no longer");
    let reader = IntakeReader::new(&settings.path);
    let (epoch, seq) = reader.end().expect("reads");
    while file.tidy(10_000_001 + 3_600_000).expect("a step") == Step::More {}
    assert_eq!(rows(&settings.path), 0);
    file.commit(&[submission(vec![event(Some("new"), "{}")], Some(("k", "2")))], 20_000_000).expect("commits");
    let page = reader.after(&IntakeFilter::default(), (&epoch, seq), 10).expect("reads");
    assert_eq!(page.events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["new"]);
    assert_eq!(page.lost, None, "all that was there had been seen");
    let page = reader.after(&IntakeFilter::default(), ("another", 1000), 10).expect("reads");
    assert_eq!(page.events.len(), 1, "a place of another file means nothing here");
    assert_eq!(page.lost, Some(Lost::OtherFile));
}

#[test]
fn whoever_has_seen_what_is_left_is_told_of_no_loss_and_others_once() {
    let folder = tempfile::tempdir().expect("folder");
    let settings = settings(folder.path());
    let mut file = File::open(&settings).expect("opens");
    for at_ms in [1000, 2000, 3000] {
        let id = at_ms.to_string();
        // Repeats use no place up.
        for _ in 0..3 {
            file.commit(&[submission(vec![event(Some(&id), "{}")], None)], at_ms).expect("commits");
        }
    }
    let reader = IntakeReader::new(&settings.path);
    let (epoch, _) = reader.end().expect("reads");
    let after = |seq| reader.after(&IntakeFilter::default(), (&epoch, seq), 10).expect("reads");
    let hour_ms = 3_600_000;
    while file.tidy(2001 + hour_ms).expect("a step") == Step::More {}
    assert_eq!((after(0).lost, after(1).lost), (Some(Lost::Deleted), Some(Lost::Deleted)));
    assert_eq!((after(2).lost, after(2).events.len()), (None, 1));
    assert_eq!(reader.after(&IntakeFilter::default(), ("", 0), 10).expect("reads").lost, None, "the beginning");
    while file.tidy(3001 + hour_ms).expect("a step") == Step::More {}
    assert_eq!((after(2).lost, after(3).lost), (Some(Lost::Deleted), None));
    assert_eq!(after(after(2).seq).lost, None, "it is told once");
}

#[test]
fn the_oldest_go_when_there_are_too_many() {
    let folder = tempfile::tempdir().expect("folder");
    let settings = IntakeSettings { keep_bytes: 4 << 20, ..settings(folder.path()) };
    let mut file = File::open(&settings).expect("opens");
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(1200));
    let group: Vec<_> = (0..4000).map(|_| submission(vec![event(None, &large)], None)).collect();
    file.commit(&group, 1000).expect("commits");
    let mut steps = 0;
    while file.tidy(1000).expect("a step") == Step::More {
        steps += 1;
        assert!(steps < 100, "it comes to an end");
    }
    let left = rows(&settings.path);
    assert!((1..=3000).contains(&left), "{left} of 4000");
    let first: i64 = file.connection().query_row("SELECT min(seq) FROM events", [], |row| row.get(0)).expect("a row");
    assert_eq!(first, 4001 - left, "the newest stay");
}

#[test]
fn a_place_beyond_the_end_is_one_of_before_an_older_copy_was_put_back() {
    let folder = tempfile::tempdir().expect("folder");
    let settings = settings(folder.path());
    let mut file = File::open(&settings).expect("opens");
    for _ in 0..3 {
        file.commit(&[submission(vec![event(None, "{}")], None)], 1000).expect("commits");
    }
    let reader = IntakeReader::new(&settings.path);
    let (epoch, _) = reader.end().expect("reads");
    for seq in [4, i64::MAX] {
        let page = reader.after(&IntakeFilter::default(), (&epoch, seq), 10).expect("reads");
        assert_eq!((page.lost, page.events.len(), page.seq), (Some(Lost::OtherFile), 3, 3), "{seq}");
    }
    let page = reader.after(&IntakeFilter::default(), (&epoch, 3), 10).expect("reads");
    assert_eq!((page.lost, page.events.len()), (None, 0), "the end itself is seen");
}

#[test]
fn whoever_asks_a_file_of_which_all_is_deleted_is_told_of_no_loss_later() {
    let folder = tempfile::tempdir().expect("folder");
    let settings = settings(folder.path());
    let mut file = File::open(&settings).expect("opens");
    file.commit(&[submission(vec![event(None, "{}")], None)], 1000).expect("commits");
    while file.tidy(1001 + 3_600_000).expect("a step") == Step::More {}
    assert_eq!(rows(&settings.path), 0);
    let reader = IntakeReader::new(&settings.path);
    let newest = reader.newest(&IntakeFilter::default(), 10).expect("reads");
    let end = reader.end().expect("reads");
    assert_eq!((newest.seq, end.1), (1, 1), "its place was given away");
    file.commit(&[submission(vec![event(None, "{}")], None)], 9_000_000).expect("commits");
    let page = reader.after(&IntakeFilter::default(), (&newest.epoch, newest.seq), 10).expect("reads");
    assert_eq!((page.lost, page.events.len()), (None, 1));
}

#[test]
fn a_key_stays_as_long_as_any_of_its_events() {
    let folder = tempfile::tempdir().expect("folder");
    let settings = IntakeSettings { keep_bytes: 4 << 20, ..settings(folder.path()) };
    let mut file = File::open(&settings).expect("opens");
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(900));
    // More than one step deletes, of each.
    let keys: Vec<String> = (0..4).map(|n| format!("k{n}")).collect();
    let group = |key: &String| submission((0..1500).map(|_| event(None, &large)).collect(), Some((key, "1")));
    for key in &keys {
        file.commit(&[group(key)], 1000).expect("commits");
    }
    let mut steps = 0;
    while file.tidy(1000).expect("a step") == Step::More {
        steps += 1;
        assert!(steps < 100, "it comes to an end");
    }
    let left = rows(&settings.path);
    assert!((1..4500).contains(&left), "{left} of 6000");
    let has_key = |file: &File, key: &str| -> bool {
        let sql = "SELECT EXISTS (SELECT 1 FROM receipts WHERE key = ?1)";
        file.connection().query_row(sql, [key], |row| row.get(0)).expect("a row")
    };
    for (n, key) in keys.iter().enumerate() {
        let is_there = left > 1500 * (3 - i64::try_from(n).expect("small"));
        assert_eq!(has_key(&file, key), is_there, "{key}, with {left} events left");
    }
    let again = file.commit(&[group(&keys[3])], 2000).expect("commits");
    assert!(again[0].as_ref().is_ok_and(|receipt| receipt.is_repeat), "its events are there");
    assert_eq!(rows(&settings.path), left, "once");
    while file.tidy(1001 + 3_600_000).expect("a step") == Step::More {}
    assert!((rows(&settings.path), has_key(&file, &keys[3])) == (0, false), "both go with age");
}

#[test]
fn what_is_acknowledged_after_the_journal_was_deleted_is_in_the_file() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("emit.db");
    let intake = Intake::open(settings(folder.path()), || {}).expect("a thread");
    let taken = || submit(&intake, submission(vec![event(None, "{}")], None)).recv().expect("answered");
    taken().expect("it is well");
    for round in 0..2 {
        std::fs::remove_file(crate::store::database::beside(&path, "-wal")).expect("a journal");
        taken().expect("all of it can be found");
        assert_eq!(rows(&path), 2 + 2 * round);
        // As after a kill: nothing but the file, and what lies beside it.
        let copy = folder.path().join(format!("copy-{round}.db"));
        std::fs::copy(&path, &copy).expect("copied");
        // It is there again where the deleted one was noticed before anything came.
        let beside = |path| crate::store::database::beside(path, "-wal");
        let _ = std::fs::copy(beside(&path), beside(&copy));
        assert_eq!(rows(&copy), 2 + 2 * round);
        taken().expect("into a new journal");
        assert_eq!(rows(&path), 3 + 2 * round);
    }
}

#[test]
fn a_journal_that_is_deleted_while_nothing_comes_is_noticed_when_it_tidies_up() {
    let folder = tempfile::tempdir().expect("folder");
    let settings = settings(folder.path());
    let mut file = File::open(&settings).expect("opens");
    file.commit(&[submission(vec![event(None, "{}")], None)], 1000).expect("commits");
    assert_eq!((file.tidy(1000).expect("a step"), file.is_spent()), (Step::Done, false));
    std::fs::remove_file(crate::store::database::beside(&settings.path, "-wal")).expect("a journal");
    assert_eq!((file.tidy(1000).expect("a step"), file.is_spent()), (Step::Done, true));
    drop(file);
    assert_eq!(rows(&settings.path), 1);
}
