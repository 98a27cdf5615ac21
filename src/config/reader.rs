//! A cursor over what was written. It carries the key path, the span and the one
//! list of complaints, so that reading a value is a line and a wrong value never
//! ends the reading.
//!
//! Whoever reads gets `None` for what is absent and for what was refused alike: once
//! there is a complaint no `Config` leaves this room, so a default can stand in.

use std::{cell::RefCell, ops::Range, path::Path};

use toml_edit::{ArrayOfTables, Item, TableLike, Value};

use super::{
    Surroundings,
    complaint::Complaint,
    secret::Secret,
    source::Source,
    value::shown_variable,
    variables::{self, Trouble},
};

mod table;

pub(super) use table::Table;

/// All at once, and yet no more than anyone would read: a megabyte of nonsense must
/// not keep a running gateway busy.
const COMPLAINTS_MAX: usize = 1000;

/// One reading of one file.
pub(super) struct Reading<'a> {
    pub(super) source: Source<'a>,
    pub(super) around: &'a Surroundings<'a>,
    /// The folder that relative paths are of.
    pub(super) folder: &'a Path,
    pub(super) complaints: RefCell<Vec<Complaint>>,
    /// Variables whose values may be secrets, as they are shown, and those values.
    pub(super) confidences: RefCell<Vec<(String, Secret)>>,
}

/// Why one server (or service, or alert) cannot run although the file is right, and what of
/// it is understood and not wise.
#[derive(Default)]
pub(super) struct Problems {
    whys: RefCell<Vec<String>>,
    warnings: RefCell<Vec<String>>,
}

impl Problems {
    pub(super) fn push(&self, why: String) {
        self.whys.borrow_mut().push(why);
    }

    /// The problems as one sentence, and the warnings.
    pub(super) fn into_words(self) -> (Option<String>, Vec<String>) {
        let problems = self.whys.into_inner();
        ((!problems.is_empty()).then(|| problems.join("; ")), self.warnings.into_inner())
    }
}

/// One value, wherever it stands.
#[derive(Clone)]
pub(super) struct Entry<'a> {
    reading: &'a Reading<'a>,
    key: String,
    span: Range<usize>,
    node: Node<'a>,
    secret: bool,
    problems: Option<&'a Problems>,
}

/// Whose a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Server,
    Service,
    Alert,
}

/// `[table]` and `{ inline = "table" }` are the same to us.
#[derive(Clone, Copy)]
enum Node<'a> {
    Value(&'a Value),
    Table(&'a dyn TableLike),
    Tables(&'a ArrayOfTables),
    Absent,
}

impl<'a> From<&'a Value> for Node<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::InlineTable(table) => Node::Table(table),
            value => Node::Value(value),
        }
    }
}

impl<'a> From<&'a Item> for Node<'a> {
    fn from(item: &'a Item) -> Self {
        match item {
            Item::None => Node::Absent,
            Item::Value(value) => value.into(),
            Item::Table(table) => Node::Table(table),
            Item::ArrayOfTables(tables) => Node::Tables(tables),
        }
    }
}

impl<'a> Entry<'a> {
    pub(super) fn root(reading: &'a Reading<'a>, item: &'a Item) -> Self {
        Entry { reading, key: String::new(), span: 0..0, node: item.into(), secret: false, problems: None }
    }

    /// From here on, what cannot be had is the problem of one server alone.
    pub(super) fn parking<'s>(&self, problems: &'s Problems) -> Entry<'s>
    where
        'a: 's,
    {
        Entry { problems: Some(problems), ..self.clone() }
    }

    /// From here on, complaints do not repeat the value.
    pub(super) fn secret(&self) -> Self {
        Entry { secret: true, ..self.clone() }
    }

    /// Complains about this value; `right` says what would be right.
    pub(super) fn refuse<T>(&self, right: impl Into<String>) -> Option<T> {
        self.complain(self.span.start, self.secret, right.into());
        None
    }

    fn complain(&self, at: usize, secret: bool, message: String) {
        let Reading { source, complaints, .. } = self.reading;
        let mut complaints = complaints.borrow_mut();
        if complaints.len() == COMPLAINTS_MAX {
            return;
        }
        let value = match self.node {
            Node::Value(_) if secret => Some("***".to_owned()),
            Node::Value(_) => Some(source.excerpt(&self.span)),
            // A table may hold secrets of its own, and is long.
            Node::Table(_) | Node::Tables(_) | Node::Absent => None,
        };
        complaints.push(source.complaint(at, &self.key, value, message));
    }

    /// The value is well written and what it speaks of is not there: that parks the
    /// server it belongs to, and is a complaint where it belongs to none.
    pub(super) fn unavailable<T>(&self, why: impl Into<String>) -> Option<T> {
        let why = why.into();
        let Some(problems) = self.problems else { return self.refuse(why) };
        problems.push(format!("{}: {why}", self.key));
        None
    }

    /// Says what is not wise about it, of what it belongs to.
    pub(super) fn warn(&self, warnings: Vec<String>) {
        if let Some(problems) = self.problems {
            problems.warnings.borrow_mut().extend(warnings);
        }
    }

    /// The key from the table of the server, the service or the alert on, and what that is.
    pub(super) fn key_within(&self) -> (&str, Owner) {
        let (table, rest) = self.key.split_once('.').unwrap_or(("", &self.key));
        let within = || rest.split_once('.').map_or(rest, |(_, rest)| rest);
        match table {
            "servers" => (within(), Owner::Server),
            "services" => (within(), Owner::Service),
            _ => (rest, Owner::Alert),
        }
    }

    pub(super) fn value(&self) -> Option<&'a Value> {
        match self.node {
            Node::Value(value) => Some(value),
            _ => None,
        }
    }

    /// The string as it stands in the file.
    pub(super) fn raw(&self, wanted: &str) -> Option<&'a str> {
        match self.value().and_then(Value::as_str) {
            Some(text) if text.contains('\0') => self.refuse("holds a NUL character; take it out"),
            Some(text) => Some(text),
            None => self.refuse(wanted),
        }
    }

    /// A string that is read further, such as a duration: `None` where a variable
    /// of it cannot be had.
    pub(super) fn word(&self, wanted: &str) -> Option<String> {
        self.expand(self.raw(wanted)?)
    }

    /// A string that is only passed on. Where a variable of it cannot be had it is
    /// the string as written, for people to look at: the server is parked.
    pub(super) fn text(&self) -> Option<String> {
        let raw = self.raw("not a string; put it in quotes")?;
        Some(self.expand(raw).unwrap_or_else(|| raw.to_owned()))
    }

    fn expand(&self, raw: &str) -> Option<String> {
        // For what is said while the command of a `${cmd:…}` runs.
        let _span = tracing::warn_span!("reading", key = %self.key).entered();
        let tell = |variable: &str, value: &str| {
            let told = (shown_variable(variable), Secret::from(value.to_owned()));
            let mut confidences = self.reading.confidences.borrow_mut();
            if !confidences.contains(&told) {
                confidences.push(told);
            }
        };
        match variables::expand(raw, self.reading.around, self.reading.folder, tell) {
            Ok(text) => Some(text),
            Err(Trouble::Malformed(what)) => self.refuse(what),
            Err(Trouble::Missing(why)) => self.unavailable(why),
        }
    }

    pub(super) fn around(&self) -> &'a Surroundings<'a> {
        self.reading.around
    }

    pub(super) fn folder(&self) -> &'a Path {
        self.reading.folder
    }

    /// The elements of a list, `[[table]]`s included.
    pub(super) fn items(&self, wanted: &str) -> Option<Vec<Entry<'a>>> {
        let element = |i: usize, span: Option<Range<usize>>, node| Entry {
            key: format!("{}[{i}]", self.key),
            span: span.unwrap_or_else(|| self.span.clone()),
            node,
            ..self.clone()
        };
        match self.node {
            Node::Value(Value::Array(array)) => {
                Some(array.iter().enumerate().map(|(i, value)| element(i, value.span(), value.into())).collect())
            }
            Node::Tables(tables) => {
                let tables = tables.iter().enumerate();
                Some(tables.map(|(i, table)| element(i, table.span(), Node::Table(table))).collect())
            }
            _ => self.refuse(wanted),
        }
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.node, Node::Table(_))
    }

    /// Reads a table, then complains about every key in it that `read` did not ask for.
    pub(super) fn table<T>(&self, wanted: &str, read: impl FnOnce(&mut Table<'a>) -> T) -> Option<T> {
        let content = match self.node {
            Node::Table(content) => Some(content),
            Node::Absent => None,
            Node::Value(_) | Node::Tables(_) => return self.refuse(wanted),
        };
        let mut table = Table::new(self.clone(), content);
        let value = read(&mut table);
        table.refuse_leftovers();
        Some(value)
    }
}
