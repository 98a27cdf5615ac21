//! A secret of servers.toml is in its server's environment and nowhere else: no log, no
//! row, no `status`, no command line of any process; and a file that others can write is
//! not read.

#![cfg(target_os = "linux")]

use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

mod support;

use support::{
    Launch, confined, database, poll, process,
    scratch::Scratch,
    service::{self, Services},
    text_of, wait_until,
};

const WITHIN: Duration = Duration::from_secs(60);

const SECRETS: [&str; 3] = ["s3cr3t-of-a-command", "s3cr3t-of-a-file", "s3cr3t-of-a-variable"];

/// Says them on stderr, and on stdout where only the protocol belongs, and is gone.
fn tells(name: &str) -> String {
    let script = "echo \"I have $A, $B and $C\"; echo \"I have $A, $B and $C\" >&2; exit 3";
    format!("[servers.{name}]\ncommand = {}\n", json!(["/bin/sh", "-c", script]))
}

#[tokio::test]
async fn secrets_are_in_the_servers_environment_and_nowhere_else() {
    let folder = std::sync::Arc::new(Scratch::new());
    folder.write("token", "s3cr3t-of-a-file\n");
    folder.write("keyring", "printf s3cr3t-of-; echo a-command");
    let env = "env = { A = \"${cmd:sh ./keyring}\", B = \"${file:./token}\", C = \"${SEAWALL_TEST_SECRET}\" }\n";
    let config = format!("{}{env}{}{env}", confined("fix", "\"standard\""), tells("tells"));
    let launch = Launch::with_folder(folder.clone(), &config).env("SEAWALL_TEST_SECRET", SECRETS[2]);
    let gateway = launch.env("RUST_LOG", "trace").start().await;
    gateway.server_is_ready("fix").await;

    let client = gateway.client("/mcp/fix").await;
    let told: Value = serde_json::from_str(text_of(&client.call_tool("environment", json!({})).await)).unwrap();
    for (name, secret) in ["A", "B", "C"].into_iter().zip(SECRETS) {
        assert_eq!(told["env"][name], secret);
    }
    // It is started again and again: on a slow machine its last words may miss one of its ends.
    let reason = wait_until(Duration::from_secs(20), "the end of the other", async || {
        gateway.server("tells")["reason"].as_str().filter(|reason| reason.contains("I have")).map(str::to_owned)
    })
    .await;
    assert!(reason.contains("I have <A>, <B> and <C>"), "{reason}");
    let _ = client.call_tool("exit", json!({"code": 3})).await;
    gateway.rows("a failure", "select * from failures").await;

    let status = gateway.seawall_json(&["status", "--json"]).to_string();
    let rows = json!([gateway.sqlite("select * from events"), gateway.sqlite("select * from failures")]).to_string();
    let files = ["seawall.db", "seawall.db-wal"].map(|name| std::fs::read(folder.file(name)).unwrap_or_default());
    for secret in SECRETS {
        for (place, text) in [("status", &status), ("the rows", &rows), ("the log", &gateway.log.text())] {
            assert!(!text.contains(secret), "{secret} is in {place}: {text}");
        }
        for file in &files {
            assert!(!String::from_utf8_lossy(file).contains(secret), "{secret} is in the database");
        }
        assert_eq!(command_lines_with(secret), Vec::<String>::new(), "{secret}");
    }
}

/// Of any process but this one's own threads.
fn command_lines_with(secret: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(secret)).collect()
}

#[test]
fn looking_at_a_file_asks_no_keyring() {
    let folder = Scratch::new();
    let command = format!("touch {}/asked; echo value-of-a-keyring", folder.path().display());
    let config =
        confined("fix", "\"standard\"") + &format!("env = {{ A = {} }}\n", json!(format!("${{cmd:{command}}}")));
    let config = folder.write("servers.toml", &config);
    for words in [&["check"][..], &["status"], &["failures"]] {
        let output = support::gateway::run_seawall(words, &config, Duration::from_secs(60));
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("bad"), "{words:?}: {said}");
        assert!(!folder.file("asked").exists(), "{words:?} has run it");
    }
    // Who starts the server does ask.
    let words = ["sandbox", "run", "fix", "--", "/bin/sh", "-c", "echo \"it is $A\""];
    let output = process::run(seawall(&words, &config), Duration::from_secs(60));
    assert!(String::from_utf8_lossy(&output.stdout).contains("it is value-of-a-keyring"), "{output:?}");
    assert!(folder.file("asked").exists());
}

/// A keyring that waits for its user is not left behind by who asked it.
#[test]
fn a_command_that_is_waited_for_ends_with_the_gateway() {
    for signal in [Signal::TERM, Signal::KILL] {
        let folder = Scratch::new();
        // Of a killed gateway only the shell itself is certain to end.
        let command = "echo $$ > pid; sleep 977 & echo $! > child; wait";
        let env = format!("env = {{ A = {} }}\n", json!(format!("${{cmd:{command}}}")));
        let config = folder.write("servers.toml", &(confined("fix", "\"standard\"") + &env));
        let mut gateway = seawall(&["serve", "--listen", "127.0.0.1:0"], &config).spawn().expect("it starts");
        let pid_in = |file: &str| std::fs::read_to_string(folder.file(file)).ok()?.trim().parse::<i32>().ok();
        let child = poll(Duration::from_secs(60), || pid_in("child")).and_then(Pid::from_raw).expect("it is run");
        let shell = pid_in("pid").and_then(Pid::from_raw).expect("a shell");
        let pid = Pid::from_child(&gateway);
        kill_process(pid, signal).expect("it is there");
        let ended = gateway.wait().expect("it ends");
        assert_eq!(ended.code(), (signal == Signal::TERM).then_some(0), "{ended}");
        let is_gone = |pid| poll(Duration::from_secs(20), || test_kill_process(pid).is_err().then_some(())).is_some();
        assert!(is_gone(shell), "{signal:?}");
        match signal {
            Signal::TERM => assert!(is_gone(child)),
            _ => kill_process(child, Signal::KILL).expect("it is there"),
        }
    }
}

fn seawall(words: &[&str], config: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.arg("--config").arg(config).args(words).stdin(std::process::Stdio::null());
    command
}

#[test]
fn a_file_that_others_can_write_is_refused_with_what_to_do() {
    let folder = Scratch::new();
    let config = folder.write("servers.toml", &confined("fix", "\"standard\""));
    let checked = || support::gateway::run_seawall(&["check"], &config, Duration::from_secs(60));
    let mode = |mode| std::fs::set_permissions(&config, std::fs::Permissions::from_mode(mode)).unwrap();
    assert!(checked().status.success());
    mode(0o646);
    let refused = checked();
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(said.contains("can be written by everybody") && said.contains("chmod go-w"), "{said}");
    assert_eq!(refused.status.code(), Some(78));
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&config, Some(0), Some(1500)).unwrap();
        mode(0o664);
        let said = String::from_utf8_lossy(&checked().stdout).into_owned();
        assert!(said.contains("can be written by its group"), "{said}");
        // The owner's own group is the owner.
        std::os::unix::fs::chown(&config, Some(0), Some(0)).unwrap();
        assert!(checked().status.success());
    }
}

#[tokio::test]
async fn a_start_warns_of_a_secret_among_the_arguments_and_does_not_tell_it() {
    let command = json!(["/bin/sh", "-c", "exit 3", "--", "${SEAWALL_TEST_SECRET}", "${HOME}"]);
    let gateway = Launch::new(&format!("[servers.x]\ncommand = {command}\n"))
        .env("SEAWALL_TEST_SECRET", "s3cr3t-of-an-argument")
        .start()
        .await;
    gateway.ready().await;
    let log = gateway.log.text();
    let warned = log.lines().filter(|line| line.contains("everybody on this machine can read")).collect::<Vec<_>>();
    assert_eq!(warned.len(), 1, "{log}");
    assert!(
        warned[0].contains("command[4] holds ${SEAWALL_TEST_SECRET}") && warned[0].contains("server=x"),
        "{warned:?}"
    );
    assert!(!log.contains("s3cr3t-of-an-argument"), "{log}");
}

/// Of services: argument of the command, of a probe, of an alert, of a step, of a watcher's
/// handler; each is told by a shell that says all it has been given.
const IN_CONFIDENCE: [&str; 3] = ["s3cr3t-of-a-service", "s3cr3t-of-its-argument", "s3cr3t-of-its-token-file"];

const SERVICES: &str = r#"
[[alerts]]
command = ["/bin/sh", "-c", "echo \"no alert with $0\" >&2; exit 1", "${SERVICE_SECRET}"]

[services.hangs]
command = ["/bin/sh", "-c", "echo \"I have $A, $B and $0\" >&2; echo up > up; exec sleep 300", "${SERVICE_SECRET}"]
env = { A = "${cmd:echo s3cr3t-of-a-service}", B = "${file:./token}" }
health = { command = ["./no/${SERVICE_SECRET}"], every = "100ms", misses = 1, starts_within = "100ms" }

[services.missing]
command = ["./no/${SERVICE_SECRET}"]

[services.leaves]
command = ["/bin/sh", "-c", "setsid /bin/sh -c 'echo $$$$ > daemon; while :; do sleep 0.1; done' \"$0\" & exec sleep 300", "${SERVICE_SECRET}"]

[services.task]
builtin = "tasks"
schedule = "daily 03:30"
options = { steps = [{ command = ["/bin/sh", "-c", "echo \"no step with $0\" >&2", "${SERVICE_SECRET}"], expect = { file = "./out/${SERVICE_SECRET}" } }] }

[services.watcher]
builtin = "watch"
options = { folders = ["in"], existing = true, settle = "100ms", retries = 0, command = ["/bin/sh", "-c", "echo \"no handler with $0 and $B\" >&2; exit 1", "${SERVICE_SECRET}"] }
env = { B = "${file:./token}" }
"#;

/// All files below a folder that seawall wrote.
fn files_of_seawall(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let own = |path: &std::path::PathBuf| !path.ends_with("servers.toml") && !path.ends_with("token");
    entries.filter(own).flat_map(|path| if path.is_dir() { files_of_seawall(&path) } else { vec![path] }).collect()
}

#[test]
fn secrets_of_services_are_in_no_log_and_no_row() {
    let services = Services::new(SERVICES);
    services.folder.write("token", IN_CONFIDENCE[2]);
    services.folder.write("in/file", "x");
    let run = |words: &[&str]| services.start_with_env(words, &[("SERVICE_SECRET", IN_CONFIDENCE[1])]);
    let mut said = String::new();

    // Three crashes within five minutes are an alert, whose command says what it was given.
    for _ in 0..3 {
        let mut hangs = run(&["hangs"]);
        hangs.end_within(WITHIN);
        said += &hangs.log.text();
    }
    assert!(said.contains("no alert with <${SERVICE_SECRET}>"), "{said}");
    let mut missing = run(&["missing"]);
    assert_eq!(missing.end_within(WITHIN).code(), Some(78));
    said += &missing.log.text();
    let mut leaves = run(&["leaves"]);
    let daemon = poll(WITHIN, || services.text("daemon")?.parse().ok()).expect("a daemon");
    leaves.kill();
    assert!(service::lives(daemon));
    std::fs::remove_file(services.file("daemon")).unwrap();
    let leaves = run(&["leaves"]);
    poll(WITHIN, || services.text("daemon")).expect("another one");
    said += &stopped(leaves);
    let mut task = run(&["task", "--now"]);
    task.end_within(WITHIN);
    said += &task.log.text();
    let watcher = run(&["watcher"]);
    let given_up = || {
        let rows = database::rows(&services.file("watch.db"), "select message from events where state = 'given_up'");
        rows.ok()?.first()?["message"].as_str().map(str::to_owned)
    };
    let why = poll(WITHIN, given_up).unwrap_or_else(|| panic!("none is given up\n{}", watcher.log.text()));
    assert!(why.contains("no handler with <${SERVICE_SECRET}> and <B>"), "{why}");
    said += &stopped(watcher);

    let rows = json!(database::rows(&services.file("seawall.db"), "select * from events").unwrap()).to_string();
    for shown in ["I have <A>, <B> and <${SERVICE_SECRET}>", "no such file: ", "/no/<${SERVICE_SECRET}> cannot be run"]
    {
        assert!(rows.contains(shown), "{shown}: {rows}");
    }
    for shown in ["sleep 0.1; done <${SERVICE_SECRET}>", "/out/<${SERVICE_SECRET}>"] {
        assert!(said.contains(shown) && rows.contains(shown), "{shown}: {said}\n{rows}");
    }
    let files = files_of_seawall(services.folder.path());
    assert!(files.iter().any(|path| path.ends_with("seawall.db")), "{files:?}");
    for secret in IN_CONFIDENCE {
        assert!(!said.contains(secret), "{secret} is in a log:\n{said}");
        for path in &files {
            let bytes = std::fs::read(path).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains(secret), "{secret} is in {}", path.display());
        }
    }
}

#[test]
fn a_value_is_found_as_json_has_it_and_line_by_line_and_is_no_word_of_seawalls_own() {
    let config = "[services.one]\ncommand = [\"/bin/sh\", \"./says\"]\n\
        env = { KEY = \"${file:./key}\", WORD = \"${file:./word}\", OWN = \"finished\" }\n";
    let services = Services::new(config);
    services.folder.write("key", "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA\nq83vEjRWeJq7zN3u\n-----END KEY-----");
    services.folder.write("word", "pass\"word\\12345");
    services.folder.write("json", "pass\\\"word\\\\12345");
    services.folder.write("says", "cat json >&2; echo >&2; grep q83v key >&2; echo it has finished >&2; test -e well");
    for name in ["key", "word"] {
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(services.file(name), mode).expect("its mode can be set");
    }
    let mut run = services.start();
    assert_eq!(run.end_within(WITHIN).code(), Some(1));
    assert_eq!(services.last("service_crash")["stderr_tail"], "<WORD>\n<KEY>\nit has <OWN>");
    let said = || run.log.has("it has <OWN>").then(|| run.log.text());
    let said = poll(WITHIN, said).expect("it is passed on");
    assert!(!said.contains("q83vEj") && !said.contains("12345"), "{said}");
    services.folder.write("well", "");
    assert_eq!(services.to_the_end().code(), Some(0));
    assert_eq!(services.last("service_stop")["reason"], "finished");
}

#[test]
fn a_check_warns_of_secrets_among_the_arguments_of_services_and_alerts() {
    let folder = Scratch::new();
    let config = folder.write("servers.toml", SERVICES);
    let output = process::run(seawall(&["check", "--json"], &config), WITHIN);
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let warnings = |what: &Value| {
        let warnings = what["warnings"].as_array().unwrap().iter();
        let heads = warnings.map(|warning| warning.as_str().unwrap().split(',').next().unwrap().to_owned());
        heads.collect::<Vec<_>>()
    };
    let of = |name: &str| {
        let services = checked["services"].as_array().unwrap();
        warnings(services.iter().find(|service| service["name"] == name).unwrap())
    };
    let holds = |key: &str| format!("{key} holds ${{SERVICE_SECRET}}");
    assert_eq!(of("hangs"), [holds("command[3]"), holds("health.command[0]")]);
    assert_eq!(of("task"), [holds("options.steps[0].command[3]")]);
    assert_eq!(of("watcher"), [holds("options.command[3]")]);
    assert_eq!(warnings(&checked["alerts"][0]), [holds("command[3]")]);
    let said = String::from_utf8(process::run(seawall(&["check"], &config), WITHIN).stdout).unwrap();
    assert_eq!(said.matches("warning: ").count(), 7, "{said}");
    assert!(said.contains("where the service can take it from a variable, write env = { NAME = "), "{said}");
    assert!(said.contains("let it read that from a file instead"), "{said}");
}

/// What it said until it was stopped.
fn stopped(mut run: service::Run) -> String {
    run.signal(rustix::process::Signal::TERM);
    run.end_within(WITHIN);
    run.log.text()
}
