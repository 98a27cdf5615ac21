//! Servers of `uvx`: installed once in a confined process that reaches uv's indexes, and the
//! hosts that their pages name, and nobody else; then run with nothing but what their own
//! policy gives.
//!
//! One package is fetched from the index that this machine's uv is configured to, the
//! others from indexes of the tests' own.

#![cfg(target_os = "linux")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};

mod support;

use support::{Launch, Registry, failure_of, machine::Machine, process, scratch::Scratch, text_of, tools};

const COMMAND: Duration = Duration::from_secs(120);
const PINNED: &str = "mcp-server-time==2026.10.19";

fn uvx(server: &str, words: &[&str], more: &str) -> String {
    let command: Vec<&str> = ["uvx"].iter().chain(words).copied().collect();
    format!("[servers.{server}]\ncommand = {}\n{more}\n", json!(command))
}

/// A PATH with this folder first.
fn path_with(folder: &Path) -> String {
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
}

/// Nothing of the user's own uv has a say.
fn seawall(folder: &Scratch, uv: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(words).arg("--config").arg(folder.file("servers.toml")).current_dir(folder.path());
    command.env("PATH", path_with(uv)).env("XDG_CONFIG_HOME", folder.file("config"));
    command
}

fn installed(folder: &Scratch) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.file(".seawall/packages")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn a_real_server_is_installed_once_and_runs_with_no_network() {
    let Some(uv) = tools::uv() else { return };
    let folder = Scratch::new();
    let config = uvx("time", &[PINNED, "--local-timezone", "Etc/UTC"], "env = { GIVEN = \"x\" }");
    let mut gateway = Launch::beside(&folder, &config)
        .env("PATH", &path_with(&uv))
        .env("XDG_CONFIG_HOME", &folder.file("config").display().to_string())
        .start()
        .await;
    gateway.ready().await;
    assert_eq!(gateway.server("time")["state"], "ready", "{}\n{}", gateway.server("time"), gateway.log.text());
    let client = gateway.client("/mcp").await;
    let told = client.call_tool("time__get_current_time", json!({"timezone": "Europe/Paris"})).await;
    assert!(text_of(&told).contains("Europe/Paris"), "{told}");
    let sandbox = &gateway.server("time")["sandbox"];
    let has = (&sandbox["profile"], &sandbox["tier"], &sandbox["network"], &sandbox["not_enforced"]);
    assert_eq!(has, (&json!("standard"), &json!("full"), &json!("none"), &json!([])), "{sandbox}");

    // Neither credentials nor caches of the installation are left, and nothing can be added.
    let [own] = &installed(&folder)[..] else { panic!("{:?}", installed(&folder)) };
    let left: Vec<_> = std::fs::read_dir(own).expect("it is there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["tools"]);
    let python = own.join("tools/mcp-server-time/bin/python").display().to_string();
    let attempts = "import socket, sys\n\
                    for what in (lambda: open(sys.prefix + '/planted', 'w'), lambda: socket.create_connection(('192.0.2.1', 443), 5)):\n\
                    \x20   try: what(); print('done')\n\
                    \x20   except OSError as error: print(type(error).__name__, error.errno)";
    let words = ["sandbox", "run", "time", "--", &*python, "-c", attempts];
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.arg("--config").arg(gateway.config()).args(words).env("PATH", path_with(&uv));
    command.env("XDG_CONFIG_HOME", folder.file("config"));
    let tried = process::run(command, COMMAND);
    let tried = String::from_utf8_lossy(&tried.stdout).into_owned();
    assert!(
        tried == "OSError 30\nPermissionError 1\n" || tried == "PermissionError 13\nPermissionError 1\n",
        "{tried}"
    );
    gateway.stop();

    // Nor is a network needed any more, nor uv's cache.
    folder.write("servers.toml", &config);
    let mut offline = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        offline.args(["--user", "--map-current-user"]);
    }
    let call = ["call", "time__get_current_time", "{\"timezone\":\"Etc/UTC\"}"];
    offline.arg("--net").arg(env!("CARGO_BIN_EXE_seawall")).args(call).arg("--config").arg(folder.file("servers.toml"));
    offline.env("PATH", path_with(&uv)).env("XDG_CONFIG_HOME", folder.file("config")).current_dir(folder.path());
    let called = process::run(offline, COMMAND);
    assert!(called.status.success() && said(&called).contains("Etc/UTC"), "{}", said(&called));
    assert_eq!(installed(&folder).len(), 1);
}

/// A wheel of the package, with its metadata, at `files`; the page of it at `index`.
fn publish(folder: &Scratch, name: &str, index: &Registry, files: &Registry, requires: &[&str]) {
    let wheel = format!("{}-1.0.0-py3-none-any.whl", name.replace('-', "_"));
    let file = folder.file(&wheel);
    let mut make = Command::new("python3");
    make.arg(tools::fixtures("uvx/wheel.py")).arg(name).arg(&file).args(requires);
    let made = process::run(make, COMMAND);
    assert!(made.status.success(), "{}", said(&made));
    let read = |file: PathBuf| std::fs::read(file).expect("it was made");
    files.put(&format!("/{wheel}"), "application/octet-stream", read(file.clone()));
    let beside = folder.file(&format!("{wheel}.metadata"));
    files.put(&format!("/{wheel}.metadata"), "application/octet-stream", read(beside));
    list(name, index, &files.url(&format!("/{wheel}")));
}

fn list(name: &str, index: &Registry, url: &str) {
    let file = url.rsplit('/').next().expect("a file");
    let page =
        format!("<!DOCTYPE html><html><body><a href=\"{url}\" data-core-metadata=\"true\">{file}</a></body></html>");
    index.put(&format!("/simple/{name}/"), "text/html", page);
}

#[tokio::test]
async fn an_installation_reaches_the_indexes_and_the_hosts_that_they_name_and_runs_no_code() {
    let Some(uv) = tools::uv() else { return };
    let (folder, index, files) = (Scratch::new(), Registry::start(), Registry::start());
    publish(&folder, "small-server", &index, &files, &["helper-of-it"]);
    publish(&folder, "helper-of-it", &index, &files, &[]);
    let url = format!("http://ada:s3cret-of-the-index@{}/simple", index.address);
    folder.write("config/uv/uv.toml", &format!("[[index]]\nname = \"own\"\nurl = \"{url}\"\ndefault = true\n"));
    let config = uvx("small", &["small-server", "--port", "1"], "env = { TOKEN = \"s3cret-of-the-server\" }");
    let gateway = Launch::beside(&folder, &config)
        .env("PATH", &path_with(&uv))
        .env("XDG_CONFIG_HOME", &folder.file("config").display().to_string())
        .start()
        .await;
    gateway.ready().await;
    assert_eq!(gateway.server("small")["state"], "ready", "{}\n{}", gateway.server("small"), gateway.log.text());
    assert!(gateway.log.has(&format!("keeps files of small-server at {}", files.address)), "{}", gateway.log.text());
    let told = files.asked();
    assert!(
        told.iter().any(|path| path.ends_with(".whl")) && !told.iter().any(|path| path.contains("simple/")),
        "{told:?}"
    );
    // Credentials go where they belong, and nowhere else.
    assert!(index.credentials().iter().any(|told| told.starts_with("basic ")), "{:?}", index.credentials());
    assert_eq!(files.credentials(), Vec::<String>::new());
    let [own] = &installed(&folder)[..] else { panic!("{:?}", installed(&folder)) };
    let environment = own.join("tools/small-server");
    assert!(!environment.join("left-by-pth").exists(), "its code has run");
    let kept = Command::new("grep").args(["-r", "s3cret"]).arg(own).output().expect("grep can be run");
    assert_eq!(kept.stdout, b"", "{}", said(&kept));
    let client = gateway.client("/mcp/small").await;
    let reply = client.call_tool("where", json!({})).await;
    let here: Value = serde_json::from_str(text_of(&reply)).expect("JSON");
    assert_eq!((&here["argv"], &here["cached"]), (&json!(["--port", "1"]), &json!(true)), "{here}");
    assert!(here["file"].as_str().expect("a file").starts_with(&environment.display().to_string()), "{here}");
    let variables = here["env"].as_array().expect("names");
    assert!(
        variables.contains(&json!("TOKEN"))
            && !variables.iter().any(|name| name.as_str().is_some_and(|name| name.starts_with("UV_")))
    );
}

#[test]
fn a_place_that_no_index_names_is_refused_with_the_line_that_allows_it() {
    let Some(uv) = tools::uv() else { return };
    let (folder, index, elsewhere) = (Scratch::new(), Registry::start(), Registry::start());
    publish(&folder, "sent-on", &index, &elsewhere, &[]);
    // The page names the index itself, which sends on.
    let wheel = "/sent_on-1.0.0-py3-none-any.whl";
    list("sent-on", &index, &index.url(wheel));
    for path in [wheel.to_owned(), format!("{wheel}.metadata")] {
        index.redirect(&path, &elsewhere.url(&path));
    }
    let with = |more: &str| {
        let index = index.url("/simple");
        folder.write("servers.toml", &uvx("x", &["--default-index", &index, "sent-on"], more));
        process::run(seawall(&folder, &uv, &["sandbox", "show", "x"]), COMMAND)
    };
    let refused = with("");
    let line = format!("install_hosts = [\"{}\"]", elsewhere.address);
    let expected = format!(
        "sent-on cannot be installed: it comes from {}, which is none of uv's indexes, and which none of them names",
        elsewhere.address
    );
    let told = said(&refused);
    assert!(!refused.status.success() && told.contains(&expected), "{told}");
    assert!(told.contains(&format!("to allow: {line} under [servers.x.sandbox]")), "{told}");
    assert_eq!(elsewhere.asked(), Vec::<String>::new());
    let allowed = with(&format!("[servers.x.sandbox]\n{line}"));
    assert!(allowed.status.success(), "{}", said(&allowed));
    assert!(!elsewhere.asked().is_empty());
}

#[tokio::test]
async fn what_cannot_be_installed_is_told_in_words() {
    let Some(uv) = tools::uv() else { return };
    let (folder, index) = (Scratch::new(), Registry::start());
    publish(&folder, "small-server", &index, &index, &[]);
    list("to-build", &index, &index.url("/to_build-1.0.0.tar.gz"));
    let config = uvx("unknown", &["nobody-has-made-it"], "")
        + &uvx("version", &["small-server==9"], "")
        + &uvx("program", &["--from", "small-server", "no-such-program"], "")
        + &uvx("build", &["to-build"], "")
        + &uvx("python", &["--python", "3.99", "small-server"], "")
        + &uvx("repository", &["--from", "git+https://example.com/x.git", "x"], "")
        + "[servers.editable]\ncommand = [\"uv\", \"tool\", \"run\", \"--with-editable\", \".\", \"x\"]\n";
    let gateway = Launch::beside(&folder, &config)
        .env("PATH", &path_with(&uv))
        .env("UV_DEFAULT_INDEX", &index.url("/simple"))
        .start()
        .await;
    gateway.ready().await;
    for (server, expected) in [
        ("unknown", "there is no package nobody-has-made-it in uv's indexes"),
        ("version", "there is no such version of small-server==9"),
        ("program", "no program no-such-program came with small-server; say which"),
        ("build", "would have to be built"),
        ("python", "uv finds no Python 3.99 here"),
        ("repository", "git+https://example.com/x.git is not the name of a package in an index"),
        ("editable", "uvx with --with-editable is not understood"),
    ] {
        let now = gateway.server(server);
        assert_eq!(now["state"], "parked", "{now}");
        assert!(now["reason"].as_str().is_some_and(|why| why.contains(expected)), "{now}");
        let reply = gateway.client("/mcp").await.call_tool(&format!("{server}__x"), json!({})).await;
        assert_eq!(failure_of(&reply)["class"], "unavailable", "{reply}");
    }
    assert_eq!(installed(&gateway.folder).iter().filter(|path| path.extension().is_none()).count(), 0);
}

#[tokio::test]
async fn an_index_that_cannot_be_reached_is_tried_again() {
    let Some(uv) = tools::uv() else { return };
    // What is written for uv among the server's own variables is for uv.
    let env = "env = { UV_DEFAULT_INDEX = \"http://127.0.0.1:9/simple\" }";
    let gateway = Launch::new(&uvx("x", &["small-server"], env)).env("PATH", &path_with(&uv)).start().await;
    gateway.ready().await;
    let server = gateway.server("x");
    assert_eq!(server["state"], "backoff", "{server}");
    assert!(server["reason"].as_str().is_some_and(|why| why.contains("index cannot be reached")), "{server}");
}

/// A uv that would do what none should.
fn treacherous(folder: &Scratch, index: &Registry, elsewhere: &Registry) -> PathBuf {
    let place = folder.file("treacherous");
    std::fs::create_dir(&place).expect("made");
    std::fs::copy(tools::fixtures("uvx/uv"), place.join("uv")).expect("copied");
    std::fs::copy(tools::fixtures("uvx/uv"), place.join("uvx")).expect("copied");
    // One that every user can get to, where there is one.
    let system = Path::new("/usr/bin/python3");
    let python = match system.is_file() {
        true => system.display().to_string(),
        false => {
            let mut own = Command::new("python3");
            own.args(["-c", "import sys; print(sys.executable)"]);
            String::from_utf8_lossy(&process::run(own, COMMAND).stdout).trim().to_owned()
        }
    };
    let settings = format!(
        "PYTHON={python}\nINDEX_PORT={}\nELSEWHERE={}\nKEPT={}\n",
        index.address.port(),
        elsewhere.address,
        folder.write("kept/secret", "SECRET").display()
    );
    std::fs::write(place.join("settings"), settings).expect("written");
    place
}

#[test]
fn an_installation_reads_writes_and_reaches_nothing_else() {
    if tools::uv().is_none() {
        return;
    }
    for machine in Machine::all().into_iter().filter(|machine| machine.has_namespaces) {
        let (folder, index, elsewhere) = (Scratch::new(), Registry::start(), Registry::start());
        machine.settle(folder.path());
        elsewhere.put("/asked", "text/plain", "so it is");
        let uv = treacherous(&folder, &index, &elsewhere);
        open_to_all(&folder.file("kept"));
        let outside = folder.file("outside");
        let mut free = machine.free(&uv.join("uv"));
        free.arg("outside").arg(&outside).env("TOKEN", "t0ken-of-the-server");
        std::fs::write(&outside, "").expect("written");
        open_to_all(&outside);
        assert!(process::run(free, COMMAND).status.success());
        let all = "SECRET read-the-file\nlist-the-folder\nwrote-outside\nhas-the-token\nconnected\n\
                   asked-through-the-proxy\ntried\n";
        assert_eq!(std::fs::read_to_string(outside).expect("written"), all, "the control of {machine:?}");
        let asked = elsewhere.asked().len();

        let config = uvx("x", &["x"], "env = { TOKEN = \"t0ken-of-the-server\" }");
        let config = folder.write("servers.toml", &config);
        let mut show = machine.owner(env!("CARGO_BIN_EXE_seawall").as_ref());
        show.args(["sandbox", "show", "x", "--config"]).arg(config).current_dir(folder.path());
        show.env("PATH", path_with(&uv));
        let shown = process::run(show, COMMAND);
        assert!(shown.status.success(), "{machine:?}: {}", said(&shown));
        let [own] = &installed(&folder)[..] else { panic!("{:?}", installed(&folder)) };
        let left = std::fs::read_to_string(own.join("tools/x/bin/x")).expect("it is there");
        assert_eq!(left, "#!/bin/sh\ntried\n", "{machine:?}");
        assert_eq!(elsewhere.asked().len(), asked);
    }
}

/// So that nothing but the sandbox keeps anybody out.
fn open_to_all(path: &Path) {
    let mode = if path.is_dir() { 0o777 } else { 0o666 };
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("it is ours");
}

const HOSTILE: &str = r##"
import sys, zipfile
kept, outside, file = sys.argv[1:]
with zipfile.ZipFile(file, "w") as wheel:
    def add(name, text, mode=0o100755):
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        wheel.writestr(entry, text)
    info = "hostile-1.0.0.dist-info"
    add("hostile.py", "def main(): pass\n")
    add(f"{info}/METADATA", "Metadata-Version: 2.1\nName: hostile\nVersion: 1.0.0\n")
    add(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    add(f"{info}/RECORD", "")
    what = file.rsplit("/", 2)[1]
    if what == "traversal":
        add("../../../../../../../../planted", "planted")
    if what == "absolute":
        add(f"{outside}/planted", "planted")
    if what == "link":
        add("link", kept, 0o120777)
        add("link/planted", "planted")
    if what == "scripts":
        add("hostile-1.0.0.data/scripts/../../../../../../../../planted", "planted")
    if what == "entry":
        add(f"{info}/entry_points.txt", "[console_scripts]\n../../../../../../planted = hostile:main\nhostile = hostile:main\n")
    if what == "environment":
        add("hostile-1.0.0.data/data/pyvenv.cfg", f"home = {kept}\n")
        add("hostile-1.0.0.data/scripts/hostile", f"#!{kept}/bin/sh\n")
"##;

/// Wheels with names that lead out of them, links, and a say in what their server is given.
#[test]
fn a_hostile_wheel_puts_nothing_elsewhere_and_is_given_nothing_more() {
    let Some(uv) = tools::uv() else { return };
    for what in ["traversal", "absolute", "link", "scripts", "entry", "environment"] {
        let (folder, index) = (Scratch::new(), Registry::start());
        let (kept, outside) = (folder.file("kept"), folder.file("outside"));
        folder.write("kept/bin/id", "SECRET");
        std::fs::create_dir(&outside).expect("made");
        [&kept, &outside].into_iter().for_each(|path| open_to_all(path));
        let wheel = folder.write(&format!("{what}/hostile-1.0.0-py3-none-any.whl"), "");
        let mut make = Command::new("python3");
        make.args(["-c", HOSTILE]).args([&kept, &outside, &wheel]);
        let made = process::run(make, COMMAND);
        assert!(made.status.success(), "{}", said(&made));
        index.put("/hostile-1.0.0-py3-none-any.whl", "application/octet-stream", std::fs::read(&wheel).expect("made"));
        let url = index.url("/hostile-1.0.0-py3-none-any.whl");
        let page =
            format!("<!DOCTYPE html><html><body><a href=\"{url}\">hostile-1.0.0-py3-none-any.whl</a></body></html>");
        index.put("/simple/hostile/", "text/html", page);
        folder.write("servers.toml", &uvx("x", &["--default-index", &index.url("/simple"), "hostile"], ""));
        let shown = said(&process::run(seawall(&folder, &uv, &["sandbox", "show", "x"]), COMMAND));
        assert!(index.asked().iter().any(|path| path.ends_with(".whl")), "{what}: {shown}");
        let reads = shown.lines().filter(|line| line.contains("/kept") && !line.contains("add \""));
        assert_eq!(reads.collect::<Vec<_>>(), Vec::<&str>::new(), "{what}: {shown}");
        println!("{what}: {}", shown.lines().next().unwrap_or_default());
        assert_eq!(std::fs::read_dir(&outside).expect("there").count(), 0, "{what}");
        assert_eq!(std::fs::read_dir(&kept).expect("there").count(), 1, "{what}");
        let mut find = Command::new("find");
        find.arg(folder.path()).args(["-name", "planted", "-not", "-path", "*/packages/*"]);
        assert_eq!(said(&process::run(find, COMMAND)), "", "{what}");
    }
}

/// Neither files of the user's nor seawall itself are packages, whatever a page says.
#[tokio::test]
async fn a_page_leads_neither_to_files_nor_to_seawall() {
    let Some(uv) = tools::uv() else { return };
    let (folder, index) = (Scratch::new(), Registry::start());
    publish(&folder, "by-file", &index, &index, &[]);
    let wheel = folder.file("by_file-1.0.0-py3-none-any.whl");
    list("by-file", &index, &format!("file://{}", wheel.display()));
    index.redirect("/simple/by-redirect/", &format!("file://{}", folder.path().display()));
    index.hold("/simple/by-seawall/");
    let config =
        uvx("file", &["by-file"], "") + &uvx("redirect", &["by-redirect"], "") + &uvx("own", &["by-seawall"], "");
    let gateway = Launch::beside(&folder, &config)
        .env("PATH", &path_with(&uv))
        .env("UV_DEFAULT_INDEX", &index.url("/simple"))
        .start()
        .await;
    let own = format!("http://{}/by_seawall-1.0.0-py3-none-any.whl", gateway.address);
    list("by-seawall", &index, &own);
    index.release();
    gateway.ready().await;
    for server in ["file", "redirect", "own"] {
        let now = gateway.server(server);
        assert!(now["reason"].as_str().is_some_and(|why| why.contains("cannot be")), "{now}");
        println!("{server}: {}", now["reason"]);
    }
    let why = gateway.server("own")["reason"].to_string();
    assert!(why.contains(&format!("it comes from {}", gateway.address)), "{why}");
    assert_eq!(installed(&folder), Vec::<PathBuf>::new());
}

#[test]
fn credentials_for_an_index_rest_on_no_disk() {
    let Some(uv) = tools::uv() else { return };
    let (folder, index) = (Scratch::new(), Registry::start());
    publish(&folder, "small-server", &index, &index, &[]);
    let page = "/simple/small-server/";
    index.hold(page);
    let url = format!("http://ada:s3cret-of-the-index@{}/simple", index.address);
    folder.write("config/uv/uv.toml", &format!("[[index]]\nurl = \"{url}\"\ndefault = true\n"));
    folder.write("servers.toml", &uvx("x", &["small-server"], ""));
    let grep = || {
        let mut grep = Command::new("grep");
        grep.args(["-rl", "s3cret"]).arg(folder.file(".seawall"));
        said(&process::run(grep, COMMAND))
    };
    let mut installing = seawall(&folder, &uv, &["sandbox", "show", "x"]);
    installing.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut installing = installing.spawn().expect("it can be run");
    support::wait::poll(COMMAND, || index.asked().contains(&page.to_owned()).then_some(())).expect("uv asks");
    assert!(!installed(&folder).is_empty() && index.credentials().iter().any(|told| told.starts_with("basic ")));
    assert_eq!(grep(), "", "while it installs");
    index.release();
    assert!(installing.wait().expect("its own").success());
    assert_eq!(grep(), "", "afterwards");
}

/// uv runs each Python that it finds, to see what it is, and nothing is around uv itself then.
#[test]
fn neither_a_uv_nor_a_python_that_a_server_could_have_planted_is_run() {
    let Some(uv) = tools::uv() else { return };
    let folder = Scratch::new();
    let mark = folder.file("ran");
    for name in ["bin/uv", "venv/bin/python3", "own/cpython-3.99.0-linux-x86_64-gnu/bin/python3.99", "lib/python3.98"] {
        let file = folder.write(&format!("work/{name}"), &format!("#!/bin/sh\ntouch {}\nexit 1\n", mark.display()));
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    }
    std::fs::create_dir(folder.file("links")).expect("made");
    std::os::unix::fs::symlink("../work/lib/python3.98", folder.file("links/python3.98")).expect("linked");
    let path = |name: &str| folder.file(name).display().to_string();
    let (beside, python, own) = (path("work/bin/uvx"), path("work/venv/bin/python3"), path("work/own"));
    let venv = path("work/venv");
    let env = |name: &str, value: &str| format!("env = {{ {name} = {} }}\n", json!(value));
    let config = format!("[servers.beside]\ncommand = {}\n", json!([beside, "small"]))
        + &uvx("asked", &["--python", &python, "small"], "")
        + &uvx("folder", &["--python", &venv, "small"], "")
        + &uvx("by-variable", &["small"], &env("UV_PYTHON", &python))
        + &uvx("installed", &["--python", "3.99", "small"], &env("UV_PYTHON_INSTALL_DIR", &own))
        + &uvx("on-path", &["--python", "3.98", "small"], "")
        + &uvx("settings", &["small"], &env("UV_CONFIG_FILE", &path("work/uv.toml")))
        + "[servers.writes]\ncommand = [\"/bin/true\"]\nsandbox = { write = [\"./work\"] }\n";
    folder.write("servers.toml", &config);
    for (name, first) in [
        ("beside", "none"),
        ("asked", "none"),
        ("folder", "none"),
        ("by-variable", "none"),
        ("installed", "none"),
        ("on-path", "links"),
        ("settings", "none"),
    ] {
        let mut show = seawall(&folder, &uv, &["sandbox", "show", name]);
        show.env("PATH", format!("{}:{}", path(first), path_with(&uv)));
        let shown = process::run(show, COMMAND);
        assert!(!mark.exists(), "{name}: it was run: {}", said(&shown));
        let why = said(&shown);
        assert!(!shown.status.success() && why.contains("could have been planted"), "{name}: {why}");
        assert!(why.contains("/work, so that"), "{name}: {why}");
    }
}
