//! What a text says went wrong, and which paths and hosts it names. Only words are read
//! here: whether the sandbox had a part in it, the policy says.

/// Lines that are longer are cut.
const LINE_MAX_BYTES: usize = 4096;
const LINES_MAX: usize = 64;
/// So many paths of one line are looked at.
const NAMED_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// EACCES, EPERM.
    Forbidden,
    /// EROFS.
    ReadOnly,
    /// ENOENT: what was not given is not there.
    Absent,
    /// No name is resolved, no address reached.
    Unreachable,
}

const WORDS: [(Trouble, &[&str]); 4] = [
    (Trouble::ReadOnly, &["erofs", "read-only file system", "errno 30]", "os error 30)"]),
    (
        Trouble::Unreachable,
        &[
            "eai_again",
            "enotfound",
            "enetunreach",
            "getaddrinfo",
            "could not resolve",
            "name or service not known",
            "name resolution",
            "failed to lookup address",
            "network is unreachable",
            "connect eperm",
            "connect eacces",
        ],
    ),
    (
        Trouble::Forbidden,
        &[
            "eacces",
            "eperm",
            "permission denied",
            "operation not permitted",
            "errno 13]",
            "errno 1]",
            "os error 13)",
            "os error 1)",
        ],
    ),
    (
        Trouble::Absent,
        &["enoent", "no such file or directory", "errno 2]", "os error 2)", "does not exist", "directory nonexistent"],
    ),
];

/// Words of one who meant to change something.
const CHANGES: [&str; 15] = [
    "mkdir",
    "cannot create",
    "creat",
    "write",
    "writing",
    "unlink",
    "rename",
    "rmdir",
    "touch",
    "copyfile",
    "truncate",
    "remove",
    "delete",
    "chmod",
    "utime",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint<'a> {
    pub(super) trouble: Trouble,
    pub(super) changes: bool,
    pub(super) line: &'a str,
}

/// The lines of `text` that complain.
pub(super) fn complaints(text: &str) -> Vec<Complaint<'_>> {
    text.lines().filter(|line| !line.trim().is_empty()).filter_map(complaint).take(LINES_MAX).collect()
}

/// What this line complains of.
pub(super) fn complaint(line: &str) -> Option<Complaint<'_>> {
    let line = cut(line);
    let lower = line.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let (trouble, _) = WORDS.into_iter().find(|(_, words)| has(words))?;
    Some(Complaint { trouble, changes: has(&CHANGES), line })
}

fn cut(line: &str) -> &str {
    let mut end = line.len().min(LINE_MAX_BYTES);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

/// Absolute paths that a line names, each in the ways in which it may end: at its quote,
/// at a colon, at the next blank.
pub(super) fn paths(line: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = line[from..].find('/').map(|at| at + from) {
        let before = line[..at].chars().next_back();
        from = at + 1;
        if !before.is_none_or(|c| c.is_whitespace() || "'\"`(<[=,‘“".contains(c)) {
            continue;
        }
        let rest = &line[at..];
        let quote = before.and_then(closing);
        let ways: Vec<&str> = match quote.and_then(|quote| rest.find(quote)) {
            Some(end) => vec![&rest[..end]],
            None => [rest.find(": "), rest.find(char::is_whitespace), Some(rest.len())]
                .into_iter()
                .flatten()
                .map(|end| rest[..end].trim_end_matches(|c: char| c.is_whitespace() || ".,:;)]>'\"".contains(c)))
                .collect(),
        };
        from = at + ways.iter().map(|way| way.len()).min().unwrap_or(1).max(1);
        found.push(ways.into_iter().filter(|way| way.len() > 1).collect());
        if found.len() == NAMED_MAX {
            break;
        }
    }
    found
}

fn closing(opening: char) -> Option<char> {
    Some(match opening {
        '\'' | '"' | '`' => opening,
        '‘' => '’',
        '“' => '”',
        _ => return None,
    })
}

/// Hosts that a line names, with the port where it says one.
pub(super) fn hosts(line: &str) -> Vec<(String, Option<u16>)> {
    let words = line.split(|c: char| c.is_whitespace() || "'\"`,;()<>[]{}".contains(c));
    let hosts = words.filter_map(|word| {
        let (word, port) = match word.split_once("://") {
            Some(("http", rest)) => (rest, Some(80)),
            Some((_, rest)) => (rest, Some(443)),
            None => (word, None),
        };
        let word = word.split('/').next()?.trim_end_matches(['.', ':']);
        let (host, port) = match word.rsplit_once(':') {
            Some((host, number)) => (host, Some(number.parse().ok()?)),
            None => (word, port),
        };
        is_host(host).then(|| (host.to_ascii_lowercase(), port))
    });
    hosts.take(NAMED_MAX).collect()
}

/// Those that are written as nothing else is: in a URL, with a port, as an address.
pub(super) fn places(text: &str) -> Vec<(String, Option<u16>)> {
    let is_place = |host: &str, port: Option<u16>| port.is_some() || host.parse::<std::net::Ipv4Addr>().is_ok();
    hosts(text).into_iter().filter(|(host, port)| is_place(host, *port)).collect()
}

/// Two labels at least, and the last of them no number or ending of a file.
fn is_host(word: &str) -> bool {
    let labels: Vec<&str> = word.split('.').collect();
    let is_label = |label: &&str| {
        !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let last = labels.last().copied().unwrap_or_default();
    let is_file = ["js", "mjs", "cjs", "ts", "py", "rs", "go", "json", "toml", "txt", "md"].contains(&last);
    let is_address = word.parse::<std::net::Ipv4Addr>().is_ok();
    labels.len() >= 2
        && word.len() <= 253
        && labels.iter().all(is_label)
        && (is_address || (last.len() >= 2 && last.chars().all(|c| c.is_ascii_alphabetic()) && !is_file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(line: &str) -> Vec<Vec<&str>> {
        paths(line)
    }

    #[test]
    fn the_runtimes_ways_of_complaining_are_understood() {
        for (line, trouble, path) in [
            ("Error: EACCES: permission denied, open '/srv/a b/x'", Trouble::Forbidden, "/srv/a b/x"),
            ("PermissionError: [Errno 13] Permission denied: '/srv/x'", Trouble::Forbidden, "/srv/x"),
            ("cat: /srv/x: Permission denied", Trouble::Forbidden, "/srv/x"),
            ("open /srv/x: permission denied", Trouble::Forbidden, "/srv/x"),
            ("sh: 1: cannot create /srv/x: Directory nonexistent", Trouble::Absent, "/srv/x"),
            ("OSError: [Errno 30] Read-only file system: '/srv/x'", Trouble::ReadOnly, "/srv/x"),
            ("Parent directory does not exist: /srv/x", Trouble::Absent, "/srv/x"),
            ("mkdir: cannot create directory ‘/srv/x’: Permission denied", Trouble::Forbidden, "/srv/x"),
        ] {
            let complaint = complaint(line).expect(line);
            assert_eq!(complaint.trouble, trouble, "{line}");
            assert!(path_of(line).iter().any(|ways| ways.contains(&path)), "{line}: {:?}", path_of(line));
        }
        assert_eq!(complaint("all is well with /srv/x"), None);
        assert!(complaint("EROFS: read-only file system, mkdir '/srv/x'").expect("one").changes);
    }

    #[test]
    fn a_url_is_no_path_and_a_file_no_host() {
        assert_eq!(path_of("getaddrinfo ENOTFOUND https://api.example.com/v1/x"), Vec::<Vec<&str>>::new());
        let host = |line| hosts(line).into_iter().next();
        assert_eq!(host("getaddrinfo EAI_AGAIN api.example.com"), Some(("api.example.com".to_owned(), None)));
        assert_eq!(host("fetch of http://api.example.com/x failed"), Some(("api.example.com".to_owned(), Some(80))));
        assert_eq!(host("connect EPERM 203.0.113.5:443"), Some(("203.0.113.5".to_owned(), Some(443))));
        assert_eq!(host("at index.js and 1.2.3, then a.py"), None);
    }

    #[test]
    fn a_line_of_any_kind_is_survived() {
        let long = format!("EACCES {}", "/ä".repeat(9000));
        assert!(complaint(&long).expect("one").line.len() <= LINE_MAX_BYTES);
        assert!(paths(&long).len() <= NAMED_MAX);
        assert_eq!(complaints(&"EACCES\n".repeat(500)).len(), LINES_MAX);
    }
}
