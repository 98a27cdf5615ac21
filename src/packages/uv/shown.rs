//! What `uv … --show-settings` says: its own settings, put together from all files,
//! variables and options, in the form that Rust prints a value for a programmer. Of that
//! only the part about indexes is read, by the names of its fields.

use std::path::Path;

use crate::sandbox::Destination;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Shown {
    pub(super) indexes: Vec<Index>,
    /// One of them stands in for the index that uv comes with.
    pub(super) has_default: bool,
    /// There is none at all, only lists of files.
    pub(super) has_no_index: bool,
}

/// Without who one is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    scheme: String,
    host: String,
    port: Option<u16>,
    path: String,
}

impl Shown {
    pub(super) fn hosts(&self) -> Vec<Destination> {
        let mut hosts = Vec::new();
        for Index { scheme, host, port, .. } in &self.indexes {
            let port = match (&**scheme, port) {
                ("http", port) => port.unwrap_or(80),
                ("https", port) => port.unwrap_or(443),
                _ => continue,
            };
            let place = Destination { host: host.clone(), port };
            if !hosts.contains(&place) && !host.is_empty() {
                hosts.push(place);
            }
        }
        hosts
    }

    /// Those on this machine.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.indexes.iter().filter(|index| index.scheme == "file").map(|index| Path::new(&index.path))
    }
}

/// `None` where it is said in no way that is known here.
pub(super) fn read(text: &str) -> Option<Shown> {
    let (_, text) = text.rsplit_once("index_locations: IndexLocations {")?;
    let mut shown = Shown::default();
    let mut lines = text.lines().map(str::trim);
    let mut has_end = false;
    while let Some(line) = lines.next() {
        let (field, value) = line.split_once(": ").unwrap_or((line, ""));
        let value = value.trim_end_matches(',');
        let last = shown.indexes.last_mut();
        match (field, last) {
            ("no_index", _) => {
                shown.has_no_index = value == "true";
                has_end = true;
                break;
            }
            // The first field of a URL.
            ("scheme", _) => shown.indexes.push(Index { scheme: unquoted(value), ..Index::default() }),
            ("default", _) => shown.has_default |= value == "true",
            ("host", Some(index)) if value.starts_with("Some") => {
                let kind = lines.next()?;
                let host = lines.next()?.trim_end_matches(',');
                index.host = match kind {
                    "Domain(" => unquoted(host).to_ascii_lowercase(),
                    "Ipv4(" => host.to_owned(),
                    "Ipv6(" => format!("[{host}]"),
                    _ => return None,
                };
            }
            ("port", Some(index)) if value.starts_with("Some") => {
                index.port = Some(lines.next()?.trim_end_matches(',').parse().ok()?);
            }
            ("path", Some(index)) => index.path = unquoted(value),
            _ => {}
        }
    }
    has_end.then_some(shown)
}

fn unquoted(value: &str) -> String {
    value.trim_matches('"').to_owned()
}
