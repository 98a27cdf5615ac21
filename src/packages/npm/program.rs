//! Which program of what was installed is meant, by the rules of npx.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::super::{
    place::{Note, read},
    request::Request,
};

const PACKAGE_MAX_BYTES: u64 = 4 << 20;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Package {
    dependencies: BTreeMap<String, String>,
    bin: Option<Bin>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Bin {
    One(String),
    Several(BTreeMap<String, String>),
}

pub(super) fn program(request: &Request, staging: &Path) -> Result<Note, String> {
    let file = match &request.bin {
        Some(bin) => named(request, bin, staging)?,
        None => only(staging)?,
    };
    let root = staging.canonicalize().map_err(|error| format!("{}: {error}", staging.display()))?;
    let missing = || format!("the program of {request} is not in its package: {}", file.display());
    let file = root.join(&file).canonicalize().map_err(|_| missing())?;
    let relative = file.strip_prefix(&root).map_err(|_| missing())?.to_owned();
    Ok(Note::of(request, relative, is_for_node(&file)))
}

/// The one that a single package has, or is named after.
fn only(staging: &Path) -> Result<PathBuf, String> {
    let installed = package(staging);
    let Some(name) = installed.dependencies.keys().next() else {
        return Err("npm has installed nothing".to_owned());
    };
    let bare = name.rsplit('/').next().unwrap_or(name);
    let folder = Path::new("node_modules").join(name);
    let bins = match package(&staging.join(&folder)).bin {
        None => BTreeMap::new(),
        Some(Bin::One(file)) => BTreeMap::from([(bare.to_owned(), file)]),
        Some(Bin::Several(bins)) => bins,
    };
    let mut files: Vec<&String> = bins.values().collect();
    files.dedup();
    match (bins.get(bare), &files[..]) {
        (_, [file]) => Ok(folder.join(file)),
        (Some(file), _) => Ok(folder.join(file)),
        (None, []) => Err(format!("the package {name} has no program to run")),
        (None, _) => {
            let names: Vec<&str> = bins.keys().map(String::as_str).collect();
            let names = crate::text::quote(&names.join(", "), 200);
            Err(format!(
                "the package {name} has more than one program ({names}), and none of its own name; say which: \
                 command = [\"npx\", \"-y\", \"--package\", \"{name}\", \"PROGRAM\"]"
            ))
        }
    }
}

/// Any program that the packages, or what they need, have brought.
fn named(request: &Request, bin: &str, staging: &Path) -> Result<PathBuf, String> {
    let folder = Path::new("node_modules/.bin");
    let file = folder.join(bin);
    if !bin.contains('/') && staging.join(&file).exists() {
        return Ok(file);
    }
    let bin = crate::text::quote(bin, 60);
    Err(format!("no program {bin} came with {request}"))
}

fn package(folder: &Path) -> Package {
    let text = read(&folder.join("package.json"), PACKAGE_MAX_BYTES).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// By its first line, which is what npx goes by, or by its name where there is none.
fn is_for_node(file: &Path) -> bool {
    use std::io::Read as _;
    let mut start = Vec::new();
    let _ = std::fs::File::open(file).map(|file| file.take(256).read_to_end(&mut start));
    let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match String::from_utf8_lossy(first).strip_prefix("#!") {
        // With options for node it is for the system to start.
        Some(line) => line.trim_end().ends_with("node"),
        None => file.extension().is_some_and(|extension| ["js", "mjs", "cjs"].iter().any(|js| extension == *js)),
    }
}
