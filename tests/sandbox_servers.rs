//! Servers that are confined by default: real ones start and work, what was asked for
//! and cannot be had is refused in words, and `status` tells what holds.

#![cfg(target_os = "linux")]

use serde_json::json;

mod support;

use support::{Gateway, Launch, confined, fixture, machine::Machine, scratch::Scratch, text_of, tools};

fn from_npm(package: &str, arguments: &[&str]) -> Option<String> {
    let entry = tools::npm()?.join("node_modules/@modelcontextprotocol").join(package).join("dist/index.js");
    let words: Vec<String> = ["node".to_owned(), entry.display().to_string()]
        .into_iter()
        .chain(arguments.iter().map(|a| (*a).to_owned()))
        .collect();
    Some(json!(words).to_string())
}

#[tokio::test]
async fn real_node_and_python_servers_work_under_standard() {
    let folder = Scratch::new();
    folder.write("notes/a.txt", "hello");
    folder.write("secret.txt", "SECRET");
    let notes = folder.file("notes").display().to_string();
    // The server would serve the whole folder; the sandbox gives it one of its folders.
    let whole = folder.path().display().to_string();
    let Some(filesystem) = from_npm("server-filesystem", &[&whole]) else { return };
    let everything = from_npm("server-everything", &[]).expect("node was there a moment ago");
    let memory = from_npm("server-memory", &[]).expect("node was there a moment ago");
    let python =
        tools::python("requirements.txt").map(|python| json!([python, tools::interop("python_server.py")]).to_string());
    let mut config = format!(
        "[servers.everything]\ncommand = {everything}\n\
         [servers.memory]\ncommand = {memory}\nenv = {{ MEMORY_FILE_PATH = \"/tmp/memory.json\" }}\n\
         [servers.filesystem]\ncommand = {filesystem}\nsandbox = {{ read = [{}] }}\n",
        json!(notes)
    );
    if let Some(python) = &python {
        config += &format!("[servers.python]\ncommand = {python}\n");
    }
    Machine { is_root: true, has_namespaces: true }.settle(folder.path());
    let gateway = Gateway::start(&config).await;
    gateway.ready().await;

    let client = gateway.client("/mcp").await;
    let echo = client.call_tool("everything__echo", json!({"message": "wave"})).await;
    assert!(text_of(&echo).contains("wave"), "{echo}");
    let made = json!({"entities": [{"name": "a", "entityType": "b", "observations": []}]});
    let made = client.call_tool("memory__create_entities", made).await;
    assert!(made["result"]["isError"].as_bool() != Some(true), "{made}");
    let read = client.call_tool("filesystem__read_text_file", json!({"path": format!("{notes}/a.txt")})).await;
    assert_eq!(text_of(&read), "hello", "{read}");
    let secret = json!({"path": folder.file("secret.txt")});
    let secret = client.call_tool("filesystem__read_text_file", secret).await;
    assert_eq!(secret["result"]["isError"], true, "{secret}");
    assert!(!secret.to_string().contains("SECRET"));
    if python.is_some() {
        let sum = client.call_tool("python__add", json!({"a": 1, "b": 2})).await;
        assert!(text_of(&sum).contains('3'), "{sum}");
    }
    for server in ["everything", "memory", "filesystem"] {
        let sandbox = &gateway.server(server)["sandbox"];
        let told = (&sandbox["profile"], &sandbox["tier"], &sandbox["network"], &sandbox["not_enforced"]);
        assert_eq!(told, (&json!("standard"), &json!("full"), &json!("none"), &json!([])), "{server}: {sandbox}");
    }
}

async fn refusal(sandbox: &str, machine: Machine) -> String {
    let folder = Scratch::new();
    machine.settle(folder.path());
    let wrapper = machine.wrapper();
    let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let launch = Launch::with_folder(folder, &confined("fix", sandbox)).through(&words);
    let gateway = launch.start().await;
    let rows = "select metadata from events where event_type = 'sandbox_refused'";
    let rows = gateway.rows("the refusal", rows).await;
    rows[0]["metadata"].as_str().expect("text").to_owned()
}

fn here() -> Machine {
    Machine { is_root: rustix::process::geteuid().is_root(), has_namespaces: true }
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_with_what_to_write() {
    for (sandbox, expected) in [
        ("{ read = [\"./missing\"] }", "does not exist; make it, or take it out"),
        ("{ write = [\"/\"] }", "is too much to give away"),
        ("{ write = [\".\"] }", "would let the server change seawall's own"),
        ("{ env = [\"LD_PRELOAD\"] }", "is never passed through"),
        ("{ user = \"no-such-user\" }", if here().is_root { "there is no user" } else { "take it out" }),
    ] {
        let told = refusal(sandbox, here()).await;
        assert!(told.contains(expected), "{sandbox}: {told}");
    }
}

#[tokio::test]
async fn without_namespaces_what_needs_them_is_refused_and_the_rest_says_what_is_missing() {
    let poor = Machine { has_namespaces: false, ..here() };
    for sandbox in [
        "\"strict\"",
        "{ tier = \"full\" }",
        "{ network = \"loopback\" }",
        "{ network = { allow = [\"example.com:443\"] } }",
        "{ limits = { processes = 10 } }",
        "{ limits = { tmp = \"1MiB\" } }",
    ] {
        let told = refusal(sandbox, poor).await;
        assert!(
            told.contains("needs namespaces, and they cannot be made") && told.contains("max_user_namespaces"),
            "{sandbox}: {told}"
        );
        assert!(told.contains("To accept less"), "{sandbox}: {told}");
    }
}

#[tokio::test]
async fn without_landlock_nothing_confined_is_started_and_the_way_out_is_told() {
    let hostile = support::hostile().display().to_string();
    let config = confined("standard", "\"standard\"")
        + &confined("strict", "\"strict\"")
        + &confined("core", "{ tier = \"core\" }")
        + &fixture("off", &[]);
    let gateway = Launch::new(&config).through(&[&hostile, "without-landlock"]).start().await;
    gateway.ready().await;
    for server in ["standard", "strict", "core"] {
        let now = gateway.server(server);
        let reason = now["reason"].as_str().unwrap_or_default();
        assert_eq!(now["state"], "parked", "{now}");
        assert!(reason.contains("Landlock") && reason.contains("sandbox = \"off\""), "{server}: {reason}");
    }
    assert_eq!(gateway.server("off")["state"], "ready");
    let doctor = std::process::Command::new(&hostile)
        .args(["without-landlock", env!("CARGO_BIN_EXE_seawall"), "doctor", "--json"])
        .output()
        .expect("seawall can be run");
    let told = String::from_utf8_lossy(&doctor.stdout);
    assert!(!doctor.status.success() && told.contains("Landlock"), "{told}");
}

#[tokio::test]
async fn a_program_that_the_servers_user_cannot_run_is_refused() {
    if !here().is_root {
        println!("skipped: only root runs servers as somebody else");
        return;
    }
    let folder = Scratch::new();
    let program = folder.file("server");
    std::fs::copy("/bin/cat", &program).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let gateway = Launch::with_folder(folder, "[servers.x]\ncommand = [\"./server\"]\n").start().await;
    let rows = gateway.rows("the refusal", "select metadata from events where event_type = 'sandbox_refused'").await;
    let told = rows[0]["metadata"].as_str().unwrap();
    assert!(told.contains("user nobody cannot run") && told.contains("user = "), "{told}");
}

#[tokio::test]
async fn a_folder_that_the_servers_user_cannot_write_is_refused() {
    if !here().is_root {
        println!("skipped: only root runs servers as somebody else");
        return;
    }
    let folder = Scratch::new();
    folder.write("out/x", "");
    let told = refusal(&format!("{{ write = [{}] }}", json!(folder.file("out"))), here()).await;
    assert!(told.contains("user nobody cannot write") && told.contains("chown nobody"), "{told}");
}

#[tokio::test]
async fn seawalls_own_files_are_not_there_even_below_a_folder_that_may_be_read() {
    let folder = Scratch::new();
    folder.write("README", "hello");
    here().settle(folder.path());
    let config = confined("fix", "{ read = [\".\"] }");
    let gateway = Launch::beside(&folder, &config).start().await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let read = async |name: &str| {
        let reply = client.call_tool("read", json!({"path": folder.file(name)})).await;
        text_of(&reply).to_owned()
    };
    assert_eq!(read("README").await, "hello");
    for own in ["servers.toml", "seawall.db"] {
        let found = read(own).await;
        assert!(found.is_empty() || found.contains("os error"), "{own}: {found}");
    }
    assert!(read(".seawall/lock").await.contains("os error"));
    // What lies in their place cannot be written to either.
    for own in ["servers.toml", "seawall.db"] {
        let append = format!("echo x >> {}", folder.file(own).display());
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.arg("--config").arg(gateway.config()).args(["sandbox", "run", "fix", "--", "/bin/sh", "-c", &append]);
        let output = support::process::run(command, std::time::Duration::from_secs(60));
        assert!(!output.status.success(), "{own}: {output:?}");
    }
}

#[tokio::test]
async fn the_environment_has_what_was_named_and_a_private_home() {
    let config = confined("fix", "{ env = [\"WANTED\"] }") + "env = { GIVEN = \"x\" }\n";
    let launch = Launch::new(&config).env("WANTED", "w").env("UNWANTED", "s3cret").env("HOME", "/home/ada");
    let gateway = launch.start().await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let reply = client.call_tool("environment", json!({})).await;
    let told: serde_json::Value = serde_json::from_str(text_of(&reply)).unwrap();
    assert_eq!((&told["env"]["WANTED"], &told["env"]["GIVEN"]), (&json!("w"), &json!("x")));
    assert_eq!((&told["env"]["HOME"], &told["env"]["TMPDIR"]), (&json!("/home/server"), &json!("/tmp")));
    assert!(!told.to_string().contains("s3cret"), "{told}");
    let wrote = client.call_tool("write", json!({"path": "/home/server/file", "text": "x"})).await;
    assert_eq!(text_of(&wrote), "written");
    if here().is_root {
        assert_eq!(told["uid"], 65534);
    }
}

/// Without a file system of its own a server has a folder on the machine's.
#[tokio::test]
async fn a_private_folder_is_gone_with_its_server_and_with_a_killed_gateway() {
    let poor = Machine { has_namespaces: false, ..here() };
    let wrapper = poor.wrapper();
    let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    for kill in [false, true] {
        let mut gateway = Launch::new(&confined("fix", "\"standard\"")).through(&words).start().await;
        let client = gateway.client("/mcp/fix").await;
        let told = client.call_tool("environment", json!({})).await;
        let told: serde_json::Value = serde_json::from_str(text_of(&told)).unwrap();
        let home = std::path::PathBuf::from(told["env"]["HOME"].as_str().unwrap());
        assert!(home.is_dir() && home.parent() != Some("/".as_ref()), "{told}");
        let wrote = client.call_tool("write", json!({"path": home.join("file"), "text": "x"})).await;
        assert_eq!(text_of(&wrote), "written");
        if kill {
            gateway.kill();
        } else {
            gateway.stop();
        }
        let private = home.parent().unwrap();
        let gone = async || (!private.exists()).then_some(());
        support::wait_until(std::time::Duration::from_secs(10), "the folder to be gone", gone).await;
    }
}

/// A row of the table that takes two starts: what is planted in the first gives nothing in
/// the second.
#[tokio::test]
async fn what_a_server_plants_is_not_what_its_next_start_is_given() {
    for machine in Machine::all() {
        let folder = Scratch::new();
        folder.write("out/data/file", "its own");
        folder.write("kept/file", "SECRET");
        machine.settle(folder.path());
        ["out", "out/data", "out/data/file"].iter().for_each(|path| machine.give(&folder.file(path)));
        let config = confined("fix", "{ read = [\"./out/data\"], write = [\"./out\"] }");
        let wrapper = machine.wrapper();
        let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let folder = std::sync::Arc::new(folder);
        let gateway = Launch::with_folder(folder.clone(), &config).through(&words).start().await;
        gateway.ready().await;
        let client = gateway.client("/mcp/fix").await;
        let (data, kept) = (folder.file("out/data").display().to_string(), folder.file("kept").display().to_string());
        let plant = format!("rm -r {data} && ln -s {kept} {data} && echo planted");
        let planted = client.call_tool("run", json!({"command": ["/bin/sh", "-c", plant]})).await;
        assert!(text_of(&planted).contains("planted"), "{machine:?}: {planted}");
        assert!(std::fs::read_to_string(folder.file("out/data/file")).is_ok_and(|text| text == "SECRET"));
        let mut restart = machine.owner(env!("CARGO_BIN_EXE_seawall").as_ref());
        restart.args(["restart", "fix", "--config"]).arg(gateway.config());
        assert!(restart.status().expect("seawall can be run").success());
        let rows =
            gateway.rows("the refusal", "select metadata from events where event_type = 'sandbox_refused'").await;
        let why = rows[0]["metadata"].as_str().unwrap();
        assert!(why.contains(&format!("leads to {kept} by a link in a folder that the server may write")), "{why}");
        let read = client.call_tool("read", json!({"path": format!("{data}/file")})).await;
        assert!(!read.to_string().contains("SECRET"), "{machine:?}: {read}");
    }
}

/// Many processes, none of them over the limit of one.
#[tokio::test]
async fn a_tree_that_uses_more_memory_than_it_may_is_ended_and_why_is_told() {
    let gateway = Gateway::start(&confined("fix", "{ limits = { memory = \"96MiB\" } }")).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let hog = "for i in 1 2 3 4; do (head -c 60000000 /dev/zero | tail -c 60000000 | sleep 20) & done; wait";
    let reply = client.call_tool("run", json!({"command": ["/bin/sh", "-c", hog]})).await;
    assert_eq!(support::failure_of(&reply)["class"], "lost", "{reply}");
    let rows = gateway.rows("the failure", "select stderr_tail from failures where class = 'lost'").await;
    assert!(rows[0]["stderr_tail"].as_str().unwrap_or_default().contains("limits.memory is 96 MiB"), "{rows:?}");
    assert!(text_of(&reply).contains("ended by the sandbox: its processes use"), "{reply}");
}

/// What no process has in its resident memory: files that have no name, and page tables.
#[tokio::test]
async fn memory_that_the_kernel_holds_for_a_server_counts() {
    if !support::tools::python3() {
        return;
    }
    let gateway = Gateway::start(&confined("fix", "{ limits = { memory = \"96MiB\" } }")).await;
    gateway.ready().await;
    let client = gateway.client("/mcp/fix").await;
    let nameless = "import os, time\nfiles = [os.memfd_create('x') for _ in range(4)]\n\
                    [os.write(f, b'x' * (1 << 20)) for f in files for _ in range(40)]\ntime.sleep(20)";
    let tables = "import mmap, time\nspace = mmap.mmap(-1, 1 << 37, mmap.MAP_PRIVATE | 0x4000, mmap.PROT_READ)\n\
                  [space[at] for at in range(0, 1 << 37, 1 << 21)]\ntime.sleep(20)";
    for program in [nameless, tables] {
        let reply = client.call_tool("run", json!({"command": ["python3", "-c", program]})).await;
        assert_eq!(support::failure_of(&reply)["class"], "lost", "{program}: {reply}");
        assert!(text_of(&reply).contains("ended by the sandbox: its processes use"), "{reply}");
        gateway.server_is_ready("fix").await;
    }
}

#[tokio::test]
async fn off_is_off_and_says_so() {
    let gateway = Gateway::start(&fixture("fix", &[])).await;
    gateway.ready().await;
    let sandbox = here().sandbox_of("fix", &gateway.config()).await;
    assert_eq!(
        (&sandbox["profile"], &sandbox["tier"], &sandbox["network"]),
        (&json!("off"), &json!("none"), &json!("open"))
    );
    assert_eq!(sandbox["not_enforced"], json!(["files", "network", "limits"]));
    assert_eq!(sandbox["tree_kill"], "certain");
}

fn doctor(machine: Machine) -> (bool, serde_json::Value) {
    let mut words = machine.wrapper();
    words.extend([env!("CARGO_BIN_EXE_seawall"), "doctor", "--json"].map(str::to_owned));
    let output = std::process::Command::new(&words[0]).args(&words[1..]).output().expect("seawall can be run");
    let findings = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.success(), findings)
}

#[test]
fn the_doctor_says_what_holds_here_and_why_what_does_not() {
    let (well, findings) = doctor(here());
    assert!(well, "{findings}");
    assert!(findings.as_array().unwrap().iter().all(|finding| finding["held"] == true), "{findings}");

    let (well, findings) = doctor(Machine { has_namespaces: false, ..here() });
    assert!(well, "the default profile holds without namespaces: {findings}");
    let of =
        |name: &str| findings.as_array().unwrap().iter().find(|finding| finding["sandbox"] == name).unwrap().clone();
    assert_eq!(of("standard")["report"]["tier"], "core");
    assert_eq!(of("strict")["held"], false);
    assert!(of("strict")["why"].as_str().unwrap().contains("max_user_namespaces"), "{findings}");
}

#[test]
fn a_sandbox_is_shown_and_tried_from_a_shell() {
    let folder = Scratch::new();
    folder.write("notes/a.txt", "hello");
    here().settle(folder.path());
    let config = folder.write("servers.toml", &confined("fix", "{ read = [\"./notes\"] }"));
    let seawall = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.args(["--config", config.to_str().unwrap()]).args(words).stdin(std::process::Stdio::null());
        command.output().expect("seawall can be run")
    };
    let shown = seawall(&["sandbox", "show", "fix"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("really enforced here: profile standard, tier full"), "{shown:?}");
    assert!(text.contains(&folder.file("notes").display().to_string()), "{text}");

    let read = seawall(&["sandbox", "run", "fix", "--", "/bin/cat", folder.file("notes/a.txt").to_str().unwrap()]);
    assert_eq!(read.stdout, b"hello", "{read:?}");
    let refused = seawall(&["sandbox", "run", "fix", "--", "/bin/cat", config.to_str().unwrap()]);
    assert_eq!((refused.stdout.is_empty(), refused.status.code()), (true, Some(1)), "{refused:?}");
    assert_eq!(seawall(&["sandbox", "run", "--", "/bin/sh", "-c", "exit 7"]).status.code(), Some(7));
}

/// Many files, none of them over the limit of one.
#[tokio::test]
async fn a_tree_that_fills_the_disk_is_ended_and_why_is_told() {
    for machine in Machine::all() {
        let folder = Scratch::new();
        folder.write("out/before", &"x".repeat(6 << 20));
        machine.settle(folder.path());
        machine.give(&folder.file("out"));
        let out = folder.file("out").display().to_string();
        let config = confined("fix", "{ write = [\"./out\"], limits = { disk = \"4MiB\" } }");
        let wrapper = machine.wrapper();
        let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let gateway = Launch::with_folder(folder, &config).through(&words).start().await;
        gateway.ready().await;
        let limits = machine.sandbox_of("fix", &gateway.config()).await["limits"].to_string();
        assert!(limits.contains("disk 4.0 MiB"), "{limits}");
        let client = gateway.client("/mcp/fix").await;
        // Until it is ended: it goes on however long the first count takes.
        let fill = format!("i=0; while :; do head -c 200000 /dev/zero > {out}/$i; i=$((i + 1)); sleep 0.02; done");
        let reply = client.call_tool("run", json!({"command": ["/bin/sh", "-c", fill]})).await;
        assert_eq!(support::failure_of(&reply)["class"], "lost", "{machine:?}: {reply}");
        let told = text_of(&reply);
        assert!(
            told.contains("ended by the sandbox") && told.contains("limits.disk is 4.0 MiB"),
            "{machine:?}: {told}"
        );
        let sql = "select metadata from events where event_type = 'sandbox_denied'";
        let rows = gateway.rows("the event", sql).await;
        assert!(rows[0]["metadata"].as_str().unwrap().contains("limits.disk is"), "{machine:?}: {rows:?}");
    }
}
