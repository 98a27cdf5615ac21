//! The house keeps its order: a room imports inner rooms only, and a crate that one room
//! is there to hide is named in that room only. ARCHITECTURE.md draws the same map.
//!
//! Reads the text of `src/`: every `crate::` outside comments, those of tests included.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// From the outside in. A room may import what stands in a later line, and nothing of
/// its own or an earlier one. Rooms that are still to be built have their place already.
const ORDER: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["command"],
    &["control"],
    &["gateway"],
    // It builds the settings types of the rooms below; who may know it is said in CONFIG_IS_KNOWN_TO.
    &["config"],
    &["unit"],
    &["service", "embedding", "watch", "emit", "tasks", "health"],
    &["downstream", "route", "stack"],
    &["layer"],
    &["upstream"],
    &["packages"],
    &["builtin", "process", "egress"],
    // What all listeners share: it knows nothing of what is served.
    &["listener"],
    // The vocabulary.
    &["store", "respond", "wire"],
    &["link", "testing", "mcp_param"],
    &["call", "failure", "session", "era"],
    // Knows nothing of MCP; what it reports, a link hands on.
    &["sandbox"],
    &["heap", "id", "say", "text"],
    &["sync"],
];

/// A call names its session and how it ended, a failure quotes the answer of a call, a
/// session speaks in payloads and has an era: one vocabulary in four files.
const ONE_VOCABULARY: &[&str] = &["call", "failure", "session", "era"];

/// Settings are handed to a room; it does not fetch them.
const CONFIG_IS_KNOWN_TO: &[&str] = &["main", "command", "control", "gateway"];

/// What these may import of ours, at most: they know nothing of MCP.
const KNOWS_LITTLE: &[(&str, &[&str])] = &[
    ("process", &["sandbox", "say", "text"]),
    ("packages", &["egress", "link", "process", "sandbox", "text"]),
    ("sandbox", &["text"]),
    ("builtin", &["failure", "id", "text"]),
    ("layer", &["call", "failure", "id", "respond", "store", "testing", "text"]),
    ("link", &["call", "era", "sandbox"]),
    ("heap", &[]),
    ("listener", &["text"]),
    ("id", &[]),
    ("say", &[]),
    ("text", &[]),
    ("sync", &[]),
];

/// Crates, and the files and folders of `src/` that may name them.
const HIDDEN: &[(&str, &[&str])] = &[
    // In-process servers, and the type that an embedder hands in.
    ("rmcp", &["upstream/local", "builtin", "gateway/builder.rs"]),
    ("rusqlite", &["store"]),
    ("hyper", &["downstream/http", "listener", "embedding", "emit", "service/fault.rs"]),
    ("hyper_util", &["downstream/http", "listener"]),
    // config and check use its URL and header parsers, so that what they let pass can be sent.
    (
        "reqwest",
        &[
            "upstream/url",
            "config/value.rs",
            "config/server.rs",
            "command/check.rs",
            "command/run.rs",
            "health",
            "service",
        ],
    ),
    ("candle_core", &["embedding/model"]),
    ("tokenizers", &["embedding/model"]),
    ("backtrace", &["heap"]),
    ("backoff", &["upstream/ladder.rs"]),
    ("toml_edit", &["config"]),
    ("clap", &["main.rs", "cli.rs", "command"]),
    ("anyhow", &["main.rs", "command"]),
    ("axum", &[]),
    // Not even there so far, and denied in Cargo.toml: who needs it has to say so in both places.
    ("unsafe", &["sandbox/linux", "process/sys.rs"]),
];

/// Crates that a room must do without.
const DOES_WITHOUT: &[(&str, &str)] = &[("sandbox", "tokio"), ("unit", "tokio"), ("unit", "std::fs")];

struct Source {
    /// Below `src/`, with slashes.
    file: String,
    /// Without comments.
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        self.file.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// Whether this is `place`, or `place.rs`, or below it: `store` covers `store.rs` and `store/row.rs`.
    fn is_in(&self, place: &str) -> bool {
        let rest = self.file.strip_prefix(place);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest == ".rs")
    }

    /// The rooms that it names.
    fn imports(&self) -> BTreeSet<String> {
        // The binary names the library by its name.
        let code = match self.room() {
            "main" | "cli" => self.code.replace("seawall::", "crate::"),
            _ => self.code.clone(),
        };
        let after = code.match_indices("crate::").map(|(at, found)| &code[at + found.len()..]);
        after.flat_map(heads).collect()
    }
}

/// The first words of `a::b`, or of each part of `{a::b, c::{d, e}}`.
fn heads(path: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.trim_start().strip_prefix('{') else { return vec![word(path)] };
    let mut heads = vec![word(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(word(&group[at + 1..])),
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

fn without_comments(text: &str) -> String {
    // A `//` within a string cuts that line short: a URL, which names no room.
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .fold(String::new(), |all, line| all + line + "\n")
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).expect("src/ can be read");
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(source(&root, &path));
            }
        }
    }
    assert!(sources.len() > 100, "only {} files were found", sources.len());
    sources
}

fn source(root: &Path, path: &PathBuf) -> Source {
    let file = path.strip_prefix(root).expect("it is below src/").to_string_lossy().replace('\\', "/");
    let code = without_comments(&fs::read_to_string(path).expect("UTF-8"));
    Source { file, code }
}

/// The library's own root names all rooms.
fn rooms_of(sources: &[Source]) -> impl Iterator<Item = &Source> {
    sources.iter().filter(|source| source.file != "lib.rs")
}

fn level(room: &str) -> Option<usize> {
    ORDER.iter().position(|rooms| rooms.contains(&room))
}

fn names(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + word.len()..];
        let is_path = word == "unsafe" || after.starts_with("::");
        !before.is_some_and(|c| is_part(c) || c == '"') && !after.starts_with(is_part) && is_path
    })
}

fn nothing(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn a_room_imports_inner_rooms_only() {
    let sources = sources();
    let wrong = rooms_of(&sources).flat_map(|source| {
        let room = source.room();
        let from = level(room).unwrap_or_else(|| panic!("{}: give this room its place in ORDER", source.file));
        let allowed = move |target: &str| {
            let to = level(target).unwrap_or_else(|| panic!("{}: there is no room \"{target}\"", source.file));
            to > from || target == room || [room, target].iter().all(|room| ONE_VOCABULARY.contains(room))
        };
        let outward = source.imports().into_iter().filter(move |target| !allowed(target));
        outward.map(|target| format!("src/{} imports {target}, which is not further in", source.file))
    });
    nothing(wrong.collect());
}

#[test]
fn settings_are_handed_in() {
    let sources = sources();
    let knows = |source: &&Source| source.room() != "config" && source.imports().contains("config");
    let wrong = rooms_of(&sources).filter(knows).filter(|source| !CONFIG_IS_KNOWN_TO.contains(&source.room()));
    nothing(wrong.map(|source| format!("src/{} knows config", source.file)).collect());
}

#[test]
fn some_rooms_know_little_of_the_house() {
    let sources = sources();
    let wrong = rooms_of(&sources).flat_map(|source| {
        let little = KNOWS_LITTLE.iter().find(|(room, _)| *room == source.room()).map(|(_, little)| *little);
        let imports = little.map(|_| source.imports()).unwrap_or_default().into_iter();
        let too_much =
            imports.filter(move |target| target != source.room() && !little.unwrap_or(&[]).contains(&&**target));
        too_much.map(|target| format!("src/{} must not know {target}", source.file))
    });
    nothing(wrong.collect());
}

#[test]
fn a_crate_is_named_where_it_is_hidden_and_nowhere_else() {
    let sources = sources();
    let wrong = HIDDEN.iter().flat_map(|(name, places)| {
        let strangers = sources.iter().filter(|source| !places.iter().any(|place| source.is_in(place)));
        strangers
            .filter(|source| names(&source.code, name))
            .map(move |source| format!("src/{} names {name}", source.file))
    });
    let missing = DOES_WITHOUT.iter().flat_map(|(room, name)| {
        let there = sources.iter().filter(|source| source.room() == *room);
        there.filter(|source| names(&source.code, name)).map(move |source| format!("src/{} names {name}", source.file))
    });
    nothing(wrong.chain(missing).collect());
}

/// `println!` and `eprintln!` panic where nobody reads any more, and a bare stdout has its
/// own errors there. The protocol's streams and a terminal's bytes are not for these.
#[test]
fn what_is_said_is_said_by_one_room() {
    const BARE: [&str; 5] = ["println!", "print!(", "eprint", "std::io::stdout().lock()", "dbg!"];
    let sources = sources();
    let wrong = sources.iter().filter(|source| source.room() != "say").flat_map(|source| {
        let is_bare = |line: &&str| BARE.iter().any(|bare| line.contains(bare));
        let lines = source.code.lines().filter(is_bare);
        lines.filter(|_| source.file != "command/sandbox/shell.rs").map(|line| format!("src/{}: {line}", source.file))
    });
    nothing(wrong.collect());
}

/// The root of the house takes one type of rmcp's in its signature, and no more.
#[test]
fn the_gateway_names_only_the_trait_of_a_handler() {
    let sources = sources();
    let gateway = sources.iter().find(|source| source.file == "gateway/builder.rs").expect("gateway/builder.rs");
    let named: Vec<&str> = gateway.code.lines().filter(|line| names(line, "rmcp")).collect();
    assert_eq!(named, ["use rmcp::ServerHandler;"]);
}

#[test]
fn every_room_is_on_the_map() {
    let sources = sources();
    let map =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut files: BTreeMap<&str, bool> = BTreeMap::new();
    for source in rooms_of(&sources) {
        files.insert(source.room(), map.contains(&format!("`{}", source.room())));
    }
    let missing = files.into_iter().filter(|(_, is_there)| !is_there);
    nothing(missing.map(|(room, _)| format!("ARCHITECTURE.md does not name `{room}`")).collect());
}

/// What the tests above stand on.
#[test]
fn imports_are_read_as_the_compiler_does() {
    assert_eq!(heads("{\n    call::{Answer, Back},\n    text,\n}; let x = {}"), ["call", "text"]);
    assert_eq!(heads("text::quote(a, b)"), ["text"]);
    assert!(names("use rmcp::model;", "rmcp") && names("pub unsafe fn x()", "unsafe"));
    assert!(!names("rmcp=warn", "rmcp") && !names("is_unsafe(c)", "unsafe"));
    assert!(!names("state = \"backoff\"", "backoff"));
    let cfg = Source { file: "store/row.rs".into(), code: without_comments("use crate::id; // crate::gateway") };
    assert_eq!(cfg.imports().into_iter().collect::<Vec<_>>(), ["id"]);
    assert!(cfg.is_in("store") && cfg.is_in("store/row.rs") && !cfg.is_in("sto") && !cfg.is_in("store/ro"));
}
