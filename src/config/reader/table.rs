//! A table under the cursor. It remembers which keys were asked for, so that what is
//! left over is an unknown key, and the keys that were asked for are the known ones.

use std::path::Path;

use toml_edit::TableLike;

use super::{Entry, Node};
use crate::{config::secret::sounds_secret, text};

/// A table under the cursor; it remembers which keys were asked for.
pub(in crate::config) struct Table<'a> {
    entry: Entry<'a>,
    content: Option<&'a dyn TableLike>,
    known: Vec<&'static str>,
    takes_any_key: bool,
}

impl<'a> Table<'a> {
    pub(super) fn new(entry: Entry<'a>, content: Option<&'a dyn TableLike>) -> Self {
        Table { entry, content, known: Vec::new(), takes_any_key: false }
    }

    /// Reads the value of `key`, where there is one.
    pub(in crate::config) fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Entry<'a>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        read(&self.get(key)?)
    }

    /// Reads a table that may as well be absent: then `read` sees an empty one.
    pub(in crate::config) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'a>) -> T,
    ) -> Option<T> {
        self.known.push(key);
        let absent = || Entry { key: join(&self.entry.key, key), node: Node::Absent, ..self.entry.clone() };
        self.get(key).unwrap_or_else(absent).table(&format!("not a table; write [{key}] above its keys"), read)
    }

    pub(in crate::config) fn folder(&self) -> &'a Path {
        self.entry.folder()
    }

    pub(in crate::config) fn has(&self, key: &str) -> bool {
        self.content.is_some_and(|content| content.contains_key(key))
    }

    /// Everything in a table whose keys are names that the user chose, in file order.
    pub(in crate::config) fn all(&mut self) -> Vec<(&'a str, Entry<'a>)> {
        self.takes_any_key = true;
        let keys = self.content.into_iter().flat_map(|content| content.iter());
        keys.filter_map(|(key, _)| Some((key, self.get(key)?))).collect()
    }

    /// The one key of `keys` that is there; complains about none, and about several.
    pub(in crate::config) fn exactly_one(&self, keys: &[&'static str]) -> Option<&'static str> {
        let written: Vec<_> = keys.iter().copied().filter(|key| self.has(key)).collect();
        match written[..] {
            [one] => Some(one),
            [] => self.refuse(format!("needs exactly one of {}", keys.join(", "))),
            [_, second, ..] => self.refuse_at(second, format!("only one of {} can be here", written.join(", "))),
        }
    }

    /// Complains about the table as a whole.
    pub(in crate::config) fn refuse<T>(&self, right: impl Into<String>) -> Option<T> {
        self.entry.refuse(right)
    }

    /// Complains about the value of `key`, or about the whole table where it has none.
    pub(in crate::config) fn refuse_at<T>(&self, key: &str, right: impl Into<String>) -> Option<T> {
        self.get(key).unwrap_or_else(|| self.entry.clone()).refuse(right)
    }

    /// Complains about each of `keys` that is there, since it means nothing here.
    pub(in crate::config) fn forbid(&self, keys: &[&str], right: &str) {
        for key in keys.iter().filter(|key| self.has(key)) {
            self.refuse_at::<()>(key, right);
        }
    }

    fn get(&self, key: &str) -> Option<Entry<'a>> {
        let (written, item) = self.content?.get_key_value(key)?;
        Some(Entry {
            key: join(&self.entry.key, key),
            span: item.span().or_else(|| written.span()).unwrap_or_else(|| self.entry.span.clone()),
            node: item.into(),
            ..self.entry.clone()
        })
    }

    /// The last thing that happens to a table.
    pub(super) fn refuse_leftovers(&self) {
        let Some(content) = self.content.filter(|_| !self.takes_any_key) else { return };
        for (key, _) in content.iter().filter(|(key, _)| !self.known.contains(key)) {
            let Some(entry) = self.get(key) else { continue };
            let at = content.key(key).and_then(toml_edit::Key::span).map_or(entry.span.start, |span| span.start);
            entry.complain(at, entry.secret || sounds_secret(key), self.unknown(key));
        }
    }

    fn unknown(&self, key: &str) -> String {
        if key == "args" && self.known.contains(&"command") {
            return "no such key; program and arguments are one list: command = [\"program\", \"argument\"]".into();
        }
        match text::nearest(key, self.known.iter().copied()) {
            Some(known) => format!("no such key; did you mean \"{known}\"?"),
            None => format!("no such key; the keys here are {}", self.known.join(", ")),
        }
    }
}

/// `servers.files`, and `servers."a b"` where a key must be quoted.
fn join(path: &str, key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let key = if is_bare { key.to_owned() } else { format!("\"{}\"", text::quote(key, 60)) };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
