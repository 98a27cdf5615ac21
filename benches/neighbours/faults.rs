//! What fails beside the healthy server, again and again while it is measured.

/// One kind of trouble.
pub(crate) struct Fault {
    /// As in docs/reliability.md, and the server's name.
    pub(crate) name: &'static str,
    pub(crate) flags: &'static [&'static str],
    pub(crate) trouble: Trouble,
    /// Whether other tools of the same process can be measured too.
    pub(crate) has_sibling: bool,
}

pub(crate) enum Trouble {
    /// This tool is called with these arguments, one call after the other.
    Calls(&'static str, &'static str),
    /// The same, after twenty good answers: its death is then replaced at once.
    Kills(&'static str, &'static str),
    /// The server does it by itself.
    Lives,
    /// Somebody holds the database's lock, and failing calls make rows.
    DatabaseLocked,
    /// The database is taken away, and failing calls make rows.
    DatabaseDeleted,
    /// Connections come and go, as fast as one thread can open them.
    Connections,
}

use Trouble::{Calls, Connections, DatabaseDeleted, DatabaseLocked, Kills, Lives};

const fn stays(name: &'static str, tool: &'static str, arguments: &'static str) -> Fault {
    Fault { name, flags: &[], trouble: Calls(tool, arguments), has_sibling: true }
}

const fn dies(name: &'static str, tool: &'static str, arguments: &'static str) -> Fault {
    Fault { name, flags: &[], trouble: Kills(tool, arguments), has_sibling: false }
}

const fn other(name: &'static str, flags: &'static [&'static str], trouble: Trouble) -> Fault {
    Fault { name, flags, trouble, has_sibling: false }
}

pub(crate) const FAULTS: &[Fault] = &[
    // What the measurement itself makes of nothing.
    stays("nothing", "pid", "{}"),
    stays("is-error", "fail", "{}"),
    stays("internal-error", "rpc_error", "{}"),
    stays("never-answers", "hang", "{}"),
    stays("answers-when-cancelled", "late", "{}"),
    stays("answers-another-id", "wrong_id", "{}"),
    stays("asks-for-ever", "pester", r#"{"every_ms":5}"#),
    stays("answers-twice", "double", "{}"),
    stays("floods-stderr", "flood_stderr", r#"{"bytes":1048576}"#),
    stays("changes-tools-all-the-time", "change_tools", r#"{"count":3}"#),
    dies("is-stopped", "stop", "{}"),
    dies("never-reads", "deaf", "{}"),
    dies("exits", "exit", "{}"),
    dies("is-killed", "kill", "{}"),
    dies("half-a-line", "half", "{}"),
    dies("closes-stdout", "close_stdout", "{}"),
    dies("leaves-grandchildren", "orphan", r#"{"seconds":600}"#),
    dies("line-of-100-mib", "endless", r#"{"bytes":104857600}"#),
    // Over 100 a minute: it is replaced now and then.
    other("garbage-for-ever", &[], Calls("garbage", r#"{"lines":20}"#)),
    other("takes-30-s-to-start", &["--slow-start", "30000"], Lives),
    other("exits-at-once", &["--exit-at-start", "1"], Lives),
    other("lists-10000-tools", &["--tools", "10000"], Calls("change_tools", r#"{"count":10000}"#)),
    other("schema-of-5-mib", &["--schema-bytes", "5242880"], Calls("redescribe", "{}")),
    other("database-locked", &[], DatabaseLocked),
    other("database-deleted", &[], DatabaseDeleted),
    other("connections-come-and-go", &[], Connections),
];
