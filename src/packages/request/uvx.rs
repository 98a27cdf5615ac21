//! `uvx [options] PACKAGE [arguments]`, and `uv tool run` with the same after it.

use std::ffi::OsString;

use super::{Manager, Request};
use crate::text;

const HOW: &str = "write uvx PACKAGE==VERSION (or uvx --from PACKAGE PROGRAM) and the program's arguments, or launcher \
                   = \"none\" to run uvx itself";

/// They make no other installation.
const SWITCHES: [&str; 12] = [
    "-q",
    "--quiet",
    "-v",
    "--verbose",
    "--no-progress",
    "--isolated",
    "--no-env-file",
    "--refresh",
    "-n",
    "--no-cache",
    "--no-python-downloads",
    "--no-build",
];
/// Handed on to uv: where packages come from, and which of them are taken.
const OPTIONS: [&str; 15] = [
    "--index",
    "--default-index",
    "-i",
    "--index-url",
    "--extra-index-url",
    "-f",
    "--find-links",
    "--index-strategy",
    "--allow-insecure-host",
    "--resolution",
    "--prerelease",
    "--exclude-newer",
    "--fork-strategy",
    "--upgrade-package",
    "-P",
];
const HANDED_ON: [&str; 7] = [
    "--no-index",
    "--no-config",
    "--native-tls",
    "--system-certs",
    "--managed-python",
    "--no-managed-python",
    "--upgrade",
];

pub(super) fn read(args: &[OsString]) -> Result<Request, String> {
    let mut request = Request { manager: Manager::Uvx, ..Request::default() };
    let (mut from, mut with) = (None, Vec::new());
    let mut words = args.iter();
    let command = loop {
        let Some(word) = words.next().map(|word| word.to_string_lossy().into_owned()) else {
            return Err(format!("uvx is told no package; {HOW}"));
        };
        let (name, own) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (&*word, None),
        };
        let mut value = || {
            let next = || words.next().map(|word| word.to_string_lossy().into_owned());
            own.clone().or_else(next).ok_or_else(|| format!("uvx with {name} is told nothing for it; {HOW}"))
        };
        match name {
            "--" => {}
            name if SWITCHES.contains(&name) && own.is_none() => {}
            name if HANDED_ON.contains(&name) && own.is_none() => request.options.push(word),
            name if OPTIONS.contains(&name) => {
                let value = value()?;
                request.options.extend([name.to_owned(), value]);
            }
            "--from" => from = Some(value()?),
            "-w" | "--with" => with.extend(value()?.split(',').map(|package| package.trim().to_owned())),
            "-p" | "--python" => request.python = Some(value()?),
            name if name.starts_with('-') => {
                return Err(format!("uvx with {} is not understood; {HOW}", text::quote(name, 60)));
            }
            _ => break word,
        }
    };
    let (package, bin) = match from {
        Some(package) => (package, Some(command)),
        None => (command, None),
    };
    request.packages = std::iter::once(package).chain(with).collect();
    request.bin = bin;
    if let Some(other) = request.packages.iter().find(|package| !is_of_index(package)) {
        let shown = text::quote(other, 100);
        return Err(format!("uvx: {shown} is not the name of a package in an index; {HOW}"));
    }
    request.args = words.cloned().collect();
    Ok(request)
}

/// The name alone, without extras and version.
pub(in crate::packages) fn bare(package: &str) -> &str {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    package.split(|c: char| !is_name(c)).next().unwrap_or(package)
}

/// `name`, `name[extra]==1.2`, `name@1.2`; no folder, archive, URL or repository: those
/// are fetched from elsewhere, or built.
fn is_of_index(package: &str) -> bool {
    let name = bare(package);
    let rest = &package[name.len()..];
    let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && ![".whl", ".zip", ".gz", ".py"].iter().any(|ending| name.to_ascii_lowercase().ends_with(ending));
    let rest = match rest.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((extras, rest))) if extras.chars().all(|c| c.is_ascii_alphanumeric() || "._-, ".contains(c)) => rest,
        Some(_) => return false,
        None => rest,
    };
    let is_version = |version: &str, more: &str| {
        !version.is_empty()
            && version.chars().all(|c| c.is_ascii_alphanumeric() || ".+*!-_".contains(c) || more.contains(c))
    };
    is_name
        && match rest.strip_prefix('@') {
            Some(version) => is_version(version, ""),
            None => rest.is_empty() || (rest.starts_with(['=', '<', '>', '!', '~', ' ']) && is_version(rest, "=<>~, ")),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Request, String> {
        super::read(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn packages_and_programs_are_told_apart_as_uvx_does() {
        let plain = read("-q mcp-server-time==1.2 --local-timezone UTC --from x").expect("understood");
        assert_eq!((plain.packages, plain.bin), (vec!["mcp-server-time==1.2".to_owned()], None));
        assert_eq!(plain.args, ["--local-timezone", "UTC", "--from", "x"]);
        let named =
            read("--from mcp[cli]>=1,<2 --with a,b==1 -w c@1.2 --python=3.12 -- mcp run it").expect("understood");
        assert_eq!(named.packages, ["mcp[cli]>=1,<2", "a", "b==1", "c@1.2"]);
        assert_eq!((named.bin.as_deref(), named.python.as_deref()), (Some("mcp"), Some("3.12")));
        assert_eq!(named.args, ["run", "it"]);
        let from = read("--index https://x.example/simple --no-index --prerelease=allow p").expect("understood");
        assert_eq!(from.options, ["--index", "https://x.example/simple", "--no-index", "--prerelease", "allow"]);
        assert_eq!((bare("mcp[cli]>=1"), bare("x@latest"), bare("a.b-c_d")), ("mcp", "x", "a.b-c_d"));
    }

    #[test]
    fn what_comes_from_elsewhere_is_refused() {
        for other in [
            "./folder",
            "/x",
            "~/x",
            ".",
            "git+https://example.com/x.git",
            "https://example.com/x.whl",
            "x@https://example.com/x.whl",
            "x@git+https://example.com/x",
            "x[a/b]",
            "x[a",
            "x.whl",
            "x.tar.gz",
            "server.py",
            "x@",
            "x==1;",
            "x@1/2",
            "-x",
        ] {
            let why = read(&format!("--from={other} run")).expect_err(other);
            assert!(why.contains("not the name of a package"), "{other}: {why}");
        }
        assert!(read("--with ./x y").expect_err("a folder").contains("not the name of a package"));
        assert!(read("-q").expect_err("nothing").contains("no package"));
        assert!(read("--from").expect_err("nothing").contains("is told nothing"));
        for option in ["--with-requirements x y", "--env-file .env y", "--directory / y", "-c x y", "--config-file x y"]
        {
            assert!(read(option).expect_err(option).contains("not understood"), "{option}");
        }
    }
}
