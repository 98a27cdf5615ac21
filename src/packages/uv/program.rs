//! Which program of what was installed is meant, by the rules of uvx.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{
    super::{
        place::Note,
        request::{Request, bare},
    },
    LINKS, TOOLS,
};
use crate::text;

pub(super) fn program(request: &Request, staging: &Path) -> Result<Note, String> {
    let package = request.packages.first().map_or("", |package| bare(package));
    let name = request.bin.as_deref().unwrap_or(package);
    let tools = staging.join(TOOLS);
    let mut environments = names(&tools).into_iter().map(|name| tools.join(name));
    let Some(environment) = environments.find(|path| path.join("pyvenv.cfg").is_file()) else {
        return Err("uv has installed nothing".to_owned());
    };
    let file = environment.join("bin").join(name);
    if name.contains('/') || !file.is_file() {
        let mut others = names(&staging.join(LINKS));
        others.sort();
        let shown = text::quote(name, 60);
        return Err(match &others[..] {
            [] => format!("the package {package} has no program to run"),
            others => format!(
                "no program {shown} came with {request}; say which: command = [\"uvx\", \"--from\", \"{}\", \
                 \"PROGRAM\"], with one of {}",
                request.packages[0],
                text::quote(&others.join(", "), 200)
            ),
        });
    }
    let root = staging.canonicalize().map_err(|error| format!("{}: {error}", staging.display()))?;
    let missing = || format!("the program of {request} is not in its package: {}", file.display());
    let file = file.canonicalize().map_err(|_| missing())?;
    let relative: PathBuf = file.strip_prefix(&root).map_err(|_| missing())?.to_owned();
    Ok(Note::of(request, relative, is_for_python(&file)))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// By its first line. Where that would be too long for the system it is one for a shell,
/// which is nothing to Python, and the second starts it.
fn is_for_python(file: &Path) -> bool {
    let mut start = Vec::new();
    let _ = std::fs::File::open(file).map(|file| file.take(1024).read_to_end(&mut start));
    let start = String::from_utf8_lossy(&start);
    let mut lines = start.lines();
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let interpreter = first.strip_prefix("#!").and_then(|line| line.trim().rsplit('/').next());
    interpreter.is_some_and(|name| name.starts_with("python"))
        || first.starts_with("#!") && second.starts_with("'''exec'")
}
