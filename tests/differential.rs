//! What a client and a server say to each other through seawall is what they say
//! directly: as text, to the last digit, by every front, path, era and kind of upstream.
//!
//! `ALLOWED` is the whole list of differences. `PROPTEST_CASES` makes it long.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use proptest::test_runner::{Config, TestRunner};

mod support;

#[path = "differential/case.rs"]
mod case;
#[path = "differential/text.rs"]
mod text;

use case::{Answer, Case, Kind};
use support::{
    Gateway, Launch, fixture, fixture_server,
    json_text::{Member, compact, member, object, taken_apart},
    raw::{Era, RawClient, Who},
    scratch::Scratch,
    wait::poll,
};

/// All that may differ, each with the function that takes it out of the comparison.
const ALLOWED: [(&str, &str); 9] = [
    ("blanks between tokens", "compact"),
    ("the envelope: jsonrpc, id and members beside; each hop has its own", "Seen::of"),
    ("the name of a tool or prompt at /mcp, SERVER__name", "as_received"),
    ("the progress token, seawall's own towards the server", "as_received"),
    ("what says in _meta who asks, where the eras differ", "as_received"),
    (
        "resultType, _meta serverInfo, and ttlMs and cacheScope of lists and resources, where the eras differ",
        "as_result",
    ),
    ("an empty _meta that is left when these are gone", "without"),
    (
        "a JSON-RPC error that is the server's fault: isError, or an error of seawall's, with it inside (DESIGN 4)",
        "as_error",
    ),
    ("a method that nobody knows at /mcp: it is for no one server, and refused", "is_refused_at_mcp"),
];

const CASES: u32 = 24;
const NAMES: [(&str, Era); 4] =
    [("pipe-old", Era::Legacy), ("pipe-new", Era::Modern), ("url-old", Era::Legacy), ("url-new", Era::Modern)];

fn who(era: Era) -> Who {
    let version = if era == Era::Modern { "2026-07-28" } else { "2025-11-25" };
    Who::new(version, r#"{"sampling":{}}"#)
}

/// A server that says what it is told to, and its folder.
struct Server {
    name: &'static str,
    era: Era,
    folder: PathBuf,
}

/// A client on one way to one server.
struct Way {
    what: String,
    server: usize,
    prefix: String,
    is_direct: bool,
    client: RawClient,
}

struct Rig {
    servers: Vec<Server>,
    /// Each server's own client first.
    direct: Vec<Way>,
    through: Vec<Way>,
    _gateway: Gateway,
    _http: Vec<Listening>,
}

/// A fixture server over HTTP; it ends with its stdin.
struct Listening(Child);

impl Drop for Listening {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn listening(flags: &[&str]) -> (Listening, std::net::SocketAddr) {
    let mut command = Command::new(fixture_server());
    command.arg("--http").args(flags).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the fixture server can be started");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("it says where");
    let address = line.trim().trim_start_matches("listening on http://").trim_end_matches("/mcp");
    (Listening(child), address.parse().expect("an address"))
}

impl Rig {
    fn new(runtime: &tokio::runtime::Runtime) -> Rig {
        let folder = Scratch::new();
        let (mut servers, mut direct, mut http, mut toml) = (Vec::new(), Vec::new(), Vec::new(), String::new());
        for (at, (name, era)) in NAMES.into_iter().enumerate() {
            let own = folder.file(name);
            std::fs::create_dir(&own).expect("a folder can be made");
            let script = own.to_str().expect("a path of ours is UTF-8").to_owned();
            let version = who(era).version;
            let flags = ["--resources", "--list", "echo", "--script", &script, "--protocol", version];
            let client = if name.starts_with("pipe") {
                toml += &fixture(name, &flags);
                let mut command = Command::new(fixture_server());
                command.args(flags);
                RawClient::over_pipe(who(era), command)
            } else {
                let (server, address) = listening(&flags);
                http.push(server);
                toml += &format!("\n[servers.{name}]\nurl = \"http://{address}/mcp\"\n");
                RawClient::over_http(who(era), address, "/mcp")
            };
            toml += "breaker = \"off\"\nrate_limit = \"off\"\n";
            direct.push(Way {
                what: format!("{name} directly"),
                server: at,
                prefix: String::new(),
                is_direct: true,
                client,
            });
            servers.push(Server { name, era, folder: own });
        }
        let gateway = runtime.block_on(async {
            let gateway = Launch::with_folder(folder, &toml).start().await;
            gateway.ready().await;
            gateway
        });
        let through = all_ways(&gateway, &servers);
        Rig { servers, direct, through, _gateway: gateway, _http: http }
    }

    /// One case by these ways.
    fn run(&mut self, case: &Case, ways: impl Fn(usize) -> bool) {
        for (at, server) in self.servers.iter().enumerate() {
            let to_it = |(number, way): &(usize, &mut Way)| way.server == at && ways(*number);
            let mut ways = self.through.iter_mut().enumerate().filter(to_it).map(|(_, way)| way).peekable();
            if ways.peek().is_none() {
                continue;
            }
            let direct = &mut self.direct[at];
            let plain = Seen::of(case, direct, server, false);
            // Only within the old era is a question a request, and no round.
            let asking = (server.era == Era::Legacy).then(|| Seen::of(case, direct, server, true));
            for way in ways {
                let asking = asking.as_ref().filter(|_| way.client.who.era() == Era::Legacy);
                let seen = Seen::of(case, way, server, asking.is_some());
                if !is_refused_at_mcp(case, way, &seen) {
                    asking.unwrap_or(&plain).is_the_same(&seen, case, way, server);
                }
            }
        }
    }
}

/// Each front, path and era to each server: 32.
fn all_ways(gateway: &Gateway, servers: &[Server]) -> Vec<Way> {
    let mut ways = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        for era in [Era::Legacy, Era::Modern] {
            for is_merged in [true, false] {
                let prefix = if is_merged { format!("{}__", server.name) } else { String::new() };
                let path = if is_merged { "/mcp".to_owned() } else { format!("/mcp/{}", server.name) };
                let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
                command.arg("stdio").args((!is_merged).then_some(server.name));
                command.args(["--join", "--config"]).arg(gateway.config());
                let clients = [
                    ("HTTP", RawClient::over_http(who(era), gateway.address, &path)),
                    ("stdio", RawClient::over_pipe(who(era), command)),
                ];
                for (front, client) in clients {
                    let what = format!("{era:?} client, {front} {path}, {}", server.name);
                    ways.push(Way { what, server: at, prefix: prefix.clone(), is_direct: false, client });
                }
            }
        }
    }
    ways
}

/// What arrived at both ends.
#[derive(Debug)]
struct Seen {
    /// The request as the server got it.
    params: String,
    /// The answer to its question, as it got it.
    reply: Option<String>,
    /// Method and params of what the client heard before the answer.
    heard: Vec<(String, String)>,
    /// `result` or `error`, and what it is.
    answer: Member,
}

impl Seen {
    fn of(case: &Case, way: &mut Way, server: &Server, with_question: bool) -> Seen {
        let received = server.folder.join("received");
        let _ = std::fs::remove_file(&received);
        std::fs::write(server.folder.join("answer"), case.script(server.era, with_question)).expect("a file");
        let reply = case.question.as_ref().map_or("{}", |(_, reply)| reply);
        let came = way.client.exchange(case.method(), &case.params(&way.client.who, &way.prefix), reply);
        let parts: Vec<Vec<Member>> = came.iter().map(|line| taken_apart(&compact(line))).collect();
        let got = std::fs::read_to_string(&received).unwrap_or_default();
        let got: Vec<Vec<Member>> = got.lines().map(|line| taken_apart(&compact(line))).collect();
        let method = format!("\"{}\"", case.method());
        let of_method = |message: &&Vec<Member>| member(message, "method") == Some(&method);
        let text = |message: &[Member], key| member(message, key).unwrap_or_default().to_owned();
        let (answer, heard) = parts.split_last().expect("an answer");
        let answer = answer.iter().find(|(key, _)| key == "\"result\"" || key == "\"error\"");
        Seen {
            params: got.iter().find(of_method).map(|message| text(message, "params")).unwrap_or_default(),
            reply: got.iter().find_map(|message| member(message, "result")).map(str::to_owned),
            heard: heard.iter().map(|message| (text(message, "method"), text(message, "params"))).collect(),
            answer: answer.unwrap_or_else(|| panic!("{}: no answer: {came:?}", way.what)).clone(),
        }
    }

    fn is_the_same(&self, through: &Seen, case: &Case, way: &Way, server: &Server) {
        let eras_differ = way.client.who.era() != server.era;
        let direct = (as_received(&self.params, "", eras_differ), &self.reply, &self.heard);
        let seen = (as_received(&through.params, &way.prefix, eras_differ), &through.reply, &through.heard);
        same(&way.what, &direct, &seen);
        let (mut expected, mut got) = (self.answer.clone(), through.answer.clone());
        if let Answer::Error { code, .. } = &case.answer {
            (expected, got) = (expected.clone(), as_error(*code, case.kind, &got));
        } else if eras_differ {
            (expected, got) = (as_result(&expected, case.kind), as_result(&got, case.kind));
        }
        same(&way.what, &expected, &got);
    }
}

fn same<T: PartialEq + std::fmt::Debug>(way: &str, direct: &T, through: &T) {
    if direct != through {
        // A mismatch of megabytes helps nobody.
        let [direct, through] =
            [direct, through].map(|seen| format!("{seen:?}").chars().take(20_000).collect::<String>());
        panic!("{way}:\n directly: {direct}\n  through: {through}");
    }
}

/// The params of a request without what seawall may change in them.
fn as_received(params: &str, prefix: &str, eras_differ: bool) -> String {
    assert!(params.starts_with('{'), "the server never got the request: {params:?}");
    let mut members = taken_apart(params);
    for (key, value) in &mut members {
        match key.as_str() {
            // The server knows its tools by its own names.
            "\"name\"" => assert!(prefix.is_empty() || !value.contains(prefix), "{value}"),
            "\"_meta\"" => {
                let mut meta = taken_apart(value);
                for (_, token) in meta.iter_mut().filter(|(key, _)| key == "\"progressToken\"") {
                    *token = "TOKEN".to_owned();
                }
                *value = object(&meta);
            }
            _ => {}
        }
    }
    if eras_differ {
        let who = who(Era::Modern).members();
        without(&mut members, |key| who.iter().any(|(known, _)| known == key));
    }
    object(&members)
}

/// Takes members out of `_meta`, and an empty `_meta` out.
fn without(members: &mut Vec<Member>, is_gone: impl Fn(&str) -> bool) {
    for (_, value) in members.iter_mut().filter(|(key, _)| key == "\"_meta\"") {
        let mut meta = taken_apart(value);
        meta.retain(|(key, _)| !is_gone(key));
        *value = object(&meta);
    }
    members.retain(|(key, value)| !(key == "\"_meta\"" && value == "{}"));
}

fn as_result((key, result): &Member, kind: Kind) -> Member {
    let mut members = taken_apart(result);
    let is_hint = |key: &str| kind == Kind::Read && matches!(key, "\"ttlMs\"" | "\"cacheScope\"");
    members.retain(|(key, value)| !(is_hint(key) || key == "\"resultType\"" && value == "\"complete\""));
    without(&mut members, |key| key == "\"io.modelcontextprotocol/serverInfo\"");
    (key.clone(), object(&members))
}

/// The server's own error, out of what seawall says of it.
fn as_error(code: i64, kind: Kind, got: &Member) -> Member {
    let is_ours_to_tell = matches!(code, -32000 | 99_999_999_999);
    if !is_ours_to_tell {
        return got.clone();
    }
    let outer = taken_apart(&got.1);
    let holder = match kind {
        Kind::Call => {
            assert_eq!(member(&outer, "isError"), Some("true"), "{got:?}");
            "_meta"
        }
        _ => "data",
    };
    let inside = |text: &str, key: &str| member(&taken_apart(text), key).expect(key).to_owned();
    let failure = inside(member(&outer, holder).expect(holder), "seawall/failure");
    assert_eq!(inside(&failure, "class"), "\"server_error\"");
    ("\"error\"".to_owned(), inside(&failure, "error"))
}

/// At `/mcp` an unknown method is for no one server; a resource that all have is the
/// first one's.
fn is_refused_at_mcp(case: &Case, way: &Way, seen: &Seen) -> bool {
    let is_merged = !way.prefix.is_empty() && !way.is_direct;
    if is_merged && case.kind == Kind::Unknown {
        assert!(seen.answer.1.contains("-32601") && seen.params.is_empty(), "{}: {seen:?}", way.what);
        return true;
    }
    is_merged && case.kind == Kind::Read && way.server != 0
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES)
}

#[test]
fn what_is_said_through_seawall_is_what_is_said_directly() {
    assert!(ALLOWED.iter().all(|(what, by)| !what.is_empty() && !by.is_empty()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let rig = std::cell::RefCell::new(Rig::new(&runtime));
    let image = format!("\"{}\"", "iVBORw0KGgo+/A==".repeat((8 << 20) / 16));
    let letters = format!("\"{}\\ud83d\"", "wave 😀 ".repeat((10 << 20) / 10));
    // Of each server another front, path and era.
    rig.borrow_mut().run(&Case::long(image.clone(), "0".to_owned(), letters), |number| number % 9 == 0);
    // As a notification and as a question, which a front holds before it sends them.
    rig.borrow_mut().run(&Case::long("0".to_owned(), image, "0".to_owned()), |number| number == 0);
    let config = Config { cases: cases(), failure_persistence: None, max_shrink_iters: 16, ..Config::default() };
    let tested = TestRunner::new(config).run(&case::case(), |case| {
        rig.borrow_mut().run(&case, |_| true);
        Ok(())
    });
    tested.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_notification_that_nobody_knows_reaches_the_server() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut rig = Rig::new(&runtime);
    let params = r#"{"":"","\ud83d":[1e400,-0.0],"z":{"a":9007199254740993},"_meta":{"x":1.0}}"#;
    let old = |way: &&mut Way| way.client.who.era() == Era::Legacy && way.prefix.is_empty();
    for way in rig.direct.iter_mut().chain(&mut rig.through).filter(old) {
        let server = &rig.servers[way.server];
        if server.era == Era::Modern {
            continue;
        }
        let received = server.folder.join("received");
        let _ = std::fs::remove_file(&received);
        way.client.notify("notifications/x/unheard-of", params);
        let line = poll(Duration::from_secs(20), || {
            let text = std::fs::read_to_string(&received).unwrap_or_default();
            text.lines().find(|line| line.contains("unheard-of") && line.ends_with('}')).map(str::to_owned)
        });
        let line = line.unwrap_or_else(|| panic!("{}: never came", way.what));
        assert_eq!(member(&taken_apart(&line), "params"), Some(params), "{}", way.what);
    }
}
