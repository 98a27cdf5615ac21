//! Variables in strings: `${VAR}`, `${env:VAR}`, `${VAR:-default}`, `${file:PATH}`,
//! `${cmd:COMMAND}`, `${seawall}`, and `$$` for a dollar sign.
//!
//! A variable that is written wrongly is the file's fault. One that is written well
//! and cannot be had is not: the caller decides what becomes of it.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::Surroundings;

/// The most that a `${file:PATH}` may hold: these are tokens, not data.
const FILE_MAX_BYTES: u64 = 64 * 1024;

const FORMS: &str =
    "write ${VAR}, ${env:VAR}, ${VAR:-default}, ${file:PATH}, ${cmd:COMMAND} or ${seawall}, and $$ for a dollar sign";

#[derive(Debug, PartialEq)]
pub(super) enum Trouble {
    /// Not one of the forms above.
    Malformed(String),
    /// A good form whose value is not there.
    Missing(String),
}

use Trouble::{Malformed, Missing};

/// Names that say where, who or in which language, and never a password.
const PLAIN: [&str; 18] = [
    "HOME",
    "USER",
    "LOGNAME",
    "PATH",
    "PWD",
    "SHELL",
    "TMPDIR",
    "TMP",
    "TEMP",
    "LANG",
    "TZ",
    "TERM",
    "HOSTNAME",
    "EDITOR",
    "DISPLAY",
    "VIRTUAL_ENV",
    "UID",
    "GID",
];
/// The same by how they begin and end: `XDG_CONFIG_HOME`, `NOTES_DIR`, `API_PORT`.
const PLAIN_BEGINNINGS: [&str; 2] = ["XDG_", "LC_"];
const PLAIN_ENDINGS: [&str; 11] =
    ["_DIR", "_DIRECTORY", "_FOLDER", "_PATH", "_FILE", "_HOME", "_ROOT", "_HOST", "_PORT", "_REGION", "_LEVEL"];

/// The variables of `text` whose values may be secrets, as they are written. What a file or a
/// command says is taken for one; of others the name tells.
pub(super) fn secrets(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('$') {
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
        } else if let Some((inside, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            rest = after;
            if may_be_secret(inside) {
                found.push(inside);
            }
        }
    }
    found
}

fn may_be_secret(inside: &str) -> bool {
    if inside.starts_with("file:") || inside.starts_with("cmd:") {
        return true;
    }
    let name = inside.split_once(":-").map_or(inside, |(name, _)| name);
    let name = name.strip_prefix("env:").unwrap_or(name);
    let is_plain = PLAIN.contains(&name)
        || PLAIN_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || PLAIN_ENDINGS.iter().any(|ending| name.ends_with(ending));
    inside != "seawall" && !is_plain
}

/// `text` with every variable replaced by its value. Values are not expanded again. `tell`
/// hears of each one that may be a secret: the variable, as it is written, and its value.
pub(super) fn expand(
    text: &str,
    around: &Surroundings<'_>,
    folder: &Path,
    mut tell: impl FnMut(&str, &str),
) -> Result<String, Trouble> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let (name, after) =
                after.split_once('}').ok_or_else(|| Malformed(format!("a \"${{\" has no \"}}\"; {FORMS}")))?;
            let value = value_of(name, around, folder)?;
            if may_be_secret(name) {
                tell(name, &value);
            }
            out.push_str(&value);
            rest = after;
        } else {
            // A dollar sign that opens nothing is only a dollar sign.
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn value_of(inside: &str, around: &Surroundings<'_>, folder: &Path) -> Result<String, Trouble> {
    if let Some(path) = inside.strip_prefix("file:") {
        return read_file(path, around, folder);
    }
    if let Some(command) = inside.strip_prefix("cmd:") {
        if command.trim().is_empty() {
            return Err(Malformed(format!("${{cmd:}} names no command; {FORMS}")));
        }
        return match around.run {
            Some(run) => run(command, folder).map_err(Missing),
            None => Ok(format!("${{{inside}}}")),
        };
    }
    if inside == "seawall" {
        return Ok(around.seawall.to_string_lossy().into_owned());
    }
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let name = name.strip_prefix("env:").unwrap_or(name);
    if !is_name(name) {
        return Err(Malformed(format!("${{{inside}}} is no variable; {FORMS}")));
    }
    match default {
        Some(default) if default.contains("${") => {
            Err(Malformed(format!("the default in ${{{inside}}}… holds a variable itself; a default is plain text")))
        }
        // As in a shell: `:-` also stands in for a variable that is set to nothing.
        Some(default) => Ok((around.env)(name).filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())),
        None => (around.env)(name).ok_or_else(|| Missing(format!("the environment variable {name} is not set"))),
    }
}

fn is_name(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The content of a small regular file, without the line break at its end.
fn read_file(written: &str, around: &Surroundings<'_>, folder: &Path) -> Result<String, Trouble> {
    if written.is_empty() {
        return Err(Malformed(format!("${{file:}} names no file; {FORMS}")));
    }
    let path = resolve_path(written, around, folder).map_err(Missing)?;
    let missing = |why: &dyn std::fmt::Display| Missing(format!("the file {} {why}", path.display()));
    let cannot = |error: std::io::Error| missing(&format!("cannot be read: {error}"));

    // Asked before opening: the open of a pipe without a writer never returns.
    if !std::fs::metadata(&path).map_err(cannot)?.is_file() {
        return Err(missing(&"is not a regular file"));
    }
    let mut content = String::new();
    File::open(&path).and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_string(&mut content)).map_err(cannot)?;
    if content.len() as u64 > FILE_MAX_BYTES {
        return Err(missing(&"is larger than 64 KiB"));
    }
    if content.contains('\0') {
        return Err(missing(&"holds a NUL character"));
    }
    content.truncate(content.trim_end_matches(['\r', '\n']).len());
    Ok(content)
}

/// `written` as a path: `~` is the user's home, what is relative is of `folder`.
/// The error says why there is no such path.
pub(super) fn resolve_path(written: &str, around: &Surroundings<'_>, folder: &Path) -> Result<PathBuf, String> {
    let path = PathBuf::from(expand_home(written, around)?);
    // Through the components, so that `./notes` does not leave a `/./` behind.
    Ok(folder.join(path).components().collect())
}

/// `~` and `~/…` with the user's home in place of the tilde; all else as it is.
pub(super) fn expand_home(written: &str, around: &Surroundings<'_>) -> Result<String, String> {
    match written.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => match (around.env)("HOME") {
            Some(home) if !home.is_empty() => Ok(home + rest),
            _ => Err("\"~\" stands for no folder, because the environment variable HOME is not set".into()),
        },
        _ => Ok(written.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Builtins;

    fn expanded(text: &str, folder: &Path) -> Result<String, Trouble> {
        let env = |name: &str| match name {
            "HOME" => Some("/home/ada".to_owned()),
            "NAME" => Some("ada ${HOME}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let run = |command: &str, _: &Path| match command {
            "locked" => Err("the keyring is locked".to_owned()),
            command => Ok(format!("<{command}>")),
        };
        let around = Surroundings {
            env: &env,
            seawall: Path::new("/opt/seawall"),
            builtins: Builtins::default(),
            run: Some(&run),
        };
        expand(text, &around, folder, |_, _| {})
    }

    #[test]
    fn every_form_is_expanded_once() {
        let is = |text, value: &str| assert_eq!(expanded(text, Path::new("/")), Ok(value.to_owned()), "{text}");
        is("hello ${NAME}!", "hello ada ${HOME}!");
        is("${env:NAME}", "ada ${HOME}");
        is("${NOBODY:-you}${EMPTY:-}${EMPTY:-x}${NAME:-y}${EMPTY}", "youxada ${HOME}");
        is("${seawall} mcp", "/opt/seawall mcp");
        is("Bearer ${cmd:secret-tool lookup a b}", "Bearer <secret-tool lookup a b>");
        is("$$ $${NAME} $5 $ a$", "$ ${NAME} $5 $ a$");
        is("", "");
    }

    #[test]
    fn what_may_be_a_secret_is_told_by_its_name() {
        assert_eq!(secrets("--token=${GITHUB_TOKEN} $${A} ${env:B:-x}${HOME}"), ["GITHUB_TOKEN", "env:B:-x"]);
        assert_eq!(secrets("${file:~/.token}${cmd:secret-tool x}"), ["file:~/.token", "cmd:secret-tool x"]);
        for plain in
            ["${seawall}", "${XDG_CONFIG_HOME}/x", "${NOTES_DIR:-/srv}", "${env:HOME}", "$5", "${", "$", "$${X}"]
        {
            assert!(secrets(plain).is_empty(), "{plain}");
        }
    }

    #[test]
    fn what_is_written_wrongly_differs_from_what_is_not_there() {
        for text in
            ["${", "${}", "${NAME", "${a b}", "${vault:x}", "${NAME:x}", "${:-x}", "${file:}", "${cmd: }", "${A:-${B}}"]
        {
            assert!(matches!(expanded(text, Path::new("/")), Err(Malformed(_))), "{text}");
        }
        for text in ["${NOBODY}", "${env:NOBODY}", "${file:no/such/file}", "${file:.}", "${cmd:locked}"] {
            assert!(matches!(expanded(text, Path::new("/")), Err(Missing(_))), "{text}");
        }
    }

    #[test]
    fn a_file_is_read_without_its_last_line_break_and_never_without_bound() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "s3cret\r\n").unwrap();
        std::fs::write(folder.path().join("large"), "x".repeat(70_000)).unwrap();
        std::fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
        std::fs::write(folder.path().join("nul"), "a\0b").unwrap();
        assert_eq!(expanded("Bearer ${file:token}", folder.path()), Ok("Bearer s3cret".to_owned()));
        for name in ["large", "binary", "nul"] {
            assert!(matches!(expanded(&format!("${{file:./{name}}}"), folder.path()), Err(Missing(_))), "{name}");
        }
    }

    #[test]
    fn a_tilde_is_the_home_only_where_a_shell_would_say_so() {
        let env = |name: &str| (name == "HOME").then(|| "/home/ada".to_owned());
        let around =
            Surroundings { env: &env, seawall: Path::new("seawall"), builtins: Builtins::default(), run: None };
        let resolve = |path| resolve_path(path, &around, Path::new("/etc/seawall")).unwrap();
        assert_eq!(resolve("~/notes"), Path::new("/home/ada/notes"));
        assert_eq!(resolve("~"), Path::new("/home/ada"));
        assert_eq!(resolve("~bob/notes"), Path::new("/etc/seawall/~bob/notes"));
        assert_eq!(resolve("./a/./b"), Path::new("/etc/seawall/a/b"));
        assert_eq!(resolve("/tmp"), Path::new("/tmp"));
    }
}
