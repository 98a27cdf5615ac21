//! `seawall failures`: the calls that did not end well.

use std::{path::Path, process::ExitCode, time::Duration};

use clap::Args;

use super::{
    listing::{self, Extent, Listing},
    print::{Cell, Colour, Style},
};
use crate::{
    failure::{Class, Verdict},
    store::{FailureFilter, FailureRecord, ReadError, Reader, Table},
    text,
};

const EXAMPLES: &str = "\
Examples:
  seawall failures                                the last 50
  seawall failures --since 2h --server files      what went wrong with \"files\" lately
  seawall failures --class timeout --limit 10     the last ten timeouts
  seawall failures --follow                       and whatever comes, until Ctrl-C
  seawall failures --since 1d --json | jq -r .tool | sort | uniq -c
  seawall why ID                                  the whole story of one of them";

/// List calls that failed, the newest last
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct FailuresArgs {
    /// Only calls to this server
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Only calls to this tool, by its server's own name for it
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Only calls that ended like this
    #[arg(long, value_parser = classes())]
    class: Option<String>,
    #[command(flatten)]
    extent: Extent,
}

pub fn run(args: &FailuresArgs, database: &Path) -> anyhow::Result<ExitCode> {
    listing::run(args, &Reader::open(database)?, &args.extent)
}

fn classes() -> Vec<&'static str> {
    let recorded = |class: &Class| !matches!(class, Class::Ok | Class::Cancelled);
    Class::ALL.iter().filter(|class| recorded(class)).map(|class| class.name()).collect()
}

impl Listing for FailuresArgs {
    type Row = FailureRecord;
    const TABLE: Table = Table::Failures;
    const HEADER: &'static [&'static str] = &["TIME", "ID", "SERVER", "TOOL", "CLASS", "TOOK", "MESSAGE"];

    fn rows(&self, reader: &Reader, after_seq: Option<i64>) -> Result<Vec<FailureRecord>, ReadError> {
        reader.failures(&FailureFilter {
            server: self.server.clone(),
            tool: self.tool.clone(),
            class: self.class.clone(),
            since_ms: self.extent.since,
            until_ms: None,
            after_seq,
            limit: self.extent.limit(after_seq),
        })
    }

    fn seq(row: &FailureRecord) -> i64 {
        row.seq
    }

    fn cells(row: &FailureRecord, style: &Style) -> Vec<Cell> {
        let took = match row.duration_ms.unsigned_abs() {
            0 => "<1 ms".to_owned(),
            ms => text::duration(Duration::from_millis(ms)),
        };
        vec![
            Cell::of(&style.time(row.timestamp_ms)),
            Cell::of(&row.id).painted(Colour::Dim),
            Cell::of(&row.server),
            Cell::of(&row.tool),
            Cell::of(&row.class).painted(colour_of(&row.class)),
            Cell::of(&took).on_the_right(),
            Cell::of(&row.message),
        ]
    }
}

/// Red is a server or a seawall that is broken, yellow one that could not serve now.
pub(super) fn colour_of(class: &str) -> Colour {
    match Class::ALL.into_iter().find(|known| known.name() == class) {
        Some(Class::Internal | Class::Lost) => Colour::Red,
        Some(class) if class.verdict() == Verdict::Failure => Colour::Red,
        Some(class) if class.verdict() == Verdict::Success => Colour::Plain,
        _ => Colour::Yellow,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;
    use crate::{
        command::listing::{Form, tests::printed},
        failure::Recording,
        store::{FailureRow, Settings, Store, testing},
    };

    fn parsed(line: &str) -> Result<FailuresArgs, clap::Error> {
        let command = FailuresArgs::augment_args(Command::new("failures"));
        FailuresArgs::from_arg_matches(&command.try_get_matches_from(line.split(' '))?)
    }

    fn failure(timestamp_ms: u64, class: Class, message: &str) -> FailureRow {
        FailureRow { timestamp_ms, message: message.to_owned(), ..testing::failure(class, "read_file") }
    }

    #[test]
    fn a_table_lists_the_newest_last_and_follows() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(Settings::at(folder.path().join("a.db")));
        let soon = std::time::Duration::from_secs(60);
        let keep = |row: FailureRow| store.failure(row, Recording::Row);
        // Too old for the limit, later in the file than in time, hostile.
        keep(failure(1_795_552_440_000, Class::Timeout, "too old"));
        keep(failure(1_795_552_460_000, Class::Timeout, "it did not answer within 50 s"));
        keep(failure(1_795_552_450_000, Class::Lost, "\u{1b}[2Jgone\nforged line"));
        assert!(store.flush(soon));
        let reader = Reader::open(folder.path().join("a.db")).expect("opens");
        let args = parsed("failures --limit 2").expect("arguments");
        let (first, then) = printed(&args, &reader, Form::Table, || {
            keep(failure(1_795_552_470_000, Class::ToolError, "no such file"));
            assert!(store.flush(soon));
        });
        let ids = regardless_of_ids(&first);
        assert_eq!(
            ids,
            "TIME                 ID            SERVER  TOOL       CLASS     TOOK  MESSAGE\n\
             2026-11-24 20:34:10  ............  files   read_file  lost     12 ms  \\u{1b}[2Jgone\\nforged line\n\
             2026-11-24 20:34:20  ............  files   read_file  timeout  12 ms  it did not answer within 50 s\n"
        );
        assert_eq!(
            regardless_of_ids(&then),
            "2026-11-24 20:34:30  ............  files   read_file  tool_error  12 ms  no such file\n"
        );
    }

    fn regardless_of_ids(table: &str) -> String {
        let of_line = |line: &str| match line.starts_with("TIME") {
            true => format!("{line}\n"),
            false => format!("{}............{}\n", &line[..21], &line[33..]),
        };
        table.lines().map(of_line).collect()
    }

    #[test]
    fn json_is_complete_and_one_object_a_line() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(Settings::at(folder.path().join("a.db")));
        let mut row = failure(1_795_552_450_000, Class::Lost, "gone\nfor good");
        row.arguments = Some(r#"{"n":1e400}"#.to_owned());
        let id = row.id;
        store.failure(row, Recording::Row);
        assert!(store.close(std::time::Duration::from_secs(60)));
        let reader = Reader::open(folder.path().join("a.db")).expect("opens");
        let (first, then) = printed(&parsed("failures --json").expect("arguments"), &reader, Form::Json, || {});
        assert_eq!(
            first,
            format!(
                "{{\"id\":\"{id}\",\"timestamp\":1795552450000,\"server\":\"files\",\"tool\":\"read_file\",\
                 \"class\":\"lost\",\"message\":\"gone\\nfor good\",\"duration_ms\":12,\"client\":\"test 1.0\",\
                 \"protocol\":\"2025-11-25\",\"request_id\":\"7\",\"instance\":3,\"arguments\":{{\"n\":1e400}},\
                 \"exit_status\":null,\"stderr_tail\":null}}\n"
            )
        );
        assert_eq!(then, "");
    }

    #[test]
    fn the_arguments_are_checked_and_the_help_has_examples() {
        assert!(parsed("failures --class timeout --since 2h --server files --tool x -f").is_ok());
        let error = parsed("failures --class timeuot").expect_err("no such class").to_string();
        assert!(error.contains("'timeout'"), "the nearest is named: {error}");
        parsed("failures --since yesterday").expect_err("no moment");
        let help = FailuresArgs::augment_args(Command::new("failures")).render_help().to_string();
        assert!(help.contains("seawall failures --since 2h --server files"), "{help}");
    }

    #[test]
    fn the_colours_tell_broken_from_busy() {
        let of = |class: Class| colour_of(class.name());
        assert_eq!(
            [of(Class::Lost), of(Class::Timeout), of(Class::RateLimited), of(Class::ToolError)],
            [Colour::Red, Colour::Red, Colour::Yellow, Colour::Plain]
        );
    }
}
