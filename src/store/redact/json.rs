//! Walks arguments without understanding them: every value stays the text it came as,
//! so numbers and strings that a typed value refuses pass too. Depth, length and the
//! size of the result are bounded, and the result is always JSON.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, de, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{clipped, secrets};

const DEPTH_MAX: usize = 6;
/// Below this a value is not begun: a note of what is missing has to fit.
const VALUE_MIN_BYTES: usize = 48;
const NAME_MAX_BYTES: usize = 64;
const REDACTED: &str = "\"[redacted]\"";
const CUT: &str = "\"…\"";

/// How much may be kept.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) total: usize,
    pub(super) string: usize,
}

pub(super) fn shape(json: &[u8], max_bytes: usize) -> String {
    read(json).map_or_else(|| unreadable(json), |value| shape_of(value, max_bytes, 0))
}

pub(super) fn redacted(json: &[u8], bounds: Bounds) -> String {
    read(json).map_or_else(|| unreadable(json), |value| redacted_of(value, bounds, 0))
}

fn read(json: &[u8]) -> Option<&str> {
    serde_json::from_slice::<&RawValue>(json).ok().map(RawValue::get)
}

fn unreadable(json: &[u8]) -> String {
    format!("\"unreadable({} bytes)\"", json.len())
}

fn shape_of(value: &str, room: usize, depth: usize) -> String {
    match value.as_bytes().first() {
        Some(b'{') => match members(value) {
            Some(members) if depth < DEPTH_MAX => {
                object(members, room, |_, value, room| shape_of(value, room, depth + 1))
            }
            members => format!("\"object({})\"", members.map_or(0, |members| members.len())),
        },
        Some(b'[') => {
            format!("\"array({})\"", serde_json::from_str(value).map_or(0, |items: Vec<IgnoredAny>| items.len()))
        }
        Some(b'"') => format!("\"string({})\"", characters(value)),
        Some(b't' | b'f') => "\"boolean\"".to_owned(),
        Some(b'n') => "\"null\"".to_owned(),
        _ => "\"number\"".to_owned(),
    }
}

/// Half a surrogate pair is valid JSON but no text: then the bytes are counted.
fn characters(string: &str) -> usize {
    serde_json::from_str::<Cow<'_, str>>(string).map_or(string.len() - 2, |text| text.chars().count())
}

fn redacted_of(value: &str, bounds: Bounds, depth: usize) -> String {
    let inside = |room| Bounds { total: room, ..bounds };
    let kept = match value.as_bytes().first() {
        Some(b'{' | b'[') if depth >= DEPTH_MAX => CUT.to_owned(),
        Some(b'{') => object(members(value).unwrap_or_default(), bounds.total, |name, value, room| {
            match secrets::is_denied(name) && !secrets::is_count(name, value) {
                true => REDACTED.to_owned(),
                false => redacted_of(value, inside(room), depth + 1),
            }
        }),
        Some(b'[') => array(value, bounds.total, |value, room| redacted_of(value, inside(room), depth + 1)),
        Some(b'"') => match serde_json::from_str::<Cow<'_, str>>(value) {
            // Scrubbed first: a secret must not be cut into something unrecognisable.
            Ok(text) => quoted(&clipped(&secrets::scrubbed(&text), bounds.string)),
            Err(_) => CUT.to_owned(),
        },
        _ => value.to_owned(),
    };
    if kept.len() > bounds.total { CUT.to_owned() } else { kept }
}

/// The members that fit into `room`, and how many did not.
fn object(members: Vec<(Cow<'_, str>, &RawValue)>, room: usize, each: impl Fn(&str, &str, usize) -> String) -> String {
    let mut list = List::new('{', room);
    for (done, (name, value)) in members.iter().enumerate() {
        let key = quoted(&clipped(&secrets::scrubbed(name), NAME_MAX_BYTES));
        let Some(left) = list.room_for(key.len() + 1) else {
            return list.end_with(&format!("\"…\":\"{} more\"", members.len() - done), '}');
        };
        let item = format!("{key}:{}", each(name, value.get(), left));
        list.push(&item);
    }
    list.end('}')
}

fn array(value: &str, room: usize, each: impl Fn(&str, usize) -> String) -> String {
    let items: Vec<&RawValue> = serde_json::from_str(value).unwrap_or_default();
    let mut list = List::new('[', room);
    for (done, item) in items.iter().enumerate() {
        let Some(left) = list.room_for(0) else {
            return list.end_with(&format!("\"{} more\"", items.len() - done), ']');
        };
        let item = each(item.get(), left);
        list.push(&item);
    }
    list.end(']')
}

/// An object or array under construction that keeps within its room.
struct List {
    text: String,
    room: usize,
}

impl List {
    fn new(open: char, room: usize) -> Self {
        List { text: open.to_string(), room }
    }

    /// Room for the value of the next item, whose other parts take `besides`; `None`
    /// if there is not enough for it and for the end of the list.
    fn room_for(&self, besides: usize) -> Option<usize> {
        self.room.checked_sub(self.text.len() + besides + VALUE_MIN_BYTES).filter(|left| *left >= VALUE_MIN_BYTES)
    }

    fn push(&mut self, item: &str) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.push_str(item);
    }

    fn end(mut self, close: char) -> String {
        self.text.push(close);
        self.text
    }

    fn end_with(mut self, note: &str, close: char) -> String {
        self.push(note);
        self.end(close)
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| CUT.to_owned())
}

fn members(object: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    serde_json::from_str(object).ok().map(|Members(members)| members)
}

/// The members of an object, in order and with repetitions.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
