//! Whether an attempt has succeeded: by its exit code, a file, a question to a database.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::ExitStatus,
    time::{Duration, SystemTime},
};

use super::{Expect, Fresh};
use crate::{store::upkeep, text};

/// Clocks of other machines, whose disks these are, may be ahead by so much.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// What was so when an attempt began.
pub(super) struct Began {
    at: SystemTime,
    /// When the expected file was changed last.
    changed: Option<SystemTime>,
}

impl Began {
    pub(super) fn now(expect: &Expect) -> Self {
        let known = expect.file.as_ref().and_then(|file| fs::metadata(&file.path).ok());
        Began { at: SystemTime::now(), changed: known.and_then(|known| known.modified().ok()) }
    }
}

/// An error is a sentence.
pub(super) fn judge(
    expect: &Expect,
    status: ExitStatus,
    began: &Began,
    database: &Path,
    within: Duration,
) -> Result<(), String> {
    match (status.code(), status.signal()) {
        (Some(code), _) if code == expect.exit_code => {}
        (Some(code), _) if expect.exit_code == 0 => return Err(format!("it ended with exit code {code}")),
        (Some(code), _) => return Err(format!("it ended with exit code {code}, not {}", expect.exit_code)),
        (None, Some(signal)) => return Err(format!("it was ended by signal {signal}")),
        (None, None) => return Err("nobody knows how it ended".to_owned()),
    }
    if let Some(file) = &expect.file {
        is_fresh(file, began)?;
    }
    if let Some(query) = &expect.query {
        let path = query.database.as_deref().unwrap_or(database);
        let yes = upkeep::says_yes(path, &query.sql, within).map_err(|error| error.to_string())?;
        if !yes {
            return Err(format!("{} says no: {}", path.display(), query.sql));
        }
    }
    Ok(())
}

fn is_fresh(file: &Fresh, began: &Began) -> Result<(), String> {
    let path = file.path.display();
    let known = fs::metadata(&file.path).map_err(|error| format!("{path} is expected: {error}"))?;
    if !known.is_file() {
        return Err(format!("{path} is no file"));
    }
    if known.len() == 0 {
        return Err(format!("{path} is empty"));
    }
    let changed = known.modified().map_err(|error| format!("{path}: {error}"))?;
    // It would be fresh until that time has come.
    let ahead = changed.duration_since(SystemTime::now()).unwrap_or_default();
    if ahead > AHEAD_MAX {
        return Err(format!("{path} is dated {} in the future", text::duration(ahead)));
    }
    match file.within {
        None if changed > began.at && began.changed == Some(changed) => {
            Err(format!("{path} was not written by this run"))
        }
        // File systems keep time in coarser grains than clocks.
        None if changed + Duration::from_secs(1) < began.at => Err(format!("{path} was not written by this run")),
        Some(within) => match changed.elapsed() {
            Ok(age) if age > within => {
                Err(format!("{path} is {} old, more than {}", text::duration(age), text::duration(within)))
            }
            _ => Ok(()),
        },
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Query;

    fn judged(expect: &Expect, code: i32) -> Result<(), String> {
        let none = Path::new("/none.db");
        judge(expect, ExitStatus::from_raw(code << 8), &Began::now(expect), none, Duration::from_secs(10))
    }

    #[test]
    fn an_exit_code_a_file_and_a_question_must_all_be_right() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("out");
        assert_eq!(judged(&Expect::default(), 0), Ok(()));
        assert_eq!(judged(&Expect::default(), 3), Err("it ended with exit code 3".to_owned()));
        let other = Expect { exit_code: 3, ..Expect::default() };
        assert_eq!((judged(&other, 3), judged(&other, 0).is_err()), (Ok(()), true));

        let file = |within| Expect { file: Some(Fresh { path: path.clone(), within }), ..Expect::default() };
        assert!(judged(&file(None), 0).expect_err("none yet").contains("is expected"));
        fs::write(&path, "").expect("written");
        assert!(judged(&file(None), 0).expect_err("empty").contains("is empty"));
        fs::write(&path, "x").expect("written");
        assert_eq!(judged(&file(None), 0), Ok(()));
        let old = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(old)).expect("aged");
        assert!(judged(&file(None), 0).expect_err("old").contains("was not written by this run"));
        assert_eq!(judged(&file(Some(Duration::from_secs(7200))), 0), Ok(()));
        assert!(judged(&file(Some(Duration::from_secs(600))), 0).expect_err("old").contains("60 min old"));

        let database = folder.path().join("a.db");
        upkeep::tests_database(&database);
        let query = |sql: &str| Expect {
            query: Some(Query { sql: sql.to_owned(), database: Some(database.clone()) }),
            ..Expect::default()
        };
        assert_eq!(judged(&query("SELECT 1"), 0), Ok(()));
        assert!(judged(&query("SELECT 0"), 0).expect_err("no").contains("says no: SELECT 0"));
        assert!(judged(&query("SELEKT"), 0).is_err());
    }

    #[test]
    fn a_file_of_the_future_is_not_fresh_and_a_folder_is_no_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("out");
        let file = |within| Expect { file: Some(Fresh { path: path.clone(), within }), ..Expect::default() };
        let hour = Some(Duration::from_secs(3600));
        fs::write(&path, "x").expect("written");
        let date = |time| {
            fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(time)).expect("dated");
        };
        date(SystemTime::now() + Duration::from_secs(86_400));
        for within in [None, hour] {
            assert!(judged(&file(within), 0).expect_err("tomorrow").contains("in the future"));
        }
        // Far enough ahead that it is so however slow this machine is, and no further than a clock may be.
        date(SystemTime::now() + AHEAD_MAX - Duration::from_secs(1));
        assert!(judged(&file(None), 0).expect_err("as before").contains("was not written by this run"));
        assert_eq!(judged(&file(hour), 0), Ok(()));
        let began = Began { changed: None, ..Began::now(&file(None)) };
        let ended = judge(&file(None), ExitStatus::from_raw(0), &began, Path::new("/none.db"), Duration::ZERO);
        assert_eq!(ended, Ok(()), "written by this run, by a clock that is ahead");
        fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).expect("a folder");
        assert!(judged(&file(None), 0).expect_err("a folder").contains("is no file"));
    }

    #[test]
    fn a_signal_is_no_success() {
        let expect = Expect::default();
        let ended = judge(&expect, ExitStatus::from_raw(9), &Began::now(&expect), Path::new("/x"), Duration::ZERO);
        assert_eq!(ended, Err("it was ended by signal 9".to_owned()));
    }
}
