//! A servers.toml is understood, or everything that is wrong with it is said, each
//! with its place; and no text whatever makes the reading panic.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proptest::prelude::*;
use seawall::{
    call::Replay,
    command::check,
    config::{
        self, Builtins, Complaints, Config, Instances, Kind, Network, Notify, Options, Place, Profile, Schedule,
        ServiceKind, Surroundings,
    },
    embedding::Recycle,
    layer::{Policy, record},
    tasks::What,
};

const BUILTINS: Builtins<'_> = Builtins {
    servers: &["seawall", "events", "embed"],
    services: &["gateway", "tasks", "embedding", "watch", "emit"],
};

fn parse(text: &str, path: &str) -> Result<Config, Complaints> {
    let env = |name: &str| match name {
        "HOME" => Some("/home/ada".to_owned()),
        "DOCS_TOKEN" => Some("s3cret-value".to_owned()),
        _ => None,
    };
    let around = Surroundings { env: &env, seawall: Path::new("/opt/seawall"), run: None, builtins: BUILTINS };
    config::parse(text, Path::new(path), &around)
}

/// The files of one folder of fixtures, and what is expected of each.
fn fixtures(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Compares with the `.expected` beside `file`; `BLESS=1` writes it anew.
fn assert_expected(file: &Path, got: &str) {
    let expected = file.with_extension("expected");
    if std::env::var("BLESS").is_ok_and(|bless| bless == "1") {
        fs::write(&expected, got).unwrap();
    }
    assert_eq!(fs::read_to_string(&expected).unwrap_or_default(), got, "{}", file.display());
}

fn report(path: &str, checked: &Result<Config, Complaints>) -> String {
    let mut out = Vec::new();
    check::write_text(&mut out, Path::new(path), checked).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn every_bad_file_gets_all_its_complaints_at_once() {
    for (file, text) in fixtures("bad") {
        let complaints = parse(&text, "servers.toml").expect_err(&file.display().to_string());
        assert_expected(&file, &format!("{complaints}\n"));
    }
}

#[test]
fn every_good_file_is_understood() {
    for (file, text) in fixtures("good") {
        let checked = parse(&text, "/home/ada/servers.toml");
        assert!(checked.is_ok(), "{}: {checked:?}", file.display());
        assert_eq!(parse(&text, "/home/ada/servers.toml"), checked, "two readings are equal");
        assert_expected(&file, &report("servers.toml", &checked));
    }
}

#[test]
fn neither_a_complaint_nor_a_config_shows_a_secret() {
    for (file, text) in fixtures("bad").into_iter().chain(fixtures("good")) {
        let shown = match parse(&text, "servers.toml") {
            Ok(config) => format!("{config:?}{}", check::as_json(&file, &Ok(config.clone()))),
            Err(complaints) => format!("{complaints}{complaints:?}"),
        };
        assert!(!shown.contains("s3cret-value"), "{}: {shown}", file.display());
    }
}

#[test]
fn a_script_reads_places_and_reasons_from_json() {
    let bad = check::as_json(Path::new("servers.toml"), &parse("[gateway]\ndrain = 5", "servers.toml"));
    assert_eq!(bad["ok"], false);
    let complaint = &bad["complaints"][0];
    assert_eq!((complaint["line"].as_u64(), complaint["column"].as_u64()), (Some(2), Some(9)));
    assert_eq!((complaint["key"].as_str(), complaint["value"].as_str()), (Some("gateway.drain"), Some("5")));

    let good = parse("[servers.a]\ncommand = [\"server\", \"--token=x\"]", "servers.toml");
    let good = check::as_json(Path::new("servers.toml"), &good);
    assert_eq!(good["ok"], true);
    assert_eq!(good["servers"][0]["target"], "server", "arguments may hold secrets");
    assert_eq!(good["servers"][0]["problem"], serde_json::Value::Null);
}

#[test]
fn a_secret_in_an_argument_is_warned_about_and_not_shown() {
    let text = "[servers.a]\ncommand = [\"server\", \"--dir=${HOME}\", \"--token=${API_TOKEN:-s3cret-value}\", \
                \"${seawall}\", \"${cmd:echo s3cret-value}\", \"${file:/dev/null}\"]\n\
                env = { KEY = \"${API_TOKEN:-x}\" }";
    let checked = parse(text, "/home/ada/servers.toml");
    let shown = check::as_json(Path::new("servers.toml"), &checked);
    let warnings: Vec<_> =
        shown["servers"][0]["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    let begin = [
        "command[2] holds ${API_TOKEN:-…}, and",
        "command[4] holds ${cmd:…}, and",
        "command[5] holds ${file:/dev/null}, and",
    ];
    assert!(warnings.len() == 3 && warnings.iter().zip(begin).all(|(w, begin)| w.starts_with(begin)), "{warnings:?}");
    assert!(warnings[0].ends_with("write env = { NAME = \"${API_TOKEN:-…}\" } instead"), "{warnings:?}");
    let text = report("servers.toml", &checked);
    assert!(text.contains("warning: command[2] holds") && !text.contains("s3cret-value"), "{text}");
    assert!(checked.unwrap().servers[0].problem.is_some(), "/dev/null is no regular file, and is warned about");
}

#[test]
fn the_servers_toml_of_this_repository_is_good_and_nothing_in_it_is_parked() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers.toml");
    let config = parse(&fs::read_to_string(&path).unwrap(), "/home/ada/servers.toml").unwrap();
    assert!(config.servers.len() >= 3);
    for server in &config.servers {
        assert_eq!(server.problem, None, "{}", server.name);
    }
}

#[test]
fn an_empty_file_means_the_defaults() {
    let config = parse("", "/home/ada/servers.toml").unwrap();
    assert_eq!(config.gateway.listen, "127.0.0.1:8420".parse().unwrap());
    assert_eq!(config.gateway.database, Path::new("/home/ada/seawall.db"));
    assert_eq!(config.gateway.state, Path::new("/home/ada/.seawall"));
    assert_eq!(config.gateway.drain, Duration::from_secs(30));
    assert_eq!(config.gateway.max_message_bytes, 16 << 20);
    assert_eq!(config.gateway.tool_name_max_chars, 50);
    assert_eq!(config.gateway.token, None);

    let config = parse("[servers.a]\nbuiltin = \"events\"", "/home/ada/servers.toml").unwrap();
    assert_eq!(*config.servers[0].policy_of("any"), Policy::default());
    assert!(config.servers[0].enabled && config.servers[0].is_tool_enabled("any"));
}

#[test]
fn what_a_level_does_not_write_is_of_the_level_above() {
    let config = parse(
        r#"
        [defaults]
        breaker = { failures = 7, open_for = "20s" }
        rate_limit = "off"
        [servers.a]
        builtin = "events"
        breaker = { open_for = "30s" }
        [servers.a.tools.slow]
        breaker = { failures = 1, count_tool_errors = true }
        rate_limit = { burst = 3 }
        [servers.a.tools.capped]
        max_duration = "10s"
        breaker = "off"
        "#,
        "/home/ada/servers.toml",
    )
    .unwrap();
    let server = &config.servers[0];
    let breaker = |tool| server.policy_of(tool).breaker.clone();
    let inherited = breaker("other").unwrap();
    assert_eq!((inherited.failures, inherited.open_for), (7, Duration::from_secs(30)));
    let own = breaker("slow").unwrap();
    assert_eq!((own.failures, own.open_for, own.count_tool_errors), (1, Duration::from_secs(30), true));
    assert_eq!(breaker("capped"), None);

    assert_eq!(server.policy_of("other").rate_limit, None);
    let limit = server.policy_of("slow").rate_limit.unwrap();
    assert_eq!((limit.per_minute, limit.burst), (6000, 3), "below \"off\" the built-in values are inherited");

    let deadline = &server.policy_of("capped").deadline;
    assert_eq!(deadline.max_duration, Some(Duration::from_secs(10)));
    assert_eq!(deadline.timeout, Some(Duration::from_secs(10)), "a shorter cap bounds an inherited timeout");
}

#[test]
fn every_written_value_arrives() {
    let text = include_str!("../fixtures/config/good/every-key.toml");
    let config = parse(text, "/home/ada/servers.toml").unwrap();
    let names: Vec<_> = config.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["one", "two", "three", "five", "four"], "in the order of the file");
    let [one, two, three, five, four] = &config.servers[..] else { panic!("five servers") };
    let Kind::Embed(model) = &five.kind else { panic!("it embeds") };
    assert_eq!((&*model.name, &*model.folder), ("m", Path::new("/home/ada/models/m")));

    assert_eq!(config.gateway.token.as_ref().unwrap().expose(), "s3cret-value");
    assert_eq!(config.gateway.allowed_hosts[0], "gateway.example.com");
    assert_eq!(config.gateway.database, Path::new("/home/ada/data/seawall.db"));

    let Kind::Command { argv, sandbox } = &one.kind else { panic!("a command") };
    assert_eq!(argv[..], ["/opt/seawall", "mcp", "files", "/home/ada/notes", "costs $5"]);
    assert_eq!(sandbox.profile, Profile::Off);
    assert_eq!(one.env["PRICE"].expose(), "$5");
    assert_eq!(one.cwd, Path::new("/home/ada/sub/folder"));
    assert_eq!(one.instances, Instances::PerSession(8));
    assert_eq!(one.recycle.memory_bytes, Some(1 << 30));
    assert_eq!(one.idle_stop, Some(Duration::from_secs(600)));
    assert_eq!(one.policy.deadline.timeout, None);
    assert_eq!(one.policy.replay, Replay::Never);
    assert_eq!(one.policy.record.arguments, record::Arguments::None);
    assert_eq!(one.policy_of("search").replay, Replay::Annotated);
    assert!(!one.is_tool_enabled("search") && one.is_tool_enabled("other"));

    let Kind::Builtin { options, .. } = &two.kind else { panic!("a builtin") };
    let expected = serde_json::json!({
        "limit": 10, "since": "2026-01-01", "names": ["a", "/home/ada"], "nested": { "on": true, "rate": 0.5 },
    });
    assert_eq!(serde_json::Value::from(options.clone()), expected);

    let Kind::Url { headers, .. } = &three.kind else { panic!("a url") };
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("Authorization", "Bearer s3cret-value"), ("X-Team", "harbour")]);

    let Kind::Command { argv, sandbox } = &four.kind else { panic!("a command") };
    assert_eq!(argv[0], "/home/ada/bin/server");
    assert_eq!(sandbox.write, [Path::new("/home/ada/out")]);
    let Network::Allow(allowed) = &sandbox.network else { panic!("a list") };
    assert_eq!((allowed[1].host.as_str(), allowed[1].port), ("*.example.com", 8443));
    assert_eq!(sandbox.limits.file_size_bytes, Some(256_000_000));

    let [gateway, daily, weekly, emit, embedding, watcher, poller] = &config.services[..] else {
        panic!("seven services")
    };
    let ServiceKind::Builtin { options: Options::Embedding(settings), .. } = &embedding.kind else {
        panic!("it embeds")
    };
    assert_eq!((settings.token.as_deref(), settings.max_text_bytes), (Some("s3cret-value"), 64 << 10));
    assert_eq!((&*settings.model.folder, settings.model.threads), (Path::new("/home/ada/models/m"), 2));
    assert_eq!(settings.model.recycle, Recycle { requests: 500, memory_bytes: 2 << 30 });
    let ServiceKind::Builtin { options: Options::Watch(watch), .. } = &watcher.kind else { panic!("it watches") };
    assert_eq!((watch.concurrency, watch.max_files), (4, 1000));
    assert_eq!(watch.database, Path::new("/home/ada/data/watch.db"));
    let [downloads, within] = &watch.folders[..] else { panic!("two folders") };
    assert_eq!(downloads.path, Path::new("/home/ada/Downloads"));
    assert_eq!(downloads.handling, None, "off");
    assert_eq!(within.path, Path::new("/home/ada/in"));
    assert_ne!(downloads.select, within.select, "a folder's own patterns");
    assert!(within.existing && within.follow_links && !within.recursive);
    let handling = within.handling.as_ref().expect("what stands above");
    assert_eq!(handling.argv, ["/home/ada/bin/sort", "--in", "{path}"]);
    assert_eq!((handling.batch, handling.retries, handling.timeout), (50, 0, Duration::from_secs(60)));
    let ServiceKind::Builtin { options: Options::Tasks(tasks), .. } = &weekly.kind else { panic!("tasks") };
    let names: Vec<_> = tasks.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["retention", "check", "copies", "digest", "rotate"]);
    assert_eq!(tasks.steps[2].what, What::Backup { to: "/home/ada/copies".into(), keep: 3 });
    assert_eq!(tasks.steps[4].what, What::Command(vec!["/home/ada/bin/rotate".into(), "/home/ada/logs".into()]));
    assert_eq!((tasks.steps[4].retries, tasks.steps[4].expect.exit_code), (2, 3));
    let ServiceKind::Builtin { options: Options::Emit(settings), .. } = &emit.kind else { panic!("emit") };
    assert_eq!((settings.token.as_deref(), settings.keep_bytes), (Some("s3cret-value"), 1 << 30));
    assert!(!format!("{config:?}").contains("s3cret"), "a token is never shown");
    assert!(gateway.run_at_load && daily.run_at_load && !poller.run_at_load);
    assert_eq!(poller.schedule, Some(Schedule::Every(Duration::from_secs(900))));
    assert_eq!(poller.memory.as_ref().unwrap().growth_per_hour_bytes, Some(10_000_000));
    assert_eq!(poller.health.as_ref().unwrap().misses, 5);
    assert_eq!(config.alerts[2].notify, Notify::Desktop);
}

#[test]
fn an_edit_makes_a_difference_only_where_it_was_made() {
    let text = include_str!("../fixtures/config/good/every-key.toml");
    let before = parse(text, "/home/ada/servers.toml").unwrap();
    let after = parse(&text.replace("team", "crew").replace("harbour", "quay"), "/home/ada/servers.toml").unwrap();
    assert_ne!(before, after);
    let changed = before.servers.iter().zip(&after.servers).filter(|(before, after)| before != after);
    assert_eq!(changed.map(|(before, _)| before.name.as_str()).collect::<Vec<_>>(), ["three"]);

    let commented = parse(&format!("# a comment\n{text}"), "/home/ada/servers.toml").unwrap();
    assert_eq!(before, commented, "where it stands in the file is no part of its meaning");
}

#[test]
fn a_file_that_cannot_be_read_is_one_complaint() {
    let env = |_: &str| None;
    let around = Surroundings { env: &env, seawall: Path::new("/opt/seawall"), run: None, builtins: BUILTINS };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("servers.toml");
    let complaint = |path: &Path| {
        let complaints = config::load(path, &around).unwrap_err();
        assert_eq!(complaints.len(), 1, "{complaints}");
        complaints[0].clone()
    };
    assert!(complaint(&path).to_string().contains("servers.toml: cannot be read: No such file"));
    assert!(complaint(folder.path()).message.starts_with("cannot be read"));

    fs::write(&path, b"[gateway]\nlisten = \"\xff\"\n").unwrap();
    assert_eq!(complaint(&path).place, Some(Place { line: 2, column: 11 }));
    fs::write(&path, "#".repeat(2 << 20)).unwrap();
    assert!(complaint(&path).message.contains("larger than 1 MiB"));

    fs::write(&path, "[servers.a]\nbuiltin = \"events\"\n").unwrap();
    let config = config::load(&path, &around).unwrap();
    assert_eq!((config.path, config.folder), (path, folder.path().to_owned()));
}

#[test]
fn a_megabyte_of_nonsense_is_answered_soon() {
    let text = format!("[servers.a]\ncommand = [{}]", "1,".repeat(300_000));
    let began = Instant::now();
    assert_eq!(parse(&text, "servers.toml").unwrap_err().len(), 1000);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn the_reference_shows_what_is_true() {
    let text = include_str!("../docs/servers-toml.md");
    let examples: Vec<_> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let config = parse(example, "servers.toml").unwrap_or_else(|complaints| panic!("{complaints}"));
        assert!(config.servers.iter().all(|server| server.problem.is_none()));
    }
    let complaint = include_str!("../fixtures/config/bad/duration.expected");
    assert!(text.contains(complaint.trim_end()));
}

/// A place that an editor can go to.
fn assert_inside(text: &str, complaints: &Complaints) {
    let lines: Vec<_> = text.strip_suffix('\n').unwrap_or(text).split('\n').collect();
    assert!(!complaints.is_empty());
    for complaint in complaints.iter() {
        let place = complaint.place.unwrap_or_else(|| panic!("{complaint} has no place"));
        assert!((1..=lines.len()).contains(&place.line), "{complaint}");
        assert!((1..=lines[place.line - 1].chars().count() + 1).contains(&place.column), "{complaint}");
        assert_eq!(complaint.to_string().lines().count(), 1, "{complaint}");
    }
    assert!(complaints.windows(2).all(|two| two[0].place <= two[1].place));
}

fn assert_survives(text: &str) {
    if let Err(complaints) = parse(text, "servers.toml") {
        assert_inside(text, &complaints);
    }
}

/// Pieces that a servers.toml is made of, so that what is put together at random gets far.
fn token() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "\n",
        "\n[servers.a]\n",
        "\n[gateway]\n",
        "\n[defaults]\n",
        "\n[servers.a.tools.t]\n",
        "\n[[alerts]]\n",
        "\n[services.s]\n",
        "\n[servers.a.sandbox]\n",
        "timeout = ",
        "breaker = ",
        "command = ",
        "url = ",
        "\"off\"",
        "\"50s\"",
        "\"${X}\"",
        "\"~/x\"",
        "{ ",
        " }",
        "[",
        "]",
        ", ",
        "failures = ",
        "5",
        "-1",
        "nan",
        "true",
        "\"",
        "sandbox = ",
        "headers = ",
        "options = ",
        "a.b = ",
        "#",
        "ü",
        "\u{1b}",
        "\r\n",
        "\"\\u0000\"",
        "'''",
        "\n",
    ])
}

proptest! {
    #[test]
    fn arbitrary_text_is_answered(text in any::<String>()) {
        assert_survives(&text);
    }

    #[test]
    fn pieces_in_any_order_are_answered(tokens in prop::collection::vec(token(), 0..40)) {
        assert_survives(&tokens.concat());
    }

    #[test]
    fn a_good_file_with_a_slip_in_it_is_answered(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        cut in 0..12usize,
        put in prop_oneof![token().prop_map(str::to_owned), any::<char>().prop_map(String::from)],
    ) {
        let files = [include_str!("../fixtures/config/good/every-key.toml"), include_str!("../fixtures/config/bad/values.toml")];
        let mut chars: Vec<char> = which.get(&files).chars().collect();
        let at = at.index(chars.len());
        chars.splice(at..(at + cut).min(chars.len()), put.chars());
        assert_survives(&chars.into_iter().collect::<String>());
    }
}
