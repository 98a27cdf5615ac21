//! docs/reliability.md says what is so: its first table is the one that tests/faults.rs
//! plays, each mode exists, and each test that it names does.

use std::{collections::BTreeSet, fs, path::Path};

#[path = "faults/table.rs"]
#[allow(dead_code, reason = "what is played is read here")]
mod table;

use table::{Caller, FAULTS, Recorded};

const DOCS: &str = include_str!("../docs/reliability.md");

/// The cells of all rows of all tables but their heads.
fn rows() -> Vec<Vec<&'static str>> {
    let lines = DOCS.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    // The bench's own tables are numbers.
    let lines = lines.take_while(|line| !line.starts_with("neighbour"));
    let rows = lines.map(|line| line.split(" | ").collect::<Vec<_>>());
    rows.filter(|cells| cells[0] != "fault").collect()
}

/// What stands in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn fixture(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/server").join(file);
    fs::read_to_string(path).expect("the fixture has this file")
}

#[test]
fn every_row_has_four_cells_and_a_test_that_exists() {
    let rows = rows();
    assert!(rows.len() > 80, "only {} rows were found", rows.len());
    for row in rows {
        assert_eq!(row.len(), 4, "{row:?}");
        let tests = quoted(row[3]);
        assert!(!tests.is_empty(), "{row:?}");
        for test in tests.into_iter().filter(|test| *test != "faults") {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test} is no test"));
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{file}.rs"));
            let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{test}: {error}"));
            let at = source.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("{test} is gone"));
            let before = &source[source[..at].rfind("\n\n").unwrap_or(0)..at];
            assert!(before.contains("#[test]") || before.contains("#[tokio::test"), "{test} is no test: {before}");
        }
    }
}

#[test]
fn the_first_table_is_the_one_that_is_played() {
    let of_table: Vec<_> = rows().into_iter().filter(|row| row[0].starts_with("**")).collect();
    let named: BTreeSet<&str> = of_table.iter().filter_map(|row| row[0].split("**").nth(1)).collect();
    assert_eq!(named.len(), of_table.len(), "a name stands there twice");
    assert_eq!(named, FAULTS.iter().map(|fault| fault.name).collect());
    for fault in FAULTS {
        let row = of_table.iter().find(|row| row[0].starts_with(&format!("**{}**", fault.name))).expect("its row");
        let mode = fault.flags.first().or(fault.before.as_ref()).unwrap_or(&fault.tool);
        assert_eq!(quoted(row[0]).last(), Some(mode), "{row:?}");
        assert!(quoted(row[3]).contains(&"faults"), "{row:?}");
        let seen = quoted(row[1]);
        match fault.caller {
            Caller::Fails(class, _) => assert_eq!(seen.first(), Some(&class), "{row:?}"),
            Caller::ToolError | Caller::Rpc(_) => assert!(row[1].contains("untouched"), "{row:?}"),
            Caller::Gets(_) => assert!(!seen.iter().any(|word| word.contains("timeout")), "{row:?}"),
        }
        match fault.recorded {
            Recorded::Failure(class, _) => assert!(row[2].starts_with(&format!("row `{class}`")), "{row:?}"),
            Recorded::Event(event) => assert!(row[2].starts_with(&format!("event `{event}`")), "{row:?}"),
            Recorded::Nothing => assert!(row[2].starts_with("nothing"), "{row:?}"),
        }
    }
}

#[test]
fn every_mode_is_one_of_the_fixture_server_and_in_its_table() {
    let (tools, flags) = (fixture("catalog.rs"), fixture("flags.rs"));
    let documented = include_str!("../fixtures/README.md");
    let modes = rows().into_iter().filter(|row| row[0].starts_with("**"));
    for mode in modes.filter_map(|row| quoted(row[0]).pop()) {
        match mode.starts_with("--") {
            true => assert!(flags.contains(&format!("\"{mode}\" =>")), "there is no flag {mode}"),
            false => assert!(tools.contains(&format!("\"{mode}\",")), "there is no tool {mode}"),
        }
        let of_itself = [format!("`{mode}`"), format!("`{mode} ")];
        assert!(of_itself.iter().any(|mode| documented.contains(mode)), "fixtures/README.md does not have {mode}");
    }
}
