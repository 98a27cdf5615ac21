//! A property list as it is written, in XML or in binary, with the place of each key.
//! Bounded in depth and in size, since the file may be anybody's; a parser that builds
//! what is nested without bound ends in a stack overflow.
//!
//! What is only wrong in places is complained of, and the rest is read all the same.

use std::collections::HashMap;

use plist::{Dictionary, Value};

mod binary;
mod scalar;
mod xml;

/// launchd's own lists are five deep.
pub(crate) const DEPTH_MAX: usize = 64;
/// Of all values together. A binary list of 1 MiB can refer to one value a million times.
const WEIGHT_MAX_BYTES: usize = 16 << 20;
/// What a value weighs beside its text.
const VALUE_BYTES: usize = 64;

/// What a file holds, and where.
#[derive(Debug, Default)]
pub(crate) struct List {
    /// `None` where it cannot be read to its end: `troubles` says why.
    pub(crate) value: Option<Value>,
    /// The line of each key, by its path; a binary list has none.
    pub(crate) lines: HashMap<String, usize>,
    /// Paths of keys that their dictionary has twice.
    pub(crate) twice: Vec<(String, Option<usize>)>,
    pub(crate) troubles: Vec<Trouble>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) line: Option<usize>,
    pub(crate) message: String,
}

impl Trouble {
    fn at(line: usize, message: impl Into<String>) -> Self {
        Trouble { line: Some(line), message: message.into() }
    }

    fn somewhere(message: impl Into<String>) -> Self {
        Trouble { line: None, message: message.into() }
    }
}

/// Reads either form.
pub(crate) fn read(bytes: &[u8]) -> List {
    if bytes.starts_with(b"bplist") {
        return binary::read(bytes);
    }
    if let Some(encoding) = wide(bytes) {
        return unreadable(Trouble::somewhere(format!("is {encoding}; `plutil -convert xml1` writes it as UTF-8")));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => xml::read(text.trim_start_matches('\u{feff}')),
        Err(_) if !bytes.trim_ascii_start().starts_with(b"<") => unreadable(Trouble::somewhere(xml::NOT_ONE)),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            unreadable(Trouble::at(line, "is not UTF-8 here"))
        }
    }
}

/// The encoding of a text with more than a byte for each character, by its mark or by how
/// its first `<` is written.
fn wide(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] | [b'<', 0, 0, 0, ..] | [0, 0, 0, b'<', ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'<', 0, ..] | [0, b'<', ..] => Some("UTF-16"),
        _ => None,
    }
}

fn unreadable(trouble: Trouble) -> List {
    List { troubles: vec![trouble], ..List::default() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Dict,
    Array,
}

/// A collection that is not at its end.
struct Open {
    path: String,
    line: Option<usize>,
    /// Of a dictionary: the key whose value comes next.
    key: Option<String>,
    holds: Holds,
}

enum Holds {
    Dict(Dictionary),
    Array(Vec<Value>),
}

impl Open {
    fn shape(&self) -> Shape {
        match self.holds {
            Holds::Dict(_) => Shape::Dict,
            Holds::Array(_) => Shape::Array,
        }
    }

    /// The path of the value that comes next.
    fn next(&self) -> String {
        let step = match (&self.holds, &self.key) {
            (Holds::Array(all), _) => all.len().to_string(),
            (Holds::Dict(_), key) => key.clone().unwrap_or_default(),
        };
        if self.path.is_empty() { step } else { format!("{}.{step}", self.path) }
    }
}

/// Puts values together as they come. An error says what is wrong, without its place.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    weight_bytes: usize,
    list: List,
}

impl Builder {
    fn weigh(&mut self, bytes: usize) -> Result<(), String> {
        self.weight_bytes = self.weight_bytes.saturating_add(bytes).saturating_add(VALUE_BYTES);
        match self.weight_bytes > WEIGHT_MAX_BYTES {
            true => Err(format!("holds more than {} MiB of values", WEIGHT_MAX_BYTES >> 20)),
            false => Ok(()),
        }
    }

    fn begin(&mut self, shape: Shape, line: Option<usize>) -> Result<(), String> {
        self.weigh(0)?;
        if self.open.len() == DEPTH_MAX {
            return Err(format!("is nested more than {DEPTH_MAX} deep"));
        }
        let path = self.open.last().map(Open::next).unwrap_or_default();
        let holds = match shape {
            Shape::Dict => Holds::Dict(Dictionary::new()),
            Shape::Array => Holds::Array(Vec::new()),
        };
        self.may_come()?;
        self.open.push(Open { path, line, key: None, holds });
        Ok(())
    }

    fn key(&mut self, key: String, line: Option<usize>) -> Result<(), String> {
        self.weigh(key.len())?;
        let Some(Open { path, key: before, holds: Holds::Dict(dictionary), .. }) = self.open.last_mut() else {
            return Err(format!("has the key {key} outside a <dict>"));
        };
        if let Some(before) = before {
            return Err(format!("has the key {before} without a value"));
        }
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if dictionary.contains_key(&key) {
            self.list.twice.push((full, line));
        } else if let Some(line) = line {
            self.list.lines.insert(full, line);
        }
        *before = Some(key);
        Ok(())
    }

    /// Whether a value may stand here.
    fn may_come(&self) -> Result<(), String> {
        match self.open.last() {
            None if self.list.value.is_some() => Err("holds more than one value".to_owned()),
            Some(Open { key: None, holds: Holds::Dict(_), .. }) => Err("has a value without a <key>".to_owned()),
            _ => Ok(()),
        }
    }

    fn value(&mut self, value: Value) -> Result<(), String> {
        self.may_come()?;
        self.weigh(value.as_string().map_or(0, str::len))?;
        self.put(value);
        Ok(())
    }

    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            None => self.list.value = Some(value),
            Some(Open { holds: Holds::Array(all), .. }) => all.push(value),
            Some(Open { holds: Holds::Dict(dictionary), key, .. }) => {
                if let Some(key) = key.take() {
                    dictionary.insert(key, value);
                }
            }
        }
    }

    fn end(&mut self, shape: Shape) -> Result<(), String> {
        match self.open.pop() {
            Some(Open { key: Some(key), .. }) => Err(format!("has the key {key} without a value")),
            Some(open) if open.shape() == shape => {
                self.put(match open.holds {
                    Holds::Dict(dictionary) => Value::Dictionary(dictionary),
                    Holds::Array(all) => Value::Array(all),
                });
                Ok(())
            }
            _ => Err("closes what is not open".to_owned()),
        }
    }

    /// What was read; where `ended` is an error, without a value.
    fn finished(mut self, ended: Result<(), Trouble>) -> List {
        if let Err(trouble) = ended {
            self.list.value = None;
            self.list.troubles.push(trouble);
        }
        self.list
    }
}

#[cfg(test)]
mod tests;
