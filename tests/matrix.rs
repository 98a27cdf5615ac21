//! Client version × server version × feature, through one gateway: each cell works from
//! end to end, or is refused with a sentence that says why. `REFUSED` is all that is
//! refused; docs/compatibility.md is made of what this test sees.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::json;

mod support;

#[path = "matrix/features.rs"]
mod features;

use features::{Cell, FEATURES, in_era};
use support::{
    Gateway, Launch, fixture,
    raw::{Era, RawClient, Who},
    scratch::Scratch,
};

const VERSIONS: [&str; 5] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];
/// Of each server; together more than a page of seawall's holds.
const EXTRA_TOOLS: usize = 200;
const KINDS: [(&str, &str, &str); 3] =
    [("tools", "name", "extra_"), ("prompts", "name", "extra_"), ("resources", "uri", "")];

/// Feature, clients, servers (`*` for all), and words of the sentence. All else works.
const REFUSED: &[(&str, &[&str], &[&str], &str)] = &[
    ("ping", &["2026-07-28"], &["*"], "Method not found: ping"),
    ("elicitation: form", &["2024-11-05", "2025-03-26"], &["2026-07-28"], "this client has not declared that it gives"),
    (
        "elicitation: form",
        &["2024-11-05", "2025-03-26"],
        &["2025-06-18", "2025-11-25"],
        "has not declared that it answers",
    ),
    (
        "elicitation: URL",
        &["2024-11-05", "2025-03-26", "2025-06-18"],
        &["2026-07-28"],
        "this client has not declared that it gives",
    ),
    (
        "elicitation: URL",
        &["2024-11-05", "2025-03-26", "2025-06-18"],
        &["2025-11-25"],
        "has not declared that it answers",
    ),
];

/// What a client of this version declares.
fn who(version: &'static str) -> Who {
    let capabilities = match version {
        "2024-11-05" | "2025-03-26" => r#"{"roots":{"listChanged":true},"sampling":{}}"#,
        "2025-06-18" => r#"{"roots":{"listChanged":true},"sampling":{},"elicitation":{}}"#,
        _ => r#"{"roots":{},"sampling":{},"elicitation":{"form":{},"url":{}}}"#,
    };
    Who::new(version, capabilities)
}

fn expected(feature: &str, client: &str, server: &str) -> Option<&'static str> {
    let has = |versions: &[&str], version| versions.contains(&"*") || versions.contains(&version);
    let refused = REFUSED
        .iter()
        .find(|(name, clients, servers, _)| *name == feature && has(clients, client) && has(servers, server));
    refused.map(|(.., sentence)| *sentence)
}

/// A client, and the servers that it sees.
struct Front {
    what: &'static str,
    client: RawClient,
    version: usize,
    servers: Vec<usize>,
    is_merged: bool,
}

struct Matrix {
    folder: std::sync::Arc<Scratch>,
    _gateway: Gateway,
    fronts: Vec<Front>,
    /// What was seen, by feature, client and server: the sentence, or that it works.
    cells: BTreeMap<(usize, usize, usize), Option<String>>,
}

fn name(server: usize) -> String {
    format!("v{}", VERSIONS[server])
}

fn journal(folder: &Scratch, server: usize) -> std::path::PathBuf {
    folder.file(&format!("{}.journal", name(server)))
}

/// Each client has a resource of its own at each server.
fn uri(server: usize, client: usize, is_merged: bool) -> String {
    format!("fixture://{}/own/{}", name(server), client + if is_merged { 0 } else { VERSIONS.len() })
}

impl Matrix {
    fn new(runtime: &tokio::runtime::Runtime) -> Matrix {
        let folder = std::sync::Arc::new(Scratch::new());
        let servers: String = (0..VERSIONS.len())
            .map(|server| {
                let journal = journal(&folder, server);
                let extra = EXTRA_TOOLS.to_string();
                let (name, journal) = (name(server), journal.to_str().expect("a path of ours is UTF-8"));
                let flags = ["--protocol", VERSIONS[server], "--name", &name, "--journal", journal];
                fixture(&name, &[&flags[..], &["--resources", "--tools", &extra, "--page", "60"]].concat())
            })
            .collect();
        let gateway = runtime.block_on(async {
            let gateway = Launch::with_folder(folder.clone(), &servers).start().await;
            for server in 0..VERSIONS.len() {
                gateway.server_is_ready(&name(server)).await;
            }
            gateway
        });
        let mut fronts = Vec::new();
        for (version, spoken) in VERSIONS.iter().enumerate() {
            let client = RawClient::over_http(who(spoken), gateway.address, "/mcp");
            let all = (0..VERSIONS.len()).collect();
            fronts.push(Front { what: "HTTP /mcp", client, version, servers: all, is_merged: true });
            for server in 0..VERSIONS.len() {
                let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
                command.args(["stdio", &name(server), "--join", "--config"]).arg(gateway.config());
                let client = RawClient::over_pipe(who(spoken), command);
                fronts.push(Front { what: "stdio", client, version, servers: vec![server], is_merged: false });
            }
        }
        fronts.iter_mut().for_each(Front::listen);
        Matrix { folder, _gateway: gateway, fronts, cells: BTreeMap::new() }
    }

    fn run(&mut self) {
        for front in &mut self.fronts {
            for server in front.servers.clone() {
                for (number, feature) in FEATURES.iter().enumerate() {
                    let has_none = VERSIONS[server] < feature.since || (feature.is_of_one && front.is_merged);
                    if has_none {
                        continue;
                    }
                    let what = format!(
                        "{}: {} client, {} server, {}",
                        feature.name, VERSIONS[front.version], VERSIONS[server], front.what
                    );
                    let mut cell = front.cell(server, &self.folder);
                    let outcome = (feature.run)(&mut cell).err();
                    match (&outcome, expected(feature.name, VERSIONS[front.version], VERSIONS[server])) {
                        (None, None) => {}
                        (Some(sentence), Some(words)) => assert!(sentence.contains(words), "{what}: {sentence}"),
                        (seen, expected) => panic!("{what}: {expected:?} was expected, and {seen:?} seen"),
                    }
                    self.cells.insert((number, front.version, server), outcome);
                }
            }
        }
    }

    /// One change of each list of each server: all who listen are told, and list it.
    fn changes(&mut self) {
        for (server, spoken) in VERSIONS.iter().enumerate() {
            for (kind, key, item) in KINDS {
                let count = EXTRA_TOOLS + 1;
                let here = |front: &&mut Front| front.servers.contains(&server);
                let changer = self.fronts.iter_mut().find(here).expect("each server has clients");
                changer.cell(server, &self.folder).change(kind, count);
                for front in self.fronts.iter_mut().filter(here) {
                    let what = format!("{kind}: {} client, {spoken} server, {}", VERSIONS[front.version], front.what);
                    let newest = match kind {
                        "resources" => format!("fixture://{}/extra/{}", name(server), count - 1),
                        _ if front.is_merged => format!("{}__{item}{}", name(server), count - 1),
                        _ => format!("{item}{}", count - 1),
                    };
                    loop {
                        // It may first hear of a change that was before.
                        front.client.told(&format!("notifications/{kind}/list_changed"));
                        let listed = front.cell(server, &self.folder).list(&format!("{kind}/list"), kind, key);
                        if listed.unwrap_or_else(|why| panic!("{what}: {why}")).0.contains(&newest) {
                            break;
                        }
                    }
                }
            }
        }
    }
}

impl Front {
    fn listen(&mut self) {
        let uris: Vec<String> = self.servers.iter().map(|server| uri(*server, self.version, self.is_merged)).collect();
        let wanted = json!({
            "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true,
            "resourceSubscriptions": uris,
        });
        let params = in_era(&self.client, json!({"notifications": wanted}));
        self.client.listen(&params);
    }

    fn cell(&mut self, server: usize, folder: &Scratch) -> Cell<'_> {
        Cell {
            prefix: if self.is_merged { format!("{}__", name(server)) } else { String::new() },
            journal: journal(folder, server),
            uri: uri(server, self.version, self.is_merged),
            client: &mut self.client,
        }
    }
}

/// What is between seawall and a server stays there.
fn nobody_heard_of_streams(matrix: &Matrix) {
    let old = matrix.fronts.iter().filter(|front| front.client.who.era() == Era::Legacy);
    for front in old {
        let heard = front.client.was_told("notifications/subscriptions/acknowledged");
        assert!(!heard, "a {} client, {}, heard of a stream", VERSIONS[front.version], front.what);
    }
}

/// The table of docs/compatibility.md, from what was seen.
fn table(matrix: &Matrix) -> String {
    let mut sentences: Vec<String> = Vec::new();
    let mut rows = String::new();
    for (number, feature) in FEATURES.iter().enumerate() {
        rows += &format!("| {} | {} |", feature.name, if feature.since == VERSIONS[0] { "all" } else { feature.since });
        for client in 0..VERSIONS.len() {
            let servers = (0..VERSIONS.len()).filter_map(|server| {
                matrix.cells.get(&(number, client, server)).map(|outcome| (VERSIONS[server], outcome))
            });
            let refused: Vec<(&str, &String)> =
                servers.clone().filter_map(|(server, outcome)| Some((server, outcome.as_ref()?))).collect();
            let mut notes: Vec<usize> = refused
                .iter()
                .map(|(_, sentence)| {
                    let known = sentences.iter().position(|one| one == *sentence);
                    known.unwrap_or_else(|| {
                        sentences.push((*sentence).clone());
                        sentences.len() - 1
                    }) + 1
                })
                .collect();
            notes.dedup();
            let notes: Vec<String> = notes.iter().map(|note| format!("({note})")).collect();
            rows += &match (refused.len(), servers.count()) {
                (0, _) => " works |".to_owned(),
                (some, all) if some == all => format!(" refused {} |", notes.join(" ")),
                _ => panic!("a client is refused by some servers only: the table needs a column more"),
            };
        }
        rows += "\n";
    }
    rows += &format!("| list_changed: tools, prompts, resources | all |{}\n", " works |".repeat(VERSIONS.len()));
    let head =
        format!("| feature | servers since | {} |\n|---|---|{}\n", VERSIONS.join(" | "), "---|".repeat(VERSIONS.len()));
    let notes: Vec<String> =
        sentences.iter().enumerate().map(|(number, sentence)| format!("{}. `{sentence}`\n", number + 1)).collect();
    format!("{head}{rows}\nThe sentences:\n\n{}", notes.concat())
}

#[test]
fn each_cell_works_or_is_refused_with_a_reason() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut matrix = Matrix::new(&runtime);
    matrix.run();
    matrix.changes();
    nobody_heard_of_streams(&matrix);
    let cells: usize =
        FEATURES.iter().map(|f| VERSIONS.iter().filter(|v| **v >= f.since).count() * VERSIONS.len()).sum();
    assert_eq!(matrix.cells.len(), cells, "every cell was tried");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    let document = std::fs::read_to_string(&path).expect("docs/compatibility.md is there");
    let (before, rest) = document.split_once("<!-- table: begin -->\n").expect("the table has a place");
    let (_, after) = rest.split_once("<!-- table: end -->").expect("the place ends");
    let renewed = format!("{before}<!-- table: begin -->\n\n{}\n<!-- table: end -->{after}", table(&matrix));
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, &renewed).expect("the document can be written");
    }
    let now = std::fs::read_to_string(&path).expect("docs/compatibility.md is there");
    assert_eq!(now, renewed, "docs/compatibility.md differs: WRITE_DOCS=1 cargo test --test matrix");
}

#[test]
fn an_era_is_told_by_its_version() {
    assert!(VERSIONS.iter().all(|version| (who(version).era() == Era::Modern) == (*version == "2026-07-28")));
}
