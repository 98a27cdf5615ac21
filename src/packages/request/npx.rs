//! `npx [options] PACKAGE [arguments]`.

use std::ffi::OsString;

use super::Request;

const SWITCHES: [&str; 6] = ["-y", "--yes", "-q", "--quiet", "--prefer-online", "--prefer-offline"];

pub(super) fn read(args: &[OsString]) -> Result<Request, String> {
    const HOW: &str = "write npx -y PACKAGE@VERSION and the program's arguments, or launcher = \"none\" to run npx \
                       itself";
    let mut packages = Vec::new();
    let mut words = args.iter();
    let command = loop {
        let Some(word) = words.next().map(|word| word.to_string_lossy()) else {
            return Err(format!("npx is told no package; {HOW}"));
        };
        match &*word {
            "--" => {}
            word if SWITCHES.contains(&word) => {}
            "-p" | "--package" => packages.extend(words.next().map(|word| word.to_string_lossy().into_owned())),
            word => match word.strip_prefix("--package=") {
                Some(package) => packages.push(package.to_owned()),
                None if word.starts_with('-') => {
                    return Err(format!("npx with {} is not understood; {HOW}", crate::text::quote(word, 60)));
                }
                None => break word.to_owned(),
            },
        }
    };
    let (packages, bin) = if packages.is_empty() { (vec![command], None) } else { (packages, Some(command)) };
    if let Some(other) = packages.iter().find(|package| !is_of_registry(package)) {
        let shown = crate::text::quote(other, 100);
        return Err(format!("npx: {shown} is not the name of a package in a registry; {HOW}"));
    }
    Ok(Request { packages, bin, args: words.cloned().collect(), ..Request::default() })
}

/// No folder, URL, repository or alias: those are fetched from elsewhere.
fn is_of_registry(spec: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._~-".contains(c))
    };
    let is_version = |version: &str| {
        !version.is_empty() && version.chars().all(|c| c.is_ascii_alphanumeric() || "._~^-+<>=*| ".contains(c))
    };
    let (scope, rest) = match spec.strip_prefix('@').map(|rest| rest.split_once('/')) {
        Some(Some((scope, rest))) => (Some(scope), rest),
        Some(None) => return false,
        None => (None, spec),
    };
    let (name, version) = match rest.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (rest, None),
    };
    scope.is_none_or(is_part) && is_part(name) && version.is_none_or(is_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Request, String> {
        super::read(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn packages_and_programs_are_told_apart_as_npx_does() {
        let plain = read("-y @scope/server@1.2.3 --port 1 -y").expect("understood");
        assert_eq!((plain.packages, plain.bin), (vec!["@scope/server@1.2.3".to_owned()], None));
        assert_eq!(plain.args, ["--port", "1", "-y"]);
        let named = read("--package=server --package other@^2 -- run it").expect("understood");
        assert_eq!(named.packages, ["server", "other@^2"]);
        assert_eq!((named.bin.as_deref(), named.args), (Some("run"), vec![OsString::from("it")]));
    }

    #[test]
    fn what_comes_from_elsewhere_is_refused() {
        for other in [
            "./folder",
            "../x",
            "/x",
            "~/x",
            "user/repository",
            "github:user/x",
            "https://example.com/x.tgz",
            "x@https://example.com/x.tgz",
            "x@npm:y",
            "x@file:y",
            "@scope",
            "x@",
            ".x",
        ] {
            assert!(read(&format!("-y {other}")).expect_err(other).contains("not the name of a package"), "{other}");
        }
        assert!(read("-y").expect_err("nothing").contains("no package"));
        assert!(read("-c x").expect_err("a shell").contains("not understood"));
        assert!(read("--registry=x y").expect_err("an option").contains("not understood"));
    }
}
