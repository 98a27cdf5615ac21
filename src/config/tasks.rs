//! The options of `builtin = "tasks"`: its steps, each a word for what seawall does itself,
//! or a table.

use std::time::Duration;

use super::reader::{Entry, Table};
use crate::tasks::{Expect, Fresh, Query, Settings, Step, What};

const WANTED: &str = "not a step; write \"retention\", \"check\", \"backup\", \"digest\", or a table such as \
                      { command = [\"./bin/rotate\"], timeout = \"10m\" }";
const STEPS_MAX: usize = 32;
const HOUR: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(600);
const RETRY_AFTER: Duration = Duration::from_secs(10);
const BACKUPS: (&str, u32) = ("backups", 7);
const DIGESTS: (&str, u32) = ("digests", 12);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) fn read(table: &mut Table<'_>) -> Option<Settings> {
    let steps = table.take("steps", |entry| {
        let items = entry.items("not a list; write steps = [\"retention\", \"backup\"]")?;
        if items.is_empty() || items.len() > STEPS_MAX {
            return entry.refuse(format!("write 1 to {STEPS_MAX} steps"));
        }
        Some(items.iter().filter_map(step).collect())
    });
    if !table.has("steps") {
        return table.refuse("tasks need steps; write options = { steps = [\"retention\", \"check\", \"backup\"] }");
    }
    Some(Settings { steps: steps? })
}

fn step(entry: &Entry<'_>) -> Option<Step> {
    if entry.is_table() {
        return entry.table(WANTED, described)?;
    }
    let what = own(entry)?;
    Some(Step {
        name: entry.word(WANTED)?,
        what: match what {
            "retention" => What::Retention,
            "check" => What::Check,
            "backup" => What::Backup { to: entry.folder().join(BACKUPS.0), keep: BACKUPS.1 },
            _ => What::Digest { to: entry.folder().join(DIGESTS.0), keep: DIGESTS.1, since: WEEK },
        },
        timeout: TIMEOUT,
        retries: 0,
        retry_after: RETRY_AFTER,
        expect: Expect::default(),
    })
}

/// One of the words for what seawall does itself.
fn own(entry: &Entry<'_>) -> Option<&'static str> {
    const WORDS: [&str; 4] = ["retention", "check", "backup", "digest"];
    let word = entry.word(WANTED)?;
    match WORDS.into_iter().find(|known| *known == word) {
        Some(word) => Some(word),
        None => entry.refuse(match crate::text::nearest(&word, WORDS) {
            Some(nearest) => {
                format!("no such step; did you mean \"{nearest}\"? A program of yours is {{ command = [\"…\"] }}")
            }
            None => WANTED.to_owned(),
        }),
    }
}

fn described(table: &mut Table<'_>) -> Option<Step> {
    let run = table.take("run", own);
    let command = table.take("command", Entry::command);
    let name = table.take("name", Entry::nonempty);
    let to = table.take("to", Entry::path);
    let keep = table.take("keep", |entry| entry.integer(1..=1000));
    let since = table.take("since", |entry| entry.duration(HOUR..=365 * 24 * HOUR));
    let second = Duration::from_secs(1);
    let timeout = table.take("timeout", |entry| entry.duration(second..=24 * HOUR));
    let retries = table.take("retries", |entry| entry.integer(0..=100));
    let retry_after = table.take("retry_after", |entry| entry.duration(Duration::ZERO..=24 * HOUR));
    let expect = table.take("expect", expect);
    let written = table.exactly_one(&["run", "command"])?;
    if !matches!(run, Some("backup" | "digest")) {
        table.forbid(&["to", "keep"], "only a backup and a digest are kept somewhere; take it out");
    }
    if run != Some("digest") {
        table.forbid(&["since"], "only a digest looks back; take it out");
    }
    let place =
        |usual: (&str, u32)| (to.clone().unwrap_or_else(|| table.folder().join(usual.0)), keep.unwrap_or(usual.1));
    let (usual_name, what) = if written == "command" {
        let argv = command?;
        let program = argv.first().and_then(|program| program.rsplit('/').next()).unwrap_or_default();
        (program.to_owned(), What::Command(argv))
    } else {
        let word = run?;
        let what = match word {
            "retention" => What::Retention,
            "check" => What::Check,
            "backup" => {
                let (to, keep) = place(BACKUPS);
                What::Backup { to, keep }
            }
            _ => {
                let (to, keep) = place(DIGESTS);
                What::Digest { to, keep, since: since.unwrap_or(WEEK) }
            }
        };
        (word.to_owned(), what)
    };
    Some(Step {
        name: name.unwrap_or(usual_name),
        what,
        timeout: timeout.unwrap_or(TIMEOUT),
        retries: retries.unwrap_or(0),
        retry_after: retry_after.unwrap_or(RETRY_AFTER),
        expect: expect.unwrap_or_default(),
    })
}

fn expect(entry: &Entry<'_>) -> Option<Expect> {
    entry.table("not a table; write { exit_code = 0 }, { file = \"./out\" } or { query = \"SELECT …\" }", |table| {
        let exit_code = table.take("exit_code", |entry| entry.integer(0..=255));
        let file = table.take("file", Entry::path);
        let within = table.take("within", |entry| entry.duration(Duration::from_secs(1)..=3650 * 24 * HOUR));
        let sql = table.take("query", Entry::nonempty);
        let database = table.take("database", Entry::path);
        if !table.has("file") {
            table.forbid(&["within"], "says how old a file may be; write file = \"…\" beside it");
        }
        if !table.has("query") {
            table.forbid(&["database"], "says which database is asked; write query = \"SELECT …\" beside it");
        }
        Expect {
            exit_code: exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(0),
            file: file.map(|path| Fresh { path, within }),
            query: sql.map(|sql| Query { sql, database }),
        }
    })
}
