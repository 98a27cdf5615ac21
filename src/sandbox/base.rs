//! What every program needs to start at all, and what this one needs besides: its
//! runtime, its interpreter, the package that it is part of.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{planted, policy::Package, resolve::Around};

/// Programs and libraries of the system.
const SYSTEM: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/run/current-system/sw"];
/// Of /etc only what has no secrets in it: never the folder itself.
const ETC: [&str; 22] = [
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "host.conf",
    "hosts",
    "resolv.conf",
    "gai.conf",
    "passwd",
    "group",
    "localtime",
    "timezone",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ca-certificates",
    "pki/tls/certs",
    "pki/ca-trust",
    "alternatives",
    "mime.types",
    "protocols",
    "services",
    "os-release",
];
/// What a runtime runs, by the ends of its names.
const SCRIPTS: [&str; 13] = ["js", "mjs", "cjs", "ts", "mts", "cts", "py", "pyz", "rb", "php", "pl", "sh", "jar"];
/// Links are followed, and interpreters of interpreters, so far.
const CHAIN_MAX: usize = 5;

/// What a program needs.
#[derive(Debug, Default)]
pub(super) struct Base {
    /// All that exists of it, without links.
    pub(super) files: Vec<PathBuf>,
    /// What something in a folder that the server may write, or in its package, says that it
    /// needs: not given for that.
    pub(super) doubtful: Vec<PathBuf>,
}

/// Folders whose content does not say what is given.
struct Foreign<'a> {
    /// Those that the server may write, without links.
    write: &'a [PathBuf],
    /// And that of its package.
    all: Vec<PathBuf>,
}

/// `write` are the folders that the server may write, without links.
pub(super) fn files(is_strict: bool, write: &[PathBuf], package: Option<&Package>, around: &Around<'_>) -> Base {
    let all = write.iter().chain(package.map(|package| &package.folder)).cloned().collect();
    let foreign = Foreign { write, all };
    let system = SYSTEM.iter().map(PathBuf::from);
    let etc = ETC.iter().map(|name| Path::new("/etc").join(name));
    let files = system.chain(etc).filter_map(|path| path.canonicalize().ok()).collect();
    let mut base = Base { files, doubtful: Vec::new() };
    if let Some(interpreter) = package.and_then(|package| package.interpreter.as_deref()) {
        base.add_program(interpreter, is_strict, &foreign, around, CHAIN_MAX);
    }
    base.add_program(around.program, is_strict, &foreign, around, CHAIN_MAX);
    // What a runtime is told to run. No other file is given for being named: it may well
    // be a key, in a folder of keys.
    let mut words = around.args.iter().map(|arg| around.cwd.join(arg)).filter(|path| has_ending(path));
    // One that the server could have removed is not skipped for the next one.
    let script = words.find(|path| path.is_file() || planted::is_below(path, write)).filter(|path| path.is_file());
    match script.as_deref().map(|script| (script.canonicalize(), planted::leads_out(script, &foreign.all))) {
        Some((_, Some(led))) => base.doubtful.push(led),
        Some((Ok(script), None)) => base.files.push(package_of(&script, around)),
        _ => {}
    }
    base
}

impl Base {
    fn add_program(
        &mut self,
        program: &Path,
        is_strict: bool,
        foreign: &Foreign<'_>,
        around: &Around<'_>,
        left: usize,
    ) {
        let Some(left) = left.checked_sub(1) else { return };
        if let Some(led) = planted::leads_out(program, &foreign.all) {
            return self.doubtful.push(home_of_program(&led, is_strict, around));
        }
        // Each step of a chain of links: `venv/bin/python` is more than what it leads to.
        let mut step = program.to_owned();
        for _ in 0..CHAIN_MAX {
            if let Some(folder) = step.parent().and_then(|folder| folder.canonicalize().ok()) {
                let file = folder.join(step.file_name().unwrap_or_default());
                self.files.push(home_of_program(&file, is_strict, around));
            }
            match std::fs::read_link(&step) {
                Ok(target) => step = step.parent().unwrap_or(Path::new("/")).join(target),
                Err(_) => break,
            }
        }
        let Ok(program) = program.canonicalize() else { return };
        self.files.push(home_of_program(&program, is_strict, around));
        let on_path = |name: &str| {
            let mut files = std::env::split_paths(around.path).map(|folder| folder.join(name));
            files.find(|file| file.is_file())
        };
        let (interpreter, is_by_name) = first_line(&program, &on_path).unzip();
        // A package may say "node", and what that is the user's PATH says.
        let by_whom = if is_by_name == Some(true) { foreign.write } else { &foreign.all };
        let said = [(python_behind(&step, around), &step, &*foreign.all), (interpreter, &program, by_whom)];
        for (next, by, foreign_to_it) in said {
            let Some(next) = next else { continue };
            if planted::is_below(by, foreign_to_it) {
                let led = next.canonicalize().unwrap_or(next);
                self.doubtful.push(home_of_program(&led, is_strict, around));
            } else {
                self.add_program(&next, is_strict, foreign, around, left);
            }
        }
    }
}

fn has_ending(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| SCRIPTS.contains(&extension))
}

/// The prefix that a runtime is installed under, `X` of `X/bin/program`; else the folder
/// of the program, or, where that would say too much, the file alone.
fn home_of_program(file: &Path, is_strict: bool, around: &Around<'_>) -> PathBuf {
    let Some(folder) = file.parent() else { return file.to_owned() };
    let is_bin = ["bin", "sbin", "shims"].iter().any(|name| folder.ends_with(name));
    // Not `~/.local`: there is more below it than programs.
    let prefix = folder.parent().filter(|prefix| is_bin && !prefix.ends_with(".local"));
    match prefix {
        Some(prefix) if !is_strict && !is_broad(prefix, around) => prefix.to_owned(),
        _ if !is_broad(folder, around) => folder.to_owned(),
        _ => file.to_owned(),
    }
}

/// The modules around a script: from the outermost `node_modules`, else its package,
/// else its folder; the file alone where those would say too much.
fn package_of(script: &Path, around: &Around<'_>) -> PathBuf {
    let modules = script.ancestors().filter(|path| path.ends_with("node_modules")).last();
    let is_package =
        |folder: &&Path| ["package.json", "pyproject.toml", "setup.py"].iter().any(|name| folder.join(name).is_file());
    let package = script.ancestors().skip(1).take(4).find(is_package);
    [modules, package, script.parent()]
        .into_iter()
        .flatten()
        .find(|folder| !is_broad(folder, around))
        .unwrap_or(script)
        .to_owned()
}

/// Too much to be given without being asked for.
fn is_broad(folder: &Path, around: &Around<'_>) -> bool {
    let own = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(folder));
    folder.components().count() <= 2
        || ["/home", "/Users"].map(Path::new).iter().any(|homes| folder.parent() == Some(*homes))
        || around.homes.iter().any(|home| own(home))
        || own(&std::env::temp_dir())
        || around.protected.iter().any(|path| own(path))
}

/// The program of the first line `#!/…`; `env NAME` is looked up, and true comes with it.
pub(crate) fn first_line(program: &Path, on_path: &dyn Fn(&str) -> Option<PathBuf>) -> Option<(PathBuf, bool)> {
    let mut start = [0; 256];
    let read = std::fs::File::open(program).ok()?.read(&mut start).ok()?;
    let line = start[..read].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let interpreter = PathBuf::from(words.next()?);
    if !interpreter.ends_with("env") {
        return Some((interpreter, false));
    }
    let name = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
    if name.contains('/') {
        return Some((PathBuf::from(name), false));
    }
    Some((on_path(name)?, true))
}

/// The interpreter that a virtual environment was made from.
fn python_behind(program: &Path, _around: &Around<'_>) -> Option<PathBuf> {
    let folder = program.parent()?;
    let settings = std::fs::read_to_string(folder.parent()?.join("pyvenv.cfg")).ok()?;
    let home = settings.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "home").then(|| value.trim().to_owned())
    })?;
    Some(Path::new(&home).join("python3"))
}
