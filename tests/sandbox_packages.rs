//! Servers of `npx`: installed once in a confined process that reaches the registry and
//! nobody else, and then run with nothing but what their own policy gives.
//!
//! Packages are fetched from the registry that this machine's npm is configured to.

#![cfg(target_os = "linux")]

use std::{path::PathBuf, process::Output, time::Duration};

use serde_json::{Value, json};

mod support;

use support::{Gateway, Launch, Registry, failure_of, process, scratch::Scratch, text_of, tools};

const COMMAND: Duration = Duration::from_secs(120);

/// A package of fixtures/interop/npm, with the version that is pinned there.
fn pinned(name: &str) -> String {
    let text = std::fs::read_to_string(tools::interop("npm/package.json")).expect("it is checked in");
    let pins: Value = serde_json::from_str(&text).expect("JSON");
    let name = format!("@modelcontextprotocol/{name}");
    format!("{name}@{}", pins["dependencies"][&name].as_str().expect("a pinned version"))
}

fn npx(server: &str, words: &[&str], more: &str) -> String {
    let command: Vec<&str> = ["npx", "-y"].iter().chain(words).copied().collect();
    format!("[servers.{server}]\ncommand = {}\n{more}\n", json!(command))
}

/// The folders of what is installed.
fn installed(folder: &Scratch) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.file(".seawall/packages")).into_iter().flatten();
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

async fn why_not(gateway: &Gateway, server: &str) -> Value {
    let client = gateway.client("/mcp").await;
    client.call_tool(&format!("{server}__x"), json!({})).await
}

#[tokio::test]
async fn a_package_is_installed_once_and_its_server_can_change_nothing_of_it() {
    if !tools::npx() {
        return;
    }
    let folder = Scratch::new();
    folder.write("notes/a.txt", "hello");
    let state = folder.file(".seawall").display().to_string();
    // The server would write wherever below it is asked to.
    let words = [&*pinned("server-filesystem"), ".", &state];
    let config = npx("files", &words, "env = { GIVEN = \"x\" }\nsandbox = { read = [\".\"] }");
    half_of_it_is_never_run(&folder, &config).await;
    let mut gateway = Launch::beside(&folder, &config).start().await;
    gateway.ready().await;
    assert_eq!(gateway.server("files")["state"], "ready", "{}", gateway.log.text());
    let client = gateway.client("/mcp").await;
    let read = client.call_tool("files__read_text_file", json!({"path": folder.file("notes/a.txt")})).await;
    assert_eq!(text_of(&read), "hello", "{read}");

    // All of the folder may be read, in whose midst the package is, and seawall's own files are not.
    for own in ["servers.toml", ".seawall/lock", "seawall.db"] {
        let read = client.call_tool("files__read_text_file", json!({"path": folder.file(own)})).await;
        assert!(text_of(&read).is_empty() || read["result"]["isError"] == true, "{own}: {read}");
    }

    let [own] = &installed(&folder)[..] else { panic!("{:?}", installed(&folder)) };
    let package = own.join("node_modules/@modelcontextprotocol/server-filesystem");
    let read = client.call_tool("files__read_text_file", json!({"path": package.join("package.json")})).await;
    assert!(text_of(&read).contains("server-filesystem"), "{read}");
    for target in [package.join("planted.js"), package.join("package.json"), own.join("planted.js")] {
        let wrote = client.call_tool("files__write_file", json!({"path": target, "content": "planted"})).await;
        assert_eq!(wrote["result"]["isError"], true, "{wrote}");
        assert!(!std::fs::read_to_string(&target).unwrap_or_default().contains("planted"));
    }
    let sandbox = &gateway.server("files")["sandbox"];
    let told = (&sandbox["profile"], &sandbox["tier"], &sandbox["network"], &sandbox["not_enforced"]);
    assert_eq!(told, (&json!("standard"), &json!("full"), &json!("none"), &json!([])), "{sandbox}");
    let connect = "require('net').connect(443, '192.0.2.1').on('error', e => console.log(e.code)).setTimeout(9e3, \
                   () => process.exit(9))";
    let out = {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.arg("--config").arg(gateway.config()).args(["sandbox", "run", "files", "--", "node", "-e", connect]);
        process::run(command, COMMAND)
    };
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "EPERM");
    // Neither credentials nor caches of the installation are left in it.
    let mut left: Vec<_> = std::fs::read_dir(own).expect("it is there").flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["node_modules", "package-lock.json", "package.json"]);
    gateway.stop();
    it_is_not_installed_again(&folder, &config, &package).await;
}

/// An installation whose gateway is killed leaves nothing that would be used.
async fn half_of_it_is_never_run(folder: &Scratch, config: &str) {
    let mut gateway = Launch::beside(folder, config).start().await;
    let part = support::wait_until(COMMAND, "npm to have begun", async || {
        let server = gateway.server("files");
        assert_eq!(server["state"], "installing", "{server}\n{}", gateway.log.text());
        assert!(server["reason"].as_str().expect("a reason").contains("being installed"), "{server}");
        installed(folder).into_iter().find(|path| path.join("seawall-npm-cache").is_dir())
    })
    .await;
    gateway.kill();
    assert!(part.ends_with(part.file_stem().expect("a name").to_str().expect("text").to_owned() + ".part"));
    assert!(!part.with_extension("json").exists() && !part.with_extension("").exists());
    // What somebody else has planted there is not taken over either.
    std::fs::write(part.join("planted.js"), "planted").expect("it is root's or ours");
}

/// Nor needed are a network and npm's cache.
async fn it_is_not_installed_again(folder: &Scratch, config: &str, package: &std::path::Path) {
    let made = |path: &std::path::Path| std::fs::metadata(path).and_then(|data| data.modified()).expect("it is there");
    let first = made(package);
    folder.write("servers.toml", config);
    let listed = offline(folder, &["call", "files__list_allowed_directories"]);
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    assert!(String::from_utf8_lossy(&listed.stdout).contains("seawall-test-"));
    assert_eq!(made(package), first);

    // Another version is another installation; so says the edit of servers.toml.
    let gateway = Launch::beside(folder, config).start().await;
    gateway.ready().await;
    assert_eq!(gateway.server("files")["state"], "ready", "{}", gateway.log.text());
    assert_eq!((made(package), installed(folder).len()), (first, 1));
    let version = pinned("server-filesystem");
    let other = format!("{}@2026.7.10", version.rsplit_once('@').expect("a version").0);
    gateway.edit(&config.replace(&version, &other));
    support::wait_until(COMMAND, "the other version to serve", async || {
        let server = gateway.server("files");
        let whole = installed(folder).iter().filter(|path| path.with_extension("json").is_file()).count();
        (whole == 2 && server["state"] == "ready").then_some(())
    })
    .await;
}

/// With no network at all.
fn offline(folder: &Scratch, words: &[&str]) -> Output {
    let mut command = std::process::Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-current-user"]);
    }
    command.arg("--net").arg(env!("CARGO_BIN_EXE_seawall")).args(words);
    command.arg("--config").arg(folder.file("servers.toml")).current_dir(folder.path());
    process::run(command, COMMAND)
}

#[tokio::test]
async fn what_cannot_be_installed_is_told_in_words() {
    if !tools::npx() {
        return;
    }
    let unknown = "@modelcontextprotocol/server-that-nobody-has-made";
    let no_version = "@modelcontextprotocol/server-memory@9999.0.0";
    let config = npx("unknown", &[unknown], "")
        + &npx("version", &[no_version], "")
        + &npx("bin", &["-p", "semver@7.7.2", "no-such-program"], "")
        + &npx("folder", &["./folder"], "")
        + &npx("shell", &["-c", "true"], "");
    let gateway = Gateway::start(&config).await;
    gateway.ready().await;
    for (server, expected) in [
        ("unknown", "there is no package @modelcontextprotocol/server-that-nobody-has-made in npm's registry"),
        ("version", "there is no such version of @modelcontextprotocol/server-memory@9999.0.0"),
        ("bin", "no program no-such-program came with semver@7.7.2"),
        ("folder", "/folder is not the name of a package in a registry"),
        ("shell", "npx with -c is not understood"),
    ] {
        let server_now = gateway.server(server);
        assert_eq!(server_now["state"], "parked", "{server_now}");
        assert!(server_now["reason"].as_str().is_some_and(|why| why.contains(expected)), "{server_now}");
        let failure = why_not(&gateway, server).await;
        assert_eq!(failure_of(&failure)["class"], "unavailable", "{failure}");
        assert!(text_of(&failure).contains(expected), "{failure}");
    }
    // What was not finished is not there.
    assert_eq!(installed(&gateway.folder).iter().filter(|path| path.extension().is_none()).count(), 0);
}

#[tokio::test]
async fn a_registry_that_cannot_be_reached_is_tried_again() {
    if !tools::npx() {
        return;
    }
    // The registry is the one that npm is told by its environment, seawall's or the server's, and
    // nobody listens there.
    let own = "env = { npm_config_registry = \"http://127.0.0.1:9/\" }";
    for (variable, more) in [("npm_config_registry", ""), ("UNUSED", own)] {
        let config = npx("x", &[&pinned("server-memory")], more);
        let gateway = Launch::new(&config).env(variable, "http://127.0.0.1:9/").start().await;
        gateway.ready().await;
        let server = gateway.server("x");
        assert_eq!(server["state"], "backoff", "{server}");
        assert!(server["reason"].as_str().is_some_and(|why| why.contains("registry cannot be reached")), "{server}");
    }
}

#[tokio::test]
async fn without_namespaces_nothing_is_installed() {
    if !tools::npx() {
        return;
    }
    let poor = support::machine::Machine { is_root: rustix::process::geteuid().is_root(), has_namespaces: false };
    let wrapper = poor.wrapper();
    let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let gateway = Launch::new(&npx("x", &[&pinned("server-memory")], "")).through(&words).start().await;
    gateway.ready().await;
    let reason = gateway.server("x")["reason"].to_string();
    assert!(reason.contains("cannot be installed confined") && reason.contains("needs namespaces"), "{reason}");
    assert!(installed(&gateway.folder).iter().all(|path| !path.join("node_modules").exists()));
}

const SCRIPT: &str = "env > left-by-script; touch left-by-script";

/// A package with one version, whose archive is said to be at `archive`.
fn publish(registry: &Registry, name: &str, archive: &str, bytes: Vec<u8>) {
    let version = json!({ "name": name, "version": "1.0.0", "bin": { name: "a.js" },
        "scripts": { "postinstall": SCRIPT }, "hasInstallScript": true, "dist": { "tarball": archive } });
    let document = json!({ "name": name, "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": version } });
    registry.put(&format!("/{name}"), "application/json", document.to_string());
    registry.put(&format!("/{name}.tgz"), "application/gzip", bytes);
}

fn archive(folder: &Scratch, name: &str) -> Vec<u8> {
    let package = json!({ "name": name, "version": "1.0.0", "bin": { name: "a.js" },
        "scripts": { "postinstall": SCRIPT } });
    folder.write("made/package/package.json", &package.to_string());
    folder.write("made/package/a.js", "#!/usr/bin/env node\n");
    let mut tar = std::process::Command::new("tar");
    tar.args(["-czf", "-", "-C"]).arg(folder.file("made")).arg("package");
    let output = process::run(tar, COMMAND);
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn an_installation_reaches_the_registry_alone_and_runs_no_script() {
    if !tools::npx() {
        return;
    }
    let (folder, registry, other) = (Scratch::new(), Registry::start(), Registry::start());
    let bytes = archive(&folder, "small");
    publish(&registry, "small", &registry.url("/small.tgz"), bytes.clone());
    publish(&registry, "sent-on", &other.url("/sent-on.tgz"), bytes.clone());
    publish(&other, "sent-on", "", bytes);
    let config =
        npx("small", &["small"], "env = { TOKEN = \"s3cret-of-the-server\" }") + &npx("sent-on", &["sent-on"], "");
    let config = folder.write("servers.toml", &config);
    let elsewhere = "//packages.example.com/:_authToken=for-somebody-else";
    let credentials = format!("//{}/:_authToken=for-the-registry\n{elsewhere}\n", registry.address);
    let user = folder.write("user-npmrc", &credentials);
    let show = |server: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.args(["sandbox", "show", server, "--config"]).arg(&config);
        command.env("npm_config_registry", registry.url("/")).env("npm_config_userconfig", &user);
        command.current_dir(folder.path());
        process::run(command, COMMAND)
    };
    let shown = show("small");
    assert!(shown.status.success(), "{shown:?}");
    let [own] = &installed(&folder)[..] else { panic!("{:?}", installed(&folder)) };
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&own.display().to_string()), "{shown:?}");
    assert_eq!(registry.asked(), ["/small", "/small.tgz"]);
    let told = registry.credentials();
    assert!(!told.is_empty() && told.iter().all(|told| told == "bearer for-the-registry"), "{told:?}");
    let mut files: Vec<_> = std::fs::read_dir(own.join("node_modules/small"))
        .expect("it is there")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    files.sort();
    assert_eq!(files, ["a.js", "package.json"]);

    // A second time nobody is asked.
    assert!(show("small").status.success());
    assert_eq!(registry.asked().len(), 2);

    let refused = show("sent-on");
    let said = String::from_utf8_lossy(&refused.stderr);
    let expected = format!("comes from {}, which is none of npm's registries here", other.address);
    assert!(!refused.status.success() && said.contains(&expected), "{refused:?}");
    assert_eq!((registry.asked().len(), other.asked()), (3, Vec::new()));
    // With the line that the reason names it is there.
    let line = format!("install_hosts = [\"{}\"]", other.address);
    assert!(said.contains(&format!("to allow: {line} under [servers.sent-on.sandbox]")), "{said}");
    let more = npx("sent-on", &["sent-on"], &format!("[servers.sent-on.sandbox]\n{line}"));
    folder.write("servers.toml", &more);
    assert!(show("sent-on").status.success());
    assert_eq!(other.asked(), ["/sent-on.tgz"]);
}

/// A server would name a registry of its own, and tell it what it likes by the name, though
/// it has no network itself.
#[test]
fn a_registry_that_a_server_could_have_planted_has_no_say() {
    if !tools::npx() {
        return;
    }
    let (folder, registry, planted) = (Scratch::new(), Registry::start(), Registry::start());
    let bytes = archive(&folder, "small");
    for one in [&registry, &planted] {
        publish(one, "small", &one.url("/small.tgz"), bytes.clone());
    }
    let user = folder.write("user-npmrc", &format!("registry={}\n", registry.url("/")));
    folder.write("work/.npmrc", &format!("registry={}\n", planted.url("/")));
    let config = folder.write("servers.toml", &npx("small", &["small"], "cwd = \"./work\""));
    let mut show = std::process::Command::new(env!("CARGO_BIN_EXE_seawall"));
    show.args(["sandbox", "show", "small", "--config"]).arg(config).env("npm_config_userconfig", &user);
    show.current_dir(folder.path());
    let shown = process::run(show, COMMAND);
    assert!(shown.status.success(), "{shown:?}");
    assert_eq!((registry.asked().len(), planted.asked().len()), (2, 0), "the folder's own .npmrc has no say");
}

/// What a server puts beside npx, into a folder of PATH, or where a link of PATH leads to would
/// be run outside of any sandbox, to learn which registries there are.
#[test]
fn an_npm_that_a_server_could_have_planted_is_not_run() {
    if !tools::npx() {
        return;
    }
    let folder = Scratch::new();
    let mark = folder.file("ran");
    let planted = folder.write("work/tools/npm", &format!("#!/bin/sh\ntouch {}\nexit 1\n", mark.display()));
    std::fs::set_permissions(&planted, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    folder.write("own/x", "");
    let link = |from: &str, to: &str| std::os::unix::fs::symlink(to, folder.file(from)).expect("linked");
    link("own/npm", "../work/tools/npm");
    folder.write("by-node/npm", "#!/usr/bin/env node\n");
    std::fs::set_permissions(folder.file("by-node/npm"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    std::fs::copy(&planted, folder.file("work/tools/node")).expect("copied");
    link("by-node/node", "../work/tools/node");
    let server = |name: &str, npx: &str| {
        let command = json!([npx, "-y", "small"]);
        format!("[servers.{name}]\ncommand = {command}\n")
    };
    let beside = folder.file("work/tools/npx").display().to_string();
    let config = server("beside", &beside)
        + "sandbox = { write = [\"./work\"] }\n"
        + &server("of-another", &beside)
        + &server("on-path", "npx")
        + &server("settings", "npx")
        + &format!("env = {{ npm_config_userconfig = {} }}\n", json!(folder.file("work/npmrc")))
        + "[servers.writes]\ncommand = [\"/bin/true\"]\nsandbox = { write = [\"./work\"] }\n";
    let config = folder.write("servers.toml", &config);
    let path = std::env::var("PATH").unwrap_or_default();
    for (name, first) in [
        ("beside", "none"),
        ("of-another", "none"),
        ("on-path", "work/tools"),
        ("on-path", "own"),
        ("on-path", "by-node"),
        ("settings", "none"),
    ] {
        let mut show = std::process::Command::new(env!("CARGO_BIN_EXE_seawall"));
        show.args(["sandbox", "show", name, "--config"]).arg(&config).current_dir(folder.path());
        show.env("PATH", format!("{}:{path}", folder.file(first).display()));
        let shown = process::run(show, COMMAND);
        let said = String::from_utf8_lossy(&shown.stderr).into_owned();
        assert!(!mark.exists(), "{name}, {first}: it was run: {said}");
        assert!(!shown.status.success() && said.contains("could have been planted"), "{name}, {first}: {said}");
        assert!(said.contains("/work, so that"), "{name}, {first}: {said}");
    }
}

/// Files below `folder` with this text in them.
fn with_text(folder: &std::path::Path, text: &str) -> String {
    let mut grep = std::process::Command::new("grep");
    grep.args(["-rl", text]).arg(folder);
    String::from_utf8_lossy(&process::run(grep, COMMAND).stdout).into_owned()
}

#[tokio::test]
async fn credentials_for_a_registry_rest_on_no_disk_and_no_half_stays() {
    if !tools::npx() {
        return;
    }
    let (folder, registry) = (Scratch::new(), Registry::start());
    registry.hold("/small");
    let told = format!("registry={}\n//{}/:_authToken=s3cret-of-the-registry\n", registry.url("/"), registry.address);
    let user = folder.write("user-npmrc", &told).display().to_string();
    let launch = |config: &str| Launch::beside(&folder, config).env("npm_config_userconfig", &user);
    let config = npx("small", &["small"], "");
    let mut gateway = launch(&config).start().await;
    support::wait_until(COMMAND, "npm to ask", async || registry.asked().first().cloned()).await;
    assert_eq!(registry.credentials(), ["bearer s3cret-of-the-registry"], "the control: npm has them");
    assert_eq!(with_text(&folder.file(".seawall"), "s3cret"), "", "while it installs");
    gateway.kill();
    assert_eq!(with_text(&folder.file(".seawall"), "s3cret"), "", "after it was killed");
    let halves = || installed(&folder).into_iter().filter(|path| path.extension().is_some_and(|end| end == "part"));
    assert_eq!(halves().count(), 1);

    // The next start removes it, though it wants nothing of it.
    let mut gateway = launch(&support::fixture("other", &[])).start().await;
    gateway.ready().await;
    support::wait_until(COMMAND, "the half to be gone", async || (halves().count() == 0).then_some(())).await;
    gateway.stop();

    // One that fails leaves none.
    registry.release();
    let gateway = launch(&config).start().await;
    gateway.ready().await;
    assert_eq!(gateway.server("small")["state"], "parked", "{}", gateway.server("small"));
    assert_eq!(installed(&folder), Vec::<PathBuf>::new());
}

const HOSTILE: &str = r##"
import io, json, sys, tarfile
kept, outside, what = sys.argv[1:]
out = tarfile.open(fileobj=sys.stdout.buffer, mode="w|gz")
def add(name, text="", kind=tarfile.REGTYPE, link=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode, entry.size = kind, link, 0o755, len(text)
    out.addfile(entry, io.BytesIO(text.encode()))
add("package/package.json", json.dumps({"name": what, "version": "1.0.0"}))
add("package/bin/run", "#!/bin/sh\n")
add("package/bin/by-env", f"#!/usr/bin/env -S -u {kept}/id sh\n")
add("package/pyvenv.cfg", f"home = {kept}\n")
names = {"up": "package/../../../../planted", "absolute": f"{outside}/planted", "link": "package/link/planted"}
if what == "link":
    add("package/link", kind=tarfile.SYMTYPE, link=kept)
    add("package/hard", kind=tarfile.LNKTYPE, link=f"{kept}/id")
if what in names:
    add(names[what], "planted")
out.close()
"##;

/// Names that lead out of it, links, and a say in what its server is given.
#[test]
fn a_hostile_package_puts_nothing_elsewhere_and_is_given_nothing_more() {
    if !tools::npx() || !tools::python3() {
        return;
    }
    let (folder, registry, other) = (Scratch::new(), Registry::start(), Registry::start());
    let (kept, outside) = (folder.file("kept"), folder.file("outside"));
    folder.write("kept/id", "SECRET");
    std::fs::create_dir(&outside).expect("made");
    [&kept, &outside].into_iter().for_each(|path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("ours");
    });
    for what in ["up", "absolute", "link", "grants"] {
        let mut make = std::process::Command::new("python3");
        make.args(["-c", HOSTILE]).args([&kept, &outside]).arg(what);
        let made = process::run(make, COMMAND);
        assert!(made.status.success(), "{made:?}");
        let bins = json!({ "hostile": "bin/run", "../../../planted-by-bin": "bin/run", "by-env": "bin/by-env",
            "out": "../../../../../../../bin/sh", "link": "link/id" });
        let archive = registry.url(&format!("/{what}.tgz"));
        let version = json!({ "name": what, "version": "1.0.0", "bin": bins, "dist": { "tarball": archive } });
        let document = json!({ "name": what, "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": version } });
        registry.put(&format!("/{what}"), "application/json", document.to_string());
        registry.put(&format!("/{what}.tgz"), "application/gzip", made.stdout);
    }
    let mut depending = json!({ "name": "depending", "version": "1.0.0", "bin": "a.js",
        "dist": { "tarball": registry.url("/grants.tgz") } });
    let elsewhere = [("by-http", other.url("/x.tgz")), ("by-git", format!("git+http://{}/x.git", other.address))];
    for (name, place) in &elsewhere {
        depending["dependencies"] = json!({ "x": place });
        let document = json!({ "name": name, "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": depending } });
        registry.put(&format!("/{name}"), "application/json", document.to_string());
    }
    let show = |words: &[&str]| {
        let config = folder.write("servers.toml", &npx("x", words, ""));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.args(["sandbox", "show", "x", "--config"]).arg(config).env("npm_config_registry", registry.url("/"));
        command.current_dir(folder.path());
        let output = process::run(command, COMMAND);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    // Whatever becomes of it, nothing of the user's is given, and nothing is where it should not be.
    let attempts = [("up", "hostile"), ("absolute", "hostile"), ("link", "link")];
    for (package, program) in
        attempts.into_iter().chain(["out", "by-env", "hostile"].map(|program| ("grants", program)))
    {
        let said = show(&["-p", package, program]);
        println!("{package} {program}: {said}");
        let place = kept.display().to_string();
        assert!(!said.lines().any(|line| line.contains(&place) && !line.contains("add \"")), "{said}");
        let is_refused = said.contains("or in its package") && said.contains(&place);
        assert_eq!(is_refused, ["hostile", "by-env"].contains(&program), "{package} {program}: {said}");
    }
    for (name, _) in &elsewhere {
        let said = show(&[name]);
        assert!(said.contains("cannot be installed"), "{name}: {said}");
    }
    assert_eq!(other.asked(), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(&outside).expect("there").count(), 0);
    assert_eq!(std::fs::read_dir(&kept).expect("there").count(), 1);
    let mut find = std::process::Command::new("find");
    find.arg(folder.path()).args(["-name", "planted*", "-not", "-path", "*/node_modules/*"]);
    assert_eq!(String::from_utf8_lossy(&process::run(find, COMMAND).stdout), "");
}
