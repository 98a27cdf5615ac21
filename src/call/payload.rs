//! [`Payload`]: one JSON value as the bytes it came as, and the few ways to look
//! into its first level or to change it there without touching the rest.

use std::{borrow::Cow, fmt};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;

/// One JSON value. Equal payloads are equal as text, not merely as values.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Payload(Bytes);

/// What to do with one member of an object; see [`Payload::edit`].
#[derive(Clone, Debug)]
pub enum Edit {
    Set(Payload),
    Remove,
}

impl Payload {
    /// Checks that `bytes` hold exactly one JSON value.
    pub fn from_json(bytes: impl Into<Bytes>) -> Result<Self, serde_json::Error> {
        let bytes = bytes.into();
        let _: &RawValue = serde_json::from_slice(&bytes)?;
        Ok(Payload(bytes))
    }

    /// A part of `whole` that a parser has already found to be one JSON value.
    pub(crate) fn part_of(whole: &Bytes, value: &RawValue) -> Self {
        Payload(whole.slice_ref(value.get().as_bytes()))
    }

    /// The same with memory of its own.
    pub(crate) fn copy_of(value: &RawValue) -> Self {
        Payload(Bytes::copy_from_slice(value.get().as_bytes()))
    }

    /// The same, without what it is a part of.
    #[must_use]
    pub(crate) fn apart(&self) -> Self {
        Payload(Bytes::copy_from_slice(&self.0))
    }

    /// Payloads with JSON punctuation between them, put together by the caller.
    pub(crate) fn concatenated(json: BytesMut) -> Self {
        debug_assert!(serde_json::from_slice::<&RawValue>(&json).is_ok());
        Payload(json.freeze())
    }

    /// For literals that are JSON at sight.
    pub const fn literal(json: &'static str) -> Self {
        Payload(Bytes::from_static(json.as_bytes()))
    }

    /// Whatever serialises; a value that cannot (a map with keys that are no
    /// strings) is a bug of ours and becomes `null`.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Payload(json.into()),
            Err(_) => Payload::literal("null"),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        // Every constructor has seen a parser accept these bytes, which includes UTF-8.
        std::str::from_utf8(&self.0).unwrap_or("null")
    }

    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }

    /// One member of this object, if this is an object that has it.
    pub fn member(&self, key: &str) -> Option<Payload> {
        let fields: Fields<'_> = self.read().ok()?;
        let member = fields.0.into_iter().rfind(|member| member.is(key))?;
        Some(Payload::part_of(&self.0, member.value))
    }

    /// One member that is a string.
    pub fn text(&self, key: &str) -> Option<String> {
        self.member(key)?.read().ok()
    }

    /// One member, if it stands there once. Of two, a server might use the one that was
    /// not looked at.
    pub fn sole_member(&self, key: &str) -> Option<Payload> {
        let fields: Fields<'_> = self.read().ok()?;
        let mut found = fields.0.iter().filter(|member| member.is(key));
        let member = found.next().filter(|_| found.next().is_none())?;
        Some(Payload::part_of(&self.0, member.value))
    }

    /// The same where it is a string.
    pub fn sole_text(&self, key: &str) -> Option<String> {
        self.sole_member(key)?.read().ok()
    }

    /// The elements of the array in member `key`, each as the text it came as.
    pub fn items(&self, key: &str) -> Option<Vec<Payload>> {
        let list = self.member(key)?;
        let items: Vec<&RawValue> = serde_json::from_slice(&list.0).ok()?;
        Some(items.into_iter().map(|item| Payload::part_of(&list.0, item)).collect())
    }

    /// Whether this result of `tools/call` says `isError: true`.
    pub fn says_is_error(&self) -> bool {
        // A cheap look first: most results do not hold the word at all.
        memchr::memmem::find(&self.0, b"isError").is_some()
            && self.member("isError").is_some_and(|is_error| is_error.as_str() == "true")
    }

    /// The code of this JSON-RPC error object.
    pub fn error_code(&self) -> Option<i64> {
        self.member("code")?.read().ok()
    }

    /// This object with some members set, added or removed; order and text of
    /// all others stay, keys included. What is no object is returned as it is.
    pub fn edit(&self, edits: &[(&str, Edit)]) -> Payload {
        let Ok(Fields(members)) = self.read::<Fields<'_>>() else {
            return self.clone();
        };
        let added: usize = edits.iter().map(|(key, edit)| key.len() + edit.len() + 8).sum();
        let mut out = BytesMut::with_capacity(self.0.len() + added);
        let mut separator = b'{';
        let mut put = |key: &[u8], value: &[u8]| {
            out.put_u8(separator);
            separator = b',';
            out.put_slice(key);
            out.put_u8(b':');
            out.put_slice(value);
        };
        for member in &members {
            let key = member.key.get().as_bytes();
            match edits.iter().find(|(name, _)| member.is(name)) {
                None => put(key, member.value.get().as_bytes()),
                Some((_, Edit::Set(new))) => put(key, &new.0),
                Some((_, Edit::Remove)) => {}
            }
        }
        for (key, edit) in edits {
            if let Edit::Set(new) = edit
                && !members.iter().any(|member| member.is(key))
            {
                put(Payload::of(*key).as_bytes(), &new.0);
            }
        }
        if separator == b'{' {
            out.put_u8(b'{');
        }
        out.put_u8(b'}');
        Payload(out.freeze())
    }

    /// This object with `members` (JSON text, each with its comma) before its own: a copy
    /// of the bytes, and no look at them.
    pub(crate) fn with_leading_members(&self, members: &str) -> Payload {
        let Some(rest) = self.0.strip_prefix(b"{").filter(|_| !members.is_empty()) else { return self.clone() };
        let is_empty = rest.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'}');
        let members = if is_empty { members.trim_end_matches(',') } else { members };
        let mut out = BytesMut::with_capacity(self.0.len() + members.len());
        out.put_u8(b'{');
        out.put_slice(members.as_bytes());
        out.put_slice(rest);
        Payload::concatenated(out)
    }

    /// The same value without raw line breaks, which JSON allows between tokens
    /// and a line or an event stream does not.
    pub fn on_one_line(&self) -> Payload {
        if memchr::memchr2(b'\n', b'\r', &self.0).is_none() {
            return self.clone();
        }
        // Inside a JSON string a line break is always escaped.
        let flat: Vec<u8> = self.0.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect();
        Payload(flat.into())
    }
}

impl Edit {
    fn len(&self) -> usize {
        match self {
            Edit::Set(payload) => payload.len(),
            Edit::Remove => 0,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Payloads may be large and may hold secrets: logs get the size.
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl Serialize for Payload {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_slice(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Payload::from_json(String::from(Box::<str>::from(raw))).map_err(de::Error::custom)
    }
}

/// The members of an object in the order they were written.
struct Fields<'a>(Vec<Member<'a>>);

struct Member<'a> {
    /// As it was written: half a surrogate pair is a key that no string type can hold.
    key: &'a RawValue,
    value: &'a RawValue,
}

impl Member<'_> {
    fn is(&self, name: &str) -> bool {
        is_key(self.key, name)
    }
}

/// Whether a key, as it was written, says this name.
pub(crate) fn is_key(written: &RawValue, name: &str) -> bool {
    let written = written.get();
    match memchr::memchr(b'\\', written.as_bytes()) {
        None => &written[1..written.len() - 1] == name,
        Some(_) => serde_json::from_str::<Cow<'_, str>>(written).is_ok_and(|key| key == name),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(key) = map.next_key()? {
                    fields.push(Member { key, value: map.next_value()? });
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(json: &str) -> Payload {
        Payload::from_json(json.to_owned()).expect("test JSON")
    }

    #[test]
    fn an_edit_leaves_every_other_byte_alone() {
        let before =
            payload(r#"{ "name": "a__b", "n": 12345678901234567890123.10, "deep": {"x" : [1e400]}, "_meta": {"t":1}}"#);
        let after = before.edit(&[("name", Edit::Set(payload("\"b\""))), ("_meta", Edit::Remove)]);
        assert_eq!(after.as_str(), r#"{"name":"b","n":12345678901234567890123.10,"deep":{"x" : [1e400]}}"#);
    }

    #[test]
    fn an_edit_adds_what_is_missing_and_leaves_non_objects() {
        assert_eq!(payload("{}").edit(&[("a", Edit::Set(payload("1")))]).as_str(), r#"{"a":1}"#);
        assert_eq!(payload("{}").edit(&[]).as_str(), "{}");
        assert_eq!(payload("[1]").edit(&[("a", Edit::Set(payload("1")))]).as_str(), "[1]");
    }

    #[test]
    fn keys_with_escapes_survive() {
        for odd in [r#"{"a\"b\n":1}"#, r#"{"\u0061":1}"#, r#"{"\ud83d":1}"#, r#"{"":{}}"#] {
            assert_eq!(payload(odd).edit(&[]).as_str(), odd);
        }
        let named = payload(r#"{"\u006eame":"a","\ud83d":1}"#);
        assert_eq!(named.text("name").as_deref(), Some("a"), "a key is what it says, however it is written");
        let edited = named.edit(&[("name", Edit::Set(payload("2"))), ("isError", Edit::Set(payload("true")))]);
        assert_eq!(edited.as_str(), r#"{"\u006eame":2,"\ud83d":1,"isError":true}"#);
        assert!(edited.says_is_error());
    }

    #[test]
    fn line_breaks_between_tokens_become_spaces() {
        assert_eq!(payload("{\r\n\"a\": \"x\\ny\"\n}").on_one_line().as_str(), "{  \"a\": \"x\\ny\" }");
    }

    #[test]
    fn members_and_items_keep_their_text() {
        let list = payload(r#"{"tools":[{"n":1.0},{"n":1e3}],"nextCursor":"x"}"#);
        let items = list.items("tools").expect("an array");
        assert_eq!(items[1].as_str(), r#"{"n":1e3}"#);
        assert_eq!(list.text("nextCursor").as_deref(), Some("x"));
        assert!(list.member("absent").is_none());
    }

    #[test]
    fn what_typed_libraries_refuse_is_a_payload() {
        for odd in [r#""\ud83d""#, "1e400", "123456789012345678901234567890"] {
            assert_eq!(payload(odd).as_str(), odd);
        }
        assert!(Payload::from_json("{").is_err());
        assert!(Payload::from_json("1 2").is_err());
    }
}
