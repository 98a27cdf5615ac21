//! The official conformance suite asks a server directly, then through seawall. What
//! passes directly passes through seawall, except for what
//! fixtures/conformance/expected-failures.toml lists.
//!
//! `WRITE_DOCS=1 cargo test --test conformance` renews the table in docs/conformance.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use toml_edit::{Array, DocumentMut};

mod support;

use support::{
    Gateway,
    conformance::{Outcome, Suite},
    tools,
};

/// The frozen sets and how many scenarios count in each.
const SETS: [(&str, usize); 2] = [("2025-11-25", 30), ("2026-07-28", 37)];
/// Ways to the one server; all but the first lead through seawall.
const WAYS: [&str; 5] = ["direct", "stdio", "stdio-legacy", "url", "url-legacy"];
const BEGIN: &str = "<!-- table: begin -->\n";
const END: &str = "<!-- table: end -->";

type Outcomes = BTreeMap<&'static str, BTreeMap<String, Outcome>>;

#[tokio::test]
async fn what_passes_directly_passes_through_seawall() {
    let Some(suite) = Suite::installed() else { return };
    let both = suite.serve("both").await;
    let legacy = suite.serve("legacy").await;
    let servers_toml = format!(
        "[servers.stdio]\ncommand = {}\nsandbox = \"off\"\n\
         [servers.stdio-legacy]\ncommand = {}\nsandbox = \"off\"\n\
         [servers.url]\nurl = {}\n[servers.url-legacy]\nurl = {}\n",
        json!(suite.server("stdio", "both")),
        json!(suite.server("stdio", "legacy")),
        json!(both.url),
        json!(legacy.url),
    );
    let gateway = Gateway::start(&servers_toml).await;

    let mut wrong = Vec::new();
    let mut tables = String::new();
    for (set, count) in SETS {
        let required = suite.required(set);
        assert_eq!(required.len(), count, "the set {set} is another one: {required:?}");
        let outcomes: Outcomes = WAYS
            .map(|way| {
                let through = format!("http://{}/mcp/{way}", gateway.address);
                (way, suite.run(if way == "direct" { &both.url } else { &through }, set))
            })
            .into();
        tables += &table(set, &required, &outcomes);
        wrong.extend(surprises(set, &required, &outcomes));
    }
    assert!(wrong.is_empty(), "{} surprises:\n{}", wrong.len(), wrong.join("\n"));
    compare_with_docs(&tables);
}

/// Failures that are not listed, and listed ones that are none.
fn surprises(set: &str, required: &[String], outcomes: &Outcomes) -> Vec<String> {
    let mut wrong = Vec::new();
    for (way, outcomes) in outcomes {
        let expected = expected_failures(set, way);
        let unknown = expected.iter().filter(|name| !required.contains(name));
        wrong.extend(unknown.map(|name| format!("{set}, {way}: {name} is listed and is no scenario of the set")));
        for name in required {
            let outcome = outcomes.get(name).unwrap_or_else(|| panic!("the suite did not run {name}"));
            match (outcome.passes(), expected.contains(name)) {
                (false, false) => wrong.push(format!("{set}, {way}: {name} does not pass: {}", outcome.reasons())),
                (true, true) => wrong.push(format!("{set}, {way}: {name} passes; take it off the list")),
                _ => {}
            }
        }
        let passed = required.iter().filter(|name| outcomes[*name].passes()).count();
        let others: Vec<&str> = outcomes
            .iter()
            .filter(|(name, outcome)| !required.contains(name) && !outcome.passes())
            .map(|(name, _)| name.as_str())
            .collect();
        println!("{set}, {way}: {passed} of {} pass; not scored and not passed: {}", required.len(), others.join(", "));
    }
    wrong
}

fn expected_failures(set: &str, way: &str) -> BTreeSet<String> {
    let list = tools::fixtures("conformance").join("expected-failures.toml");
    let list: DocumentMut = fs::read_to_string(list).expect("the list is there").parse().expect("the list is TOML");
    let Some(entries) = list.get("expected") else { return BTreeSet::new() };
    let entries = entries.as_array_of_tables().expect("[[expected]]");
    let strings = |array: &Array| -> Vec<String> {
        array.iter().map(|item| item.as_str().expect("a string").to_owned()).collect()
    };
    entries
        .iter()
        .filter(|entry| entry["set"].as_str() == Some(set))
        .filter(|entry| strings(entry["ways"].as_array().expect("ways is a list")).iter().any(|listed| listed == way))
        .flat_map(|entry| strings(entry["scenarios"].as_array().expect("scenarios is a list")))
        .collect()
}

fn table(set: &str, required: &[String], outcomes: &Outcomes) -> String {
    let mut text = format!("## {set}\n\n| scenario | {} |\n|---|{}\n", WAYS.join(" | "), "---|".repeat(WAYS.len()));
    for name in required {
        let words = WAYS.map(|way| match outcomes[way][name] {
            Outcome::Passes => "pass",
            Outcome::Warns(_) => "warning",
            Outcome::Fails(_) => "fail",
        });
        let _ = writeln!(text, "| {name} | {} |", words.join(" | "));
    }
    let passed = WAYS.map(|way| required.iter().filter(|name| outcomes[way][*name].passes()).count().to_string());
    let _ = writeln!(text, "| **pass, of {}** | {} |\n", required.len(), passed.join(" | "));
    text
}

/// What the documentation says is what was just seen.
fn compare_with_docs(tables: &str) {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    let docs = fs::read_to_string(&file).expect("the documentation is there");
    let (before, rest) = docs.split_once(BEGIN).expect("the table's begin is marked");
    let (table, after) = rest.split_once(END).expect("the table's end is marked");
    if std::env::var_os("WRITE_DOCS").is_some() {
        fs::write(&file, format!("{before}{BEGIN}\n{tables}{END}{after}")).expect("the documentation can be written");
        return;
    }
    let hint = "run WRITE_DOCS=1 cargo test --test conformance";
    assert_eq!(table.trim(), tables.trim(), "docs/conformance.md says otherwise; {hint}");
}
