//! The only door to settings: a servers.toml, and what it means.
//!
//! Two steps. What was written is read through a cursor that knows line, column and
//! key path; each table has a file here that turns it into plain data in
//! which nothing is optional that must exist. Everything that is wrong is found in
//! one go. What the settings mean to a layer is the layer's: this room builds its
//! settings type and no room knows this one.
//!
//! `docs/servers-toml.md` is the reference of the file itself.

use std::{
    cell::RefCell,
    io::Read as _,
    path::{Path, PathBuf},
};

mod alert;
pub mod command_value;
mod complaint;
mod doors;
mod embedding;
mod emit;
mod find;
mod gateway;
mod policy;
mod reader;
mod sandbox;
mod schedule;
mod secret;
mod server;
mod service;
mod source;
mod tasks;
mod value;
mod variables;
mod watch;

pub use alert::{Alert, Notify};
pub use complaint::{Complaint, Complaints, Place};
pub use find::{NotFound, find, said_of_gateway};
pub use gateway::Gateway;
pub use sandbox::{Destination, Launcher, Limits, Network, Profile, Sandbox, Tier};
pub use secret::Secret;
pub use server::{Instances, Kind, Recycle, Server, ToolPolicy};
pub use service::{Options, Service, ServiceKind};

use reader::{Entry, Reading, Table};
use source::Source;

use crate::layer::Policy;
pub use crate::service::{
    health::{Health, Probe},
    memory::MemoryWatch,
    schedule::{Missed, Schedule},
};

/// A whole servers.toml. Two of them compare equal where they mean the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub gateway: Gateway,
    /// In the order of the file.
    pub servers: Vec<Server>,
    pub services: Vec<Service>,
    pub alerts: Vec<Alert>,
    /// Variables whose values may be secrets, as they are written, and those values: what
    /// must not show where messages go, wherever in the file it stands.
    pub confidences: Vec<(String, Secret)>,
    /// The file, absolute.
    pub path: PathBuf,
    /// The folder it is in: what relative paths are of.
    pub folder: PathBuf,
}

/// What a servers.toml may refer to and does not hold.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Looks up an environment variable; `~` is its `HOME`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Runs the command of a `${cmd:…}` in a folder and gives what it says; `None` where the
    /// file is only looked at: the value is then the variable as it is written.
    pub run: Option<RunCommand<'a>>,
    /// What `${seawall}` stands for: the running binary.
    pub seawall: &'a Path,
    pub builtins: Builtins<'a>,
}

/// See [`command_value::value`].
pub type RunCommand<'a> = &'a dyn Fn(&str, &Path) -> Result<String, String>;

/// The names that `builtin = "..."` may have; other names are complaints.
#[derive(Clone, Copy, Debug, Default)]
pub struct Builtins<'a> {
    pub servers: &'a [&'a str],
    pub services: &'a [&'a str],
}

/// A servers.toml is written by hand: one larger than this is something else.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Reads and understands the file at `path`.
pub fn load(path: &Path, around: &Surroundings<'_>) -> Result<Config, Complaints> {
    parse(&read(path)?, path, around)
}

/// The text of the file at `path`, not yet understood.
pub fn read(path: &Path) -> Result<String, Complaints> {
    text(read_bytes(path)?, path)
}

/// What is in the file at `path`, or the beginning of what is too much: for whoever wants
/// to see whether it changed at all before looking at it as [`text`].
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, Complaints> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| complaint_about(path, format!("cannot be read: {error}")))?;
    Ok(bytes)
}

/// The same of a plain file only, and without waiting for anybody: a pipe without a writer
/// would be waited for.
pub fn read_plain_bytes(path: &Path) -> Result<Vec<u8>, Complaints> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut bytes = Vec::new();
    let cannot = |error: std::io::Error| complaint_about(path, format!("cannot be read: {error}"));
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(complaint_about(path, "is no plain file".to_owned()));
    }
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

/// The content of the file at `path` as text, for [`parse`].
pub fn text(bytes: Vec<u8>, path: &Path) -> Result<String, Complaints> {
    refuse_if_others_write(path)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(complaint_about(path, "is larger than 1 MiB: this is no servers.toml".into()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let (valid, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let before = String::from_utf8_lossy(valid);
        let what = "not UTF-8 here; save the file as UTF-8".to_owned();
        Source::new(path, &before).complaint(before.len(), "", None, what).into()
    })
}

/// Whoever can write this file runs programs as its reader. A group of the owner's own,
/// as many systems make one for each user, is the owner.
fn refuse_if_others_write(path: &Path) -> Result<(), Complaints> {
    use std::os::unix::fs::MetadataExt as _;
    // What cannot be looked at cannot be read either, which is said there.
    let Ok(data) = std::fs::metadata(path) else { return Ok(()) };
    let (mode, has_own_group) = (data.mode(), data.uid() == data.gid());
    let who = match (mode & 0o002 != 0, mode & 0o020 != 0 && !has_own_group) {
        (true, _) => "everybody",
        (_, true) => "its group",
        _ => return Ok(()),
    };
    let fix = format!("chmod go-w {}", path.display());
    Err(complaint_about(path, format!("can be written by {who}, who could run programs as you: {fix}")))
}

/// Understands `text` as the content of the file at `path`, which need not exist.
pub fn parse(text: &str, path: &Path, around: &Surroundings<'_>) -> Result<Config, Complaints> {
    let absolute = std::path::absolute(path).map_err(|error| complaint_about(path, format!("is no path: {error}")))?;
    let folder = absolute.parent().unwrap_or(&absolute).to_owned();
    let source = Source::new(path, text);

    let document = match toml_edit::Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            return Err(source.complaint(at, "", None, format!("not TOML: {}", error.message())).into());
        }
    };

    let reading =
        Reading { source, around, folder: &folder, complaints: RefCell::default(), confidences: RefCell::default() };
    let root = Entry::root(&reading, document.as_item());
    let config = root.table("not a table", |file| tables(file, &absolute, &folder)).flatten();
    match config {
        Some(config) if reading.complaints.borrow().is_empty() => {
            Ok(Config { confidences: reading.confidences.into_inner(), ..config })
        }
        _ => Err(Complaints::new(reading.complaints.into_inner())),
    }
}

/// The tables of the file, each understood in a file of its own.
fn tables(file: &mut Table<'_>, path: &Path, folder: &Path) -> Option<Config> {
    let gateway = file.section("gateway", gateway::read);
    let defaults = file.section("defaults", |table| policy::read(table, &Policy::default()));
    let defaults = defaults.unwrap_or_default();
    let servers = file.take("servers", |entry| {
        entry.table("not a table; write a table for each, such as [servers.files]", |table| {
            table.all().into_iter().filter_map(|(name, entry)| server::read(name, &entry, &defaults)).collect()
        })
    });
    let services = file.take("services", |entry| {
        entry.table("not a table; write a table for each, such as [services.daily-tasks]", |table| {
            table.all().into_iter().filter_map(|(name, entry)| service::read(name, &entry)).collect()
        })
    });
    let alerts = file.take("alerts", |entry| entry.list("not a list; write [[alerts]] above its keys", alert::read));
    Some(Config {
        gateway: gateway?,
        servers: servers.unwrap_or_default(),
        services: services.unwrap_or_default(),
        alerts: alerts.unwrap_or_default(),
        confidences: Vec::new(),
        path: path.to_owned(),
        folder: folder.to_owned(),
    })
}

fn complaint_about(path: &Path, message: String) -> Complaints {
    Complaint { file: path.to_owned(), place: None, key: String::new(), value: None, message }.into()
}

/// Names of servers and services: no underscore, so that `SERVER__name` splits one way.
fn is_name(name: &str) -> bool {
    const MAX_CHARS: usize = 30;
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    starts_well
        && name.len() <= MAX_CHARS
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

const NAME_RULE: &str =
    "not a name; use a-z, 0-9 and \"-\", begin with a letter or a digit, and stay within 30 characters";

/// The value of `builtin`, one of `known`.
fn builtin(entry: &Entry<'_>, known: &[&str]) -> Option<String> {
    let name = entry.word("not a name; write something like \"events\"")?;
    if known.contains(&name.as_str()) {
        return Some(name);
    }
    entry.refuse(match crate::text::nearest(&name, known.iter().copied()) {
        Some(nearest) => format!("no such builtin; did you mean \"{nearest}\"?"),
        None => format!("no such builtin; there are {}", known.join(", ")),
    })
}
