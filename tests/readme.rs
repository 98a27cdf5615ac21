//! README.md and docs/ say what is so: their examples are understood, and their tables
//! name every key and every class, with what the code says of it.

use std::{collections::BTreeSet, path::Path};

use seawall::{
    config::{self, Builtins, Surroundings},
    failure::{Class, Recording, Verdict},
};
use toml_edit::{Item, TableLike, Value};

const README: &str = include_str!("../README.md");
const REFERENCE: &str = include_str!("../docs/servers-toml.md");
const SERVICES: &str = include_str!("../docs/services.md");
const EVERY_KEY: &str = include_str!("../fixtures/config/good/every-key.toml");

/// The blocks that are fenced as `language`.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("\n```{language}\n");
    let blocks = text.split(&opening).skip(1);
    blocks.map(|rest| rest.split("\n```").next().expect("split has a first part")).collect()
}

/// The cells of the rows whose first cell is `code`, backticks taken off.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix('|'));
    rows.map(|row| {
        let mut cells: Vec<&str> = row.split('|').map(str::trim).collect();
        cells[0] = cells[0].split('`').next().unwrap_or_default();
        cells
    })
    .collect()
}

/// What stands between two headings in bold or in `#`.
fn section<'a>(begin: &str, end: &str) -> &'a str {
    let (_, rest) = README.split_once(begin).unwrap_or_else(|| panic!("README has no {begin:?}"));
    rest.split_once(end).unwrap_or_else(|| panic!("README has no {end:?} after {begin:?}")).0
}

#[test]
fn every_servers_toml_in_the_docs_is_good() {
    let env = |name: &str| Some(format!("/value/of/{name}"));
    let builtins = Builtins {
        servers: &["seawall", "events", "embed"],
        services: &["gateway", "embedding", "watch", "emit", "tasks"],
    };
    let around = Surroundings { env: &env, seawall: Path::new("/opt/seawall"), run: None, builtins };
    let examples = [("README.md", README), ("docs/servers-toml.md", REFERENCE), ("docs/services.md", SERVICES)];
    let mut count = 0;
    for (file, example) in
        examples.into_iter().flat_map(|(file, text)| blocks(text, "toml").into_iter().map(move |b| (file, b)))
    {
        match config::parse(example, Path::new("servers.toml"), &around) {
            Ok(config) => {
                let parked = config.servers.iter().find_map(|server| server.problem.as_deref());
                assert_eq!(parked, None, "{file}:\n{example}");
            }
            Err(complaints) => panic!("{file}: {complaints}\n{example}"),
        }
        count += 1;
    }
    assert!(count >= 4, "only {count} examples were found");
}

#[test]
fn every_json_in_the_docs_is_json() {
    let examples = blocks(README, "json");
    assert!(examples.len() >= 8, "only {} examples were found", examples.len());
    for example in examples {
        if let Err(error) = serde_json::from_str::<serde_json::Value>(example) {
            panic!("{error}:\n{example}");
        }
    }
}

/// The failures that README shows are of the shape that clients get.
#[test]
fn every_failure_in_the_docs_has_a_class() {
    let is_error = |value: &serde_json::Value| value["isError"] == true;
    let shown: Vec<serde_json::Value> =
        blocks(README, "json").iter().filter_map(|block| serde_json::from_str(block).ok()).filter(is_error).collect();
    assert!(shown.len() >= 5, "only {} failures are shown", shown.len());
    for result in shown {
        let facts = &result["_meta"]["seawall/failure"];
        let class = Class::ALL.into_iter().find(|class| facts["class"] == class.name());
        let class = class.unwrap_or_else(|| panic!("no such class: {facts}"));
        assert_eq!(facts["id"].is_string(), class.recording() == Recording::Row, "{facts}");
        let text = result["content"][0]["text"].as_str().expect("a text");
        assert!(text.starts_with("seawall: tool \""), "{text}");
    }
}

#[test]
fn the_table_of_classes_is_the_codes() {
    let table = rows(section("### How a call can end", "### In SQLite"));
    let named: Vec<&str> = table.iter().map(|row| row[0]).collect();
    assert_eq!(named, Class::ALL.map(Class::name), "all classes, in their order");
    for (row, class) in table.iter().zip(Class::ALL) {
        let [_, _, _, breaker, recorded, ..] = row[..] else { panic!("{class} has too few cells: {row:?}") };
        let verdict = match class.verdict() {
            Verdict::Success => "success",
            Verdict::Failure => "counts",
            Verdict::Neutral => "neutral",
        };
        assert_eq!(breaker.split(',').next(), Some(verdict), "{class}");
        let recording = match class.recording() {
            Recording::No => "no",
            Recording::Row => "row",
            Recording::Coalesced => "one row a minute",
            Recording::Counted => "count a minute",
        };
        assert_eq!(recorded, recording, "{class}");
    }
}

/// Paths of keys below `table`; below the keys in `free` a user writes what they like.
fn paths(table: &dyn TableLike, above: &str, free: &[&str], found: &mut BTreeSet<String>) {
    for (key, item) in table.iter() {
        let path = if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") };
        let below = match item {
            Item::Value(Value::InlineTable(inner)) => Some(inner as &dyn TableLike),
            item => item.as_table_like(),
        };
        if let Some(below) = below.filter(|_| !free.contains(&&*path)) {
            paths(below, &path, free, found);
        }
        found.insert(path);
    }
}

fn keys_of<'a>(tables: impl IntoIterator<Item = &'a dyn TableLike>, free: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    tables.into_iter().for_each(|table| paths(table, "", free, &mut found));
    found
}

/// Each of `keys` is a row in README's table, and each row is a key of the reference.
fn table_names(begin: &str, end: &str, keys: &BTreeSet<String>) {
    let rows = rows(section(begin, end));
    let named: BTreeSet<String> = rows.iter().map(|row| row[0].to_owned()).collect();
    let missing: Vec<_> = keys.difference(&named).collect();
    assert!(missing.is_empty(), "README's table {begin} lacks {missing:?}");
    for key in &named {
        let word = key.rsplit('.').next().unwrap_or(key);
        assert!(
            REFERENCE.contains(&format!("`{word}`")) || REFERENCE.contains(&format!("{word} =")),
            "{begin} {key} is not in docs/servers-toml.md"
        );
    }
    for row in rows {
        assert_eq!(row.len(), 4, "{begin}: {row:?}");
    }
}

#[test]
fn the_tables_of_keys_name_every_key() {
    let file: toml_edit::Document<String> = EVERY_KEY.parse().expect("TOML");
    let table = |item: &'static str| file[item].as_table_like().expect("a table");
    let each = |item| table(item).iter().filter_map(|(_, item)| item.as_table_like()).collect::<Vec<_>>();

    table_names("**`[gateway]`**", "**`[defaults]`**", &keys_of([table("gateway")], &[]));
    let policies = keys_of([table("defaults")], &[]);
    table_names("**`[defaults]`**", "**`[servers.NAME]`**", &policies);

    let servers = keys_of(each("servers"), &["env", "headers", "options", "tools", "sandbox"]);
    let servers: BTreeSet<String> = servers.difference(&policies).cloned().collect();
    table_names("**`[servers.NAME]`**", "**`[servers.NAME.tools.TOOL]`**", &servers);

    let of_servers =
        |key: &'static str| each("servers").into_iter().filter_map(move |server| server.get(key)?.as_table_like());
    let tools = of_servers("tools")
        .flat_map(|tools| tools.iter().filter_map(|(_, tool)| tool.as_table_like()).collect::<Vec<_>>());
    let tools: BTreeSet<String> = keys_of(tools, &[]).difference(&policies).cloned().collect();
    table_names("**`[servers.NAME.tools.TOOL]`**", "**`[servers.NAME.sandbox]`**", &tools);
    table_names("**`[servers.NAME.sandbox]`**", "**`[services.NAME]`**", &keys_of(of_servers("sandbox"), &[]));

    table_names("**`[services.NAME]`**", "**`[[alerts]]`**", &keys_of(each("services"), &["env", "options"]));
    let alerts = file["alerts"].as_array_of_tables().expect("tables");
    let alerts = keys_of(alerts.iter().map(|table| table as &dyn TableLike), &[]);
    table_names("**`[[alerts]]`**", "What a level does not write", &alerts);
}

/// A link within the docs leads to a file that is there.
#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "docs/servers-toml.md",
        "docs/speed.md",
        "docs/reliability.md",
        "docs/soak.md",
    ] {
        let text = std::fs::read_to_string(root.join(file)).expect(file);
        let folder = root.join(file).parent().expect("a folder").to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            if path.starts_with("http") {
                continue;
            }
            let there = if path.is_empty() {
                text.clone()
            } else {
                let path = folder.join(path);
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {target}: {error}"))
            };
            assert!(heading.is_empty() || anchors(&there).contains(heading), "{file}: no heading for {target}");
        }
    }
}

/// The headings as links to them are written.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| Some(line.strip_prefix('#')?.trim_start_matches('#').trim()));
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    headings.map(anchor).collect()
}

fn help(words: &[&str]) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_seawall")).args(words).arg("--help").output();
    String::from_utf8(output.expect("seawall runs").stdout).expect("UTF-8")
}

/// The subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<&str> {
    let (_, list) = help.split_once("\nCommands:\n").unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

#[test]
fn every_subcommand_teaches_by_example_and_is_in_the_readme() {
    let all = help(&[]);
    let names = subcommands(&all);
    assert!(names.len() >= 13, "{names:?}");
    for name in names {
        let text = help(&[name]);
        assert!(!text.starts_with("Usage:"), "seawall {name} does not say what it is for");
        let inner = subcommands(&text).into_iter().map(|inner| help(&[name, inner])).collect::<Vec<_>>();
        for help in inner.iter().chain([&text]) {
            assert!(help.contains("Example"), "no example in\n{help}");
            assert!(!help.contains("\\\""), "a stray backslash in\n{help}");
        }
        assert!(README.contains(&format!("seawall {name}")), "README does not name `seawall {name}`");
    }
}
